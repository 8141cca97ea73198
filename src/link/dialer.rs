//! The agent's side of the link.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use quinn::{Connection, VarInt};
use rand::RngExt;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    Config, Fingerprint, Held, Lane, LinkError, Profile,
    caller::Caller,
    hello::{Hello, Refusal, ToAgent, close},
    line::Line,
    port::Port,
    stream::{RecvStream, SendStream, wrap},
};
use crate::{
    backoff::Backoff,
    frame::{self, FrameError},
    kafka::SharedCluster,
};

/// Streams that wait to be accepted: more than an agent starts at once.
const STREAMS: usize = 64;

/// An agent's connection to the packet topics, from which sessions are dialled one after the other.
pub struct Dialer {
    shared: Arc<Shared>,
    control: Port,
}

struct Shared {
    line: Arc<Line>,
    /// What is said in the next connection.
    profile: Mutex<Profile>,
}

impl Dialer {
    /// Starts reading and writing the agent's partition. `starts` grows with each start, across hosts too: the
    /// caller persists it and passes max(last + 1, the clock in milliseconds); the newest process of a name wins.
    /// Fails at once where Kafka does, after one try of each hop.
    pub async fn open(
        cluster: SharedCluster,
        config: Config,
        held: impl Into<Held>,
        profile: Profile,
        starts: u64,
    ) -> Result<Self, LinkError> {
        let held = held.into();
        let caller = Caller::Agent(held.credential().name.clone());
        let line = Line::new(cluster, config, caller, held, starts);
        let control = line.open_control().await?;
        Ok(Self { shared: Arc::new(Shared { line, profile: Mutex::new(profile) }), control })
    }

    /// Dials, authenticates the controller by its pinned key, and shows the secret. Fails within `connect_timeout` if
    /// no controller answers; once one has, only the end of the connection ends the wait for its welcome, since it may
    /// already count on us.
    pub async fn connect(&self) -> Result<AgentSession, LinkError> {
        let line = &self.shared.line;
        line.listen_anew();
        tokio::select! {
            biased;
            session = self.shared.enter(&self.control, Lane::Control) => {
                let entered = session.map_err(|error| line.explain(&self.control, error))?;
                Ok(AgentSession::start(self.shared.clone(), entered))
            }
            error = self.control.health.fatal() => Err(error.into()),
            error = line.turned_away() => Err(error),
        }
    }

    /// Connections that are dialled from now on say this.
    pub fn describe(&self, profile: Profile) {
        *self.shared.profile.lock().unwrap_or_else(PoisonError::into_inner) = profile;
    }

    /// Sends what is queued (bounded by 2 s) and stops.
    pub async fn close(self) {
        self.control.close(close::GOING_AWAY, b"the agent stops").await;
    }
}

/// A lane of an authenticated session.
struct Entered {
    connection: Connection,
    /// The rest of the hello stream.
    orders: quinn::RecvStream,
    /// The key that the controller showed.
    controller: Fingerprint,
}

impl Shared {
    /// Connects one lane and authenticates both ways.
    async fn enter(&self, port: &Port, lane: Lane) -> Result<Entered, LinkError> {
        let line = &self.line;
        let attempt = line.attempt();
        let (connection, controller) = line.dial(port, lane).await?;
        let credential = line.held.credential();
        let hello = Hello {
            name: credential.name.clone(),
            secret: *credential.secret.expose(),
            lane,
            attempt,
            epoch: line.epoch.load(Ordering::Relaxed),
            profile: self.profile.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let (answer, orders) = line.exchange::<_, ToAgent>(&connection, &hello).await?;
        let name = credential.name.to_string();
        let refused = match answer {
            ToAgent::Welcome { epoch, .. } if epoch >= hello.epoch => {
                line.epoch.fetch_max(epoch, Ordering::Relaxed);
                return Ok(Entered { connection, orders, controller });
            }
            ToAgent::Welcome { .. } | ToAgent::Refused(Refusal::Stale) => {
                LinkError::Ended("a controller answered that is not the leader any more".to_owned())
            }
            ToAgent::Refused(Refusal::Unknown) => LinkError::UnknownAgent(name),
            ToAgent::Refused(Refusal::Removed) => LinkError::Removed(name),
            ToAgent::Refused(Refusal::Revoked) => LinkError::Revoked(name),
            ToAgent::OpenBulk { .. } => LinkError::Ended("the controller gave an order before the welcome".to_owned()),
        };
        connection.close(close::REFUSED, b"refused");
        Err(refused)
    }
}

/// An authenticated session, seen from the agent. Dropping it ends it.
pub struct AgentSession {
    shared: Arc<Shared>,
    control: Connection,
    controller: Fingerprint,
    streams: mpsc::Receiver<(Lane, SendStream, RecvStream)>,
    /// Accept streams, obey orders, keep the bulk lane; stopped with the session.
    _tasks: JoinSet<()>,
}

impl AgentSession {
    fn start(shared: Arc<Shared>, entered: Entered) -> Self {
        let Entered { connection: control, orders, controller } = entered;
        let (sender, streams) = mpsc::channel(STREAMS);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_all(control.clone(), Lane::Control, sender.clone()));
        tasks.spawn(obey(shared.clone(), orders, sender));
        Self { shared, control, controller, streams, _tasks: tasks }
    }

    /// The next stream that the controller opened, on whichever lane; the error says why there will be no more.
    /// Cancel-safe.
    pub async fn accept(&mut self) -> Result<(Lane, SendStream, RecvStream), LinkError> {
        tokio::select! {
            biased;
            Some(stream) = self.streams.recv() => Ok(stream),
            error = self.control.closed() => Err(self.shared.line.why(&error)),
        }
    }

    /// Waits until the session has ended and says why.
    pub fn closed(&self) -> impl Future<Output = LinkError> + Send + 'static {
        let (shared, control) = (self.shared.clone(), self.control.clone());
        async move { shared.line.why(&control.closed().await) }
    }

    /// The epoch of the controller.
    pub fn epoch(&self) -> u32 {
        self.shared.line.epoch.load(Ordering::Relaxed)
    }

    /// The key that the controller showed: one of those that were accepted.
    pub fn controller(&self) -> Fingerprint {
        self.controller
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
            // A newer controller's; it was read whole.
            Err(FrameError::Malformed(_)) => tracing::warn!("an order is none that this version knows"),
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
            Ok((port, Entered { connection, orders: _orders, .. })) => {
                accept_all(connection.clone(), Lane::Bulk, streams).await;
                connection.closed().await;
                return port.close(VarInt::from_u32(0), b"").await;
            }
            Err(error) => tracing::debug!(%error, partition, "the bulk lane is not open yet"),
        }
        let delay = backoff.next(shared.line.rng().random());
        tokio::time::sleep(delay).await;
    }
}

async fn open_bulk(shared: &Arc<Shared>, partition: u32) -> Result<(Port, Entered), LinkError> {
    let port = shared.line.open(Lane::Bulk, partition).await?;
    let entered = shared.enter(&port, Lane::Bulk).await?;
    Ok((port, entered))
}
