//! Which job goes to which agent, and what becomes of the jobs of agents that are not there.
//!
//! Pure: `now` is the time since the controller took over together with the wall clock, and nothing here waits or looks at a
//! clock.
//!
//! ```text
//! command ──────┐
//! report ───────┼→ Event → journal → read back → apply ─→ Action → agent
//! own decision ─┘                                  └────→ Event …
//! ```
//!
//! Input:
//! - commands, which check and return the [`Event`] to be journalled, and change nothing: [`submit`](Scheduler::submit),
//!   [`retry`](Scheduler::retry), [`cancel`](Scheduler::cancel), [`set_deadline`](Scheduler::set_deadline),
//!   [`drain`](Scheduler::drain), [`resume`](Scheduler::resume);
//! - [`apply`](Scheduler::apply): an event of the journal in its order, everybody's and its own; so too
//!   [`apply_agent_added`](Scheduler::apply_agent_added) and [`apply_agent_removed`](Scheduler::apply_agent_removed);
//! - [`handle_leading`](Scheduler::handle_leading), once: the claim was read back. Before it the scheduler only folds;
//! - what happens to agents: [`handle_session`](Scheduler::handle_session), [`handle_session_end`](Scheduler::handle_session_end),
//!   [`handle_presence`](Scheduler::handle_presence), [`handle_heard`](Scheduler::handle_heard),
//!   [`handle_draining`](Scheduler::handle_draining), [`handle_report`](Scheduler::handle_report);
//! - [`handle_partition`](Scheduler::handle_partition): whether Kafka works;
//! - [`handle_timeout`](Scheduler::handle_timeout): the time of [`poll_timeout`](Scheduler::poll_timeout) has come.
//!
//! Output, to be drained after every input: [`poll_event`](Scheduler::poll_event), what is to be journalled;
//! [`poll_action`](Scheduler::poll_action), what is to be sent; [`poll_timeout`](Scheduler::poll_timeout).
//!
//! Promises:
//! - an agent is told to start an attempt only after its assignment was read back, and no attempt is given to two;
//! - what may have run is repeated only if the job allows it, what certainly did not run is repeated always;
//! - an agent that can't be reached keeps its jobs: only an operator's deadline, or the agent's removal, makes them lost, and
//!   an outage of Kafka does not count;
//! - while a job waits and could go, no agent that it could go to has room;
//! - no input costs time or room that grows with the number of jobs, but for `handle_leading`; see `queue` and `lanes`.
//!   An input about an agent may look at all jobs that this agent has.
//!
//! At most one event about each of a job's attempt's assignment, start and end, and one about forgetting jobs and one about forgetting artifacts, is on its way at
//! a time; that bounds the output between two drains.

mod action;
mod agent;
mod apply;
mod artifacts;
mod command;
mod deadlines;
mod dispatch;
mod event;
mod input;
mod jobs;
mod lanes;
mod queue;
mod retention;
#[cfg(test)]
mod tests;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    id::AgentName,
    job::{Job, JobId, JobPrefix, LogPlace, LookupError},
};

pub use crate::protocol::jobs::Report;
pub use action::{Action, Order, Session};
use agent::Agent;
pub use command::Refusal;
use deadlines::Deadlines;
pub use event::Event;
pub use jobs::Counts;
use jobs::Jobs;
use lanes::Lanes;
use queue::Queue;
pub use view::{AgentView, View, Waiting};

