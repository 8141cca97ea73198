//! The agent's side of the link.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, VarInt};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    Config, Credential, Fingerprint, Lane, Layout, LinkError, Profile, address,
    hello::{Hello, Refusal, ToAgent, close},
    notice::{self, Notice, Reason},
    own,
    packet::{Datagrams, Header, Incarnation, Kind},
    port::{Mouth, Plan, Port},
    route::{Route, Up},
    stream::{RecvStream, SendStream, wrap},
    tls::{self, SERVER_NAME},
    transport,
    until::until,
};
use crate::{
    backoff::Backoff,
    frame,
    kafka::{Record, SharedCluster},
};

/// Streams that wait to be accepted: more than an agent starts at once.
const STREAMS: usize = 64;

/// An agent's connection to the packet topics, from which sessions are dialled one after the other.
pub struct Dialer {
    shared: Arc<Shared>,
    control: Port,
}

struct Shared {
    cluster: SharedCluster,
    config: Config,
    credential: Arc<Credential>,
    profile: Profile,
    incarnation: Incarnation,
    /// Connections tried so far.
    attempts: AtomicU32,
    /// The highest epoch that the pinned controller showed.
    epoch: Arc<AtomicU32>,
    random: Mutex<StdRng>,
    /// A key that a controller showed and that is not the pinned one.
    refused_key: Arc<Mutex<Option<Fingerprint>>>,
    notices: watch::Sender<Option<Notice>>,
}

impl Dialer {
    /// Starts reading and writing the agent's partition. `starts` grows with each start, across hosts too: the
    /// caller persists it and passes max(last + 1, the clock in milliseconds); the newest process of a name wins.
    /// Fails at once where Kafka does, after one try of each hop.
    pub async fn open(
        cluster: SharedCluster,
        config: Config,
        credential: Arc<Credential>,
        profile: Profile,
        starts: u64,
    ) -> Result<Self, LinkError> {
        let mut random = config.random(credential.name.as_str());
        let shared = Arc::new(Shared {
            cluster,
            credential,
            profile,
            incarnation: Incarnation { starts, random: random.random() },
            attempts: AtomicU32::new(0),
            epoch: Arc::default(),
            random: Mutex::new(random),
            refused_key: Arc::default(),
            notices: watch::Sender::new(None),
            config,
        });
        let partition = address::partition(&shared.credential.name, shared.config.partitions);
        let control = shared.open(Lane::Control, partition).await?;
        Ok(Self { shared, control })
    }

    /// Dials, authenticates the controller by its pinned key, and shows the secret. Fails within `connect_timeout` if
    /// no controller answers; once one has, only the end of the connection ends the wait for its welcome, since it may
    /// already count on us.
    pub async fn connect(&self) -> Result<AgentSession, LinkError> {
        self.shared.notices.send_replace(None);
        *self.shared.refused_key.lock().expect("no holder panics") = None;
        tokio::select! {
            biased;
            session = self.shared.enter(&self.control, Lane::Control) => {
                let (connection, orders) = session.map_err(|error| self.explain(error))?;
                Ok(AgentSession::start(self.shared.clone(), connection, orders))
            }
            error = self.control.health.fatal() => Err(error.into()),
            error = self.shared.turned_away() => Err(error),
        }
    }

    /// Sends what is queued (bounded by 2 s) and stops.
    pub async fn close(self) {
        self.control.close(close::GOING_AWAY, b"the agent stops").await;
    }

    /// Says why nobody answered, as far as we can tell.
    fn explain(&self, error: LinkError) -> LinkError {
        if !matches!(error, LinkError::NoAnswer(_)) {
            return error;
        }
        let notice = *self.shared.notices.borrow();
        match (self.control.health.error(), notice) {
            (Some(error), _) => error.into(),
            (None, Some(notice)) => self.shared.another_controller(notice.controller),
            (None, None) => error,
        }
    }
}

impl Shared {
    async fn open(self: &Arc<Self>, lane: Lane, partition: u32) -> Result<Port, LinkError> {
        let (prefix, name) = (&self.config.prefix, self.credential.name.clone());
        let partition = partition as i32;
        let (down, up_topic) = match lane {
            Lane::Control => (prefix.down_control(), prefix.up_control()),
            Lane::Bulk => (prefix.down_bulk(), prefix.up_bulk()),
        };
        let read = match self.config.layout {
            Layout::Shared => (down, partition),
            Layout::PerAgent => (prefix.agent_down(&name), own::partition(lane)),
        };
        let local = address::agent(&name, lane, self.incarnation);
        let up = Up {
            hash: self.credential.secret_hash(),
            incarnation: self.incarnation,
            epoch: self.epoch.clone(),
            name,
            lane,
        };
        let mouth = Mouth {
            writer: self.cluster.writer(&up_topic, partition),
            route: Arc::new(Route::Up(up)),
            local,
            endpoint: transport::agent_endpoint(self.rng()),
            server: None,
            random: self.rng(),
        };
        let shared = self.clone();
        let plan = Plan { read, sort: Arc::new(move |record, out| shared.sort(record, out)), mouth };
        Ok(Port::open(&self.cluster, plan).await?)
    }

