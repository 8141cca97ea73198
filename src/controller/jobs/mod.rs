//! Jobs: the scheduler together with what it needs of the world.
//!
//! ```text
//! journal ─ fold ─┐                          ┌→ proposals → journal
//! agents' streams ┼→ lock: scheduler → drain ┼→ orders → stations → agents
//! HTTP, the clock ┘                          └→ watchers
//! ```
//!
//! One lock, never held across a wait; the scheduler decides, the rest carries. A station is one agent's stream.

mod commands;
mod log;
mod request;
mod station;
mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

pub use log::Reading;
pub use station::{Posting, serve};

use super::{
    bundles::Catalogue,
    event::Event,
    scheduler::{self, Action, Now, Order, Scheduler},
    store::Store,
};
use crate::{
    api::{Agent, AgentState, JobCounts},
    bytelog::{JobKey, JobSecret},
    clock,
    id::AgentName,
    job::{self, Hidden, Job, JobId},
    journal,
    kafka::{At, SharedCluster},
    protocol::jobs::{self, LogTicket},
    selector::Labels,
};

/// Orders that wait for one agent's stream. One that takes none for so long gets a new stream and begins anew.
const ORDERS: usize = 1024;

/// Where the logs end is looked at so often while there are jobs,
const LOOK: Duration = Duration::from_secs(1);
/// and so often while there are none.
const SELDOM_LOOK: Duration = Duration::from_secs(10);
/// How long a look may take.
const LOG_END: Duration = Duration::from_secs(5);

/// Jobs that ended long ago are looked for so often.
const UPKEEP: Duration = Duration::from_secs(3600);

/// The controller's jobs.
pub struct Jobs {
    config: scheduler::Config,
    started: Instant,
    state: Mutex<State>,
    /// There is something to be journalled.
    proposed: Notify,
    /// The scheduler may want to be woken at another time than before.
    rescheduled: Notify,
    /// Of the logs' topic.
    partitions: u32,
    /// Where the bundles lie that jobs use.
    catalogue: Catalogue,
    /// Records of logs that were not their jobs' own, as readers met them.
    forged: AtomicU64,
}

struct State {
    scheduler: Scheduler,
    proposals: VecDeque<scheduler::Event>,
    stations: BTreeMap<AgentName, Station>,
    stations_made: u64,
    /// What stands in attempts' ways, as their agents say.
    troubles: BTreeMap<(JobId, u32), String>,
    /// Where each partition of the logs' topic ended a moment ago.
    log_ends: BTreeMap<u32, i64>,
    /// Before these offsets there is nothing of attempts whose agents have not said where their output lies.
    log_floors: BTreeMap<(JobId, u32), i64>,
    /// Who waits for a job to change.
    watchers: BTreeMap<JobId, watch::Sender<()>>,
}

struct Station {
    /// Tells an agent's stream from its successor.
    number: u64,
    orders: mpsc::Sender<jobs::Order>,
}

impl Jobs {
    /// None, with logs on so many partitions.
    pub fn new(config: scheduler::Config, partitions: u32, catalogue: Catalogue) -> Self {
        let state = State {
            scheduler: Scheduler::new(config.clone()),
            proposals: VecDeque::new(),
            stations: BTreeMap::new(),
            stations_made: 0,
            troubles: BTreeMap::new(),
            log_ends: BTreeMap::new(),
            log_floors: BTreeMap::new(),
            watchers: BTreeMap::new(),
        };
        Self {
            config,
            started: Instant::now(),
            state: Mutex::new(state),
            proposed: Notify::new(),
            rescheduled: Notify::new(),
            partitions,
            catalogue,
            forged: AtomicU64::new(0),
        }
    }

    /// A reader met records that were not the job's own.
    fn count_forged(&self, records: u64) {
        self.forged.fetch_add(records, Relaxed);
    }

    /// How many there were.
    pub fn forged(&self) -> u64 {
        self.forged.load(Relaxed)
    }

    /// Applies an event of the journal.
    pub fn fold(&self, event: &Event) {
        self.change(|state, now| match event {
            Event::AgentAdded { name, labels, .. } => state.scheduler.apply_agent_added(name, labels),
            // What has an agent may still come back with a new secret: its jobs are those of one that is unreachable. Whom a
            // token adds is told by `fold_agent`.
            Event::AgentRotated { .. }
            | Event::AgentSecretRetired { .. }
            | Event::AgentRevoked { .. }
            | Event::TokenCreated { .. }
            | Event::TokenRevoked { .. }
            | Event::TokenUsed { .. }
            | Event::AgentEnrolled { .. } => {}
            Event::AgentRemoved { name } => state.scheduler.apply_agent_removed(now, name),
            Event::Scheduler(event) => {
                if let Err(refused) = state.scheduler.apply(now, event) {
                    tracing::warn!(?event, %refused, "an event of the journal was refused");
                }
                state.note(event, |id| self.log_partition(id));
            }
            Event::AgentPlaced { .. } | Event::Access(_) | Event::Bundle(_) => {}
        });
    }

