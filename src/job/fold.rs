//! The fold of a job's events.
//!
//! ```text
//! Job::open(Submitted)            there is a job, queued
//! job.apply(event) -> Change      it moved, something was noted, or nothing (repeated, late)
//!                  -> Refused     the event can't be true: nothing changed
//! ```
//!
//! Which event does what in which state is the table in `tests.rs`. What holds throughout:
//! - a terminal state is never left;
//! - events of attempts before the current one change nothing, those of attempts that never were are refused;
//! - the first end of an attempt counts, and a later one that says something else is refused if both are known ends.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Artifacts, Attempt, AttemptEnd, Cancel, Event, Hidden, JobId, Left, LogPlace, Loss, Returned, Spec, Started, State,
};
use crate::id::AgentName;

/// A job, as its events made it. Its bytes are part of snapshots and follow the rule of [`Event`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    submitted_ms: u64,
    spec: Box<Spec>,
    log_key: Hidden<[u8; 32]>,
    retry_of: Option<JobId>,
    state: State,
    /// The number of the latest attempt; 0 before the first.
    attempt: u32,
    /// How many attempts were lost and repeated; never more than the spec allows.
    retried: u8,
    /// Those that ran or may have run: at most one more than retries are allowed.
    attempts: BTreeMap<u32, Attempt>,
    cancel: Option<CancelRequest>,
    deadline: Option<Deadline>,
    ended_ms: Option<u64>,
    trimmed: bool,
}

/// Somebody asked for the job's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub by: String,
    /// How.
    pub cancel: Cancel,
}

/// An operator said how long the job's agent may be unreachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Who.
    pub by: String,
    /// How long; for ever if none.
    pub deadline: Option<Duration>,
}

/// What an event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The state is another one.
    Moved,
    /// Something was noted; the state is the same.
    Noted,
    /// Nothing: the event is a repetition, or came too late.
    Nothing,
}

/// The event can't be true: who wrote it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No `Submitted` came before.
    #[error("there is no such job")]
    Unknown,
    /// Another job has this id.
    #[error("another job has this id; draw a new one")]
    Exists,
    /// The attempt was never assigned.
    #[error("attempt {attempt} never was, the latest is {latest}")]
    NoAttempt {
        /// What the event speaks of.
        attempt: u32,
        /// What there is.
        latest: u32,
    },
    /// The job is with an agent already.
    #[error("the job is with agent {0} already")]
    Taken(AgentName),
    /// Another process was reported before: the attempt was started twice.
    #[error("attempt {0} runs already as another process")]
    StartedTwice(u32),
    /// It is known to have run, so it can't be returned unstarted.
    #[error("attempt {0} was started, so nobody can say that it was not")]
    DidRun(u32),
    /// Another end of the same attempt was reported before.
    #[error("attempt {0} ended already in another way")]
    EndedTwice(u32),
    /// The spec allows no more retries.
    #[error("the job allows {0} retries and has had them")]
    NoRetries(u8),
}

type Applied = Result<Change, Refused>;

impl Job {
    /// The job that a `Submitted` event begins.
    pub fn open(event: &Event) -> Result<Self, Refused> {
        let Event::Submitted { at_ms, spec, log_key, retry_of } = event else { return Err(Refused::Unknown) };
        Ok(Self {
            submitted_ms: *at_ms,
            spec: spec.clone(),
            log_key: log_key.clone(),
            retry_of: *retry_of,
            state: State::Queued,
            attempt: 0,
            retried: 0,
            attempts: BTreeMap::new(),
            cancel: None,
            deadline: None,
            ended_ms: None,
            trimmed: false,
        })
    }

    /// Applies the next event.
    pub fn apply(&mut self, event: &Event) -> Applied {
        match event {
            Event::Submitted { log_key, .. } => {
                // The key is random: whoever has it wrote the same event.
                if *log_key == self.log_key { Ok(Change::Nothing) } else { Err(Refused::Exists) }
            }
            Event::Assigned { at_ms, attempt, agent } => self.assigned(*at_ms, *attempt, agent),
            Event::Started { agent_ms, attempt, pid, boot, .. } => {
                self.started(*attempt, Started { agent_ms: *agent_ms, pid: *pid, boot: *boot })
            }
            Event::Ended { at_ms, attempt, agent_ms, outcome, stdout, stderr } => {
                let outcome = outcome.clone();
                let end = AttemptEnd::Ended { agent_ms: *agent_ms, outcome, stdout: *stdout, stderr: *stderr };
                self.ended(*at_ms, *attempt, end)
            }
            Event::Lost { at_ms, attempt, reason } => self.lost(*at_ms, *attempt, *reason),
            Event::Retried { at_ms, attempt, reason } => self.retry(*at_ms, *attempt, *reason),
            Event::Returned { at_ms, attempt, reason } => self.returned(*at_ms, *attempt, *reason),
            Event::CancelRequested { at_ms, by, cancel } => self.cancel_requested(*at_ms, by, *cancel),
            Event::DeadlineSet { by, deadline, .. } => self.deadline_set(by, *deadline),
            Event::Logged { attempt, place } => self.logged(*attempt, *place),
            Event::Artifacts { at_ms, attempt, artifacts } => self.note_left(*at_ms, *attempt, artifacts),
        }
    }

