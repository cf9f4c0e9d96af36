//! The command line: flags, their defaults, their help. Knows no run and no result.

pub(crate) mod args;
pub(crate) mod args_kit;
pub(crate) mod listen_flags;
pub(crate) mod pace_flags;
pub(crate) mod presets;
pub(crate) mod settings;
pub(crate) mod steps;
