//! What people ask about jobs: checked by the scheduler, true when it was read back.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::request;
use crate::{
    api::{
        Agent, ApiError, Code,
        jobs::{AskedBy, CancelJob, JobInfo, JobList, JobQuery, SetDeadline, SubmitJob},
    },
    clock,
    controller::{
        Handle,
        access::Caller,
        event::Event,
        handle::Phase,
        scheduler::{self, Now, Refusal, Scheduler},
    },
    id::AgentName,
    job::{Cancel, Hidden, Job, JobId, JobPrefix, LookupError},
    secret,
};

/// How many jobs a list has, unless told otherwise.
const LISTED: usize = 100;
/// How many at most.
const MAX_LISTED: usize = 10_000;
/// The longest time that somebody may wait for a job in one request.
const MAX_WAIT: Duration = Duration::from_secs(50);

impl Handle {
    /// Submits a job. It is in the journal when this returns. One whose id there is already is not made twice.
    pub async fn submit_job(&self, request: SubmitJob) -> Result<JobInfo, ApiError> {
        if *self.shared().phase.borrow() != Phase::Serving {
            return Err(ApiError::new(Code::Busy, "the controller stops and takes no new jobs; try again"));
        }
        let id = request.id.unwrap_or_else(new_id);
        if let Ok(there) = self.job_info(id) {
            return Ok(there);
        }
        let bundles = self.used(&request.bundles)?;
        let (spec, key) = (request::spec(request, bundles)?, Hidden::new(secret::random()));
        self.decide(|scheduler, now| scheduler.submit(now, id, spec, key, None)).await?;
        tracing::info!(job = %id, "submitted");
        self.job_info(id)
    }

    /// Makes a request one that `caller` may make: on agents that it may work with, in its own name.
    pub(in crate::controller) fn limit_job(&self, caller: &Caller, request: &mut SubmitJob) -> Result<(), ApiError> {
        request.submitter = caller.signs(std::mem::take(&mut request.submitter));
        if let Some(id) = request.id
            && self.job_info(id).is_ok()
        {
            // Answered with the job that there is.
            self.job_for(caller, &id.to_string())?;
        }
        if let Some(agent) = &request.agent {
            return self.check_agent(caller, agent);
        }
        let Some(scope) = caller.scope() else { return Ok(()) };
        if !scope.agents.is_empty() {
            caller.check_unlimited("name the agent (`--agent NAME`)")?;
        }
        // The selector of the token comes on top: who meets both is in its scope.
        let both = [request.selector.trim(), &scope.selector.to_string()];
        request.selector = both.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(",");
        Ok(())
    }

    /// Whether `caller` may know of a job: its own, or one of an agent that it may work with.
    fn may_see(&self, caller: &Caller, job: &Job) -> bool {
        let agent = job.attempts().get(&job.attempt()).map(|attempt| &attempt.agent);
        caller.scope().is_none()
            || job.spec().submitter == caller.name()
            || agent.is_some_and(|agent| self.check_agent(caller, agent).is_ok())
    }

    /// The job whose id begins with `prefix`, if `caller` may know of it.
    pub(in crate::controller) fn job_for(&self, caller: &Caller, prefix: &str) -> Result<JobInfo, ApiError> {
        let id = self.job_id(prefix)?;
        let seen =
            self.shared().jobs.ask(|scheduler, _| scheduler.job(id).is_some_and(|job| self.may_see(caller, job)));
        match seen {
            true => self.job_info(id),
            false => Err(ApiError::new(
                Code::Forbidden,
                format!("job {id} is not one of {}, nor on an agent that its token is for", caller.name()),
            )),
        }
    }

    /// The jobs that are asked for, the newest first.
    pub fn jobs(&self, query: &JobQuery) -> Result<JobList, ApiError> {
        self.jobs_for(&Caller::Root, query)
    }

    /// The same for `caller`.
    pub(in crate::controller) fn jobs_for(&self, caller: &Caller, query: &JobQuery) -> Result<JobList, ApiError> {
        let states: Vec<&str> = query.state.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let known = ["live", "queued", "assigned", "running", "succeeded", "failed", "signalled", "cancelled"];
        if let Some(odd) = states.iter().find(|word| !known.contains(word) && !["timed_out", "lost"].contains(word)) {
            let known = known.join(", ");
            let message = format!("there is no state {odd:?}; the states are {known}, timed_out and lost");
            return Err(ApiError::new(Code::Invalid, message));
        }
        let limit = query.limit.unwrap_or(LISTED).min(MAX_LISTED);
        let jobs = self.shared().jobs.lock();
        let wanted = jobs.scheduler.jobs().rev().filter(|(_, job)| {
            let state = job.state();
            let fits = states.is_empty()
                || states.iter().any(|word| *word == state.as_str() || *word == "live" && !state.is_terminal());
            let latest = job.attempts().get(&job.attempt());
            fits && self.may_see(caller, job)
                && query.agent.as_ref().is_none_or(|agent| latest.is_some_and(|attempt| attempt.agent == *agent))
        });
        let mut list = JobList::default();
        for (number, (id, _)) in wanted.enumerate() {
            if number < limit { list.jobs.extend(jobs.info(id)) } else { list.more += 1 }
        }
        Ok(list)
    }

