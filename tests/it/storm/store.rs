//! An object store in memory whose every call has a fate that the test decides.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Create,
    Overwrite,
    Get,
    List,
    Delete,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) place: String,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    /// It fails, and nothing happened.
    Before(Trouble),
    /// It happened, and the answer says that it failed.
    After(Trouble),
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    TimedOut,
    /// 409 or 412: of a create, that the name is taken, whether it is or not.
    Taken,
    /// 503.
    Busy,
}

/// Decides about every call; may do something else meanwhile.
pub(crate) type Weather = Arc<dyn Fn(Call) -> BoxFuture<'static, Fate> + Send + Sync>;

/// What all processes see: objects, and the clock that dates them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    inner: InMemory,
    put_at: Mutex<HashMap<Path, i64>>,
    now_micros: AtomicI64,
}

impl Objects {
    pub(crate) fn set_now(&self, micros: i64) {
        self.now_micros.store(micros, Ordering::SeqCst);
    }

    fn date(&self, place: &Path) {
        let now = self.now_micros.load(Ordering::SeqCst);
        self.put_at.lock().unwrap().insert(place.clone(), now);
    }

    fn dated(&self, meta: ObjectMeta) -> ObjectMeta {
        let put_at = self.put_at.lock().unwrap().get(&meta.location).copied();
        let put_at = put_at.and_then(DateTime::<Utc>::from_timestamp_micros);
        ObjectMeta { last_modified: put_at.unwrap_or(meta.last_modified), ..meta }
    }
}

/// The store as one process sees it.
pub(crate) struct Stormy {
    pub(crate) objects: Arc<Objects>,
    pub(crate) weather: Weather,
    /// How often a call is tried, as the clients of the clouds do by themselves.
    pub(crate) tries: u32,
}

impl fmt::Debug for Stormy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stormy")
    }
}

impl fmt::Display for Stormy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stormy")
    }
}

/// Makes a call and gives it its fate, again while that may help.
macro_rules! call {
    ($store:expr, $kind:expr, $place:expr, $effect:expr) => {{
        let call = Call { kind: $kind, place: $place.to_string() };
        let mut tried = 0;
        loop {
            let failed = match ($store.weather)(call.clone()).await {
                Fate::Fine => break $effect,
                Fate::Before(trouble) => trouble,
                Fate::After(trouble) => match $effect {
                    Ok(_) => trouble,
                    Err(error) => break Err(error),
                },
            };
            tried += 1;
            if failed == Trouble::Taken || tried >= $store.tries {
                break Err(told(failed, &call));
            }
        }
    }};
}

fn told(trouble: Trouble, call: &Call) -> Error {
    let source = format!("{trouble:?}: {call:?}").into();
    match (trouble, call.kind) {
        (Trouble::Taken, Kind::Create) => Error::AlreadyExists { path: call.place.clone(), source },
        _ => Error::Generic { store: "Stormy", source },
    }
}

#[async_trait]
impl ObjectStore for Stormy {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let kind = match options.mode {
            PutMode::Create => Kind::Create,
            PutMode::Overwrite | PutMode::Update(_) => Kind::Overwrite,
        };
        call!(self, kind, location, {
            let put = self.objects.inner.put_opts(location, payload.clone(), options.clone()).await;
            if put.is_ok() {
                self.objects.date(location);
            }
            put
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotSupported { source: format!("parts of {location}").into() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        call!(self, Kind::Get, location, {
            let found = self.objects.inner.get_opts(location, options.clone()).await?;
            Ok(GetResult { meta: self.objects.dated(found.meta), ..found })
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = Self {
            objects: Arc::clone(&self.objects),
            weather: Arc::clone(&self.weather),
            tries: self.tries,
        };
        let store = Arc::new(store);
        let deleted = locations.then(move |location| {
            let store = Arc::clone(&store);
            async move {
                let location = location?;
                let inner = &store.objects.inner;
                call!(store, Kind::Delete, location, inner.delete(&location).await)?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (objects, weather) = (Arc::clone(&self.objects), Arc::clone(&self.weather));
        let (prefix, tries) = (prefix.cloned().unwrap_or_default(), self.tries);
        let listed = async move {
            let store = Self { objects: Arc::clone(&objects), weather, tries };
            let listed = call!(store, Kind::List, prefix, {
                objects.inner.list(Some(&prefix)).try_collect::<Vec<_>>().await
            })?;
            let dated: Vec<_> = listed.into_iter().map(|meta| Ok(objects.dated(meta))).collect();
            Ok::<_, Error>(stream::iter(dated))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        call!(self, Kind::List, place, self.objects.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        call!(self, Kind::Create, to, {
            self.objects.inner.copy_opts(from, to, options.clone()).await
        })
    }
}
