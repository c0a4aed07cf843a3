//! Where the local state of a lake lies: its key index and its journal.
//!
//! Only the path rules; what is kept there is `dedupe`'s and `ingest`'s.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lake::location::{Location, Namespace};

/// The folder of a local lake's state, below the lake's root. No namespace can have this name.
pub const STATE_FOLDER: &str = ".state";

/// The state folder of one namespace: `<given>/<lake>/<namespace>`, or `<lake>/.state/<namespace>`
/// for a lake on the local disk when none is given.
///
/// Below a given folder `<lake>` is 16 hexadecimal digits that stand for the lake's location, so that
/// lakes which share the folder keep apart. A lake that is not on the local disk needs one to be
/// given.
///
/// # Errors
/// Invalid when one must be given and is not.
pub fn state_folder(
    location: &Location,
    namespace: &Namespace,
    given: Option<&Path>,
) -> Result<PathBuf> {
    let folder = match (given, location.local_path()) {
        (Some(given), _) => given.join(lake_name(location)),
        (None, Some(lake)) => lake.join(STATE_FOLDER),
        (None, None) => {
            return Err(Error::invalid(format!(
                "the lake at {location} is not on a local disk: say where its local state may lie (--state FOLDER)"
            )));
        }
    };
    Ok(folder.join(namespace.as_str()))
}

/// A name for the lake at a location: lakes at two locations never share one.
fn lake_name(location: &Location) -> String {
    let hash = blake3::hash(location.to_string().as_bytes()).to_hex();
    hash.chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn state_lies_in_the_lake_or_where_it_is_told() {
        let namespace = Namespace::parse("acme").unwrap();
        let local = Location::parse("/srv/lake").unwrap();
        let memory = Location::parse("memory://state-test").unwrap();
        let given = Path::new("/var/state");
        let folder = |location, given| state_folder(location, &namespace, given);
        assert_eq!(folder(&local, None).unwrap(), Path::new("/srv/lake/.state/acme"));
        assert_eq!(folder(&memory, None).unwrap_err().kind(), ErrorKind::Invalid);
        let below = given.join(lake_name(&local)).join("acme");
        assert_eq!(folder(&local, Some(given)).unwrap(), below);
        assert_eq!(lake_name(&local).len(), 16);
    }

    #[test]
    fn lakes_that_share_a_state_folder_keep_apart() {
        let namespace = Namespace::default();
        let folder = |lake: &str| {
            let location = Location::parse(lake).unwrap();
            state_folder(&location, &namespace, Some(Path::new("/var/state"))).unwrap()
        };
        for (name, left, right, same) in [
            ("two lakes", "/srv/lake", "/srv/lake2", false),
            ("a folder and memory", "/srv/lake", "memory://lake", false),
            ("one lake, as path and as URL", "/srv/lake", "file:///srv/lake", true),
        ] {
            assert_eq!(folder(left) == folder(right), same, "{name}");
        }
    }
}
