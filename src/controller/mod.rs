//! The controller: knows the agents, runs commands on them, and answers HTTP.
//!
//! ```text
//! command → journal (durable first: read back, then true) → registry → sessions
//! ```
//!
//! It promises that what it answered survives its death, and that two controllers with one identity never both serve:
//! the one whose claim came later in the journal wins, the other [`run`] ends with [`Error::Superseded`]. It opens
//! nothing by itself but files in its data directory: the cluster, the socket and the signals are the caller's.

pub mod access;
mod artifacts;
mod attend;
mod audit;
pub mod bundles;
mod call;
mod directory;
mod enrol;
mod error;
pub mod event;
mod exec;
mod feed;
mod files;
mod folded;
mod handle;
pub mod http;
mod jobs;
mod limiter;
mod metrics;
mod needs;
mod next_key;
pub mod outage;
pub mod peer;
pub mod provision;
pub mod rates;
pub mod registry;
pub mod scheduler;
mod service;
mod snapshots;
mod stdio;
mod store;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod update;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    bundle::sign::PublicKey,
    certs::Validity,
    clock, health,
    journal::{self, Journal, StateKey},
    kafka::SharedCluster,
    layout::Layout,
    link::{self, Identity, LinkError, Listener, Session},
    protocol::{self, allowance::Budget},
    secret::Secret,
};
use artifacts::Lists;
use audit::Audit;
use bundles::{Catalogue, Uploads};
use directory::Directory;
use enrol::Door;
pub use error::Error;
pub use event::UnknownEvent;
pub use exec::{Control, Execution, Signals};
use feed::Feed;
use folded::Folded;
pub use handle::Handle;
use handle::{Phase, Shared};
use jobs::{Jobs, Posting};
use limiter::Limiter;
pub use limiter::Limits;
use peer::{Endpoints, Peer};
use snapshots::Legacy;
pub use stdio::Stdin;
use store::Store;

/// What may wait for all readers of outputs that don't read, above the first 256 KiB of each: enough for the largest
/// window of 66 outputs that ran to many megabytes. Others stay at less, which costs them speed and nothing else.
const OUTPUT_BUDGET: u64 = 512 << 20;

/// A controller's settings.
#[derive(Clone)]
pub struct Config {
    /// The link's settings; agents have the same prefix and partitions.
    pub link: link::Config,
    /// Where the controller keeps the API's token, and how far it has seen the journal. Default
    /// `/var/lib/rk`.
    pub data: PathBuf,
    /// Where the identity will be found that this controller has next. While there is one, agents are told of its key.
    /// Default none.
    pub next_identity: Option<PathBuf>,
    /// TLS for the API. Default none, which only a loopback address may have.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections that the API serves at once; more wait to be accepted. Each execution holds one. Default 4096.
    pub max_connections: usize,
    /// How often the API may be asked.
    pub limits: Limits,
    /// Executions that run at once; more are refused. Default 4096.
    pub max_executions: u32,
    /// How long taking over may take, and a change to be read back from the journal. Default 60 s.
    pub patience: Duration,
    /// How long brokers may be away when it starts. Default 60 s.
    pub wait_for_kafka: Duration,
    /// Takes a journal that shows less than this controller has seen of it. Default no.
    pub accept_rollback: bool,
    /// After so many records of the journal the state is written into it, and what is before is cut away. Default 50,000.
    pub snapshot_every: u64,
    /// How jobs are kept and when they are given up.
    pub jobs: scheduler::Config,
    /// Where new agents are written to, unless somebody says. Default shared.
    pub layout: Layout,
    /// What makes what agents need in Kafka. Default nothing: then there are no topics of their own.
    pub provision: Option<Arc<dyn provision::Provision>>,
    /// Certificates that are in use, by what people call them: that they end is told in time. Default none.
    pub certificates: Vec<(String, Validity)>,
    /// Whether it tells other systems what happens, in `<prefix>.events`. Default no.
    pub events: bool,
    /// Whose bundles are taken. Default anybody's who may push.
    pub require_signed: Option<Vec<PublicKey>>,
    /// Where the controller says how it is to who has no token. Default nowhere but on the API.
    pub health: Option<Arc<TcpListener>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            link: link::Config::default(),
            data: PathBuf::from("/var/lib/rk"),
            next_identity: None,
            tls: None,
            max_connections: 4096,
            limits: Limits::default(),
            max_executions: 4096,
            patience: Duration::from_secs(60),
            wait_for_kafka: Duration::from_secs(60),
            accept_rollback: false,
            snapshot_every: 50_000,
            jobs: scheduler::Config::default(),
            layout: Layout::Shared,
            provision: None,
            certificates: Vec::new(),
            events: false,
            require_signed: None,
            health: None,
        }
    }
}

