//! Many seeded schedules: a few agents, streams of all sizes on both lanes, peers that crash and come back, and a
//! cluster that does its worst. No byte is lost, doubled or out of order, and no stream is stuck.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    faults::{FaultyCluster, Weather},
    pair::*,
};
use crate::link::{Credential, Lane, Listener, Session};

/// Schedules in `make test`; `make sim SCHEDULES=…` runs any number.
const SCHEDULES: u64 = 2000;

#[allow(
    clippy::disallowed_methods,
    reason = "how many schedules to run is a setting of the test run, not of the program"
)]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_schedule_loses_doubles_or_swaps_a_byte_and_none_gets_stuck() {
    let schedules = setting("RK_SCHEDULES", SCHEDULES);
    let first = setting("RK_FIRST_SEED", 0);
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + schedules {
                        return;
                    }
                    if let Err(error) = run(seed) {
                        failures.lock().expect("lock").push(format!("seed {seed}: {error}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("lock");
    assert!(failures.is_empty(), "{} of {schedules} schedules failed:\n{}", failures.len(), failures.join("\n"));
    println!("{schedules} schedules from seed {first} ran, none failed");
}

#[test]
fn a_bulk_dial_of_the_session_before_that_arrives_late_is_not_taken_for_the_lane() {
    for seed in [19722, 84139, 91605] {
        run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_seed_gives_the_same_trace_again() {
    for seed in 0..20 {
        let (first, second) = (run(seed).expect("runs"), run(seed).expect("runs"));
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        assert!(
            first == second,
            "seed {seed}: {} and {} entries, first difference at {differs:?}",
            first.len(),
            second.len()
        );
        assert!(!first.is_empty(), "seed {seed} wrote nothing");
    }
}

type Trace = Vec<(Duration, String, usize)>;

fn run(seed: u64) -> Result<Trace, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let mut schedule = Schedule::new(seed);
        tokio::time::timeout(EVER, schedule.play()).await.map_err(|_| "stuck".to_owned())??;
        Ok(schedule.cluster.trace())
    })
}

struct Schedule {
    random: StdRng,
    seed: u64,
    cluster: FaultyCluster,
    world: World,
    agents: Vec<Agent>,
    tasks: JoinSet<()>,
    epoch: u32,
    /// Controllers that died without a word: kept, since dropping them would be a word.
    dead: Vec<Box<dyn std::any::Any>>,
}

struct Agent {
    credential: Arc<Credential>,
    starts: u64,
    running: Option<tokio::task::AbortHandle>,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let partitions = random.random_range(1..=3);
        let cluster = FaultyCluster::new(memory(partitions), Weather::default(), seed);
        let world = World::new(Arc::new(cluster.view(0)), seed, partitions);
        Self { random, seed, cluster, world, agents: Vec::new(), tasks: JoinSet::new(), epoch: 0, dead: Vec::new() }
    }

    async fn play(&mut self) -> Result<(), String> {
        for i in 0..self.random.random_range(1..=3) {
            let credential = self.world.admit(&format!("agent-{i}"));
            self.agents.push(Agent { credential, starts: 0, running: None });
        }
        self.cluster.set_weather(Weather::draw(&mut self.random));
        let (mut listener, mut sessions) = self.start_controller().await;
        for i in 0..self.agents.len() {
            self.start_agent(i).await;
        }
        let mut live = self.gather(&mut sessions).await;
        for round in 0..self.random.random_range(1..=3) {
            match self.random.random_range(0..4) {
                0 => {
                    // The controller dies in the middle of transfers, and another takes over.
                    let transfers = self.transfers(&live, round);
                    tokio::time::sleep(Duration::from_millis(self.random.random_range(0..2000))).await;
                    self.dead.push(Box::new(listener.stop_dead()));
                    self.dead.push(Box::new(sessions));
                    (listener, sessions) = self.start_controller().await;
                    live = self.gather(&mut sessions).await;
                    drop(transfers);
                }
                1 => {
                    // An agent dies in the middle of transfers, and is started again.
                    let victim = self.random.random_range(0..self.agents.len());
                    let transfers = self.transfers(&live[victim..=victim], round);
                    tokio::time::sleep(Duration::from_millis(self.random.random_range(0..2000))).await;
                    self.start_agent(victim).await;
                    live[victim].closed().await;
                    self.refresh(&mut live, &mut sessions).await;
                    drop(transfers);
                }
                _ => {
                    // Nobody dies: everything arrives, in the sessions that were there.
                    let mut transfers = self.transfers(&live, round);
                    while let Some(result) = transfers.join_next().await {
                        result.map_err(|e| e.to_string())??;
                    }
                    if live.iter().any(Session::is_closed) {
                        return Err("a session ended without anybody dying".to_owned());
                    }
                }
            }
        }
        // Whatever happened, in calm weather everything works again.
        self.cluster.set_weather(Weather::default());
        self.refresh(&mut live, &mut sessions).await;
        for (i, session) in live.iter().enumerate() {
            round_trip(session, Lane::Control, self.seed + i as u64, 500).await?;
            round_trip(session, Lane::Bulk, self.seed + i as u64, 50_000).await?;
        }
        drop(listener);
        Ok(())
    }

    async fn start_controller(&mut self) -> (Listener, mpsc::Receiver<Session>) {
        self.epoch += 1;
        self.world.listen(self.epoch).await
    }

    async fn start_agent(&mut self, i: usize) {
        let agent = &mut self.agents[i];
        if let Some(running) = agent.running.take() {
            running.abort();
        }
        agent.starts += 1;
        let dialer = self.world.dial(&agent.credential, agent.starts).await;
        agent.running = Some(self.tasks.spawn(async move {
            live(dialer).await;
        }));
    }

    /// A live session of each agent.
    async fn gather(&self, sessions: &mut mpsc::Receiver<Session>) -> Vec<Session> {
        let mut found: Vec<Option<Session>> = self.agents.iter().map(|_| None).collect();
        while found.iter().any(Option::is_none) {
            let session = sessions.recv().await.expect("the listener lives");
            let who = self.index(&session);
            found[who] = Some(session);
        }
        let mut live: Vec<Session> = found.into_iter().map(|s| s.expect("just found")).collect();
        self.refresh(&mut live, sessions).await;
        live
    }

    /// Makes sure of each session: that the agent is in it, too. An agent that did not get its welcome in time has
    /// given up, and comes again.
    async fn refresh(&self, live: &mut [Session], sessions: &mut mpsc::Receiver<Session>) {
        for who in 0..live.len() {
            loop {
                while let Ok(session) = sessions.try_recv() {
                    let who = self.index(&session);
                    live[who] = session;
                }
                if round_trip(&live[who], Lane::Control, 1, 10).await.is_ok() {
                    break;
                }
                while live[who].is_closed() {
                    let session = sessions.recv().await.expect("the listener lives");
                    let who = self.index(&session);
                    live[who] = session;
                }
            }
        }
    }

    fn index(&self, session: &Session) -> usize {
        self.agents.iter().position(|a| a.credential.name == *session.name()).expect("a known agent")
    }

    /// Starts transfers on the sessions: of all sizes, on both lanes. One that ends well brought every byte.
    fn transfers(&mut self, sessions: &[Session], round: u64) -> JoinSet<Result<(), String>> {
        let mut transfers = JoinSet::new();
        for session in sessions {
            for _ in 0..self.random.random_range(1..=4) {
                let lane = if self.random.random_bool(0.5) { Lane::Control } else { Lane::Bulk };
                let most = if lane == Lane::Control { 14 } else { 19 };
                let magnitude = self.random.random_range(1..=most);
                let length = self.random.random_range(0..1 << magnitude);
                let (session, seed) = (session.clone(), self.seed.wrapping_mul(31) + round);
                transfers.spawn(async move { round_trip(&session, lane, seed, length).await });
            }
        }
        transfers
    }
}
