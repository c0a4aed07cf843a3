//! `meterhouse meters`: what is defined, in rows or in words, and what is wrong with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;

use super::flags::{Global, MetersCommand};
use super::numbers::{counted, grouped};
use super::opening::{list_meters, load_meter_files, load_meters, open_lake};
use super::outcome::{Failure, Outcome};
use super::output::{check_format, finish, rows, say, write_text};
use super::{diff, publish, trial};
use crate::error::{Error, ErrorKind, Result};
use crate::meter::{
    Meter, TablePlace, describe, is_identifier, is_test_file, load_file, load_folder, test_files,
    version,
};
use crate::render::{OutputFormat, Reader};
use crate::usage::with_tables;

/// Runs the command.
pub(super) async fn run(global: &Global, command: &MetersCommand) -> Result<Outcome, Failure> {
    match command {
        MetersCommand::Test(flags) => return Box::pin(trial::run(global, flags)).await,
        MetersCommand::Publish(flags) => return Box::pin(publish::publish(global, flags)).await,
        MetersCommand::History(flags) => return Box::pin(publish::history(global, flags)).await,
        MetersCommand::Diff(flags) => return Box::pin(diff::run(global, flags)).await,
        MetersCommand::List { output } => {
            check_format(output.output)?;
            list(&list_meters(global)?, output.output)?;
        }
        MetersCommand::Show { name } => {
            let meter = match name.split_once('@') {
                Some((name, version)) => publish::find(global, name, version).await?,
                None => {
                    find(global, &load_meters(global, std::slice::from_ref(name))?, name)?.clone()
                }
            };
            write_text(&describe(&meter))?;
        }
        MetersCommand::Check { paths } => check(global, paths).await?,
    }
    Ok(Outcome::Done)
}

fn find<'m>(global: &Global, meters: &'m [Meter], name: &str) -> Result<&'m Meter> {
    meters.iter().find(|meter| meter.name == name).ok_or_else(|| {
        let names: Vec<&str> = meters.iter().map(|meter| meter.name.as_str()).collect();
        let folder = global.meters_folder.display();
        Error::not_found(format!("no meter `{name}` in {folder}; it holds {}", names.join(", ")))
    })
}

fn list(meters: &[Meter], format: OutputFormat) -> Result<()> {
    let batch = meter_rows(meters)?;
    let mut renderer = rows(format, &batch.schema())?;
    match renderer.write(&batch)? {
        Reader::Present => finish(renderer),
        Reader::Gone => Ok(()),
    }
}

fn meter_rows(meters: &[Meter]) -> Result<RecordBatch> {
    let texts = |text: fn(&Meter) -> Option<String>| -> ArrayRef {
        Arc::new(meters.iter().map(text).collect::<StringArray>())
    };
    let columns: [(&str, ArrayRef); 6] = [
        ("meter", texts(|meter| Some(meter.name.clone()))),
        ("aggregation", texts(|meter| Some(meter.aggregation.name().to_owned()))),
        ("events", texts(|m| (!m.events.is_empty()).then(|| m.events.join(", ")))),
        ("unit", texts(|meter| meter.unit.as_ref().map(|unit| unit.name.clone()))),
        ("version", texts(|meter| Some(version(meter)))),
        ("description", texts(|meter| meter.description.clone().or_else(|| meter.title.clone()))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .map_err(|error| Error::internal("rows of meters").with_source(error))
}

/// Tells all mistakes of all files at once, and of the lake's tables that they read.
async fn check(global: &Global, paths: &[PathBuf]) -> Result<()> {
    let own = [global.meters_folder.clone()];
    let paths = if paths.is_empty() { own.as_slice() } else { paths };
    let (mut meters, mut tests, mut wrong) = (Vec::new(), 0, Vec::new());
    for path in paths {
        let named = file_of(global, path)?;
        let path = named.as_ref().unwrap_or(path);
        let loaded = match (path.is_dir(), is_test_file(path)) {
            (true, _) => load_folder(path),
            (false, true) => Ok(Vec::new()),
            (false, false) => load_file(path).map(|meter| vec![meter]),
        };
        match loaded {
            Ok(right) => meters.extend(right),
            Err(error) => wrong.push(error.to_string()),
        }
        let files = match (path.is_dir(), is_test_file(path)) {
            (true, _) => test_files(path).unwrap_or_default(),
            (false, true) => vec![path.clone()],
            (false, false) => tests_of(path),
        };
        for file in files {
            match trial::read_suite(&file) {
                Ok(_) => tests += 1,
                Err(error) => wrong.push(error.to_string()),
            }
        }
    }
    match unfit_tables(global, &meters).await {
        Ok(unfit) => wrong.extend(unfit),
        // What is known already is told first.
        Err(error) if wrong.is_empty() => return Err(error),
        Err(error) => wrong.push(error.to_string()),
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong.join("\n\n")));
    }
    if meters.is_empty() && tests == 0 {
        let searched: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::not_found(format!("no meter file in {}", searched.join(", "))));
    }
    if !global.quiet {
        let tests = match tests {
            0 => String::new(),
            1 => " and a file of tests".to_owned(),
            several => format!(" and {} files of tests", grouped(several)),
        };
        say(&format!("{}{tests}, nothing wrong", counted(meters.len() as u64, "meter")));
    }
    Ok(())
}

/// The file of a meter that is named as other commands name it; `None` for a path.
///
/// # Errors
/// A name that no meter has.
fn file_of(global: &Global, path: &Path) -> Result<Option<PathBuf>> {
    let Some(name) = path.to_str().filter(|name| is_identifier(name) && !path.exists()) else {
        return Ok(None);
    };
    let files =
        ["yaml", "yml", "json"].map(|end| global.meters_folder.join(format!("{name}.{end}")));
    match files.into_iter().find(|file| file.exists()) {
        Some(file) => Ok(Some(file)),
        None => {
            let found = load_meter_files(global, &[name.to_owned()])?;
            Ok(found.into_iter().next().map(|(file, _)| file))
        }
    }
}

/// The tests beside a meter file.
fn tests_of(file: &Path) -> Vec<PathBuf> {
    let stem = file.file_stem().map(|stem| format!("{}.test.", stem.to_string_lossy()));
    let name = |test: &Path| test.file_name().map(|name| name.to_string_lossy().into_owned());
    let is_of = |test: &PathBuf| {
        stem.as_ref().is_some_and(|stem| name(test).is_some_and(|name| name.starts_with(stem)))
    };
    // A file without a folder before it lies in the folder that we are in.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = test_files(folder.unwrap_or(Path::new("."))).unwrap_or_default();
    beside.into_iter().filter(is_of).collect()
}

/// What is wrong with the lake's tables for the meters that read them; nothing where there is no lake.
async fn unfit_tables(global: &Global, meters: &[Meter]) -> Result<Vec<String>> {
    let in_lake = |meter: &&Meter| {
        meter.tables().iter().any(|(place, _)| matches!(place, TablePlace::Lake(_)))
    };
    let readers: Vec<&Meter> = meters.iter().filter(in_lake).collect();
    if readers.is_empty() {
        return Ok(Vec::new());
    }
    let lake = match open_lake(global).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let snapshot = lake.events.snapshot(None).await?;
    let mut wrong = Vec::new();
    for meter in readers {
        match with_tables(&lake, &snapshot, meter).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::NotFound) => {
                wrong.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(wrong)
}
