//! The files that a job leaves: where they lie, or why they do not.

use serde::{Deserialize, Serialize};

use crate::bundle::{Archive, Place};

/// What became of the files that were to be kept of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Artifacts {
    /// They are in the topic.
    Stored(Stored),
    /// Nothing is.
    Missing {
        /// Why, in words for people.
        why: String,
    },
}

/// Files in the topic. What they are is in their [manifest](super::Manifest), so that a journal of jobs with many files is no
/// larger than one of jobs with few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The manifest.
    pub manifest: Archive,
    /// Where that lies, and what all chunks of the attempt are signed with.
    pub place: Place,
    /// No record of the attempt's lies before this offset of the same partition.
    pub first: i64,
    /// How many files there are.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
    /// How many files were wanted and are not there.
    pub left_out: u32,
}

/// What an attempt left, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// When that was journalled, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub artifacts: Artifacts,
    /// When it was forgotten, in milliseconds since 1970: what it names may be gone from the topic.
    pub forgotten_ms: Option<u64>,
}

impl Left {
    /// Where the files lie, unless they were forgotten.
    pub fn stored(&self) -> Option<&Stored> {
        match &self.artifacts {
            Artifacts::Stored(stored) if self.forgotten_ms.is_none() => Some(stored),
            _ => None,
        }
    }
}
