//! What we ask of a Kafka cluster, and nothing more: append records to a partition, read them, know and keep topics.
//!
//! The layers above speak to [`Cluster`], [`PartitionReader`] and [`PartitionWriter`]; whether records lie in Apache
//! Kafka, the embedded broker or in [`memory`] they cannot tell.
//!
//! Promises: every call ends within a bound that its documentation names; an error says which hop failed and what to
//! do; nothing here retries longer than one call, so that the caller decides what an outage means.

pub mod acl;
mod admin;
mod batch;
mod cluster;
mod code;
pub mod config;
mod connection;
mod dial;
mod dialer;
mod error;
pub mod examine;
#[cfg(test)]
pub(crate) mod faulty;
mod frames;
mod idle;
pub mod memory;
mod metadata;
mod names;
mod produce;
pub mod properties;
mod reader;
mod record;
mod sasl;
mod tls;
mod token;
pub mod topics;
mod writer;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use admin::{Admin, FoundTopic, Offered, ScramMechanism, ScramUser};
pub use cluster::KafkaCluster;
pub use config::Config;
pub use error::{Error, Hop};
pub use names::Prefix;
pub use record::{At, Fetched, Record, TopicDescription};

/// A cluster, as the layers above share it.
pub type SharedCluster = Arc<dyn Cluster>;

/// One cluster's topics as record logs.
pub trait Cluster: Send + Sync + 'static {
    /// A reader of one partition with a connection of its own, which is opened by the first call.
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader>;

    /// A writer of one partition with a connection of its own, which is opened by the first call.
    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter>;

    /// Looks a topic up; [`Error::TopicMissing`] if there is none or we may not see it. Ends within 30 s.
    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>>;

    /// Deletes the records below `offset`. Ends within 30 s.
    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>>;
}

/// Reads one partition. Calls are made one at a time.
pub trait PartitionReader: Send {
    /// Reads records from `offset` on, at least one batch if there is any, about `max_bytes` in all. Where there is
    /// none yet it waits up to `max_wait` and then returns an empty [`Fetched`]. Ends within `max_wait` + 10 s.
    ///
    /// [`Error::OffsetOutOfRange`] if `offset` is below the log's start or beyond its end.
    fn fetch(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> BoxFuture<'_, Result<Fetched, Error>>;

    /// The offset of the earliest record, or the one that the next record will get. Ends within 30 s.
    fn offset(&mut self, at: At) -> BoxFuture<'_, Result<i64, Error>>;
}

/// Appends to one partition. Calls may overlap: several batches are then in flight and may land in any order.
pub trait PartitionWriter: Send + Sync {
    /// Appends `records` as one batch, whole or not at all, and returns the first one's offset. Ends within 40 s.
    ///
    /// An error other than [`Error::Authorization`] and [`Error::TooLarge`] does not mean that nothing was appended:
    /// the batch may still land later, and a caller that tries again may double it.
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>>;
}
