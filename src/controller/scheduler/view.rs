//! What people are told about a job beside its state.

use super::Scheduler;
use crate::{
    id::AgentName,
    job::{JobId, State},
};

/// What is true of a job now and may be otherwise in a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Its agent can't be reached: nobody knows how it is, and it may well be running.
    pub unreachable: bool,
    /// Why it waits, if it is queued.
    pub waiting: Option<Waiting>,
}

/// Why a job waits: the first that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// It is about to be given to this agent.
    Placing(AgentName),
    /// This job has the same concurrency key.
    Concurrency(JobId),
    /// No agent fits its target.
    NoAgent,
    /// No agent that fits can be reached.
    Unreachable,
    /// Those that can be reached take no new jobs.
    Drained,
    /// Those that take jobs have no slot free, or others go first.
    Slots,
}

/// What people are told about an agent as one who gets jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentView {
    /// It gets no new jobs, because an operator or itself wants that.
    pub drained: bool,
    /// How many it takes at once; 0 until it said so.
    pub slots: u32,
    /// How many it has.
    pub jobs: usize,
}

impl Scheduler {
    /// How the agent stands.
    pub fn agent_view(&self, name: &AgentName) -> Option<AgentView> {
        let agent = self.agents.get(name)?;
        let jobs = agent.jobs.len() + agent.strays.len();
        Some(AgentView { drained: agent.drained || agent.draining, slots: agent.slots, jobs })
    }

    /// What is true of the job now. Looks at the agents that fit it.
    pub fn view(&self, id: JobId) -> Option<View> {
        let job = self.jobs.job(id)?;
        let unreachable = job.holder().is_some_and(|(name, _)| !self.is_reachable(name));
        let waiting = (job.state() == State::Queued).then(|| self.waiting(id));
        Some(View { unreachable, waiting })
    }

    fn waiting(&self, id: JobId) -> Waiting {
        if let Some((_, agent)) = self.on_the_way.assignments.get(&id) {
            return Waiting::Placing(agent.clone());
        }
        let Some(place) = self.queue.place(id) else { return Waiting::NoAgent };
        if let Some(holder) = place.key.as_ref().and_then(|key| self.queue.holder(key)) {
            return Waiting::Concurrency(holder);
        }
        let mut why = Waiting::NoAgent;
        for name in self.lanes.fit(place.lane) {
            let Some(agent) = self.agents.get(name) else { continue };
            if !self.is_reachable(name) {
                if why == Waiting::NoAgent {
                    why = Waiting::Unreachable;
                }
            } else if agent.drained || agent.draining {
                why = Waiting::Drained;
            } else {
                return Waiting::Slots;
            }
        }
        why
    }

    fn is_reachable(&self, name: &AgentName) -> bool {
        self.agents.get(name).is_some_and(|agent| {
            agent.is_present() && agent.partition.is_some_and(|partition| self.deadlines.is_working(partition))
        })
    }
}
