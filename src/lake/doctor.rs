//! Whether a place can hold a lake, tried and not assumed.
//!
//! Puts a small object where the lake is (or would be), looks whether the store does with it what the
//! lake relies on, and takes it away again. Touches nothing else.

use std::path::Path as FsPath;
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use uuid::Uuid;

use crate::clock::Clock;
use crate::lake::cloud::answer_of;
use crate::lake::location::Location;

/// How far the clocks of this machine and of the store may be apart.
const CLOCK_MAX: Duration = Duration::from_secs(60);
/// Less free space than this is said to be little.
const SPACE_MIN: u64 = 1 << 30;
/// No disk makes bytes durable in less time; one that only says so does.
const SYNC_MIN: Duration = Duration::from_micros(10);
const SYNCS: u32 = 8;

/// How something that was tried went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// It works, but somebody should look at it.
    Doubtful,
    /// A lake cannot be kept so.
    Bad,
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried.
    pub check: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, and what to do where it is not good.
    pub detail: String,
}

impl Finding {
    /// Something that went as told.
    pub fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self { check, verdict, detail: detail.into() }
    }
}

/// Tries what a lake at `location` needs of its store.
pub async fn examine(location: &Location, clock: Clock) -> Vec<Finding> {
    let folder = match location.local_path() {
        None => location.root.clone(),
        Some(local) => match existing(local).map(Path::from_absolute_path) {
            Some(Ok(folder)) => folder,
            Some(Err(_)) | None => {
                let detail = format!("no folder above {location} is there");
                return vec![Finding::new("write", Verdict::Bad, detail)];
            }
        },
    };
    let name = format!("meterhouse-doctor-{}", Uuid::new_v4());
    let shown = match location.local_path().filter(|local| !local.is_dir()) {
        Some(local) => format!("/{folder}/{name}, as there is no {}", local.display()),
        None => format!("{location}/{name}"),
    };
    let place = folder.join(name);
    let mut findings = Vec::new();
    let store = location.store.as_ref();
    let written = try_store(store, &place, (clock, shown), &mut findings).await;
    if let Err(error) = written {
        findings.push(failed("write", &error));
    } else if let Err(error) = store.delete(&place).await {
        findings.push(failed("delete", &error));
    } else {
        findings.push(Finding::new("delete", Verdict::Good, "what was written is gone again"));
    }
    findings
}

async fn try_store(
    store: &dyn ObjectStore,
    place: &Path,
    (clock, shown): (Clock, String),
    findings: &mut Vec<Finding>,
) -> object_store::Result<()> {
    let content = b"meterhouse doctor: may be deleted".as_slice();
    let create = || store.put_opts(place, content.into(), PutMode::Create.into());
    create().await?;
    findings.push(Finding::new("write", Verdict::Good, shown));
    findings.push(match create().await {
        Err(object_store::Error::AlreadyExists { .. }) => {
            Finding::new("conditional put", Verdict::Good, "a name is given once")
        }
        Ok(_) => Finding::new(
            "conditional put",
            Verdict::Bad,
            "the store gives a name twice: two writers would overwrite each other's commits",
        ),
        Err(error) => failed("conditional put", &error),
    });
    findings.push(match read_back(store, place).await {
        Ok(found) if found == content => Finding::new("read", Verdict::Good, "as it was written"),
        Ok(_) => Finding::new("read", Verdict::Bad, "other bytes came back than were written"),
        Err(error) => failed("read", &error),
    });
    findings.push(match listed(store, place).await {
        Ok(true) => Finding::new("list", Verdict::Good, "shows at once what was written"),
        Ok(false) => Finding::new("list", Verdict::Bad, "does not show what was just written"),
        Err(error) => failed("list", &error),
    });
    findings.push(match store.head(place).await {
        Ok(there) => told_clock(clock.now().micros(), there.last_modified.timestamp_micros()),
        Err(error) => failed("clock", &error),
    });
    Ok(())
}

async fn read_back(store: &dyn ObjectStore, place: &Path) -> object_store::Result<bytes::Bytes> {
    store.get(place).await?.bytes().await
}

