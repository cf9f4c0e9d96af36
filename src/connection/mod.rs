//! One connection, sans-io: bytes and ticks in, effects out. Never a system call.

pub mod inbox;
