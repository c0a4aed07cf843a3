//! The program `meterhouse`: hands its arguments to the library's shell, gives back the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(meterhouse::cli::run(std::env::args_os().collect()))
}
