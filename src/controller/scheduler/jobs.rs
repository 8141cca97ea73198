//! All jobs that are not forgotten, and how much room they take.

use std::collections::{BTreeMap, BTreeSet};

use super::artifacts::Shelf;
use crate::{
    id::AgentName,
    job::{self, Change, Job, JobId, JobPrefix, LookupError, Refused, State, lookup},
};

/// The table of jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    all: BTreeMap<JobId, Job>,
    /// Those that ended, by when.
    ended: BTreeSet<(u64, JobId)>,
    /// Those of them that were not trimmed, with their weight.
    whole: BTreeMap<(u64, JobId), usize>,
    whole_weight: usize,
    live_weight: usize,
    counts: Counts,
    keep_weight: usize,
    shelf: Shelf,
}

/// How many jobs are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting for an agent.
    pub queued: usize,
    /// With an agent that has not said that it runs.
    pub assigned: usize,
    /// Running.
    pub running: usize,
    /// Ended and not forgotten.
    pub ended: usize,
}

/// Where a job is, for the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// There is no such job.
    None,
    /// It waits.
    Queued,
    /// It is with an agent, for this attempt.
    Placed(AgentName, u32),
    /// It ended.
    Done,
}

impl Jobs {
    /// No jobs. Of those that ended whole specs are kept up to `keep_weight` bytes, of older ones what is shown; of those
    /// that are called the same `keep_artifacts` keep their artifacts.
    pub fn new(keep_weight: usize, keep_artifacts: usize) -> Self {
        Self { keep_weight, shelf: Shelf::new(keep_artifacts), ..Self::default() }
    }

    /// Applies an event of the journal.
    pub fn apply(&mut self, id: JobId, event: &job::Event) -> Result<Change, Refused> {
        let Some(job) = self.all.get_mut(&id) else {
            self.insert(id, Job::open(event)?);
            return Ok(Change::Moved);
        };
        let before = job.state();
        let change = job.apply(event)?;
        let after = job.state();
        if let (job::Event::Artifacts { .. }, Change::Noted) = (event, change) {
            self.shelf.put(id, job);
        }
        if change == Change::Moved {
            *self.counts.of(before) -= 1;
            *self.counts.of(after) += 1;
            if after.is_terminal() {
                self.live_weight -= self.all[&id].spec().weight();
                self.enter_ended(id);
            }
        }
        Ok(change)
    }

    /// Takes a job of a snapshot. False if there is one.
    pub fn restore(&mut self, id: JobId, job: Job) -> bool {
        let is_new = !self.all.contains_key(&id);
        if is_new {
            self.insert(id, job);
        }
        is_new
    }

    /// Forgets a job that ended. Without effect on others.
    pub fn forget(&mut self, id: JobId) {
        let Some(ended) = self.all.get(&id).filter(|job| job.state().is_terminal()).and_then(Job::ended_ms) else {
            return;
        };
        self.all.remove(&id);
        self.shelf.take(id);
        self.ended.remove(&(ended, id));
        self.whole_weight -= self.whole.remove(&(ended, id)).unwrap_or(0);
        self.counts.ended -= 1;
    }

    /// The job's artifacts are not kept any longer.
    pub fn forget_artifacts(&mut self, id: JobId, at_ms: u64) {
        if self.all.get_mut(&id).is_some_and(|job| job.forget_artifacts(at_ms)) {
            self.shelf.take(id);
        }
    }

    /// Which jobs have artifacts.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// The job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.all.get(&id)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (JobId, &Job)> {
        self.all.iter().map(|(id, job)| (*id, job))
    }

    /// The job whose id starts with `prefix`.
    pub fn lookup(&self, prefix: &JobPrefix) -> Result<JobId, LookupError> {
        lookup(&self.all, prefix)
    }

    /// Where the job is.
    pub fn phase(&self, id: JobId) -> Phase {
        match self.all.get(&id) {
            None => Phase::None,
            Some(job) => match job.holder() {
                Some((agent, attempt)) => Phase::Placed(agent.clone(), attempt),
                None if job.state() == State::Queued => Phase::Queued,
                None => Phase::Done,
            },
        }
    }

    /// How many are in which state.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The bytes of jobs that have not ended.
    pub fn live_weight(&self) -> usize {
        self.live_weight
    }

    /// Those that ended, the longest ago first, with when they did in milliseconds since 1970.
    pub fn ended(&self) -> impl Iterator<Item = (u64, JobId)> + '_ {
        self.ended.iter().copied()
    }

    fn insert(&mut self, id: JobId, job: Job) {
        let state = job.state();
        let weight = job.spec().weight();
        self.shelf.put(id, &job);
        self.all.insert(id, job);
        *self.counts.of(state) += 1;
        if state.is_terminal() { self.enter_ended(id) } else { self.live_weight += weight }
    }

    /// Trims the jobs that ended first until the others fit. What is kept depends on the events alone.
    fn enter_ended(&mut self, id: JobId) {
        let job = &self.all[&id];
        let ended = job.ended_ms().expect("it has ended");
        self.ended.insert((ended, id));
        if job.is_trimmed() {
            return;
        }
        let weight = job.spec().weight();
        self.whole.insert((ended, id), weight);
        self.whole_weight += weight;
        while self.whole_weight > self.keep_weight {
            let Some(((_, id), weight)) = self.whole.pop_first() else { break };
            self.whole_weight -= weight;
            self.all.get_mut(&id).expect("what is whole is there").trim();
        }
    }
}

impl Counts {
    fn of(&mut self, state: State) -> &mut usize {
        match state {
            State::Queued => &mut self.queued,
            State::Assigned => &mut self.assigned,
            State::Running => &mut self.running,
            _ => &mut self.ended,
        }
    }
}
