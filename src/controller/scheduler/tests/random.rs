//! Any order of inputs, with a journal that reads back late.

use proptest::prelude::*;

use super::{
    super::*,
    world::{START_MS, World, exited, given_back, name, on, parse, secs, started},
};
use crate::{
    api::AgentState,
    job::{self, Hidden, Loss, Spec, State, Target},
};

const AGENTS: [(&str, &str); 3] = [("a", "os=linux"), ("b", "os=linux,gpu="), ("c", "os=plan9")];
const SELECTORS: [&str; 4] = ["", "os=linux", "gpu", "os=plan9"];

#[derive(Debug, Clone)]
enum Input {
    Submit { selector: usize, named: bool, key: Option<u8>, submitter: u8, priority: u8, retries: u8 },
    Cancel(usize),
    Deadline(usize, u64),
    Come(usize, u32),
    Go(usize),
    Presence(usize, u8),
    Heard(usize),
    Drain(usize, bool),
    DrainItself(usize),
    Work(usize, u8),
    Forge(usize, usize, u32, u8),
    Outage(bool),
    Wait(u64),
    ReadBack(usize),
    Remove(usize),
}

fn any_input() -> impl Strategy<Value = Input> {
    let agent = || 0..AGENTS.len();
    let spec = (0..SELECTORS.len(), any::<bool>(), prop::option::of(0..2u8), 0..3u8, 0..3u8, 0..3u8);
    prop_oneof![
        8 => spec.prop_map(|(selector, named, key, submitter, priority, retries)| {
            Input::Submit { selector, named, key, submitter, priority, retries }
        }),
        2 => (0..20usize).prop_map(Input::Cancel),
        1 => (0..20usize, 0..100u64).prop_map(|(job, secs)| Input::Deadline(job, secs)),
        4 => (agent(), 0..4u32).prop_map(|(agent, slots)| Input::Come(agent, slots)),
        2 => agent().prop_map(Input::Go),
        1 => (agent(), 0..3u8).prop_map(|(agent, state)| Input::Presence(agent, state)),
        2 => agent().prop_map(Input::Heard),
        1 => (agent(), any::<bool>()).prop_map(|(agent, drained)| Input::Drain(agent, drained)),
        1 => agent().prop_map(Input::DrainItself),
        10 => (agent(), 0..8u8).prop_map(|(agent, what)| Input::Work(agent, what)),
        1 => (agent(), 0..20usize, 0..4u32, 0..8u8).prop_map(|(a, job, n, what)| Input::Forge(a, job, n, what)),
        1 => any::<bool>().prop_map(Input::Outage),
        1 => (0..200u64).prop_map(Input::Wait),
        10 => (1..6usize).prop_map(Input::ReadBack),
        1 => agent().prop_map(Input::Remove),
    ]
}

/// The world, with agents that obey and a journal that takes its time.
struct Play {
    world: World,
    ids: Vec<JobId>,
    unread: std::collections::VecDeque<Event>,
    /// What each agent has of attempts, and how it would report them.
    held: [std::collections::BTreeMap<(JobId, u32), Report>; 3],
    /// How often each attempt was started, on which agent.
    starts: std::collections::BTreeMap<(JobId, u32), usize>,
    drawn: u64,
}

impl Play {
    fn new() -> Self {
        let mut world = World::new(Config { keep_jobs: 30, deadline: Some(secs(120)), ..Config::default() });
        AGENTS.iter().for_each(|(agent, labels)| world.add(agent, labels));
        let (ids, unread, drawn) = (vec![], Default::default(), 0);
        Self { world, ids, unread, held: Default::default(), starts: Default::default(), drawn }
    }

    fn input(&mut self, input: Input) {
        let now = self.world.now();
        let agent = |n: usize| name(AGENTS[n].0);
        match input {
            Input::Submit { selector, named, key, submitter, priority, retries } => {
                self.drawn += 1;
                let id = JobId::new(START_MS + self.drawn, self.drawn);
                let mut spec = Spec { priority, retries, ..on(SELECTORS[selector]) };
                spec.submitter = format!("user{submitter}");
                spec.concurrency = key.map(|key| format!("key{key}"));
                if named {
                    spec.target = Target::Agent(agent(selector % AGENTS.len()));
                }
                if let Ok(event) = self.world.s.submit(now, id, spec, Hidden::new([0; 32]), None) {
                    self.ids.push(id);
                    self.unread.push_back(event);
                }
            }
            Input::Cancel(n) => self.command(n, |s, id| s.cancel(now, id, "bob", None)),
            Input::Deadline(n, s) => self.command(n, |w, id| w.set_deadline(now, id, "op", Some(secs(s)))),
            Input::Come(n, slots) => {
                let inventory = self.held[n].iter().map(|((id, attempt), report)| (*id, *attempt, report.clone()));
                let (labels, inventory) = (parse(AGENTS[n].1), inventory.collect());
                self.world.s.handle_session(now, &agent(n), Session { partition: 0, labels, slots, inventory });
            }
            Input::Go(n) => self.world.s.handle_session_end(now, &agent(n)),
            Input::Presence(n, state) => {
                let state = [AgentState::Online, AgentState::Silent, AgentState::Offline][usize::from(state)];
                self.world.s.handle_presence(now, &agent(n), state);
            }
            Input::Heard(n) => self.world.s.handle_heard(now, &agent(n)),
            Input::Drain(n, true) => self.unread.extend(self.world.s.drain(&agent(n), "op").ok()),
            Input::Drain(n, false) => self.unread.extend(self.world.s.resume(&agent(n)).ok()),
            Input::DrainItself(n) => self.world.s.handle_draining(now, &agent(n), true),
            Input::Work(n, what) => self.work(n, what),
            Input::Forge(n, job, attempt, what) => {
                if let Some(id) = self.ids.get(job) {
                    self.world.s.handle_report(now, &agent(n), *id, attempt, report(what));
                }
            }
            Input::Outage(working) => self.world.s.handle_partition(now, 0, working),
            Input::Wait(n) => {
                self.world.now += secs(n);
                self.world.s.handle_timeout(self.world.now());
            }
            Input::ReadBack(n) => (0..n).for_each(|_| self.read_back()),
            Input::Remove(n) => {
                self.world.s.apply_agent_removed(now, &agent(n));
                self.world.s.apply_agent_added(&agent(n), &parse(AGENTS[n].1));
            }
        }
        self.drain();
        self.world.check();
    }

