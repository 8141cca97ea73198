//! What happens in a run, all of it from its seed: the jobs and the faults. Decides only.

use std::time::Duration;

use crate::{
    random::Random,
    writer::{End, FAILED, Writing},
};

/// How many agents there are.
pub const AGENTS: usize = 8;
/// How many nodes Kafka has.
pub const NODES: usize = 3;

/// The most that one job writes.
const LARGEST: u64 = 200 << 20;
/// A run of so many minutes has [`JOBS`] jobs, which write [`BYTES`] at most, and the least counts of faults below; a
/// shorter one has its part.
const FULL: u64 = 20;
const JOBS: u64 = 200;
const BYTES: u64 = 4 << 30;
const KILLS: u64 = 30;
const PAUSES: u64 = 10;
const CUTS: u64 = 10;

/// How much a run of so many minutes does at least of what a full one does `full` times.
fn part(full: u64, minutes: u64) -> u64 {
    (full * minutes.min(FULL)).div_ceil(FULL)
}

/// A job, and when it is submitted.
#[derive(Debug, Clone)]
pub struct Job {
    pub number: usize,
    pub at: Duration,
    pub writing: Writing,
    /// Whether somebody follows its log while everything falls apart.
    pub followed: bool,
}

/// The jobs of a run, by the time of their submission.
pub fn jobs(seed: u64, minutes: u64) -> Vec<Job> {
    let mut random = Random::new(seed, "jobs");
    let count = part(JOBS, minutes);
    let mut left = part(BYTES, minutes);
    let run = Duration::from_secs(60 * minutes);
    let mut at: Vec<Duration> = (0..count).map(|_| run.mul_f64(0.75 * random.fraction())).collect();
    at.sort();
    (0..)
        .zip(at)
        .map(|(number, at)| {
            let bytes = random.log_uniform(1, LARGEST).min(left);
            left -= bytes;
            let err = match random.below(3) {
                0 => 0,
                1 => bytes,
                _ => random.below(bytes + 1),
            };
            let end = match random.below(10) {
                0 => End::Signal(random.pick(&[1, 6, 9, 10, 15])),
                1..=3 => End::Code(random.between(1, u64::from(FAILED) - 1) as u8),
                _ => End::Code(0),
            };
            let time = Duration::from_millis(random.log_uniform(20, 300 * 60 * minutes));
            let writing = Writing { seed: random.next(), lengths: [bytes - err, err], time, end };
            Job { number, at, writing, followed: number % 8 == 0 }
        })
        .collect()
}

/// Whom a pause hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Agent(usize),
    Controller,
    Broker(usize),
}

/// How connections are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// They end, and new ones are taken at once.
    Reset,
    /// They end, and for a while there are no new ones.
    Refuse,
    /// For a while no byte passes; then they go on.
    Stall,
    /// For a while no byte passes; then they end.
    Hole,
}

/// What goes wrong, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    KillAgent(usize),
    KillController,
    KillBrokers(Vec<usize>),
    Pause(Target),
    /// Between all clients and these brokers.
    Cut(Cut, Vec<usize>),
}

/// A fault, when it happens at the earliest, and how long it lasts.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// What must have happened by the end: each kind's least count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub agents: u64,
    pub controllers: u64,
    pub brokers: u64,
    pub pauses: u64,
    pub cuts: u64,
}

impl Counts {
    /// The least of a run of so many minutes.
    pub fn least(minutes: u64) -> Counts {
        let kills = part(KILLS, minutes);
        let (pauses, cuts) = (part(PAUSES, minutes), part(CUTS, minutes));
        Counts { agents: kills, controllers: kills, brokers: kills, pauses, cuts }
    }

    /// With their names.
    pub fn rows(self) -> [(&'static str, u64); 5] {
        [
            ("kill -9 of agents", self.agents),
            ("kill -9 of the controller", self.controllers),
            ("kill -9 of brokers", self.brokers),
            ("pauses", self.pauses),
            ("cuts", self.cuts),
        ]
    }
}

/// The faults of a run: tracks that go on side by side, each a sequence.
pub fn faults(seed: u64, minutes: u64) -> Vec<Vec<Event>> {
    let least = Counts::least(minutes);
    let agent = |random: &mut Random| random.below(AGENTS as u64) as usize;
    let node = |random: &mut Random| random.below(NODES as u64) as usize;
    let track = |purpose, least, lasts, fault: &dyn Fn(&mut Random) -> Fault| {
        track(Random::new(seed, purpose), minutes, least, lasts, fault)
    };
    vec![
        track("agents", least.agents, (0, 8), &|random| Fault::KillAgent(agent(random))),
        track("controller", least.controllers, (0, 6), &|_| Fault::KillController),
        track("brokers", least.brokers, (1, 8), &|random| {
            let first = node(random);
            let both = random.below(6) == 0;
            Fault::KillBrokers(if both { vec![first, (first + 1) % NODES] } else { vec![first] })
        }),
        track("pauses", least.pauses, (1, 20), &|random| {
            Fault::Pause(match random.below(3) {
                0 => Target::Agent(agent(random)),
                1 => Target::Controller,
                _ => Target::Broker(node(random)),
            })
        }),
        track("cuts", least.cuts, (1, 12), &|random| {
            let nodes = if random.below(4) == 0 { (0..NODES).collect() } else { vec![node(random)] };
            Fault::Cut(random.pick(&[Cut::Reset, Cut::Refuse, Cut::Stall, Cut::Hole]), nodes)
        }),
    ]
}

/// A fifth more faults than are needed, one in each of as many equal parts of the run; each lasts so many seconds.
fn track(
    mut random: Random,
    minutes: u64,
    least: u64,
    (shortest, longest): (u64, u64),
    fault: &dyn Fn(&mut Random) -> Fault,
) -> Vec<Event> {
    let count = u32::try_from((least * 6).div_ceil(5)).unwrap();
    let part = Duration::from_secs(60 * minutes) / count;
    (0..count)
        .map(|number| Event {
            at: part * number + part.mul_f64(random.fraction()),
            lasts: Duration::from_millis(random.between(1000 * shortest, 1000 * longest)),
            fault: fault(&mut random),
        })
        .collect()
}
