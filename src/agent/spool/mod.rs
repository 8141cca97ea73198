//! The spool: an attempt's output on the agent's disk, from the shim that writes it to the agent that ships it.
//!
//! It is a directory of numbered segments, each a header and records in the order in which the output came, both
//! streams in one. A record carries its stream, byte offset and time, and a checksum; a segment's header says at
//! which offset each stream stands there. So any offset is found by the headers, a torn tail is told from output, and
//! what was shipped is cut away segment by segment.
//!
//! The writer is the shim alone. A byte that a reader can see stays what it is. What is not yet synced is lost if
//! the *host* dies; the shim syncs at least once a second while output comes, and always before the exit record.
//! The death of any process costs nothing. After a host's death the valid output ends at the first record that is not
//! whole, and everything behind it is cut.
//!
//! No tokio: the shim uses it.

mod reader;
mod record;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::{io, path::PathBuf};

pub use reader::{Chunk, Next, Reader, begins, cut};
pub use record::MAX_CHUNK;
use serde::{Deserialize, Serialize};
pub use writer::Writer;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];
}

/// A byte offset in each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Offsets {
    /// In standard output.
    pub stdout: u64,
    /// In standard error.
    pub stderr: u64,
}

impl Offsets {
    /// That of `stream`.
    pub fn of(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }

    /// That of `stream`, to be changed.
    pub fn of_mut(&mut self, stream: Stream) -> &mut u64 {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Whether neither stream is further here than in `other`.
    fn within(&self, other: &Self) -> bool {
        self.stdout <= other.stdout && self.stderr <= other.stderr
    }
}

/// Why a spool cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk does not let us.
    #[error("the spool {} cannot be read: {source}", path.display())]
    Io {
        /// The directory or segment.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A record in the middle is not whole: the host died before it was synced, or the disk is damaged. What was read
    /// so far is right; everything behind it is not to be used.
    #[error("the spool {} is damaged at byte {position}; its output ends there", segment.display())]
    Damaged {
        /// The segment.
        segment: PathBuf,
        /// The byte of the segment at which the damage begins.
        position: u64,
    },
}
