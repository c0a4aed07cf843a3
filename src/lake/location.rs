//! Where a lake lies: a local folder, a cloud's object store, or memory for the life of the process.
//!
//! Turns what a user wrote into an object store and the path of the lake's root in it. Touches no
//! file but to see what a relative path means; opening and making tables is `lake::table`'s.

use std::collections::HashMap;
use std::fmt;
use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use url::Url;

use crate::error::{Error, Result};
use crate::lake::cloud::{Settings, cloud_store, settings_of};
use crate::lake::store::DurableLocal;

/// Where a lake lies. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Location {
    /// The store that holds the lake, and for a local lake all else on the disk.
    pub store: Arc<dyn ObjectStore>,
    /// The lake's root in `store`.
    pub root: Path,
    /// The name of `store` for a query engine: `file:///`, `s3://<bucket>/` or `memory://<name>/`.
    pub url: Url,
    /// The location as people know it, for messages.
    pub display: String,
    local: Option<PathBuf>,
}

impl Location {
    /// Understands a path (relative or absolute), `file://<path>` and `memory://<name>`, and cloud
    /// stores that need no settings.
    ///
    /// # Errors
    /// As [`Location::parse_with`].
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, &[])
    }

    /// Understands a path (relative or absolute), `file://<path>`, `memory://<name>`, and
    /// `s3://<bucket>/<path>`, `gs://…` and `az://<container>/<path>` with the settings of their
    /// stores.
    ///
    /// Two memory lakes of one name are one lake within a process.
    ///
    /// # Errors
    /// Invalid for other schemes, for a URL that names no place, and for settings that are wrong.
    pub fn parse_with(text: &str, settings: &Settings) -> Result<Self> {
        match text.split_once("://") {
            None if text.is_empty() => Err(Error::invalid("the location of the lake is empty")),
            None => match text.split_once(':') {
                Some((scheme, _)) if settings_of(scheme).is_some() => Err(Error::invalid(format!(
                    "`{text}`: write {scheme}://BUCKET/FOLDER, or ./{text} for a folder"
                ))),
                _ => Self::local(FsPath::new(text)),
            },
            Some(("file", _)) => Self::local(&file_url_path(text)?),
            Some(("memory", name)) => Self::memory(name),
            Some((scheme, _)) if settings_of(scheme).is_some() => Self::cloud(text, settings),
            Some((scheme, _)) => Err(Error::invalid(format!(
                "`{text}`: {scheme}:// is no place that is known here: use a folder, s3://, gs:// or \
                 az://"
            ))),
        }
    }

    /// The folder of a lake on the local disk.
    pub fn local_path(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// Whether the place ends with the process.
    pub fn is_passing(&self) -> bool {
        self.url.scheme() == "memory"
    }

    /// The same place behind another store, such as one that counts or limits calls.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn ObjectStore>) -> Self {
        Self { store, ..self }
    }

    fn local(path: &FsPath) -> Result<Self> {
        let folder = absolute(path)?;
        let display = folder.display().to_string();
        if folder.is_file() {
            return Err(Error::invalid(format!("{display} is a file, and a folder is needed")));
        }
        let root = Path::from_absolute_path(&folder).map_err(|error| {
            Error::invalid(format!("{display} cannot be a folder to write to")).with_source(error)
        })?;
        Ok(Self {
            store: Arc::new(DurableLocal::new(LocalFileSystem::new())),
            root,
            url: base_url("file:///")?,
            display,
            local: Some(folder),
        })
    }

    fn cloud(text: &str, settings: &Settings) -> Result<Self> {
        // What stands before an `@` may be a secret.
        let authority = text.split("://").nth(1).and_then(|rest| rest.split('/').next());
        if authority.is_some_and(|authority| authority.contains('@')) {
            return Err(Error::invalid(
                "the URL of a store has no name or password in it: they belong in its variables",
            ));
        }
        let url = Url::parse(text)
            .map_err(|error| Error::invalid(format!("`{text}` is no URL: {error}")))?;
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(Error::invalid(format!(
                "`{text}`: the URL of a store is a bucket and a folder, without `?`, `#` and `:`"
            )));
        }
        let (store, root) = cloud_store(&url, settings)?;
        let base = format!("{}://{}/", url.scheme(), url.host_str().unwrap_or_default());
        let display = format!("{base}{root}").trim_end_matches('/').to_owned();
        Ok(Self { store, root, url: base_url(&base)?, display, local: None })
    }

    fn memory(name: &str) -> Result<Self> {
        let name = name.trim_end_matches('/');
        if !is_plain_name(name) {
            return Err(Error::invalid(format!(
                "memory lake `{name}`: the name must be {PLAIN_NAME}"
            )));
        }
        Ok(Self {
            store: memory_store(name),
            root: Path::default(),
            url: base_url(&format!("memory://{name}/"))?,
            display: format!("memory://{name}"),
            local: None,
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

/// The name of a namespace: `[a-z0-9][a-z0-9_-]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// Checks the name.
    pub fn parse(name: &str) -> Result<Self> {
        if is_plain_name(name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::invalid(format!("namespace `{name}`: the name must be {PLAIN_NAME}")))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const PLAIN_NAME: &str =
    "1 to 63 characters of a-z, 0-9, `_` and `-`, of which the first is a letter or a digit";

/// Whether `name` can be a folder of the lake and part of a URL just as it is.
pub(super) fn is_plain_name(name: &str) -> bool {
    let letter_or_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().copied().is_some_and(letter_or_digit)
        && bytes.iter().all(|&byte| letter_or_digit(byte) || matches!(byte, b'_' | b'-'))
}

fn base_url(text: &str) -> Result<Url> {
    Url::parse(text)
        .map_err(|error| Error::internal(format!("`{text}` is no URL")).with_source(error))
}

/// The store of the memory lake `name`, the same one for the life of the process.
fn memory_store(name: &str) -> Arc<dyn ObjectStore> {
    static STORES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    let store = stores.entry(name.to_owned()).or_default();
    Arc::clone(store) as _
}

fn file_url_path(text: &str) -> Result<PathBuf> {
    let wrong = || Error::invalid(format!("`{text}` names no local folder"));
    let url = Url::parse(text).map_err(|error| wrong().with_source(error))?;
    url.to_file_path().map_err(|()| wrong())
}

/// `path` from the root of the disk, without `.` and `..`.
fn absolute(path: &FsPath) -> Result<PathBuf> {
    let unresolved = std::path::absolute(path).map_err(|error| {
        Error::invalid(format!("{} is no path", path.display())).with_source(error)
    })?;
    let mut resolved = PathBuf::new();
    for component in unresolved.components() {
        match component {
            Component::CurDir => {}
            // Of a link, `..` means the parent of what it points to.
            Component::ParentDir => {
                resolved = resolved.canonicalize().unwrap_or(resolved);
                resolved.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                resolved.push(component);
            }
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn locations_are_understood_or_refused() {
        let here = std::env::current_dir().unwrap();
        let under_here = |name: &str| here.join(name).display().to_string();
        for (text, display, url) in [
            ("lake", under_here("lake"), "file:///"),
            ("./a/../lake", under_here("lake"), "file:///"),
            ("/srv/my lake/50%/#1/ü", "/srv/my lake/50%/#1/ü".into(), "file:///"),
            ("file:///srv/my%20lake", "/srv/my lake".into(), "file:///"),
            ("memory://x1", "memory://x1".into(), "memory://x1/"),
            ("s3://bucket/a/b/", "s3://bucket/a/b".into(), "s3://bucket/"),
            ("s3://bucket", "s3://bucket".into(), "s3://bucket/"),
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.display, display, "{text}");
            assert_eq!(location.url.as_str(), url, "{text}");
        }
        for text in ["", "s3://", "s3:/b/x", "az://b", "ftp://b/x", "memory://", "memory://A b"] {
            assert_eq!(Location::parse(text).unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
        for text in ["s3://name:secret@b/x", "s3://name:secret@/x", "s3://b/x?y", "s3://b/x#y"] {
            let refused = Location::parse(text).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{text}");
            assert!(!refused.to_string().contains("secret"), "{refused}");
        }
        let refused = Location::parse("az://b").unwrap_err().to_string();
        assert!(refused.contains("variables AZURE_"), "{refused}");
        let account = [("AZURE_STORAGE_ACCOUNT_NAME".to_owned(), "me".to_owned())];
        let azure = Location::parse_with("az://b/lake", &account).unwrap();
        assert_eq!(azure.url.as_str(), "az://b/");
    }

    #[test]
    fn namespaces_are_plain_names() {
        for (name, want) in [
            ("default", true),
            ("0a_b-c", true),
            (&"x".repeat(63), true),
            (&"x".repeat(64), false),
            ("", false),
            ("-a", false),
            ("_a", false),
            ("A", false),
            ("a/b", false),
            ("..", false),
            ("ü", false),
        ] {
            assert_eq!(Namespace::parse(name).is_ok(), want, "{name}");
        }
    }
}
