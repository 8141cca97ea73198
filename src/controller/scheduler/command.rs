//! What people ask for: checked here, true once the event was read back.

use std::time::Duration;

use super::{Event, Now, Scheduler};
use crate::{
    id::AgentName,
    job::{self, Cancel, Hidden, InvalidSpec, Job, JobId, Spec, State, Target, check_word},
};

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The job, or another argument, asks for what is not allowed.
    #[error(transparent)]
    Invalid(#[from] InvalidSpec),
    /// There is no such agent.
    #[error("there is no agent {0}; `rk agents ls` lists them")]
    UnknownAgent(AgentName),
    /// There is no such job.
    #[error("there is no job {0}; `rk jobs ls` lists them")]
    UnknownJob(JobId),
    /// The job has ended.
    #[error("job {0} has ended already: {1}")]
    Ended(JobId, State),
    /// The job has not ended.
    #[error("job {0} has not ended: it is {1}; `rk jobs cancel` it first")]
    NotEnded(JobId, State),
    /// Too much of the job was forgotten.
    #[error("too much of job {0} was forgotten to repeat it; submit it anew")]
    Trimmed(JobId),
    /// Too many jobs.
    #[error("{0}; try again when some have ended")]
    Full(String),
}

impl Scheduler {
    /// Somebody submits a job. To be sure that it is submitted once, submit it again with the same `id` and `log_key`.
    pub fn submit(
        &self,
        now: Now,
        id: JobId,
        spec: Spec,
        log_key: Hidden<[u8; 32]>,
        retry_of: Option<JobId>,
    ) -> Result<Event, Refusal> {
        spec.check()?;
        if let Target::Agent(name) = &spec.target
            && !self.agents.contains_key(name)
        {
            return Err(Refusal::UnknownAgent(name.clone()));
        }
        self.check_room(&spec)?;
        let event = job::Event::Submitted { at_ms: now.unix_ms, spec: Box::new(spec), log_key, retry_of };
        Ok(Event::Job { id, event })
    }

    /// Somebody wants an ended job once more, as the job `id`.
    pub fn retry(&self, now: Now, old: JobId, id: JobId, log_key: Hidden<[u8; 32]>) -> Result<Event, Refusal> {
        let job = self.jobs.job(old).ok_or(Refusal::UnknownJob(old))?;
        if !job.state().is_terminal() {
            return Err(Refusal::NotEnded(old, job.state()));
        }
        if job.is_trimmed() {
            return Err(Refusal::Trimmed(old));
        }
        self.submit(now, id, job.spec().clone(), log_key, Some(old))
    }

    /// `by` wants the job to end, in the way that its spec says or in this one.
    pub fn cancel(&self, now: Now, id: JobId, by: &str, cancel: Option<Cancel>) -> Result<Event, Refusal> {
        self.live(id)?;
        check_word("who cancels", by)?;
        cancel.iter().try_for_each(Cancel::check)?;
        let event = job::Event::CancelRequested { at_ms: now.unix_ms, by: by.to_owned(), cancel };
        Ok(Event::Job { id, event })
    }

    /// The operator `by` says how long the job's agent may be unreachable; for ever if none. It counts from when the agent
    /// became unreachable, or this controller took over.
    pub fn set_deadline(&self, now: Now, id: JobId, by: &str, deadline: Option<Duration>) -> Result<Event, Refusal> {
        self.live(id)?;
        check_word("who sets the deadline", by)?;
        let event = job::Event::DeadlineSet { at_ms: now.unix_ms, by: by.to_owned(), deadline };
        Ok(Event::Job { id, event })
    }

    /// `by` wants the agent to get no new jobs.
    pub fn drain(&self, name: &AgentName, by: &str) -> Result<Event, Refusal> {
        check_word("who drains", by)?;
        self.known(name)?;
        Ok(Event::AgentDrained { name: name.clone(), by: by.to_owned() })
    }

    /// The agent is to get jobs again.
    pub fn resume(&self, name: &AgentName) -> Result<Event, Refusal> {
        self.known(name)?;
        Ok(Event::AgentResumed { name: name.clone() })
    }

    fn live(&self, id: JobId) -> Result<&Job, Refusal> {
        let job = self.jobs.job(id).ok_or(Refusal::UnknownJob(id))?;
        if job.state().is_terminal() { Err(Refusal::Ended(id, job.state())) } else { Ok(job) }
    }

    fn known(&self, name: &AgentName) -> Result<(), Refusal> {
        if self.agents.contains_key(name) { Ok(()) } else { Err(Refusal::UnknownAgent(name.clone())) }
    }

    fn check_room(&self, spec: &Spec) -> Result<(), Refusal> {
        let (counts, config) = (self.jobs.counts(), &self.config);
        if counts.queued >= config.queued {
            return Err(Refusal::Full(format!("{} jobs wait already", counts.queued)));
        }
        if self.jobs.live_weight() + spec.weight() > config.live_weight {
            return Err(Refusal::Full(format!("the waiting jobs have {} bytes already", self.jobs.live_weight())));
        }
        if !self.lanes.has_jobs(&spec.target) && self.lanes.busy() >= config.targets {
            return Err(Refusal::Full(format!("jobs wait for {} different targets already", self.lanes.busy())));
        }
        Ok(())
    }
}