/// How long a newer controller's claim may take to be seen in the journal.
const DOUBT: Duration = Duration::from_secs(10);

/// How long given-up executions may take to be told to clients and agents.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs a controller: takes the journal over, serves agents and the API, until it is stopped or superseded.
///
/// Each message on `shutdown` is one request to stop: the first refuses new executions and ends when the running ones
/// have ended, the second gives these up (their agents end the processes), the third returns at once. Before it serves, the
/// first returns. A closed channel asks for nothing.
pub async fn run(
    config: Config,
    cluster: SharedCluster,
    identity: Arc<Identity>,
    listener: TcpListener,
    mut shutdown: mpsc::Receiver<()>,
) -> Result<(), Error> {
    let mut controller = tokio::select! {
        started = start(&config, cluster.clone(), &identity) => started?,
        Some(()) = shutdown.recv() => return Ok(()),
    };
    loop {
        let handle = controller.handle();
        match controller.serve_on(&config, &listener, &mut shutdown).await {
            Err(Error::Journal(journal::Error::Recreated { topic })) => {
                tracing::warn!(
                    topic,
                    "the journal was deleted and created anew; writing into it what this controller knows"
                );
                let legacy = handle.legacy();
                drop(handle);
                controller = start_with(&config, cluster.clone(), &identity, Some(legacy)).await?;
            }
            ended => return ended,
        }
    }
}

/// Takes the journal over and opens the link. What this returns serves agents; [`Controller::serve`] adds the API.
pub async fn start(config: &Config, cluster: SharedCluster, identity: &Arc<Identity>) -> Result<Controller, Error> {
    start_with(config, cluster, identity, None).await
}

async fn start_with(
    config: &Config,
    cluster: SharedCluster,
    identity: &Arc<Identity>,
    legacy: Option<Legacy>,
) -> Result<Controller, Error> {
    let link = {
        let (cluster, identity, config) = (cluster.clone(), identity.clone(), config.link.clone());
        async move |epoch, door: Arc<Door>| {
            let (listener, sessions) = Listener::open(cluster, config, identity, epoch, door).await?;
            Ok((Arc::new(listener) as Arc<dyn Endpoints>, sessions))
        }
    };
    start_on(config, cluster, identity, legacy, link).await
}

