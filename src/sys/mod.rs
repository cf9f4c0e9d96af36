//! The only unsafe code and the only libc: one file per family of system calls. Never policy.