    /// An event of the journal that names no labels added an agent.
    pub fn fold_agent(&self, name: &AgentName, labels: &Labels) {
        self.change(|state, _| state.scheduler.apply_agent_added(name, labels));
    }

    /// Forgets all jobs and agents: the journal begins anew. Only before this controller leads.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.scheduler = Scheduler::new(self.config.clone());
        state.troubles.clear();
    }

    /// Events that give the same jobs once all agents were added.
    pub fn snapshot(&self) -> Vec<Bytes> {
        self.lock().scheduler.snapshot().map(|event| Event::Scheduler(event).encode()).collect()
    }

    /// This controller leads from now on: it decides, and not only follows.
    pub fn lead(&self, partition_of: impl Fn(&AgentName) -> u32) {
        self.change(|state, now| state.scheduler.handle_leading(now, partition_of));
    }

    /// What the registry says of agents, and which partitions work; about once a second.
    pub fn look(&self, agents: &[(AgentName, AgentState)], working: impl Iterator<Item = bool>) {
        self.change(|state, now| {
            for (partition, working) in (0..).zip(working) {
                state.scheduler.handle_partition(now, partition, working);
            }
            for (name, agent) in agents {
                state.scheduler.handle_presence(now, name, *agent);
                if *agent == AgentState::Online {
                    state.scheduler.handle_heard(now, name);
                }
            }
        });
    }

    /// Adds to agents what is known of them as those who get jobs.
    pub fn complete(&self, agents: &mut [Agent]) {
        let state = self.lock();
        for agent in agents {
            let view = state.scheduler.agent_view(&agent.name).unwrap_or_default();
            agent.drained = view.drained;
            agent.slots = view.slots;
            agent.jobs = view.jobs.try_into().unwrap_or(u32::MAX);
        }
    }

    /// How many jobs are in which state.
    pub fn counts(&self) -> JobCounts {
        let counts = self.lock().scheduler.counts();
        let number = |count: usize| count.try_into().unwrap_or(u32::MAX);
        JobCounts {
            queued: number(counts.queued),
            assigned: number(counts.assigned),
            running: number(counts.running),
            ended: number(counts.ended),
        }
    }

    /// Answers a question to the scheduler.
    pub fn ask<T>(&self, question: impl FnOnce(&Scheduler, Now) -> T) -> T {
        question(&self.lock().scheduler, self.now())
    }

    /// Wakes the scheduler when it wants that. Never ends.
    pub async fn keep_time(&self) {
        loop {
            let now = Instant::now();
            let next = self.lock().scheduler.poll_timeout();
            let at = next.map_or(now + UPKEEP, |at| (self.started + at).min(now + UPKEEP));
            tokio::select! {
                () = sleep_until(at) => self.change(|state, now| state.scheduler.handle_timeout(now)),
                () = self.rescheduled.notified() => {}
            }
        }
    }

    /// The next event that the scheduler wants to be journalled. To be called by one task.
    pub async fn proposal(&self) -> scheduler::Event {
        loop {
            if let Some(event) = self.lock().proposals.pop_front() {
                return event;
            }
            self.proposed.notified().await;
        }
    }

    /// Tells when something becomes true of the job.
    pub fn watch(self: &Arc<Self>, id: JobId) -> Watch {
        let changes = self.lock().watchers.entry(id).or_default().subscribe();
        Watch { jobs: self.clone(), id, changes }
    }

    /// The partition of the logs' topic on which a job's output is.
    pub fn log_partition(&self, id: JobId) -> u32 {
        // The end of an id is random.
        let (_, random) = id.as_bytes().split_last_chunk::<4>().expect("an id has ten bytes");
        u32::from_be_bytes(*random) % self.partitions.max(1)
    }

    /// The offset before which there is nothing of an attempt, if one is known beside the journal.
    fn log_floor(&self, id: JobId, attempt: u32) -> Option<i64> {
        self.lock().log_floors.get(&(id, attempt)).copied()
    }

    /// This is where a partition of the logs' topic ends.
    fn note_log_end(&self, partition: u32, end: i64) {
        let mut state = self.lock();
        let before = state.log_ends.insert(partition, end);
        if before.is_some_and(|before| before > end) {
            // The topic was made anew: what was known of the other one is wrong here.
            state.log_floors.clear();
        }
    }

    /// Keeps an eye on where the logs' partitions end, so that who follows a new job does not read what is there of others.
    /// Never ends.
    pub async fn watch_log_ends(&self, cluster: SharedCluster, topic: &str) {
        let mut readers: Vec<_> = (0..self.partitions)
            .map(|partition| cluster.reader(topic, i32::try_from(partition).unwrap_or(i32::MAX)))
            .collect();
        loop {
            for (partition, reader) in (0..).zip(&mut readers) {
                // One that can't be asked now is asked again.
                if let Ok(Ok(end)) = timeout(LOG_END, reader.offset(At::Latest)).await {
                    self.note_log_end(partition, end);
                }
            }
            let counts = self.counts();
            let busy = counts.queued + counts.assigned + counts.running > 0;
            sleep(if busy { LOOK } else { SELDOM_LOOK }).await;
        }
    }

    /// Now, for the scheduler.
    fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), unix_ms: clock::unix_ms() }
    }

    /// Changes something, and carries out what follows.
    fn change<T>(&self, change: impl FnOnce(&mut State, Now) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let before = state.scheduler.poll_timeout();
        let result = change(&mut state, now);
        while let Some(event) = state.scheduler.poll_event() {
            state.proposals.push_back(event);
        }
        while let Some(action) = state.scheduler.poll_action() {
            state.send(action, |id| self.log_partition(id), &self.catalogue);
        }
        let (proposed, rescheduled) = (!state.proposals.is_empty(), state.scheduler.poll_timeout() != before);
        drop(state);
        if proposed {
            self.proposed.notify_one();
        }
        if rescheduled {
            self.rescheduled.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// Tells when something becomes true of a job.
pub struct Watch {
    jobs: Arc<Jobs>,
    id: JobId,
    changes: watch::Receiver<()>,
}

impl Watch {
    /// Waits for the next change since the last call, or since this was made.
    pub async fn changed(&mut self) {
        // The sender goes when this does, or later.
        self.changes.changed().await.ok();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.jobs.lock();
        if state.watchers.get(&self.id).is_some_and(|watcher| watcher.receiver_count() <= 1) {
            state.watchers.remove(&self.id);
        }
    }
}

impl State {
    /// Puts an order before its agent's stream. If that is full or gone the agent gets it in its next one.
    fn send(&mut self, action: Action, log_partition: impl Fn(JobId) -> u32, catalogue: &Catalogue) {
        let Action { agent, job, attempt, order } = action;
        let Some(station) = self.stations.get(&agent) else { return };
        let order = match order {
            Order::Start => {
                let Some(known) = self.scheduler.job(job) else { return };
                let log = LogTicket { partition: log_partition(job), key: attempt_key(job, known, attempt) };
                let spec = Box::new(known.spec().clone());
                let bundles = spec.bundles.iter().map(|used| catalogue.ticket(used)).collect();
                jobs::Order::Start { job, attempt, spec, log, bundles }
            }
            Order::Cancel(cancel) => jobs::Order::Cancel { job, attempt, cancel },
            Order::Release => {
                self.troubles.remove(&(job, attempt));
                jobs::Order::Release { job, attempt }
            }
        };
        if station.orders.try_send(order).is_err() {
            self.stations.remove(&agent);
        }
    }

    fn note(&mut self, event: &scheduler::Event, log_partition: impl Fn(JobId) -> u32) {
        if let scheduler::Event::Job { id, event } = event {
            match event {
                // Nothing of it is written before its order goes out, which is later than this.
                job::Event::Assigned { attempt, .. } => {
                    if let Some(end) = self.log_ends.get(&log_partition(*id)) {
                        self.log_floors.insert((*id, *attempt), *end);
                    }
                }
                job::Event::Logged { attempt, .. }
                | job::Event::Lost { attempt, .. }
                | job::Event::Retried { attempt, .. }
                | job::Event::Returned { attempt, .. } => drop(self.log_floors.remove(&(*id, *attempt))),
                _ => {}
            }
        }
        match event {
            scheduler::Event::Job { id, .. } | scheduler::Event::Restored { id, .. } => {
                self.watchers.get(id).into_iter().for_each(|watcher| watcher.send_replace(()));
            }
            scheduler::Event::Forgotten { ids } => {
                self.troubles.retain(|(id, _), _| !ids.contains(id));
                self.log_floors.retain(|(id, _), _| !ids.contains(id));
            }
            scheduler::Event::ArtifactsForgotten { ids, .. } => {
                ids.iter().filter_map(|id| self.watchers.get(id)).for_each(|watcher| watcher.send_replace(()));
            }
            scheduler::Event::AgentDrained { .. } | scheduler::Event::AgentResumed { .. } => {}
        }
    }
}

/// What names a job in the logs' topic.
pub(super) fn log_name(id: JobId) -> JobKey {
    JobKey::new(id.to_string()).expect("an id has 16 characters")
}

/// What an attempt's output is sealed under.
fn attempt_key(id: JobId, job: &Job, attempt: u32) -> Hidden<[u8; 32]> {
    Hidden::new(*JobSecret::new(*job.log_key().expose()).attempt(&log_name(id), attempt).expose())
}

/// Journals what the scheduler decides, in its order. Ends with the journal.
pub async fn decide(jobs: Arc<Jobs>, store: Store) {
    let mut pending = FuturesUnordered::<journal::Pending>::new();
    loop {
        let result = tokio::select! {
            Some(result) = pending.next(), if !pending.is_empty() => result.map(drop),
            event = jobs.proposal() => match store.journal().enqueue(Event::Scheduler(event).encode()).await {
                Ok(queued) => {
                    pending.push(queued);
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        // What ends the journal ends the controller.
        if let Err(error) = result {
            tracing::debug!(%error, "a decision was not journalled");
            store.note_failure(&error);
            return;
        }
    }
}
