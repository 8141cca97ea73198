//! Durable byte streams in a topic: the output of jobs, which outlives the agent that shipped it and the controller that
//! asked for it. [`blob`] has those that are whole from the start.
//!
//! ```text
//! agent:       job ─▶ redact ─▶ spool ─▶ Shipper ─▶ <cluster>.logs ─▶ Reader ─▶ rk logs       controller
//!                                 ▲ cut up to acked()
//! let mut shipper = Shipper::start(cluster, &topic, partition, attempt, kept, Config::default()).await?;
//! shipper.ship(Stream::Stdout, offset, time, &bytes).await?;      // taken
//! shipper.acked();                                                // in the topic, for good
//! shipper.finish(ends).await?;
//!
//! let mut reader = Reader::open(cluster, &topic, partition, attempt, Options::default()).await?;
//! while let Some(event) = reader.next().await? { … }              // Chunk, Gap, End
//! ```
//!
//! Promises: a reader gets exactly the bytes that were written, in order for each stream, or hears which are missing and
//! why, whatever the cluster, a killed shipper, a second one, or another writer of the topic does ([`record`] says how
//! records are sealed); what an attempt wrote nobody reads, forges or moves without its key.
//!
//! Must not know what a job is, or when it starts and ends.

mod assemble;
pub mod blob;
mod error;
mod flight;
mod key;
mod ledger;
mod locate;
mod meta;
mod pack;
mod reader;
pub mod record;
pub mod redact;
mod shipper;
mod source;
mod tail;
#[cfg(test)]
mod tests;

pub use assemble::{Cause, Counts, Digest, Event};
pub use error::Error;
pub use key::{AttemptKey, InvalidJobKey, JobKey, JobSecret, MAX_JOB_KEY};
pub use ledger::Acked;
pub use meta::{Body, Kind, Meta, Point, Positions, Run};
pub use reader::{Begin, Options, Reader, Until};
pub use record::{Attempt, Format};
pub use shipper::{Config, End, Shipper, View};

use crate::secret;

/// One of a job's three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What the job wrote to its standard output.
    Stdout,
    /// What it wrote to its standard error.
    Stderr,
    /// Notes of the agent's about the job.
    System,
}

impl Stream {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::System];

    /// Its name in headers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name().as_bytes() == name)
    }
}

/// Draws random numbers. Tests hand in a seeded one.
type Random = Box<dyn FnMut() -> u128 + Send>;

/// The system's randomness.
fn random() -> Random {
    Box::new(|| u128::from_ne_bytes(secret::random()))
}
