//! Where the local state of a lake lies: its key index and its journal.
//!
//! Only the path rules; what is kept there is `dedupe`'s and `ingest`'s.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::lake::location::{Location, Namespace};

/// The folder of a local lake's state, below the lake's root. No namespace can have this name.
pub const STATE_FOLDER: &str = ".state";

/// The state folder of one namespace: `<given>/<namespace>`, or `<lake>/.state/<namespace>` for a
/// lake on the local disk when none is given.
///
/// A lake that is not on the local disk needs one to be given.
pub fn state_folder(
    location: &Location,
    namespace: &Namespace,
    given: Option<&Path>,
) -> Result<PathBuf> {
    let folder = match (given, location.local_path()) {
        (Some(given), _) => given.to_path_buf(),
        (None, Some(lake)) => lake.join(STATE_FOLDER),
        (None, None) => {
            return Err(Error::invalid(format!(
                "the lake at {location} is not on a local disk: say where its local state may lie"
            )));
        }
    };
    Ok(folder.join(namespace.as_str()))
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
        assert_eq!(folder(&local, Some(given)).unwrap(), Path::new("/var/state/acme"));
        assert_eq!(folder(&memory, Some(given)).unwrap(), Path::new("/var/state/acme"));
        assert_eq!(folder(&memory, None).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