    /// Sorts one record of a down topic: ours are those with our name and our run.
    fn sort(&self, record: Record, out: &mut Vec<(SocketAddr, Bytes)>) {
        let name = &self.credential.name;
        if record.key != name.as_str().as_bytes() {
            return;
        }
        let mut value = record.value;
        let Ok(header) = Header::decode(&mut value) else { return };
        if header.incarnation != self.incarnation {
            return;
        }
        match header.kind {
            Kind::Down => {
                let datagrams = Datagrams::new(&header, value).map_while(Result::ok);
                out.extend(datagrams.map(|(datagram, _)| (address::CONTROLLER, datagram)));
            }
            Kind::Notice => {
                if let Some(notice) = notice::read(name, self.incarnation, &value) {
                    // What the pinned controller says is not displaced by what another says.
                    self.notices.send_if_modified(|known| {
                        let pinned = known.is_some_and(|n| n.controller == self.credential.controller);
                        if !pinned {
                            *known = Some(notice);
                        }
                        !pinned
                    });
                }
            }
            Kind::Up | Kind::Probe => {}
        }
    }

    /// Connects one lane and authenticates both ways. What is returned is the rest of the hello stream.
    async fn enter(&self, port: &Port, lane: Lane) -> Result<(Connection, quinn::RecvStream), LinkError> {
        let crypto = tls::client(self.credential.controller, self.refused_key.clone());
        let client = transport::client(&self.config, lane, crypto);
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let connecting = port
            .endpoint
            .connect_with(client, address::CONTROLLER, SERVER_NAME)
            .map_err(|e| LinkError::Ended(e.to_string()))?;
        let limit = self.config.connect_timeout;
        let connected = tokio::time::timeout(limit, connecting).await;
        let connection = connected.map_err(|_| LinkError::NoAnswer(limit))?.map_err(|e| self.why(&e))?;
        let hello = Hello {
            name: self.credential.name.clone(),
            secret: *self.credential.secret.expose(),
            lane,
            attempt,
            epoch: self.epoch.load(Ordering::Relaxed),
            profile: self.profile.clone(),
        };
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| self.why(&e))?;
        let said = async {
            frame::write(&mut send, &hello).await?;
            frame::read::<ToAgent>(&mut recv).await
        };
        let answer = match said.await {
            Ok(answer) => answer,
            Err(error) => {
                let reason = connection.close_reason();
                return Err(reason.map_or_else(|| LinkError::Ended(error.to_string()), |reason| self.why(&reason)));
            }
        };
        let name = self.credential.name.to_string();
        let refused = match answer {
            ToAgent::Welcome { epoch, .. } if epoch >= hello.epoch => {
                self.epoch.fetch_max(epoch, Ordering::Relaxed);
                return Ok((connection, recv));
            }
            ToAgent::Welcome { .. } | ToAgent::Refused(Refusal::Stale) => {
                LinkError::Ended("a controller answered that is not the leader any more".to_owned())
            }
            ToAgent::Refused(Refusal::Unknown) => LinkError::UnknownAgent(name),
            ToAgent::Refused(Refusal::Removed) => LinkError::Removed(name),
            ToAgent::OpenBulk { .. } => LinkError::Ended("the controller gave an order before the welcome".to_owned()),
        };
        connection.close(close::REFUSED, b"refused");
        Err(refused)
    }

    /// Waits until the pinned controller says that it will not let us in.
    async fn turned_away(&self) -> LinkError {
        let pinned = |notice: &Option<Notice>| notice.filter(|n| n.controller == self.credential.controller);
        let notice = until(&self.notices, pinned).await;
        let name = self.credential.name.to_string();
        match notice.reason {
            Reason::Unknown => LinkError::UnknownAgent(name),
            Reason::Superseded => LinkError::Superseded(name),
        }
    }

    /// What the end of a connection means to an agent.
    fn why(&self, error: &ConnectionError) -> LinkError {
        let name = || self.credential.name.to_string();
        /// TLS alert `no_application_protocol` as a QUIC transport error.
        const NO_PROTOCOL: u64 = 0x178;
        match error {
            ConnectionError::ApplicationClosed(closed) if closed.error_code == close::SUPERSEDED => {
                LinkError::Superseded(name())
            }
            ConnectionError::ApplicationClosed(closed) if closed.error_code == close::REMOVED => {
                LinkError::Removed(name())
            }
            ConnectionError::ConnectionClosed(closed) if u64::from(closed.error_code) == NO_PROTOCOL => {
                LinkError::Version("the controller speaks none of this agent's".to_owned())
            }
            ConnectionError::VersionMismatch => LinkError::Version("QUIC versions differ".to_owned()),
            other => match *self.refused_key.lock().expect("no holder panics") {
                Some(found) => self.another_controller(found),
                None => LinkError::Ended(other.to_string()),
            },
        }
    }

    fn another_controller(&self, found: Fingerprint) -> LinkError {
        LinkError::AnotherController { expected: self.credential.controller, found }
    }

    fn rng(&self) -> StdRng {
        StdRng::from_seed(self.random.lock().expect("no holder panics").random())
    }
}

