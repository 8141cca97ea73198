//! The files that jobs leave, as the API shows them.
//!
//! `GET /v1/jobs/{id}/artifacts` lists them, a page at a time, and `GET /v1/jobs/{id}/artifacts/{path}` has one of them as it is. Who
//! wants many asks for a part of the pack in which they lie: `GET /v1/jobs/{id}/pack?from=…&to=…`, whose answer is a row of
//! [frames](crate::frame), each one [`PackItem`]. What a file is worth its SHA-256 tells, which is for the client to compare.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::jobs::ArtifactsInfo;
use crate::{bundle::Digest, job::JobId};

/// The header of an answer that is a file: the SHA-256 of what the job left.
pub const SHA256_HEADER: &str = "x-rk-sha256";

/// Which are wanted: the query of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactQuery {
    /// Those behind this path.
    #[serde(default)]
    pub after: String,
    /// At most so many; 10,000 if none, and at most.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A part of a pack: the query of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackQuery {
    /// The first byte.
    pub from: u64,
    /// The first behind them.
    pub to: u64,
}

/// The files of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactList {
    /// Which job.
    pub job: JobId,
    /// Of which attempt.
    pub attempt: u32,
    /// How they stand.
    pub state: ArtifactState,
    /// What is known of all together, once the attempt has ended.
    pub info: Option<ArtifactsInfo>,
    /// The files, sorted by their paths; none if they were forgotten.
    pub files: Vec<Artifact>,
    /// How many more there are.
    pub more: u64,
    /// What was wanted and is not there, with the reason: the first of them.
    pub left_out: Vec<String>,
}

/// How the files of a job stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactState {
    /// The job has not ended.
    Pending,
    /// They are there.
    Stored,
    /// There are none.
    Missing,
    /// They were there.
    Forgotten,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its path below the job's work directory.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Its permissions: the lowest nine bits.
    pub mode: u32,
    /// When it was changed last, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Where in the pack it begins.
    pub offset: u64,
}

/// A piece of an answer. Variants are only added, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PackItem {
    /// The bytes that follow.
    Bytes(Bytes),
    /// Nothing new; that the connection lives.
    Idle,
    /// The records are gone, for this reason. Nothing follows.
    Gone(String),
    /// Reading can't go on now, for this reason. Nothing follows.
    Failed(String),
    /// That was all.
    Done,
}
