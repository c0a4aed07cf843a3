//! The Delta kernel behind one asynchronous door.
//!
//! The kernel blocks, so every call runs on a blocking thread, a few at a time per table: its I/O
//! needs threads of the same pool. Its errors are turned into ours here.

use std::fmt;
use std::sync::Arc;

use delta_kernel::{Engine, KernelError};
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use object_store::prefix::PrefixStore;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::checked::NOT_AS_WRITTEN;
use crate::lake::cloud::answer_of;
use crate::lake::location::Location;
use crate::lake::sealed::SealedLog;

/// Calls into the kernel at any one time, per table.
const MAX_CALLS: usize = 8;

/// The kernel's engine for one table.
#[derive(Clone)]
pub(super) struct Kernel {
    engine: Arc<dyn Engine>,
    permits: Arc<Semaphore>,
    /// The table as the engine knows it.
    pub(super) url: String,
}

impl Kernel {
    /// An engine for the table in `folder` (plain names joined by `/`) of the lake.
    ///
    /// The engine sees the lake's root as the root of a store of its own: it mistakes a `%` in a path
    /// for an escape, and below the root there is none. It takes listings of a `memory` store to be
    /// in order, and so they are; of a `file` URL it would look at the disk itself.
    pub(super) fn new(location: &Location, folder: &str) -> Result<Self> {
        let runtime = Handle::try_current()
            .ok()
            .filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
            .ok_or_else(|| Error::internal("the lake needs a multi-threaded tokio runtime"))?;
        let store = SealedLog::new(Arc::clone(&location.store));
        let store = PrefixStore::new(store, location.root.clone());
        let engine = DefaultEngineBuilder::new(Arc::new(store))
            .with_task_executor(Arc::new(TokioMultiThreadExecutor::new(runtime)))
            .build();
        Ok(Self {
            engine: Arc::new(engine),
            permits: Arc::new(Semaphore::new(MAX_CALLS)),
            url: format!("memory:///{folder}/"),
        })
    }

    /// Runs `work` where it may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(interrupted)?;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || {
            let answer = work(engine.as_ref());
            drop(permit);
            answer
        })
        .await
        .map_err(interrupted)?
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("url", &self.url).finish_non_exhaustive()
    }
}

fn interrupted(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal("a call into the Delta kernel did not come back").with_source(error)
}

/// Our error for what the kernel said while doing `what`.
pub(super) fn kernel_error(what: impl fmt::Display, error: KernelError) -> Error {
    let error = without_backtrace(error);
    let answer = match &error {
        KernelError::ObjectStore(error) => damage_of(error).or_else(|| answer_of(error)),
        _ => None,
    };
    match answer {
        Some(answer) => Error::new(kind_of(&error), format!("{what}: {answer}")),
        None => Error::new(kind_of(&error), format!("{what}: {error}")).with_source(error),
    }
}

/// Our error for what the object store said while doing `what`.
pub fn store_error(what: impl fmt::Display, error: object_store::Error) -> Error {
    match damage_of(&error).or_else(|| answer_of(&error)) {
        Some(answer) => Error::new(store_kind(&error), format!("{what}: {answer}")),
        None => Error::new(store_kind(&error), format!("{what}: {error}")).with_source(error),
    }
}

/// What is said of an object that is not what was written, without the words around it.
fn damage_of(error: &object_store::Error) -> Option<String> {
    let object_store::Error::Generic { source, .. } = error else { return None };
    Some(source.to_string()).filter(|text| text.ends_with(NOT_AS_WRITTEN))
}

fn without_backtrace(error: KernelError) -> KernelError {
    match error {
        KernelError::Backtraced { source, .. } => without_backtrace(*source),
        other => other,
    }
}

fn kind_of(error: &KernelError) -> ErrorKind {
    match error {
        KernelError::ObjectStore(error) => store_kind(error),
        KernelError::IOError(_) | KernelError::Reqwest(_) => ErrorKind::Unavailable,
        KernelError::Unsupported(_) | KernelError::InvalidColumnMappingMode(_) => {
            ErrorKind::Invalid
        }
        KernelError::FileNotFound(_)
        | KernelError::MalformedJson(_)
        | KernelError::Arrow(_)
        | KernelError::Parquet(_)
        | KernelError::MissingVersion(_)
        | KernelError::MissingMetadata
        | KernelError::MissingProtocol
        | KernelError::MissingMetadataAndProtocol
        | KernelError::InvalidProtocol(_)
        | KernelError::InvalidLogPath(_)
        | KernelError::InvalidLogSegment(_)
        | KernelError::InvalidCheckpoint(_)
        | KernelError::Utf8Error(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
}

fn store_kind(error: &object_store::Error) -> ErrorKind {
    match error {
        object_store::Error::NotFound { .. } => ErrorKind::NotFound,
        object_store::Error::AlreadyExists { .. } => ErrorKind::Conflict,
        object_store::Error::InvalidPath { .. } => ErrorKind::Invalid,
        object_store::Error::JoinError { .. } => ErrorKind::Internal,
        error if error.to_string().contains(NOT_AS_WRITTEN) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    }
}