/// An authenticated session, seen from the agent. Dropping it ends it.
pub struct AgentSession {
    shared: Arc<Shared>,
    control: Connection,
    streams: mpsc::Receiver<(Lane, SendStream, RecvStream)>,
    /// Accept streams, obey orders, keep the bulk lane; stopped with the session.
    _tasks: JoinSet<()>,
}

impl AgentSession {
    fn start(shared: Arc<Shared>, control: Connection, orders: quinn::RecvStream) -> Self {
        let (sender, streams) = mpsc::channel(STREAMS);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_all(control.clone(), Lane::Control, sender.clone()));
        tasks.spawn(obey(shared.clone(), orders, sender));
        Self { shared, control, streams, _tasks: tasks }
    }

    /// The next stream that the controller opened, on whichever lane; the error says why there will be no more.
    /// Cancel-safe.
    pub async fn accept(&mut self) -> Result<(Lane, SendStream, RecvStream), LinkError> {
        tokio::select! {
            biased;
            Some(stream) = self.streams.recv() => Ok(stream),
            error = self.control.closed() => Err(self.shared.why(&error)),
        }
    }

    /// Waits until the session has ended and says why.
    pub fn closed(&self) -> impl Future<Output = LinkError> + Send + 'static {
        let (shared, control) = (self.shared.clone(), self.control.clone());
        async move { shared.why(&control.closed().await) }
    }

    /// The epoch of the controller.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Relaxed)
    }

    /// Ends the session; the controller sees that it was on purpose.
    pub fn close(&self, reason: &str) {
        self.control.close(close::GOING_AWAY, reason.as_bytes());
    }
}

impl Drop for AgentSession {
    fn drop(&mut self) {
        self.close("the session was dropped");
    }
}

async fn accept_all(connection: Connection, lane: Lane, streams: mpsc::Sender<(Lane, SendStream, RecvStream)>) {
    while let Ok(pair) = connection.accept_bi().await {
        let (send, recv) = wrap(pair, None);
        if streams.send((lane, send, recv)).await.is_err() {
            return;
        }
    }
}

/// Obeys the controller's orders: opens the bulk lane when it is wanted. One at a time: a later order means that the
/// lane before is gone.
async fn obey(
    shared: Arc<Shared>,
    mut orders: quinn::RecvStream,
    streams: mpsc::Sender<(Lane, SendStream, RecvStream)>,
) {
    let mut bulk = JoinSet::new();
    loop {
        match frame::read::<ToAgent>(&mut orders).await {
            Ok(ToAgent::OpenBulk { partition }) => {
                bulk.shutdown().await;
                bulk.spawn(serve_bulk(shared.clone(), partition, streams.clone()));
            }
            Ok(other) => tracing::warn!(?other, "an order makes no sense here"),
            // The session's end is noticed by its connection.
            Err(_) => return std::future::pending().await,
        }
    }
}

/// Opens the bulk lane, however long that takes, and serves it until it closes.
async fn serve_bulk(shared: Arc<Shared>, partition: u32, streams: mpsc::Sender<(Lane, SendStream, RecvStream)>) {
    let mut backoff = Backoff::kafka();
    loop {
        match open_bulk(&shared, partition).await {
            Ok((port, connection, _orders)) => {
                accept_all(connection.clone(), Lane::Bulk, streams).await;
                connection.closed().await;
                return port.close(VarInt::from_u32(0), b"").await;
            }
            Err(error) => tracing::debug!(%error, partition, "the bulk lane is not open yet"),
        }
        let delay = backoff.next(shared.random.lock().expect("no holder panics").random());
        tokio::time::sleep(delay).await;
    }
}

async fn open_bulk(shared: &Arc<Shared>, partition: u32) -> Result<(Port, Connection, quinn::RecvStream), LinkError> {
    let port = shared.open(Lane::Bulk, partition).await?;
    let (connection, orders) = shared.enter(&port, Lane::Bulk).await?;
    Ok((port, connection, orders))
}
