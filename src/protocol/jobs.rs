//! Jobs on an agent: one stream of the control lane for each session, from its beginning to its end.
//!
//! The controller opens it with [`Hello`] and then sends [`Order`]s; the agent answers with [`Event`]s. First comes what it
//! has: one [`Event::Report`] for each attempt that it was not told to release, taken when all orders of earlier streams
//! were obeyed, and then [`Event::Ready`]. After that a report comes whenever something changed.
//!
//! Every message may be repeated: an order that was obeyed before is obeyed by saying again how the attempt stands, and a
//! report that is known changes nothing. What a lost session swallowed comes again in the next one.

use serde::{Deserialize, Serialize};

use crate::{
    bundle::Ticket,
    job::{Cancel, Hidden, JobId, LogPlace, Loss, Outcome, Returned, Spec, Stored, StreamEnd},
};

/// What the stream is opened with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// How far the controller has read its journal.
    pub mark: Mark,
    /// The operator took an older journal on purpose: the agent forgets the mark that it has.
    pub accept_rollback: bool,
}

/// A place in the controller's journal. Agents keep the highest that they were shown, so that a journal that was rolled
/// back is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The epoch of the claim that won last.
    pub epoch: u32,
    /// The offset of the last record that counts.
    pub offset: i64,
    /// The hash over all records that count.
    pub head: [u8; 32],
}

/// Controller to agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start an attempt, unless it was started before.
    Start {
        /// The job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// What is run.
        spec: Box<Spec>,
        /// Where its output goes.
        log: LogTicket,
        /// Where the bundles lie that it uses.
        bundles: Vec<Ticket>,
    },
    /// End an attempt.
    Cancel {
        /// The job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// How.
        cancel: Cancel,
    },
    /// An attempt's end is in the journal: what the agent keeps of it may go, once its output was shipped.
    Release {
        /// The job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
    },
    /// How far the controller has read its journal now.
    Mark(Mark),
}

/// What an agent needs to ship an attempt's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTicket {
    /// The partition of the logs' topic.
    pub partition: u32,
    /// The attempt's key.
    pub key: Hidden<[u8; 32]>,
}

/// Agent to controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// How an attempt stands.
    Report {
        /// The job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// How it stands.
        report: Report,
    },
    /// All that the agent has was reported, and it takes orders. Comes once.
    Ready {
        /// How many jobs it takes at once.
        slots: u32,
        /// Whether it takes no new ones.
        draining: bool,
    },
    /// Whether it takes no new jobs from now on.
    Draining(bool),
    /// What stands in an attempt's way now, or nothing any more. Said when it changes, and of those that are not well
    /// after [`Event::Ready`].
    Trouble {
        /// The job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// What, in words for people: which disk is full, why output is not shipped.
        trouble: Option<String>,
    },
    /// The agent was shown a later place of the journal than [`Hello`] has, and takes no orders. The last event.
    RolledBack(Mark),
}

/// What an agent says about an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// It has claimed the attempt and not started it yet.
    Claimed,
    /// The process runs.
    Started {
        /// Milliseconds since 1970 on its clock.
        agent_ms: u64,
        /// The process's id.
        pid: u32,
        /// The host's boot id.
        boot: u128,
    },
    /// The attempt ended.
    Ended {
        /// Milliseconds since 1970 on its clock.
        agent_ms: u64,
        /// How.
        outcome: Outcome,
        /// What was written to stdout.
        stdout: StreamEnd,
        /// What was written to stderr.
        stderr: StreamEnd,
    },
    /// It can't tell how the attempt ended.
    Lost(Loss),
    /// It has not started the attempt and won't.
    Returned(Returned),
    /// Output lies here. Said in between; no part of an inventory.
    Logged(LogPlace),
    /// The attempt's artifacts are in the topic. Said before its end, and again in each inventory in front of that.
    Stored(Stored),
    /// Artifacts were wanted, and there are none: why, in words for people. The same.
    NotStored(String),
}
