//! The program `meterhouse`: hands its arguments to the library's shell, gives back the exit code.

use std::process::ExitCode;

/// Questions make and drop batches on several threads, which leaves less between them here than with the
/// system's allocator, and takes less time (ARCHITECTURE.md, "Memory is given by jemalloc").
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(meterhouse::cli::run(std::env::args_os().collect()))
}
