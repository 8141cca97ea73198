//! What can go wrong with the journal: whose fault, what to do.

use crate::kafka;

/// An error of the journal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Kafka's.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The journal is not the one that the witness has seen, or an older state of it.
    #[error(
        "journal {topic} was rolled back: {detail}; restore the topic, or start once with --accept-rollback if what \
         is missing may be forgotten"
    )]
    RolledBack {
        /// The topic.
        topic: String,
        /// What does not fit.
        detail: String,
    },
    /// The log's beginning is gone, and what is left does not begin with a whole snapshot.
    #[error(
        "the records of journal {topic} below offset {start} are gone, and no whole snapshot stands there; only the \
         controller deletes from this topic (retention.ms=-1, retention.bytes=-1, cleanup.policy=delete): restore it, \
         or delete it and start once with --accept-rollback"
    )]
    Truncated {
        /// The topic.
        topic: String,
        /// The first offset that is left.
        start: i64,
    },
    /// The topic was deleted and created anew while this journal was open.
    #[error("journal {topic} was deleted and created anew while this controller ran")]
    Recreated {
        /// The topic.
        topic: String,
    },
    /// The topic has several partitions, which have no common order.
    #[error(
        "journal {topic} has {partitions} partitions and must have 1; delete it, and it is created as it should be"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: i32,
    },
    /// A valid record is of a newer version.
    #[error("journal {topic} holds records of a newer version (at offset {offset}: {detail}); install that version")]
    Newer {
        /// The topic.
        topic: String,
        /// Where.
        offset: i64,
        /// What is unknown.
        detail: String,
    },
    /// Another controller has claimed the journal since: nothing that was not read back before counts.
    #[error("superseded: another controller took over with epoch {by}")]
    Superseded {
        /// The winning claim's epoch.
        by: u32,
    },
    /// Nobody has claimed with this handle.
    #[error("the journal is not claimed by this controller; only the leader writes to it")]
    NotLeader,
    /// A record that was given up landed after all, or a copy of this process writes under the same name.
    #[error("the journal goes on differently from what this controller wrote in epoch {epoch}; claim it again")]
    Diverged {
        /// The epoch that is lost.
        epoch: u32,
    },
    /// The payload does not fit into a record.
    #[error("an event of {bytes} bytes is above the journal's limit of {limit}")]
    TooLarge {
        /// How large.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// A snapshot was not finished.
    #[error("the snapshot is torn: another was begun, or too much else was written meanwhile; it counts for nothing")]
    Torn,
    /// No epoch is left.
    #[error("epoch {} is used up; delete the journal and start once with --accept-rollback", u32::MAX)]
    EpochsExhausted,
    /// The journal was closed: its receiver was dropped.
    #[error("the journal is closed")]
    Closed,
}

impl Error {
    /// Whether the cluster may just be away.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Kafka(error) if error.is_outage())
    }
}
