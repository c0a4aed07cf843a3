//! A store in which calls fail, are delayed or come between others, and processes that live on it.

pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod store;
pub(crate) mod world;
