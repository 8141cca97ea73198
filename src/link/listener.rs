//! The controller's side of the link: all endpoints, and the agents that come in through them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use super::{
    Config, Identity, Lane, LinkError, accept, address,
    caller::Caller,
    gate::{Dropped, Gate, Roster, Verdict},
    half_open::HalfOpen,
    hello::close,
    notice::{self, Reason, Subject},
    own::{self, Own},
    packet::{Datagrams, Header, Incarnation, Kind},
    port::{Mouth, Plan, Port},
    route::{Down, Route},
    session::Session,
    transport,
};
use crate::{
    id::AgentName,
    kafka::{PartitionWriter, Record, SharedCluster},
    layout::Layout,
};

/// Sessions that wait to be taken over by the controller.
const SESSIONS: usize = 256;
/// How often a controller looks whether a partition works.
const PROBE: Duration = Duration::from_secs(1);
/// Notices in a burst, and per second after it.
const NOTICES: u32 = 20;
/// The key of probe records: no agent's name starts so.
const PROBE_KEY: &[u8] = b"-controller";

/// The open endpoints of a controller. Clones are handles of the same; [`close`](Self::close) ends them.
#[derive(Clone)]
pub struct Listener {
    shared: Arc<Shared>,
}

/// What the listener's tasks share.
pub(super) struct Shared {
    pub config: Config,
    pub identity: Arc<Identity>,
    pub epoch: u32,
    pub gate: Arc<Gate>,
    pub sessions: mpsc::Sender<Session>,
    state: Mutex<State>,
    ports: Mutex<Vec<(Lane, Port)>>,
    own: Own,
    probed: Vec<watch::Sender<Instant>>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    live: BTreeMap<AgentName, Session>,
    half_open: HalfOpen,
    /// Bulk lanes on each bulk partition.
    leases: Vec<u32>,
}

impl Listener {
    /// Opens the endpoints of all partitions, for the controller that holds `epoch`. Sessions of authenticated agents
    /// come through the receiver; a second session of a name means that the first was superseded or replaced.
    pub async fn open(
        cluster: SharedCluster,
        config: Config,
        identity: Arc<Identity>,
        epoch: u32,
        roster: Arc<dyn Roster>,
    ) -> Result<(Self, mpsc::Receiver<Session>), LinkError> {
        let mut random = config.random("listener");
        let (sessions, receiver) = mpsc::channel(SESSIONS);
        let now = Instant::now();
        let shared = Arc::new(Shared {
            gate: Arc::new(Gate::new(roster, epoch)),
            state: Mutex::new(State { leases: vec![0; config.partitions as usize], ..State::default() }),
            ports: Mutex::default(),
            own: Own::new(cluster.clone(), StdRng::from_seed(random.random())),
            probed: (0..config.partitions).map(|_| watch::Sender::new(now)).collect(),
            tasks: Mutex::default(),
            config,
            identity,
            epoch,
            sessions,
        });
        let lanes = [Lane::Control, Lane::Bulk].into_iter();
        let places: Vec<_> = lanes.flat_map(|lane| (0..shared.config.partitions).map(move |p| (lane, p))).collect();
        let nonce = random.random();
        let opened = try_join_all(places.iter().map(|&(lane, partition)| {
            let random = StdRng::from_seed(random.random());
            let place = Place { shared: shared.clone(), cluster: cluster.clone(), lane, partition, nonce };
            async move { place.open(random).await }
        }))
        .await?;
        {
            let mut tasks = shared.tasks.lock().expect("no holder panics");
            let mut ports = shared.ports.lock().expect("no holder panics");
            for (&(lane, partition), (port, down)) in places.iter().zip(opened) {
                tasks.spawn(accept::serve(shared.clone(), port.endpoint.clone(), down));
                if lane == Lane::Control {
                    tasks.spawn(probe(shared.clone(), cluster.clone(), partition, nonce));
                }
                ports.push((lane, port));
            }
        }
        Ok((Self { shared }, receiver))
    }

    /// The control partition of an agent.
    pub fn partition_of(&self, name: &AgentName) -> u32 {
        address::partition(&Caller::Agent(name.clone()), self.shared.config.partitions)
    }

    /// How long ago the controller's own last probe record came back from control partition `partition`; the
    /// controller writes one every second. While this is large, silence says nothing about agents.
    pub fn probe_age(&self, partition: u32) -> Duration {
        self.shared.probed.get(partition as usize).map_or(Duration::ZERO, |probed| probed.borrow().elapsed())
    }

    /// Packets that were dropped before QUIC saw them, by reason.
    pub fn dropped(&self) -> &Dropped {
        &self.shared.gate.dropped
    }

    /// Waits until an agent proves that it knows a controller with a higher epoch, and returns that. The agent may
    /// lie: whether it is true stands in the journal.
    pub async fn fenced(&self) -> u32 {
        self.shared.gate.fenced().await
    }

