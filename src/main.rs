//! The `fantail` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    fantail::cli::main()
}