    fn assigned(&mut self, at_ms: u64, attempt: u32, agent: &AgentName) -> Applied {
        let latest = self.attempt;
        if latest.checked_add(1).is_none_or(|next| attempt > next) {
            return Err(Refused::NoAttempt { attempt, latest });
        }
        let current = self.attempts.get(&latest);
        match self.state {
            State::Queued if attempt > latest => {
                self.attempt = attempt;
                self.attempts.insert(attempt, Attempt::new(agent.clone(), at_ms));
                self.state = State::Assigned;
                Ok(Change::Moved)
            }
            State::Assigned | State::Running if attempt >= latest => match current {
                Some(current) if attempt == latest && current.agent == *agent => Ok(Change::Nothing),
                Some(current) => Err(Refused::Taken(current.agent.clone())),
                None => Err(Refused::NoAttempt { attempt, latest }),
            },
            // Old, or it crossed the event that ended the job.
            _ => Ok(Change::Nothing),
        }
    }

    fn started(&mut self, attempt: u32, started: Started) -> Applied {
        let Some(current) = self.current(attempt)? else { return Ok(Change::Nothing) };
        match current.started {
            Some(before) if (before.pid, before.boot) == (started.pid, started.boot) => Ok(Change::Nothing),
            Some(_) => Err(Refused::StartedTwice(attempt)),
            None => {
                current.started = Some(started);
                self.state = State::Running;
                Ok(Change::Moved)
            }
        }
    }

    fn ended(&mut self, at_ms: u64, attempt: u32, end: AttemptEnd) -> Applied {
        let AttemptEnd::Ended { outcome, .. } = &end else { return Ok(Change::Nothing) };
        let state = State::from(outcome);
        let Some(current) = self.current(attempt)? else {
            let before = self.attempts.get(&attempt).and_then(|attempt| attempt.end.as_ref());
            return match before {
                Some(AttemptEnd::Ended { outcome: before, .. }) if before != outcome => {
                    Err(Refused::EndedTwice(attempt))
                }
                _ => Ok(Change::Nothing),
            };
        };
        current.end = Some(end);
        self.finish(at_ms, state)
    }

    fn lost(&mut self, at_ms: u64, attempt: u32, reason: Loss) -> Applied {
        let Some(current) = self.current(attempt)? else { return Ok(Change::Nothing) };
        current.end = Some(AttemptEnd::Lost { at_ms, reason });
        self.finish(at_ms, State::Lost(reason))
    }

    fn retry(&mut self, at_ms: u64, attempt: u32, reason: Loss) -> Applied {
        let (wanted, left) = (self.cancel.is_none(), self.retries_left());
        let Some(current) = self.current(attempt)? else { return Ok(Change::Nothing) };
        if wanted && left == 0 {
            return Err(Refused::NoRetries(self.spec.retries));
        }
        current.end = Some(AttemptEnd::Lost { at_ms, reason });
        if !wanted {
            return self.finish(at_ms, State::Lost(reason));
        }
        self.retried += 1;
        self.state = State::Queued;
        Ok(Change::Moved)
    }

    fn returned(&mut self, at_ms: u64, attempt: u32, _: Returned) -> Applied {
        let Some(current) = self.current(attempt)? else { return Ok(Change::Nothing) };
        if current.started.is_some() {
            return Err(Refused::DidRun(attempt));
        }
        self.attempts.remove(&attempt);
        if self.cancel.is_some() {
            return self.finish(at_ms, State::Cancelled);
        }
        self.state = State::Queued;
        Ok(Change::Moved)
    }

    fn cancel_requested(&mut self, at_ms: u64, by: &str, cancel: Option<Cancel>) -> Applied {
        if self.state.is_terminal() {
            return Ok(Change::Nothing);
        }
        let request = CancelRequest { at_ms, by: by.to_owned(), cancel: cancel.unwrap_or(self.spec.cancel) };
        if self.cancel.as_ref() == Some(&request) {
            return Ok(Change::Nothing);
        }
        self.cancel = Some(request);
        if self.state == State::Queued { self.finish(at_ms, State::Cancelled) } else { Ok(Change::Noted) }
    }

    fn deadline_set(&mut self, by: &str, deadline: Option<Duration>) -> Applied {
        let deadline = Deadline { by: by.to_owned(), deadline };
        if self.state.is_terminal() || self.deadline.as_ref() == Some(&deadline) {
            return Ok(Change::Nothing);
        }
        self.deadline = Some(deadline);
        Ok(Change::Noted)
    }