    /// Stops writing and reading at once, as `kill -9` does, and keeps what must not be dropped, since a drop says
    /// good-bye.
    #[cfg(test)]
    pub(super) fn stop_dead(self) -> impl Sized {
        self.shared.tasks.lock().expect("no holder panics").abort_all();
        for (_, port) in &*self.shared.ports.lock().expect("no holder panics") {
            port.stop_dead();
        }
        self
    }

    /// Tells the agents that the controller goes away, sends what is queued (bounded by 2 s) and stops.
    pub async fn close(&self) {
        self.shared.tasks.lock().expect("no holder panics").abort_all();
        let ports = std::mem::take(&mut *self.shared.ports.lock().expect("no holder panics"));
        let ports = ports.into_iter().map(|(_, port)| port).chain(self.shared.own.take());
        let closing = ports.map(|port| port.close(close::GOING_AWAY, b"the controller shuts down"));
        futures_util::future::join_all(closing).await;
    }
}

impl Shared {
    /// Takes a half-open place, or says that there is none.
    pub fn begin(&self, caller: &Caller, lane: Lane, incarnation: Incarnation) -> bool {
        let taken = self.state().half_open.take(caller, lane, incarnation);
        if !taken {
            Dropped::count(&self.gate.dropped.half_open);
        }
        taken
    }

    /// Gives the place back.
    pub fn end(&self, caller: &Caller, lane: Lane, incarnation: Incarnation) {
        self.state().half_open.give_back(caller, lane, incarnation);
    }

    /// Makes `session` the one of its agent; the one before is told why it ends. False, and the new one is closed, if
    /// the one before is of a later connection of the same process.
    pub fn enter(&self, session: &Session) -> bool {
        let mut state = self.state();
        let before = state.live.get(session.name()).cloned();
        if before.as_ref().is_some_and(|before| before.is_later_than(session)) {
            drop(state);
            session.close(close::REPLACED, "overtaken");
            return false;
        }
        state.live.insert(session.name().clone(), session.clone());
        drop(state);
        match before {
            Some(before) if before.incarnation() == session.incarnation() => {
                before.close(close::REPLACED, "the same process connected again");
            }
            Some(before) => before.close(close::SUPERSEDED, "a newer process runs under this name"),
            None => {}
        }
        true
    }

    /// Forgets a session that has ended.
    pub fn leave(&self, session: &Session) {
        let mut state = self.state();
        if state.live.get(session.name()).is_some_and(|live| live.is(session)) {
            state.live.remove(session.name());
        }
        drop(state);
        let roster = self.gate.roster();
        if roster.is_removed(session.name()) || roster.layout(session.name()) == Layout::Shared {
            for port in self.own.forget(session.name()) {
                self.spawn(port.close(close::REMOVED, b"the agent has no topic of its own any more"));
            }
        }
    }

    /// The live session of a run.
    pub fn live(&self, name: &AgentName, incarnation: Incarnation) -> Option<Session> {
        self.state().live.get(name).filter(|s| s.incarnation() == incarnation).cloned()
    }

    /// Leases the bulk partition that the fewest others have.
    pub fn lease(&self) -> u32 {
        let mut state = self.state();
        let partition = (0..state.leases.len()).min_by_key(|p| state.leases[*p]).unwrap_or(0);
        state.leases[partition] += 1;
        partition as u32
    }

    /// Gives a bulk partition back.
    pub fn release(&self, partition: u32) {
        if let Some(count) = self.state().leases.get_mut(partition as usize) {
            *count = count.saturating_sub(1);
        }
    }

    /// Which topics carry what is sent to `caller`. Who has no name yet has none of its own.
    fn layout(&self, caller: &Caller) -> Layout {
        match caller {
            Caller::Agent(name) => self.gate.roster().layout(name),
            Caller::Token(_) => Layout::Shared,
        }
    }

