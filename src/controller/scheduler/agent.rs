//! An agent as the scheduler sees it.

use std::{collections::BTreeSet, time::Duration};

use crate::{api::AgentState, job::JobId};

/// An agent.
#[derive(Debug)]
pub struct Agent {
    /// How many jobs it takes at once.
    pub slots: u32,
    /// Its control lane's partition, once that is known.
    pub partition: Option<u32>,
    /// What the registry says.
    pub state: AgentState,
    /// Whether it has a session in which it said what it has.
    pub session: bool,
    /// Whether it was heard since Kafka works on its partition.
    pub heard: bool,
    /// An operator wants it to get nothing.
    pub drained: bool,
    /// It wants to get nothing itself.
    pub draining: bool,
    /// Until when it gets nothing because it gave something back.
    pub paused: Option<Duration>,
    /// Jobs that it has, or will have once that was read back.
    pub jobs: BTreeSet<JobId>,
    /// Attempts that it has and nobody wants any more: they take slots until they ended. Bounded by its inventory.
    pub strays: BTreeSet<(JobId, u32)>,
    /// What its partition's clock showed when it became unreachable; none while it is not.
    pub gone: Option<Duration>,
}

impl Agent {
    /// One that was never seen.
    pub fn new() -> Self {
        Self {
            slots: 0,
            partition: None,
            state: AgentState::Offline,
            session: false,
            heard: false,
            drained: false,
            draining: false,
            paused: None,
            jobs: BTreeSet::new(),
            strays: BTreeSet::new(),
            gone: Some(Duration::ZERO),
        }
    }

    /// How many more jobs it takes, on a partition that `works` or not.
    pub fn free(&self, works: bool) -> u32 {
        let eligible = works && self.is_present() && self.heard && self.state == AgentState::Online;
        if !eligible || self.drained || self.draining || self.paused.is_some() {
            return 0;
        }
        let used = self.jobs.len() + self.strays.len();
        self.slots.saturating_sub(used.try_into().unwrap_or(u32::MAX))
    }

    /// Whether it has a session and is heard in it.
    pub fn is_present(&self) -> bool {
        self.session && self.state != AgentState::Offline
    }
}
