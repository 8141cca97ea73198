//! What can go wrong with a log: whose fault, what to do.

use super::Stream;
use crate::kafka;

/// An error of a log's shipper or reader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Kafka's.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The topic was made anew, so that what was acknowledged is gone.
    #[error("topic {topic} was deleted and created anew; ship again from the first byte that is still kept")]
    Recreated {
        /// The topic.
        topic: String,
    },
    /// Bytes between were not given to the shipper.
    #[error("bytes of {} were to be shipped from {offset} on, and {taken} is next", stream.name())]
    OutOfOrder {
        /// The stream.
        stream: Stream,
        /// What was given.
        offset: u64,
        /// What comes next.
        taken: u64,
    },
    /// A stream's length is not that of what was shipped.
    #[error("{} was said to end at {total}, and {taken} bytes of it were shipped", stream.name())]
    Length {
        /// The stream.
        stream: Stream,
        /// Its length, as the caller says.
        total: u64,
        /// What was shipped.
        taken: u64,
    },
    /// A record of this log is of a newer version.
    #[error(
        "offset {offset} of {topic}/{partition} holds a record of version {version} of this log, which is newer than \
         this program; install that version"
    )]
    Newer {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where.
        offset: i64,
        /// The version.
        version: u8,
    },
    /// The shipper has ended.
    #[error("the shipper has ended")]
    Closed,
}
