//! A job's output as the API streams it: `GET /v1/jobs/{id}/log?…`.
//!
//! The answer's body is a row of [frames](crate::frame), each one [`LogItem`]. A body that ends without [`LogItem::Done`]
//! or [`LogItem::Failed`] broke: the client asks again, `from` where it stands.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::jobs::JobInfo;

/// What is wanted: the request's query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Of which attempt; of the last one if none. A reader that follows goes on with later ones.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// One stream only.
    #[serde(default)]
    pub stream: Option<LogStream>,
    /// Skips so many bytes of stdout.
    #[serde(default)]
    pub from_stdout: u64,
    /// Skips so many bytes of stderr.
    #[serde(default)]
    pub from_stderr: u64,
    /// Skips so many bytes of what the agent says.
    #[serde(default)]
    pub from_system: u64,
    /// The last so many lines.
    #[serde(default)]
    pub tail: Option<u64>,
    /// What was written at or after this moment on the agent's clock, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Waits for more until the job has ended; otherwise the answer ends where the log ends now.
    #[serde(default)]
    pub follow: bool,
}

/// One of a job's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// What the process wrote to its standard output.
    Stdout,
    /// What it wrote to its standard error.
    Stderr,
    /// What the agent says about the job: hooks, a work directory that is kept.
    System,
}

/// A piece of the answer. Variants are only added, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogItem {
    /// What follows is of this attempt, from its beginning or where it was asked for.
    Attempt(u32),
    /// The next bytes of a stream.
    Chunk {
        /// The stream.
        stream: LogStream,
        /// The first byte's position.
        offset: u64,
        /// When they were written, in milliseconds since 1970 on the agent's clock.
        time_ms: i64,
        /// The bytes; never none.
        bytes: Bytes,
    },
    /// Bytes that will never come.
    Gap {
        /// The stream.
        stream: LogStream,
        /// The first.
        from: u64,
        /// The first after them.
        to: u64,
        /// Why, in words.
        cause: String,
    },
    /// A stream is at its end.
    End {
        /// The stream.
        stream: LogStream,
        /// How many bytes it has.
        total: u64,
        /// Whether the bytes that were sent, if all were, are those that the job wrote.
        verdict: Digest,
    },
    /// Nothing follows: the log's end as it is now, or the job's end for who follows. The job in JSON.
    Done(String),
    /// Nothing new; that the connection lives.
    Idle,
    /// Reading can't go on, for this reason. Nothing follows.
    Failed(String),
}

/// What a stream's SHA-256 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Digest {
    /// The reader got what was written.
    Right,
    /// It did not: somebody changed it on its way.
    Wrong,
    /// It did not read all, or there is a gap.
    Unknown,
}

impl LogItem {
    /// The last item of an answer.
    pub fn done(job: &JobInfo) -> Self {
        Self::Done(serde_json::to_string(job).expect("plain data"))
    }
}

impl LogStream {
    /// Its name, as in the query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }
}