    /// The job whose id begins with `prefix`.
    pub fn job(&self, prefix: &str) -> Result<JobInfo, ApiError> {
        self.job_info(self.job_id(prefix)?)
    }

    /// The job, when it has ended, or as it is after `patience`, which is 50 s at most.
    pub async fn wait_for_job(&self, prefix: &str, patience: Duration) -> Result<JobInfo, ApiError> {
        let id = self.job_id(prefix)?;
        let until = Instant::now() + patience.min(MAX_WAIT);
        let mut watch = self.shared().jobs.watch(id);
        loop {
            let info = self.job_info(id)?;
            if info.has_ended() || timeout_at(until, watch.changed()).await.is_err() {
                return Ok(info);
            }
        }
    }

    /// Asks for a job's end; of one that has ended, nothing.
    pub async fn cancel_job(&self, prefix: &str, request: &CancelJob) -> Result<JobInfo, ApiError> {
        let id = self.job_id(prefix)?;
        let (signal, grace) = (request.signal, request.grace_ms);
        let there = self.job_info(id)?;
        if there.has_ended() {
            return Ok(there);
        }
        self.decide(|scheduler, now| {
            let usual = scheduler.job(id).map(|job| job.spec().cancel).unwrap_or_default();
            let cancel: Option<Cancel> = request::cancel(signal, grace, usual);
            scheduler.cancel(now, id, &request.by, cancel)
        })
        .await?;
        self.job_info(id)
    }

    /// Submits an ended job once more, as a new one.
    pub async fn retry_job(&self, prefix: &str, _: &AskedBy) -> Result<JobInfo, ApiError> {
        let old = self.job_id(prefix)?;
        let (id, key) = (new_id(), Hidden::new(secret::random()));
        self.decide(|scheduler, now| scheduler.retry(now, old, id, key)).await?;
        self.job_info(id)
    }

    /// Says how long a job's agent may be unreachable.
    pub async fn set_job_deadline(&self, prefix: &str, request: &SetDeadline) -> Result<JobInfo, ApiError> {
        let id = self.job_id(prefix)?;
        let after = request.after_ms.map(Duration::from_millis);
        self.decide(|scheduler, now| scheduler.set_deadline(now, id, &request.by, after)).await?;
        self.job_info(id)
    }

    /// Gives an agent no new jobs.
    pub async fn drain_agent(&self, name: &AgentName, by: &AskedBy) -> Result<Agent, ApiError> {
        self.decide(|scheduler, _| scheduler.drain(name, &by.by)).await?;
        self.agent(name)
    }

    /// Gives an agent jobs again.
    pub async fn resume_agent(&self, name: &AgentName, _: &AskedBy) -> Result<Agent, ApiError> {
        self.decide(|scheduler, _| scheduler.resume(name)).await?;
        self.agent(name)
    }

    /// The id that begins with `prefix`.
    pub(in crate::controller) fn job_id(&self, prefix: &str) -> Result<JobId, ApiError> {
        let prefix: JobPrefix = prefix.parse().map_err(|e| ApiError::new(Code::Invalid, format!("{e}")))?;
        self.shared().jobs.ask(|scheduler, _| scheduler.lookup(&prefix)).map_err(|error| {
            let code = match error {
                LookupError::Unknown(_) => Code::NotFound,
                LookupError::Ambiguous { .. } => Code::Invalid,
            };
            ApiError::new(code, error.to_string())
        })
    }

    /// The job as it is now.
    pub(in crate::controller) fn job_info(&self, id: JobId) -> Result<JobInfo, ApiError> {
        self.shared().jobs.lock().info(id).ok_or_else(|| Refusal::UnknownJob(id).into())
    }

    async fn decide(
        &self,
        decision: impl FnOnce(&Scheduler, Now) -> Result<scheduler::Event, Refusal>,
    ) -> Result<(), ApiError> {
        let event = self.shared().jobs.ask(decision)?;
        self.shared().store.commit(Event::Scheduler(event)).await
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::Invalid(_) | Refusal::Ended(..) | Refusal::NotEnded(..) | Refusal::Trimmed(_) => Code::Invalid,
            Refusal::UnknownAgent(_) => Code::UnknownAgent,
            Refusal::UnknownJob(_) => Code::NotFound,
            Refusal::Full(_) => Code::Busy,
        };
        Self::new(code, refusal.to_string())
    }
}

fn new_id() -> JobId {
    JobId::new(clock::unix_ms(), u64::from_ne_bytes(secret::random()))
}
