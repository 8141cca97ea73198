//! What goes to agents and comes from them, as the scheduler sees it.

use crate::{
    id::AgentName,
    job::{Cancel, JobId},
    protocol::jobs::Report,
    selector::Labels,
};

/// What is to be done on an agent. One agent's actions are sent in the order in which they were polled; what a lost
/// session swallowed comes again when the agent has a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Where.
    pub agent: AgentName,
    /// For which job.
    pub job: JobId,
    /// For which attempt.
    pub attempt: u32,
    /// What.
    pub order: Order,
}

/// What an agent is told about an attempt. Each may be told more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start it, unless it was started before. The spec is [`Scheduler::job`](super::Scheduler::job)'s.
    Start,
    /// End it.
    Cancel(Cancel),
    /// Its end was read back from the journal: what the agent keeps of it may go.
    Release,
}

/// An agent that has a session, and what it said first in it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The partition of its control lane.
    pub partition: u32,
    /// What selectors see.
    pub labels: Labels,
    /// How many jobs it takes at once.
    pub slots: u32,
    /// Every attempt that it knows of, claimed ones included: taken after its last session's orders were all obeyed.
    pub inventory: Vec<(JobId, u32, Report)>,
}
