//! Blobs: byte strings that are known by their SHA-256 and lie in a topic in chunks, for any number of readers.
//!
//! ```text
//! let mut upload = Upload::new(cluster, &topic, partition, archive).await?;
//! upload.put(&bytes).await?;
//! let place = upload.finish().await?;                          // written, and read back
//!
//! fetch(&cluster, &topic, &archive, &place, &mut sink, &progress).await?;
//!
//! let appender = Appender::new(&cluster, &topic, partition, archive, &key);   // for who has no right to read
//! appender.append(offset, &pieces, &stalled).await?;
//! fetch_range(&cluster, &topic, &archive, &place, 5..9, &mut sink, &progress).await?;
//! ```
//!
//! Promises: a reader gets every byte of the blob once, or an error that says why it cannot, whatever else is in the topic; it
//! holds one fetch in memory, and never takes more than the size that it was told. Each chunk is signed with a key that came with
//! the place, so that what another writer puts there is passed over; what the whole is worth its SHA-256 tells, which is for the
//! caller to compare.

mod append;
mod chunk;
mod read;
#[cfg(test)]
mod tests;
mod walk;
mod write;

use std::io;

pub use append::{Appender, BATCH};
pub use chunk::CHUNK;
pub use read::{Counts, Nowhere, Progress, Sink, fetch, fetch_range};
pub use walk::is_there;
pub use write::Upload;

use crate::kafka;

/// What can go wrong with a blob.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka's.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Its records are not there any more.
    #[error("its records are gone from topic {topic} ({why}); push it again (`rk bundle push`)")]
    Gone {
        /// The topic.
        topic: String,
        /// What was seen.
        why: &'static str,
    },
    /// The bytes are not those that were announced.
    #[error("the bytes are not those that were announced: {0}")]
    Announced(&'static str),
    /// Whoever takes the bytes can't.
    #[error("it cannot be stored: {0}")]
    Sink(#[from] io::Error),
}
