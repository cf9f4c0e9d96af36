//! Subcommands, one thin file each.
