//! What an event of the journal tells. It is looked at before it is folded and after: one that changes nothing tells
//! nothing.

use super::{Happening, event::Turn};
use crate::{
    controller::{event::Event, folded::Folded, scheduler},
    id::AgentName,
    job::{self, CancelRequest, JobId, State},
};

/// What an event tells, as far as it is known before it is folded.
pub enum Glance {
    /// Nothing.
    Nothing,
    /// This.
    Told(Happening),
    /// It depends on what becomes of the job.
    Job(Before),
}

/// How a job was.
pub struct Before {
    id: JobId,
    state: Option<State>,
    cancel: Option<CancelRequest>,
    turn: Turn,
}

impl Glance {
    /// Looks at an event that is about to be folded.
    pub fn before(folded: &Folded, event: &Event) -> Self {
        let told = match event {
            Event::AgentAdded { name, labels, .. } => {
                (!contains(folded, name)).then(|| Happening::added(name, labels, None))
            }
            Event::TokenUsed { token, .. } => folded.directory.ask(|registry| {
                registry.admits(event).map(|(name, labels)| Happening::added(name, labels, Some(*token)))
            }),
            Event::AgentRemoved { name } => contains(folded, name).then(|| Happening::agent("removed", name)),
            Event::AgentRotated { name, .. } => contains(folded, name).then(|| Happening::agent("rotated", name)),
            Event::AgentRevoked { name } => {
                let has_effect = folded.directory.ask(|registry| registry.contains(name) && !registry.is_revoked(name));
                has_effect.then(|| Happening::agent("revoked", name))
            }
            Event::Scheduler(event) => return Self::of_scheduler(folded, event),
            // Who asks the API is told by what is asked for.
            Event::AgentSecretRetired { .. }
            | Event::TokenCreated { .. }
            | Event::TokenRevoked { .. }
            | Event::AgentEnrolled { .. }
            | Event::Access(_)
            | Event::Bundle(_)
            | Event::AgentPlaced { .. } => None,
        };
        told.map_or(Self::Nothing, Self::Told)
    }

    /// What it told, now that it was folded.
    pub fn after(self, folded: &Folded) -> Option<Happening> {
        let Before { id, state, cancel, turn } = match self {
            Self::Nothing => return None,
            Self::Told(happening) => return Some(happening),
            Self::Job(before) => before,
        };
        folded.jobs.ask(|scheduler, _| {
            let job = scheduler.job(id)?;
            if state != Some(job.state()) {
                return Some(Happening::moved(id, job, turn));
            }
            (cancel.as_ref() != job.cancel()).then(|| Happening::cancelling(id, job, turn))
        })
    }

    fn of_scheduler(folded: &Folded, event: &scheduler::Event) -> Self {
        let drained = |name: &AgentName| {
            let view = |scheduler: &scheduler::Scheduler| scheduler.agent_view(name).map(|view| view.drained);
            folded.jobs.ask(|scheduler, _| view(scheduler))
        };
        let told = match event {
            scheduler::Event::Job { id, event } => return Self::of_job(folded, *id, event),
            scheduler::Event::AgentDrained { name, by } => {
                (drained(name) == Some(false)).then(|| Happening::drained(name, by))
            }
            scheduler::Event::AgentResumed { name } => {
                (drained(name) == Some(true)).then(|| Happening::agent("resumed", name))
            }
            scheduler::Event::Forgotten { .. }
            | scheduler::Event::Restored { .. }
            | scheduler::Event::ArtifactsForgotten { .. } => None,
        };
        told.map_or(Self::Nothing, Self::Told)
    }

    fn of_job(folded: &Folded, id: JobId, event: &job::Event) -> Self {
        use job::Event;
        let (at_ms, reason) = match event {
            Event::Retried { at_ms, reason, .. } => (*at_ms, Some(reason.to_string())),
            Event::Returned { at_ms, reason, .. } => (*at_ms, Some(reason.to_string())),
            Event::Submitted { at_ms, .. }
            | Event::Assigned { at_ms, .. }
            | Event::Started { at_ms, .. }
            | Event::Ended { at_ms, .. }
            | Event::Lost { at_ms, .. }
            | Event::CancelRequested { at_ms, .. } => (*at_ms, None),
            Event::DeadlineSet { .. } | Event::Logged { .. } | Event::Artifacts { .. } => return Self::Nothing,
        };
        let before = folded.jobs.ask(|scheduler, _| {
            let job = scheduler.job(id);
            let agent = job.and_then(|job| job.holder()).map(|(agent, _)| agent.clone());
            Before {
                id,
                state: job.map(job::Job::state),
                cancel: job.and_then(|job| job.cancel()).cloned(),
                turn: Turn { at_ms, reason, agent },
            }
        });
        Self::Job(before)
    }
}

fn contains(folded: &Folded, name: &AgentName) -> bool {
    folded.directory.ask(|registry| registry.contains(name))
}