async fn listed(store: &dyn ObjectStore, place: &Path) -> object_store::Result<bool> {
    // Local listings of a folder with much in it take long; of a name's beginning they are not known.
    let folder: Path = place.parts().take(place.parts().count().saturating_sub(1)).collect();
    let listed = store.list_with_delimiter(Some(&folder)).await?;
    Ok(listed.objects.iter().any(|object| object.location == *place))
}

fn told_clock(ours: i64, stores: i64) -> Finding {
    let apart = Duration::from_micros(ours.abs_diff(stores));
    let detail = format!("{} ms apart from that of the store", apart.as_millis());
    match apart > CLOCK_MAX {
        true => Finding::new("clock", Verdict::Doubtful, format!("{detail}: set one of the two")),
        false => Finding::new("clock", Verdict::Good, detail),
    }
}

fn failed(check: &'static str, error: &object_store::Error) -> Finding {
    Finding::new(check, Verdict::Bad, answer_of(error).unwrap_or_else(|| error.to_string()))
}

/// Tries whether files in a folder of the local disk can be made durable, and how much room there is.
pub fn examine_folder(folder: &FsPath) -> Vec<Finding> {
    let Some(there) = existing(folder) else {
        let detail = format!("no folder above {} is there", folder.display());
        return vec![Finding::new("folder", Verdict::Bad, detail)];
    };
    vec![synced(there), space(there)]
}

fn synced(folder: &FsPath) -> Finding {
    let told = |error: std::io::Error| {
        let detail = format!("{}: {error}", folder.display());
        Finding::new("fsync", Verdict::Bad, detail)
    };
    match time_of_sync(folder) {
        Err(error) => told(error),
        Ok(time) => {
            let detail = format!("{}: {} µs", folder.display(), time.as_micros());
            match time < SYNC_MIN {
                true => Finding::new(
                    "fsync",
                    Verdict::Doubtful,
                    format!("{detail}: no disk is that fast, a power cut may take away commits"),
                ),
                false => Finding::new("fsync", Verdict::Good, detail),
            }
        }
    }
}

fn time_of_sync(folder: &FsPath) -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let started = Instant::now();
    for _ in 0..SYNCS {
        std::io::Write::write_all(&mut file, &[0; 512])?;
        file.sync_all()?;
    }
    Ok(started.elapsed() / SYNCS)
}

#[cfg(unix)]
fn space(folder: &FsPath) -> Finding {
    match rustix::fs::statvfs(folder) {
        Err(error) => Finding::new("space", Verdict::Doubtful, error.to_string()),
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let detail = format!("{}: {} MiB free", folder.display(), free >> 20);
            let verdict = if free < SPACE_MIN { Verdict::Doubtful } else { Verdict::Good };
            Finding::new("space", verdict, detail)
        }
    }
}

#[cfg(not(unix))]
fn space(folder: &FsPath) -> Finding {
    let detail = format!("{}: not known on this system", folder.display());
    Finding::new("space", Verdict::Doubtful, detail)
}

/// The folder itself, or the nearest above it that is there.
fn existing(folder: &FsPath) -> Option<&FsPath> {
    folder.ancestors().find(|above| above.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(findings: &[Finding], check: &str) -> Option<Verdict> {
        findings.iter().find(|finding| finding.check == check).map(|finding| finding.verdict)
    }

    #[tokio::test]
    async fn a_sound_place_is_found_good_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for (name, location) in [
            ("memory", Location::parse("memory://doctor").unwrap()),
            ("disk", Location::parse(folder.path().to_str().unwrap()).unwrap()),
        ] {
            let findings = examine(&location, Clock::System).await;
            assert_eq!(findings.len(), 6, "{name}");
            assert!(findings.iter().all(|f| f.verdict == Verdict::Good), "{name} {findings:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(verdict(&examine_folder(folder.path()), "space"), Some(Verdict::Good));
    }

    #[tokio::test]
    async fn a_lake_that_is_not_there_is_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("a/b");
        let location = Location::parse(lake.to_str().unwrap()).unwrap();
        let findings = examine(&location, Clock::System).await;
        assert!(findings.iter().all(|finding| finding.verdict == Verdict::Good));
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn clocks_that_are_apart_are_told() {
        assert_eq!(told_clock(0, 59_000_000).verdict, Verdict::Good);
        assert_eq!(told_clock(90_000_000, 0).verdict, Verdict::Doubtful);
    }
}
