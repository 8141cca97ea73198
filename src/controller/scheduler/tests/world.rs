//! A scheduler that leads, its journal, and what it wants done.

use std::{collections::BTreeMap, time::Duration};

use super::super::*;
use crate::{
    api::AgentState,
    job::{Change, Hidden, Outcome, Refused, Returned, Spec, State, StreamEnd, Target},
    selector::Labels,
};

pub const START_MS: u64 = 1_790_000_000_000;

pub struct World {
    pub s: Scheduler,
    pub now: Duration,
    /// All that was read back.
    pub journal: Vec<Event>,
    pub added: Vec<(AgentName, Labels)>,
    pub actions: Vec<Action>,
    pub ids: u64,
}

pub fn name(text: &str) -> AgentName {
    text.parse().expect("name")
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A job of `ann` for any agent.
pub fn any() -> Spec {
    Spec::new("ann", Target::Selector("".parse().expect("selector")), ["make"])
}

pub fn on(selector: &str) -> Spec {
    Spec { target: Target::Selector(selector.parse().expect("selector")), ..any() }
}

pub fn of(submitter: &str) -> Spec {
    Spec { submitter: submitter.to_owned(), ..any() }
}

pub fn keyed(key: &str) -> Spec {
    Spec { concurrency: Some(key.to_owned()), ..any() }
}

pub fn started() -> Report {
    Report::Started { agent_ms: 1, pid: 7, boot: 8 }
}

pub fn exited(code: i32) -> Report {
    let (stdout, stderr) = (StreamEnd::default(), StreamEnd::default());
    Report::Ended { agent_ms: 2, outcome: Outcome::Exited(code), stdout, stderr }
}

impl World {
    pub fn new(config: Config) -> Self {
        let mut s = Scheduler::new(config);
        let now = secs(100);
        s.handle_leading(Now { elapsed: now, unix_ms: START_MS }, |_| 0);
        s.handle_partition(Now { elapsed: secs(50), unix_ms: START_MS }, 0, true);
        Self { s, now, journal: Vec::new(), added: Vec::new(), actions: Vec::new(), ids: 0 }
    }

    /// With these agents, each with its labels and slots, all there.
    pub fn with(agents: &[(&str, &str, u32)]) -> Self {
        let mut world = Self::new(Config::default());
        for (agent, labels, slots) in agents {
            world.add(agent, labels);
            world.come(agent, labels, *slots, vec![]);
        }
        world
    }

    pub fn now(&self) -> Now {
        Now { elapsed: self.now, unix_ms: START_MS + self.now.as_millis() as u64 }
    }

    pub fn add(&mut self, agent: &str, labels: &str) {
        self.s.apply_agent_added(&name(agent), &parse(labels));
        self.added.push((name(agent), parse(labels)));
    }

    pub fn come(&mut self, agent: &str, labels: &str, slots: u32, inventory: Vec<(JobId, u32, Report)>) {
        let session = Session { partition: 0, labels: parse(labels), slots, inventory };
        assert!(self.s.handle_session(self.now(), &name(agent), session));
        self.settle();
    }

    pub fn go(&mut self, agent: &str) {
        self.s.handle_session_end(self.now(), &name(agent));
        self.s.handle_presence(self.now(), &name(agent), AgentState::Offline);
        self.settle();
    }

    pub fn outage(&mut self, working: bool) {
        self.s.handle_partition(self.now(), 0, working);
        self.settle();
    }

    pub fn submit(&mut self, spec: Spec) -> JobId {
        self.ids += 1;
        let id = JobId::new(START_MS + self.ids, self.ids);
        let event = self.s.submit(self.now(), id, spec, Hidden::new([self.ids as u8; 32]), None).expect("good");
        self.apply(&event).expect("new");
        self.settle();
        id
    }

    pub fn cancel(&mut self, id: JobId) {
        let event = self.s.cancel(self.now(), id, "bob", None).expect("live");
        self.apply(&event).expect("live");
        self.settle();
    }

    pub fn report(&mut self, agent: &str, id: JobId, attempt: u32, report: Report) {
        self.s.handle_report(self.now(), &name(agent), id, attempt, report);
        self.settle();
    }

    /// The current attempt of the job starts and exits.
    pub fn finish(&mut self, id: JobId, code: i32) {
        let (agent, attempt) = self.s.job(id).expect("known").holder().map(|(a, n)| (a.to_string(), n)).expect("held");
        self.report(&agent, id, attempt, started());
        self.report(&agent, id, attempt, exited(code));
    }

    pub fn apply(&mut self, event: &Event) -> Result<Change, Refused> {
        let result = self.s.apply(self.now(), event);
        self.journal.push(event.clone());
        result
    }

    /// What the scheduler decided is journalled, and read back at once.
    pub fn settle(&mut self) {
        while let Some(event) = self.s.poll_event() {
            self.apply(&event).expect("its own events are true");
        }
        while let Some(action) = self.s.poll_action() {
            self.actions.push(action);
        }
    }

    pub fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.s.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.s.handle_timeout(self.now());
            self.settle();
        }
        self.now = until;
        self.s.handle_timeout(self.now());
        self.settle();
    }

    pub fn state(&self, id: JobId) -> State {
        self.s.job(id).expect("known").state()
    }

    /// The agent that has the job.
    pub fn holder(&self, id: JobId) -> Option<String> {
        self.s.job(id).expect("known").holder().map(|(agent, _)| agent.to_string())
    }

    pub fn waiting(&self, id: JobId) -> Option<Waiting> {
        self.s.view(id).expect("known").waiting
    }

    /// What the agents were told since the last call, as text.
    pub fn told(&mut self) -> Vec<String> {
        let text = |action: Action| {
            let order = match action.order {
                Order::Start => "start".to_owned(),
                Order::Cancel(cancel) => format!("cancel {}", cancel.signal),
                Order::Release => "release".to_owned(),
            };
            format!("{} {order} {}/{}", action.agent, action.job.as_bytes()[9], action.attempt)
        };
        std::mem::take(&mut self.actions).into_iter().map(text).collect()
    }

    /// A scheduler that follows the same journal.
    pub fn follower(&self) -> Scheduler {
        self.replay(&self.journal)
    }

    pub fn replay(&self, events: &[Event]) -> Scheduler {
        let mut follower = Scheduler::new(self.s.config.clone());
        self.added.iter().for_each(|(agent, labels)| follower.apply_agent_added(agent, labels));
        for event in events {
            let _ = follower.apply(self.now(), event);
        }
        assert_eq!(follower.poll_event(), None, "a follower decides nothing");
        assert_eq!(follower.poll_action(), None);
        follower
    }

    /// What must hold between two inputs.
    pub fn check(&self) {
        let jobs: BTreeMap<JobId, Job> = self.s.jobs().map(|(id, job)| (id, job.clone())).collect();
        let mut keys = BTreeMap::new();
        for (id, job) in &jobs {
            let placing = self.s.on_the_way.assignments.contains_key(id);
            if let Some(key) = job.spec().concurrency.as_ref().filter(|_| placing || job.holder().is_some()) {
                assert_eq!(keys.insert(key.clone(), *id), None, "two jobs of {key} are under way");
            }
            // Of an agent that was removed and added again the loss may be on its way.
            if let Some((agent, attempt)) = job.holder()
                && !self.s.on_the_way.ends.contains(&(*id, attempt))
                && let Some(agent) = self.s.agents.get(agent)
            {
                assert!(agent.jobs.contains(id), "{id} is with {agent:?}");
            }
        }
        for (name, agent) in &self.s.agents {
            let works = agent.partition.is_some_and(|partition| self.s.deadlines.is_working(partition));
            assert_eq!(self.s.lanes.free(name), agent.free(works), "{name}");
            if agent.free(works) == 0 {
                continue;
            }
            for (id, job) in &jobs {
                let placing = self.s.on_the_way.assignments.contains_key(id);
                let key_held = job.spec().concurrency.as_ref().is_some_and(|key| keys.contains_key(key));
                let fits = match &job.spec().target {
                    Target::Agent(target) => target == name,
                    Target::Selector(selector) => {
                        self.added.iter().any(|(agent, labels)| agent == name && selector.matches(labels))
                    }
                };
                let waits = job.state() == State::Queued && !placing && !key_held;
                assert!(!(waits && fits), "{id} waits although {name} has room");
            }
        }
    }
}

pub fn parse(labels: &str) -> Labels {
    let labels = labels.split(',').filter(|label| !label.is_empty());
    labels.map(|label| crate::selector::label(label).expect("label")).collect()
}

/// Whether the agent itself can give this reason for not having started.
pub fn given_back() -> Report {
    Report::Returned(Returned::NoRoom)
}