    fn command(&mut self, n: usize, command: impl Fn(&Scheduler, JobId) -> Result<Event, Refusal>) {
        let event = self.ids.get(n).and_then(|id| command(&self.world.s, *id).ok());
        self.unread.extend(event);
    }

    /// The agent goes on with one of its attempts, and says so.
    fn work(&mut self, n: usize, what: u8) {
        let count = self.held[n].len();
        let Some((key, held)) = self.held[n].iter_mut().nth(usize::from(what) % count.max(1)) else { return };
        match held {
            Report::Claimed if what == 7 => *held = given_back(),
            Report::Claimed => *held = started(),
            Report::Started { .. } => *held = report(2 + what % 4),
            _ => {}
        }
        let (key, held) = (*key, held.clone());
        self.world.s.handle_report(self.world.now(), &name(AGENTS[n].0), key.0, key.1, held);
    }

    fn read_back(&mut self) {
        if let Some(event) = self.unread.pop_front() {
            let _ = self.world.apply(&event);
            self.drain();
        }
    }

    /// Events go to the journal, actions to the agents, which obey.
    fn drain(&mut self) {
        while let Some(event) = self.world.s.poll_event() {
            if let Event::Job { event: job::Event::Assigned { agent, .. }, .. } = &event {
                let agent = &self.world.s.agents[agent];
                assert!(agent.jobs.len() + agent.strays.len() <= agent.slots as usize, "too many: {agent:?}");
            }
            self.unread.push_back(event);
        }
        while let Some(Action { agent, job, attempt, order }) = self.world.s.poll_action() {
            let n = AGENTS.iter().position(|(name, _)| *name == agent.as_str()).expect("one of ours");
            match order {
                Order::Start => {
                    let current = self.world.s.job(job).and_then(Job::holder);
                    assert_eq!(current, Some((&agent, attempt)), "told before it was true");
                    let on = *self.starts.entry((job, attempt)).or_insert(n);
                    assert_eq!(on, n, "one attempt on two agents");
                    self.held[n].entry((job, attempt)).or_insert(Report::Claimed);
                }
                Order::Cancel(_) => {
                    self.held[n].entry((job, attempt)).and_modify(|held| *held = report(5));
                }
                Order::Release => drop(self.held[n].remove(&(job, attempt))),
            }
        }
    }

    /// Everything works and everybody is there: all jobs come to their end.
    fn come_to_rest(&mut self) {
        for agent in 0..AGENTS.len() {
            self.input(Input::Drain(agent, false));
        }
        self.input(Input::Outage(true));
        for _ in 0..300 {
            self.input(Input::Wait(10));
            (0..AGENTS.len()).for_each(|agent| self.input(Input::Come(agent, 3)));
            while !self.unread.is_empty() {
                self.read_back();
            }
            for n in 0..AGENTS.len() {
                for what in 0..6 {
                    self.input(Input::Work(n, what));
                }
            }
            let counts = self.world.s.counts();
            if counts.queued + counts.assigned + counts.running == 0 && self.unread.is_empty() {
                break;
            }
        }
    }
}

fn report(what: u8) -> Report {
    match what {
        0 => Report::Claimed,
        1 => started(),
        2 => exited(0),
        3 => exited(3),
        4 => Report::Lost(Loss::ShimGone),
        5 => exited(9),
        6 => given_back(),
        _ => Report::Lost(Loss::HostRebooted),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_happens_every_job_ends_once_and_every_reader_sees_the_same(
        inputs in prop::collection::vec(any_input(), 0..120),
    ) {
        let mut play = Play::new();
        inputs.into_iter().for_each(|input| play.input(input));
        play.come_to_rest();
        let counts = play.world.s.counts();
        prop_assert_eq!(counts.queued + counts.assigned + counts.running, 0, "{:?}", play.world.s);
        prop_assert!(play.world.s.queue.is_clean() && play.world.s.deadlines.is_clean());
        prop_assert!(counts.ended <= 30);
        let follower = play.world.follower();
        prop_assert!(follower.jobs().eq(play.world.s.jobs()));
        let snapshot: Vec<Event> = play.world.s.snapshot().collect();
        prop_assert!(play.world.replay(&snapshot).jobs().eq(play.world.s.jobs()));
        for event in &play.world.journal {
            let bytes = postcard::to_stdvec(event).expect("plain data");
            let decoded = postcard::from_bytes(&bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(event));
        }
        for (_, job) in play.world.s.jobs() {
            prop_assert!(job.state() != State::Queued);
            prop_assert!(job.attempts().len() <= 1 + usize::from(job.spec().retries), "{job:?}");
        }
    }
}