/// [`start`] on any link.
async fn start_on<P, L>(
    config: &Config,
    cluster: SharedCluster,
    identity: &Identity,
    legacy: Option<Legacy>,
    link: L,
) -> Result<Controller, Error>
where
    P: Peer,
    L: AsyncFnOnce(u32, Arc<Door>) -> Result<(Arc<dyn Endpoints>, mpsc::Receiver<P>), LinkError>,
{
    let seen = if config.accept_rollback || legacy.is_some() { None } else { files::read_witness(&config.data)? };
    let topic = config.link.prefix.journal();
    let open = || Journal::open(cluster.clone(), &topic, StateKey::new(identity.derive("journal")), seen);
    let (journal, committed) = outage::through(config.wait_for_kafka, journal::Error::is_outage, open).await?;
    let directory = Arc::new(Directory::new());
    let catalogue = Catalogue::default();
    let jobs = Arc::new(Jobs::new(config.jobs.clone(), config.link.partitions, catalogue.clone()));
    let (above, founding) = legacy.map_or((0, None), |legacy| (legacy.epoch, Some(legacy.state)));
    let founds = founding.is_some();
    let state = Folded::new(directory.clone(), jobs.clone(), catalogue.clone());
    let feed = config.events.then(|| Feed::new(&config.link.prefix, journal.head().topic_id));
    let (store, mut copies) = Store::new(journal, committed, state, founding, feed.clone(), config.patience);
    let takeover = async {
        let epoch = store.claim(above).await?;
        if founds {
            snapshots::found(&store, &mut copies).await?;
        }
        Ok::<_, Error>(epoch)
    };
    let epoch = match timeout(config.patience, takeover).await {
        Ok(epoch) => epoch?,
        Err(_) => {
            let detail = store.journal().health().borrow().to_string();
            return Err(Error::Takeover { after: config.patience, detail });
        }
    };
    files::write_witness(&config.data, &store.journal().head())?;
    let (endpoints, sessions) =
        link(epoch, Arc::new(Door::new(directory.clone(), store.clone(), identity.fingerprint()))).await?;
    tracing::info!(epoch, fingerprint = %identity.fingerprint(), "took over");
    jobs.lead(|name| endpoints.partition_of(name));
    let handle = Handle::new(Shared {
        link: config.link.clone(),
        max_executions: config.max_executions,
        fingerprint: identity.fingerprint(),
        epoch,
        directory,
        endpoints,
        cluster: cluster.clone(),
        jobs: jobs.clone(),
        store: store.clone(),
        executions: watch::Sender::new(0),
        phase: watch::Sender::new(Phase::Serving),
        abandon: watch::Sender::new(false),
        budget: Budget::new(OUTPUT_BUDGET),
        audit: Audit::open(&config.data, feed.clone())?,
        feed: feed.clone(),
        layout: config.layout,
        provision: config.provision.clone(),
        certificates: config.certificates.clone(),
        catalogue,
        uploads: Uploads::new(config.link.partitions),
        lists: Lists::new(),
        require_signed: config.require_signed.clone(),
        unauthorized: AtomicU64::new(0),
        limiter: Limiter::new(config.limits),
        rotating: Default::default(),
        provisioning: Default::default(),
    });
    look(handle.shared());
    let admission = tokio::spawn(admit(handle.clone(), sessions, config.accept_rollback));
    let attention = tokio::spawn(attend(handle.clone(), config.data.clone()));
    let next_key = tokio::spawn(next_key::announce(handle.clone(), config.next_identity.clone()));
    let shortening = tokio::spawn(snapshots::keep(store.journal().clone(), copies, config.snapshot_every));
    let decisions = tokio::spawn(jobs::decide(jobs.clone(), store));
    let ends = {
        let (jobs, cluster, topic) = (jobs.clone(), handle.shared().cluster.clone(), config.link.prefix.logs());
        tokio::spawn(async move { jobs.watch_log_ends(cluster, &topic).await })
    };
    let (topic, count) = (config.link.prefix.artifacts(), config.link.partitions);
    let trimming = tokio::spawn(artifacts::keep_trimmed(jobs.clone(), cluster.clone(), topic, count));
    let (time, sweeping) = (tokio::spawn(async move { jobs.keep_time().await }), tokio::spawn(handle.clone().sweep()));
    let mut tasks = vec![admission, attention, shortening, decisions, ends, time, next_key, sweeping, trimming];
    tasks.extend(feed.map(|feed| tokio::spawn(feed::write(feed, cluster))));
    Ok(Controller { handle, tasks })
}

