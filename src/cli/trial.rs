//! `meterhouse meters test`: runs the tests beside the meters, and tells what failed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::flags::{Global, TestFlags};
use super::numbers::counted;
use super::opening::load_meter_files;
use super::outcome::{Failure, Outcome};
use super::output::{printable, say, write_text};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::meter::{Meter, test_files};
use crate::trial::{self, Suite, parse_suite, stem_of_tests};

/// What was read of the tests of each meter.
type Suites = BTreeMap<String, Result<Suite>>;

/// Runs the command.
pub(super) async fn run(global: &Global, flags: &TestFlags) -> Result<Outcome, Failure> {
    let asked = load_meter_files(global, &flags.meters)?;
    let (mut suites, mut wrong) = suites(&global.meters_folder, &asked, flags.meters.is_empty())?;
    let mut without = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    for (file, meter) in &asked {
        let suite = match suites.remove(&meter.name) {
            Some(Ok(suite)) => suite,
            // What is wrong with one file keeps no other from running.
            Some(Err(error)) => {
                wrong.push(error.to_string());
                continue;
            }
            None => {
                without.push((file, meter.name.clone()));
                continue;
            }
        };
        for verdict in Box::pin(trial::run(&suite, meter, Clock::System)).await? {
            let case = printable(&verdict.case);
            match &verdict.failure {
                None => {
                    passed += 1;
                    write_text(&format!("ok {}: {case}\n", meter.name))?;
                }
                Some(why) => {
                    failed += 1;
                    let lines: Vec<String> =
                        why.split('\n').map(|line| format!("  {}\n", printable(line))).collect();
                    write_text(&format!("FAILED {}: {case}\n{}", meter.name, lines.concat()))?;
                }
            }
        }
    }
    if let (Some((file, name)), false) = (without.first(), flags.meters.is_empty()) {
        let tests = file.with_extension("test.yaml");
        return Err(Error::not_found(format!(
            "no tests of meter `{name}`: write {}",
            tests.display()
        ))
        .into());
    }
    if failed > 0 {
        wrong.push(format!("{failed} of {} failed", counted(passed + failed, "test")));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong.join("\n\n")).into());
    }
    if !global.quiet {
        say(&summary(passed, &without));
    }
    Ok(Outcome::Done)
}

fn summary(passed: u64, without: &[(&PathBuf, String)]) -> String {
    let names: Vec<&str> = without.iter().map(|(_, name)| name.as_str()).collect();
    match (passed, names.is_empty()) {
        (0, _) => format!("no tests: of {}", names.join(", ")),
        (passed, true) => format!("{} passed", counted(passed, "test")),
        (passed, false) => {
            format!("{} passed; no tests of {}", counted(passed, "test"), names.join(", "))
        }
    }
}

/// The tests of `meters`, or the mistakes in their file, by the meter whose file they are beside of;
/// and where these are `all` meters of the folder, what is wrong with files of tests of no meter.
///
/// # Errors
/// A folder that cannot be read.
fn suites(folder: &Path, meters: &[(PathBuf, Meter)], all: bool) -> Result<(Suites, Vec<String>)> {
    let (mut suites, mut wrong) = (Suites::new(), Vec::new());
    for path in test_files(folder)? {
        let file = path.display().to_string();
        let stem = stem_of_tests(&path);
        let of = meters.iter().find(|(file, _)| stem == Some(file.with_extension("")));
        let Some((_, meter)) = of else {
            if !all {
                continue;
            }
            wrong.push(format!(
                "{file}: no meter file of this name without `.test` stands beside it"
            ));
            continue;
        };
        if suites.insert(meter.name.clone(), read_suite(&path)).is_some() {
            wrong.push(format!("{file}: meter `{}` has another file of tests", meter.name));
        }
    }
    Ok((suites, wrong))
}

/// The tests of one file.
///
/// # Errors
/// A file that cannot be read; every mistake in it.
pub(super) fn read_suite(path: &Path) -> Result<Suite> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::unavailable(format!("file of tests {file} cannot be read: {error}"))
            .with_source(error)
    })?;
    Ok(parse_suite(&text, &file)?)
}