/// How long an agent gets nothing after it gave a job back.
pub const PAUSE: Duration = Duration::from_secs(5);

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a job's agent may be unreachable before the job is lost, unless the job has a deadline of its own. Outages of Kafka
    /// don't count. Default: for ever, since the job may well be running.
    pub deadline: Option<Duration>,
    /// How long ended jobs are kept. Default 30 days.
    pub keep: Duration,
    /// How many ended jobs are kept at most. Default 10,000.
    pub keep_jobs: usize,
    /// How many bytes of ended jobs' specs are kept whole, so that the jobs can be retried; of older ones only what is
    /// shown is kept. All controllers of a cluster have the same. Default 64 MiB.
    pub keep_weight: usize,
    /// How many jobs wait at most; more are refused. Default 100,000.
    pub queued: usize,
    /// How many bytes of specs jobs that have not ended have at most; more are refused. Default 512 MiB.
    pub live_weight: usize,
    /// How long the artifacts of a job are kept. Default 30 days.
    pub artifacts_age: Duration,
    /// Of how many jobs of one name the artifacts are kept, the newest. Default 100.
    pub artifacts_keep: usize,
    /// How many different targets waiting jobs have at most; more are refused. Default 1,000.
    pub targets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: None,
            keep: Duration::from_secs(30 * 86400),
            keep_jobs: 10_000,
            keep_weight: 64 << 20,
            queued: 100_000,
            live_weight: 512 << 20,
            artifacts_age: Duration::from_secs(30 * 86400),
            artifacts_keep: 100,
            targets: 1000,
        }
    }
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since the controller took over.
    pub elapsed: Duration,
    /// Milliseconds since 1970: stamps events, and tells how old ended jobs are.
    pub unix_ms: u64,
}

/// Jobs, agents, and who gets what.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    leading: bool,
    jobs: Jobs,
    queue: Queue,
    lanes: Lanes,
    agents: BTreeMap<AgentName, Agent>,
    /// Agents that are paused, by when that ends.
    paused: BTreeSet<(Duration, AgentName)>,
    deadlines: Deadlines,
    /// When the next artifacts are old enough to be forgotten, as the time since the controller took over.
    artifacts_due: Option<Duration>,
    on_the_way: OnTheWay,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
}

/// What was decided and not yet read back.
#[derive(Debug, Default)]
struct OnTheWay {
    assignments: BTreeMap<JobId, (u32, AgentName)>,
    starts: BTreeSet<(JobId, u32)>,
    /// Ends, losses and returns.
    ends: BTreeSet<(JobId, u32)>,
    /// With what came in the meantime.
    logs: BTreeMap<(JobId, u32), Option<LogPlace>>,
    forgetting: bool,
    artifacts: BTreeSet<(JobId, u32)>,
    forgetting_artifacts: bool,
}

impl Scheduler {
    /// No jobs and no agents.
    pub fn new(config: Config) -> Self {
        let jobs = Jobs::new(config.keep_weight, config.artifacts_keep);
        Self {
            config,
            leading: false,
            jobs,
            queue: Queue::default(),
            lanes: Lanes::default(),
            agents: BTreeMap::new(),
            paused: BTreeSet::new(),
            deadlines: Deadlines::default(),
            artifacts_due: None,
            on_the_way: OnTheWay::default(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next event to be journalled, in this order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next action to be done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted, as the time since the controller took over.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if !self.leading {
            return None;
        }
        let pause = self.paused.first().map(|(at, _)| *at);
        [pause, self.deadlines.next(), self.artifacts_due].into_iter().flatten().min()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.job(id)
    }

    /// All jobs, the oldest first.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = (JobId, &Job)> {
        self.jobs.iter()
    }

    /// The job whose id starts with `prefix`.
    pub fn lookup(&self, prefix: &JobPrefix) -> Result<JobId, LookupError> {
        self.jobs.lookup(prefix)
    }

    /// How many jobs are in which state.
    pub fn counts(&self) -> Counts {
        self.jobs.counts()
    }

    /// Events that, applied to an empty scheduler whose agents were added, give the same jobs and drained agents.
    pub fn snapshot(&self) -> impl Iterator<Item = Event> + '_ {
        let drained = self.agents.iter().filter(|(_, agent)| agent.drained);
        let drained = drained.map(|(name, _)| Event::AgentDrained { name: name.clone(), by: String::new() });
        let jobs = self.jobs.iter().map(|(id, job)| Event::Restored { id, job: Box::new(job.clone()) });
        drained.chain(jobs)
    }
}
