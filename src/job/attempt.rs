//! One try to run a job on an agent.

use serde::{Deserialize, Serialize};

use super::{
    artifacts::Left,
    event::{LogPlace, Loss, Outcome, StreamEnd},
};
use crate::id::AgentName;

/// One try to run a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// On which agent.
    pub agent: AgentName,
    /// When it was given to the agent, in milliseconds since 1970.
    pub assigned_ms: u64,
    /// Its process, once it is known to run.
    pub started: Option<Started>,
    /// Where its output lies, as far as that is known.
    pub log: Option<LogPlace>,
    /// Its end, once there is one.
    pub end: Option<AttemptEnd>,
    /// What became of its artifacts, once that is known.
    pub left: Option<Left>,
}

/// A process that runs or ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// When, in milliseconds since 1970 on the agent's clock.
    pub agent_ms: u64,
    /// Its id on the agent's host.
    pub pid: u32,
    /// The host's boot id.
    pub boot: u128,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptEnd {
    /// In a way that is known.
    Ended {
        /// When, in milliseconds since 1970 on the agent's clock.
        agent_ms: u64,
        /// How.
        outcome: Outcome,
        /// What it wrote to stdout.
        stdout: StreamEnd,
        /// What it wrote to stderr.
        stderr: StreamEnd,
    },
    /// Nobody knows how.
    Lost {
        /// When that was decided, in milliseconds since 1970.
        at_ms: u64,
        /// Why.
        reason: Loss,
    },
}

impl Attempt {
    pub(super) fn new(agent: AgentName, assigned_ms: u64) -> Self {
        Self { agent, assigned_ms, started: None, log: None, end: None, left: None }
    }
}
