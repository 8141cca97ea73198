//! The log of a partition: batches in segment files, the newest of them in memory too.
//!
//! `batch` and `producers` decide on bytes and numbers alone; `segment` is one file; `partition` puts them together
//! under one lock that is never held across a wait. Nothing here knows of requests, topics' names or the network.

pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod partition;
pub(crate) mod producers;
pub(crate) mod recovery;
pub(crate) mod scan;
pub(crate) mod segment;

#[cfg(test)]
mod tests;