    fn logged(&mut self, attempt: u32, place: LogPlace) -> Applied {
        let latest = self.attempt;
        if attempt == 0 || attempt > latest {
            return Err(Refused::NoAttempt { attempt, latest });
        }
        let Some(attempt) = self.attempts.get_mut(&attempt) else { return Ok(Change::Nothing) };
        let merged = attempt.log.map_or(place, |before| before.merged(place));
        if attempt.log == Some(merged) {
            return Ok(Change::Nothing);
        }
        attempt.log = Some(merged);
        Ok(Change::Noted)
    }

    /// The first word counts, and of the latest attempt alone: nobody wants what one left that was given up.
    fn note_left(&mut self, at_ms: u64, number: u32, artifacts: &Artifacts) -> Applied {
        let latest = self.attempt;
        if number == 0 || number > latest {
            return Err(Refused::NoAttempt { attempt: number, latest });
        }
        match self.attempts.get_mut(&number) {
            Some(attempt) if number == latest && attempt.left.is_none() => {
                attempt.left = Some(Left { at_ms, artifacts: artifacts.clone(), forgotten_ms: None });
                Ok(Change::Noted)
            }
            _ => Ok(Change::Nothing),
        }
    }

    /// The attempt, if the job is with an agent for it; none if that is over.
    fn current(&mut self, attempt: u32) -> Result<Option<&mut Attempt>, Refused> {
        let latest = self.attempt;
        if attempt == 0 || attempt > latest {
            return Err(Refused::NoAttempt { attempt, latest });
        }
        let is_current = attempt == latest && matches!(self.state, State::Assigned | State::Running);
        Ok(if is_current { self.attempts.get_mut(&attempt) } else { None })
    }

    /// The only way into a terminal state; every caller has seen that there is none yet.
    fn finish(&mut self, at_ms: u64, state: State) -> Applied {
        debug_assert!(!self.state.is_terminal() && state.is_terminal(), "{:?} to {state:?}", self.state);
        self.state = state;
        self.ended_ms = Some(at_ms);
        Ok(Change::Moved)
    }
}

impl Job {
    /// What was asked for; of a [trimmed](Self::is_trimmed) job only what is shown of it.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it was submitted, in milliseconds since 1970.
    pub fn submitted_ms(&self) -> u64 {
        self.submitted_ms
    }

    /// When it ended, in milliseconds since 1970.
    pub fn ended_ms(&self) -> Option<u64> {
        self.ended_ms
    }

    /// What the keys of its log are derived from.
    pub fn log_key(&self) -> &Hidden<[u8; 32]> {
        &self.log_key
    }

    /// The job that this one repeats.
    pub fn retry_of(&self) -> Option<JobId> {
        self.retry_of
    }

    /// The number of the latest attempt; 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The attempts that ran or may have run, by number.
    pub fn attempts(&self) -> &BTreeMap<u32, Attempt> {
        &self.attempts
    }

    /// What became of its artifacts, once that is known.
    pub fn left(&self) -> Option<&Left> {
        self.attempts.get(&self.attempt)?.left.as_ref()
    }

    /// Its artifacts are not kept any longer. True if there were any.
    pub fn forget_artifacts(&mut self, at_ms: u64) -> bool {
        let left = self.attempts.get_mut(&self.attempt).and_then(|attempt| attempt.left.as_mut());
        let Some(left) = left.filter(|left| left.stored().is_some()) else { return false };
        left.forgotten_ms = Some(at_ms);
        true
    }

    /// The agent that has it now, and the attempt's number.
    pub fn holder(&self) -> Option<(&AgentName, u32)> {
        match self.state {
            State::Assigned | State::Running => self.attempts.get(&self.attempt).map(|a| (&a.agent, self.attempt)),
            _ => None,
        }
    }

    /// Who asked for its end, and how.
    pub fn cancel(&self) -> Option<&CancelRequest> {
        self.cancel.as_ref()
    }

    /// What an operator said about how long its agent may be unreachable.
    pub fn deadline(&self) -> Option<&Deadline> {
        self.deadline.as_ref()
    }

    /// How often it may still be repeated after a loss.
    pub fn retries_left(&self) -> u8 {
        self.spec.retries.saturating_sub(self.retried)
    }

    /// Whether most of the spec was forgotten to save room.
    pub fn is_trimmed(&self) -> bool {
        self.trimmed
    }

    /// Forgets what takes room in an ended job: environment, stdin, secrets, and all of the command but its start.
    /// Without effect on a job that has not ended.
    pub fn trim(&mut self) {
        if self.state.is_terminal() && !self.trimmed {
            self.spec.trim();
            self.trimmed = true;
        }
    }
}
