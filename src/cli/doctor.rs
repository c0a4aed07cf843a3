//! `meterhouse doctor`: whether place, disk and lake are fit for work.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;

use super::flags::{DoctorFlags, Global};
use super::numbers::grouped;
use super::opening::{place, state_of, without_events};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, printable, write_rows};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::doctor::{Finding, Verdict, examine, examine_folder};
use crate::lake::location::{Location, Namespace};
use crate::lake::tables::Lake;

/// Runs the command; what was tried is its data.
pub(super) async fn run(global: &Global, flags: &DoctorFlags) -> Result<Outcome, Failure> {
    let format = flags.output.output;
    check_format(format)?;
    let (location, namespace) = place(global)?;
    let mut findings = examine(&location, Clock::System).await;
    if let Some(folder) = location.local_path() {
        findings.extend(examine_folder(folder));
    }
    let (state, _passing) = state_of(&location, &namespace, global.state.as_deref())?;
    if state.exists() && !state.is_dir() || state.parent().is_some_and(Path::is_file) {
        let detail = format!("{} is in the way of a folder", state.display());
        findings.push(Finding::new("state", Verdict::Bad, detail));
    }
    // What a local lake's own folder tells holds for the state below it.
    if location.local_path().is_none_or(|lake| !state.starts_with(lake)) {
        findings.extend(examine_folder(&state).into_iter().map(|found| Finding {
            check: if found.check == "fsync" { "state fsync" } else { "state space" },
            ..found
        }));
    }
    let temporary = examine_folder(&std::env::temp_dir()).into_iter();
    findings.extend(
        temporary
            .filter(|found| found.check == "space")
            .map(|found| Finding { check: "temporary space", ..found }),
    );
    findings.push(lake(&location, &namespace).await);
    write_rows(format, &rows(&findings)?)?;
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { Outcome::Mismatch } else { Outcome::Done })
}

async fn lake(location: &Location, namespace: &Namespace) -> Finding {
    let bad = |error: Error| Finding::new("lake", Verdict::Bad, error.to_string());
    match Lake::open(location, namespace).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            match Lake::remains(location, namespace).await {
                Err(error) => bad(error),
                Ok(remains) => no_lake(namespace, &remains),
            }
        }
        Err(error) => bad(error),
        Ok(lake) => match lake.events.snapshot(None).await {
            Err(error) => bad(error),
            Ok(found) => match lake.events.missing_file(&found).await {
                Err(error) => bad(error),
                Ok(Some(gone)) => {
                    let (version, table) = (found.version, lake.events.display());
                    bad(Error::corrupt(format!("{table}/{gone} of version {version} is gone")))
                }
                Ok(None) => {
                    // Events that others have replaced are rows, too.
                    let (version, rows) = (found.version, grouped(found.rows()));
                    let detail = format!("version {version}, {rows} rows; `verify` proves them");
                    Finding::new("lake", Verdict::Good, detail)
                }
            },
        },
    }
}

fn no_lake(namespace: &Namespace, remains: &[&str]) -> Finding {
    match without_events(namespace, remains) {
        Some(damage) => Finding::new("lake", Verdict::Bad, damage),
        None => {
            let detail =
                format!("none is there yet (namespace {namespace}): `meterhouse ingest` makes one");
            Finding::new("lake", Verdict::Good, detail)
        }
    }
}

fn rows(findings: &[Finding]) -> Result<RecordBatch> {
    let verdict = |finding: &Finding| match finding.verdict {
        Verdict::Good => "ok",
        Verdict::Doubtful => "look",
        Verdict::Bad => "bad",
    };
    let texts = |part: &dyn Fn(&Finding) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(findings.iter().map(part)))
    };
    RecordBatch::try_from_iter([
        ("check", texts(&|finding| finding.check.to_owned())),
        ("result", texts(&|finding| verdict(finding).to_owned())),
        ("detail", texts(&|finding| printable(&finding.detail))),
    ])
    .map_err(|error| Error::internal("rows of findings").with_source(error))
}