    /// Runs a task until the listener closes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().expect("no holder panics");
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// One (lane, partition) of a listener that is being opened.
struct Place {
    shared: Arc<Shared>,
    cluster: SharedCluster,
    lane: Lane,
    partition: u32,
    nonce: u64,
}

impl Place {
    async fn open(self, mut random: StdRng) -> Result<(Port, Arc<Route>), LinkError> {
        let Self { shared, cluster, lane, partition, nonce } = self;
        let prefix = &shared.config.prefix;
        let (read_topic, write_topic) = match lane {
            Lane::Control => (prefix.up_control(), prefix.down_control()),
            Lane::Bulk => (prefix.up_bulk(), prefix.down_bulk()),
        };
        let route = Arc::new(Route::Down(Down::new(lane, shared.epoch)));
        let (tell, told) = mpsc::channel(NOTICES as usize);
        let at = partition as i32;
        let mouth = Mouth {
            writer: cluster.writer(&write_topic, at),
            route: route.clone(),
            local: address::CONTROLLER,
            endpoint: transport::controller_endpoint(
                &shared.identity,
                shared.epoch,
                StdRng::from_seed(random.random()),
            ),
            server: Some(transport::server(&shared.config, lane, &shared.identity)),
            random,
        };
        let sorter = Sorter { shared: Arc::downgrade(&shared), route: route.clone(), partition, tell, nonce };
        let plan = Plan { read: (read_topic, at), sort: Arc::new(move |record, out| sorter.sort(record, out)), mouth };
        let port = Port::open(&cluster, plan).await?;
        let notices = Notices { shared: shared.clone(), writer: cluster.writer(&write_topic, at), cluster, lane };
        shared.spawn(notices.give(told));
        Ok((port, route))
    }
}

/// Sorts what comes over one partition of an up topic.
struct Sorter {
    shared: Weak<Shared>,
    route: Arc<Route>,
    partition: u32,
    tell: mpsc::Sender<Told>,
    nonce: u64,
}

impl Sorter {
    fn sort(&self, record: Record, out: &mut Vec<(SocketAddr, Bytes)>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let Route::Down(down) = &*self.route else { return };
        let gate = &shared.gate;
        let Record { key, mut value, .. } = record;
        let Ok(header) = Header::decode(&mut value) else { return Dropped::count(&gate.dropped.malformed) };
        if header.kind == Kind::Probe {
            if value[..] == self.nonce.to_le_bytes() {
                shared.probed[self.partition as usize].send_replace(Instant::now());
            }
            return;
        }
        let Some(caller) = Caller::parse(&key) else { return Dropped::count(&gate.dropped.malformed) };
        let own = shared.layout(&caller) == Layout::PerAgent;
        for datagram in Datagrams::new(&header, value) {
            let Ok((datagram, mac)) = datagram else { return Dropped::count(&gate.dropped.malformed) };
            match gate.judge(&caller, &header, down.lane, &datagram, mac) {
                Verdict::Pass { proven } if own => {
                    let from = |down: &Down| down.learn(&caller, header.incarnation, proven);
                    shared.own.receive(&self.shared, &caller, down.lane, datagram, from);
                }
                Verdict::Pass { proven } => out.push((down.learn(&caller, header.incarnation, proven), datagram)),
                Verdict::Drop => {}
                Verdict::Tell(reason) => {
                    let subject = Subject::of(&header, down.lane, &datagram, mac);
                    let told = Told { caller: caller.clone(), incarnation: header.incarnation, reason, subject };
                    // A full channel is the rate limit at work.
                    drop(self.tell.try_send(told));
                }
            }
        }
    }
}

/// Who is told what about which handshake.
struct Told {
    caller: Caller,
    incarnation: Incarnation,
    reason: Reason,
    subject: Subject,
}

/// Tells agents why they are not let in, where they read.
struct Notices {
    shared: Arc<Shared>,
    cluster: SharedCluster,
    lane: Lane,
    writer: Arc<dyn PartitionWriter>,
}

impl Notices {
    /// Writes as many as the rate allows; what is more was dropped by the channel's bound.
    async fn give(self, mut told: mpsc::Receiver<Told>) {
        let Self { shared, cluster, lane, writer } = self;
        while let Some(Told { caller, incarnation, reason, subject }) = told.recv().await {
            let key = caller.text();
            let value = notice::write(&shared.identity, shared.epoch, &key, incarnation, reason, subject);
            let record = vec![Record::new(Bytes::copy_from_slice(key.as_bytes()), value)];
            let written = match (&caller, shared.layout(&caller)) {
                (Caller::Agent(name), Layout::PerAgent) => {
                    let topic = shared.config.prefix.agent_down(name);
                    cluster.writer(&topic, own::partition(lane)).produce(record).await
                }
                _ => writer.produce(record).await,
            };
            if let Err(error) = written {
                tracing::debug!(%error, "a notice could not be written");
            }
            tokio::time::sleep(Duration::from_secs(1) / NOTICES).await;
        }
    }
}

/// Writes this controller's probe records to one up partition.
async fn probe(shared: Arc<Shared>, cluster: SharedCluster, partition: u32, nonce: u64) {
    let writer = cluster.writer(&shared.config.prefix.up_control(), partition as i32);
    let header = Header { kind: Kind::Probe, incarnation: Incarnation { starts: 0, random: 0 }, epoch: shared.epoch };
    let mut value = BytesMut::new();
    header.encode(&mut value);
    value.extend_from_slice(&nonce.to_le_bytes());
    let record = Record::new(PROBE_KEY, value.freeze());
    loop {
        if let Err(error) = writer.produce(vec![record.clone()]).await {
            tracing::debug!(%error, partition, "a probe could not be written");
        }
        tokio::time::sleep(PROBE).await;
    }
}