/// A controller that serves agents.
pub struct Controller {
    handle: Handle,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Controller {
    /// What can be asked of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves the API on `listener` until it is stopped or superseded; see [`run`].
    pub async fn serve(
        self,
        config: Config,
        listener: TcpListener,
        mut shutdown: mpsc::Receiver<()>,
    ) -> Result<(), Error> {
        self.serve_on(&config, &listener, &mut shutdown).await
    }

    async fn serve_on(
        self,
        config: &Config,
        listener: &TcpListener,
        shutdown: &mut mpsc::Receiver<()>,
    ) -> Result<(), Error> {
        let address = listener.local_addr()?;
        if config.tls.is_none() && !address.ip().is_loopback() {
            return Err(Error::Plaintext(address));
        }
        let token = Secret::new(files::read_or_create_token(&config.data)?);
        tracing::info!(%address, "serving the API");
        let http = http::serve(listener, self.handle.clone(), token, config.tls.clone(), config.max_connections);
        tokio::pin!(http);
        let watched = async {
            match &config.health {
                Some(listener) => health::serve(listener, Arc::new(self.handle.clone())).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            () = watched => Ok(()),
            ended = self.ended() => Err(ended),
            () = &mut http => Ok(()),
            () = stopped(&self.handle, shutdown) => Ok(()),
        };
        // Clients of executions that are given up are told how they ended.
        self.handle.abandon();
        let told = async {
            tokio::select! {
                () = &mut http => (),
                () = self.handle.idle() => (),
            }
        };
        let _ = timeout(FAREWELL, told).await;
        self.close(&config.data).await;
        ended
    }

    /// Waits until it can't go on: another controller took over, or the journal is out of reach for good.
    pub async fn ended(&self) -> Error {
        tokio::select! {
            ended = self.handle.shared().store.ended() => ended,
            never = self.doubted() => match never {},
        }
    }

    /// Says so when an agent claims to know a newer controller. The agent may be wrong: whether it is so stands in the
    /// journal, and if it does, that is what ends this controller.
    async fn doubted(&self) -> std::convert::Infallible {
        let shared = self.handle.shared();
        let epoch = shared.endpoints.fenced().await;
        tracing::warn!(epoch, own = shared.epoch, "an agent knows a newer controller; looking it up in the journal");
        let health = shared.store.journal().health();
        loop {
            tokio::time::sleep(DOUBT).await;
            if health.borrow().is_reachable() {
                tracing::warn!(epoch, "the journal knows no such controller: one of the agents is wrong, or lies");
                return std::future::pending().await;
            }
        }
    }

    /// Says goodbye to the agents, and notes how far the journal was seen. Ends within some seconds.
    pub async fn close(self, data: &std::path::Path) {
        self.handle.abandon();
        let _ = timeout(FAREWELL, self.handle.idle()).await;
        let shared = self.handle.shared();
        let _ = timeout(Duration::from_secs(3), shared.endpoints.close()).await;
        if let Err(error) = files::write_witness(data, &shared.store.journal().head()) {
            tracing::warn!(%error, "the journal's high-water mark was not saved");
        }
        if let Some(feed) = &shared.feed {
            let _ = timeout(FAREWELL, feed.idle()).await;
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Takes agents in as they authenticate.
async fn admit<P: Peer>(handle: Handle, mut sessions: mpsc::Receiver<P>, accept_rollback: bool) {
    let shared = handle.shared();
    while let Some(session) = sessions.recv().await {
        let partition = shared.endpoints.partition_of(session.name());
        let peer: Arc<dyn Peer> = Arc::new(session);
        shared.directory.enter(peer.clone(), partition);
        let labels = shared.directory.ask(|registry| registry.labels(peer.name()));
        let posting = Posting { peer, partition, labels, accept_rollback };
        let journal = shared.store.journal().clone();
        tokio::spawn(jobs::serve(shared.jobs.clone(), posting, move || mark(&journal)));
    }
}

/// How far the journal was read, for agents.
fn mark(journal: &Journal) -> protocol::jobs::Mark {
    let journal::Witness { epoch, offset, head, .. } = journal.head();
    protocol::jobs::Mark { epoch, offset, head: head.0 }
}

/// Looks at sessions and probes once a second, and keeps the journal's high-water mark.
async fn attend(handle: Handle, data: PathBuf) {
    let shared = handle.shared();
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut saved = shared.store.journal().head();
    loop {
        tick.tick().await;
        look(shared);
        let head = shared.store.journal().head();
        if head != saved {
            saved = head;
            let data = data.clone();
            // A disk that is slow must not stop the looking.
            let written = tokio::task::spawn_blocking(move || files::write_witness(&data, &head)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, "the journal's high-water mark was not saved");
            }
        }
    }
}

/// Looks which sessions and partitions work.
fn look(shared: &Shared) {
    let now_ms = clock::unix_ms();
    shared.directory.look(&*shared.endpoints, shared.link.partitions, now_ms);
    let now = shared.directory.now();
    let (states, down) = shared.directory.ask(|registry| (registry.states(), registry.unreachable_partitions(now)));
    if let Some(feed) = &shared.feed {
        feed.look(now, now_ms, &states);
    }
    shared.jobs.look(&states, (0..shared.link.partitions).map(|partition| !down.contains(&partition)));
}

/// Waits until enough was asked for and done to stop.
async fn stopped(handle: &Handle, shutdown: &mut mpsc::Receiver<()>) {
    let mut requests = 0;
    loop {
        tokio::select! {
            request = shutdown.recv() => match request {
                Some(()) => requests += 1,
                None if requests == 0 => std::future::pending().await,
                None => return handle.idle().await,
            },
            () = handle.idle(), if requests > 0 => return,
        }
        match requests {
            1 => {
                tracing::info!("draining: nothing new is started; stop again to end what runs");
                handle.drain();
            }
            2 => handle.abandon(),
            _ => return,
        }
    }
}

/// The link's sessions are what the controller calls peers.
const _: fn() = || {
    fn is_peer<P: Peer>() {}
    is_peer::<Session>();
};
