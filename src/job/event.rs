//! What happens to a job, as it is journalled.
//!
//! Bytes: one version byte and postcard. Variants are only added, at the end, and a variant and what is in it never
//! change: the oldest journal must fold in the newest program. A program that meets an event that it does not know
//! refuses to run.
//!
//! Times are milliseconds since 1970: `at_ms` on the clock of the controller that wrote the event, `agent_ms` on the
//! agent's, whose clock may be anything.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Artifacts, Cancel, Hidden, JobId, Spec};
use crate::{id::AgentName, versioned};

const VERSION: u8 = 1;

/// Something that became true of a job. Attempts are numbered from 1, one for each time that it was given to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// There is such a job. The first event of each.
    Submitted {
        /// When.
        at_ms: u64,
        /// What was asked for.
        spec: Box<Spec>,
        /// What the keys of its log are derived from.
        log_key: Hidden<[u8; 32]>,
        /// The job of which this is a repetition.
        retry_of: Option<JobId>,
    },
    /// It was given to an agent. Until this was read back the agent is told nothing.
    Assigned {
        /// When.
        at_ms: u64,
        /// The next number.
        attempt: u32,
        /// To whom.
        agent: AgentName,
    },
    /// Its process runs.
    Started {
        /// When.
        at_ms: u64,
        /// Which attempt.
        attempt: u32,
        /// When, as the agent says.
        agent_ms: u64,
        /// Its id on the agent's host.
        pid: u32,
        /// The host's boot id: with `pid` it tells one process from every other.
        boot: u128,
    },
    /// It ended, and how is known. Makes the job end.
    Ended {
        /// When.
        at_ms: u64,
        /// Which attempt.
        attempt: u32,
        /// When, as the agent says.
        agent_ms: u64,
        /// How.
        outcome: Outcome,
        /// What it wrote to stdout.
        stdout: StreamEnd,
        /// What it wrote to stderr.
        stderr: StreamEnd,
    },
    /// How the attempt ended nobody will know, and it is not repeated. Makes the job end.
    Lost {
        /// When that was decided.
        at_ms: u64,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: Loss,
    },
    /// How the attempt ended nobody will know, and the job waits for another one. If somebody asked for its end
    /// meanwhile, it is lost instead.
    Retried {
        /// When that was decided.
        at_ms: u64,
        /// Which attempt was lost.
        attempt: u32,
        /// Why.
        reason: Loss,
    },
    /// The attempt certainly did not run, and the job waits for another one. If somebody asked for its end meanwhile,
    /// it is cancelled instead.
    Returned {
        /// When.
        at_ms: u64,
        /// Which attempt.
        attempt: u32,
        /// Why.
        reason: Returned,
    },
    /// Somebody asks for its end. What is queued ends by it; what is with an agent ends when the agent says so.
    CancelRequested {
        /// When.
        at_ms: u64,
        /// Who.
        by: String,
        /// How, instead of what the spec says. The latest request counts.
        cancel: Option<Cancel>,
    },
    /// An operator says how long the job's agent may be unreachable.
    DeadlineSet {
        /// When.
        at_ms: u64,
        /// Who.
        by: String,
        /// How long, not counting outages of Kafka; for ever if none.
        deadline: Option<Duration>,
    },
    /// Output of an attempt lies here in the log's topic. Says nothing about the job's state, and may come after its end.
    Logged {
        /// Which attempt.
        attempt: u32,
        /// Where.
        place: LogPlace,
    },
    /// What became of an attempt's artifacts. Comes before its end, and says nothing about the job's state.
    Artifacts {
        /// When.
        at_ms: u64,
        /// Which attempt.
        attempt: u32,
        /// What.
        artifacts: Artifacts,
    },
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal, which nobody asked us to send.
    Signalled(i32),
    /// Its time was over.
    TimedOut,
    /// Its end was asked for.
    Cancelled,
    /// It could not be started: no such program, no such directory.
    NotStarted {
        /// What a shell would exit with: 127 or 126.
        code: i32,
        /// Cause and cure in one line.
        message: String,
    },
}

/// Why nobody knows how an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Loss {
    /// The process that held it was killed on the agent's host.
    ShimGone,
    /// The agent's host was restarted while it ran.
    HostRebooted,
    /// The agent has no trace of what it had said to run: its data directory was replaced.
    NoTrace,
    /// The agent could not be reached for longer than an operator allows.
    Deadline,
    /// The agent was removed while it had the job.
    AgentRemoved,
}

/// Why an attempt certainly did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Returned {
    /// The agent takes no new work.
    Draining,
    /// The agent has no room: all slots taken, disk full, no processes left.
    NoRoom,
    /// The agent was gone before it was told.
    NeverTold,
    /// Its end was asked for before the agent had begun.
    Unwanted,
}

/// The end of one of the output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StreamEnd {
    /// In bytes.
    pub length: u64,
    /// The SHA-256 of all of them.
    pub sha256: [u8; 32],
}

/// Where an attempt's output lies in the log's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The partition.
    pub partition: u32,
    /// No record of it lies before this offset.
    pub first: i64,
    /// The offset of the latest known one.
    pub last: i64,
}

/// The bytes are no event that this program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is a job's event that this version does not know ({0}); run a version at least as new as the one that wrote it"
)]
pub struct UnknownEvent(String);

impl UnknownEvent {
    /// Because of `detail`.
    pub fn new(detail: impl Into<String>) -> Self {
        Self(detail.into())
    }
}

impl Event {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        versioned::encode(VERSION, self)
    }

    /// Reads [`encode`](Self::encode)'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, UnknownEvent> {
        versioned::decode(VERSION, bytes).map_err(UnknownEvent)
    }

    /// The attempt that it is about.
    pub fn attempt(&self) -> Option<u32> {
        match self {
            Self::Assigned { attempt, .. }
            | Self::Started { attempt, .. }
            | Self::Ended { attempt, .. }
            | Self::Lost { attempt, .. }
            | Self::Retried { attempt, .. }
            | Self::Returned { attempt, .. }
            | Self::Logged { attempt, .. }
            | Self::Artifacts { attempt, .. } => Some(*attempt),
            Self::Submitted { .. } | Self::CancelRequested { .. } | Self::DeadlineSet { .. } => None,
        }
    }
}

impl LogPlace {
    /// Both places in one. A different partition replaces the place: the topic was made anew.
    pub fn merged(self, other: Self) -> Self {
        if self.partition != other.partition {
            return other;
        }
        Self { first: self.first.min(other.first), last: self.last.max(other.last), ..self }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShimGone => "its shim was killed",
            Self::HostRebooted => "the agent's host rebooted",
            Self::NoTrace => "the agent has no trace of it",
            Self::Deadline => "the agent was unreachable for too long",
            Self::AgentRemoved => "the agent was removed",
        })
    }
}

impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draining => "the agent drains",
            Self::NoRoom => "the agent has no room",
            Self::NeverTold => "the agent was gone before it was told",
            Self::Unwanted => "it was cancelled before the agent had begun",
        })
    }
}
