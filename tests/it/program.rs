//! The program, run in a folder of its own with nothing of the machine's settings.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `meterhouse` with these arguments to its end, as the actor `tester`.
pub(crate) fn meterhouse(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meterhouse"))
        .current_dir(folder)
        .env_remove("METERHOUSE_LAKE")
        .env_remove("METERHOUSE_STATE")
        .env_remove("METERHOUSE_METERS")
        .env("METERHOUSE_ACTOR", "tester")
        .args(args)
        .output()
        .unwrap()
}
