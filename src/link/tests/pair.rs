//! A controller and agents on one cluster, and what scenarios need to drive them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    id::AgentName,
    kafka::{Prefix, SharedCluster, memory::MemoryCluster},
    layout::Layout,
    link::{
        AgentSession, Config, Credential, Dialer, Identity, Lane, LinkError, Listener, Profile, RecvStream, Roster,
        SecretHash, Secrets, SendStream, Session,
    },
};

/// A long wait in simulated time: what is not done by then hangs.
pub const EVER: Duration = Duration::from_secs(3600);

/// Agents that may connect, and whether they were removed.
#[derive(Default)]
pub struct People(pub Mutex<BTreeMap<AgentName, (SecretHash, bool)>>, pub Mutex<Layout>);

impl Roster for People {
    fn secrets(&self, name: &AgentName) -> Option<Secrets> {
        self.0.lock().expect("lock").get(name).map(|(hash, _)| (*hash).into())
    }

    fn layout(&self, _: &AgentName) -> Layout {
        *self.1.lock().expect("lock")
    }

    fn is_removed(&self, name: &AgentName) -> bool {
        self.0.lock().expect("lock").get(name).is_some_and(|(_, removed)| *removed)
    }
}

/// One installation.
pub struct World {
    pub cluster: SharedCluster,
    pub config: Config,
    pub identity: Arc<Identity>,
    pub people: Arc<People>,
}

/// The identity of all simulations: fixed, so that a seed gives the same trace.
const IDENTITY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n\
    -----END PRIVATE KEY-----\n";

/// The topics of the link, in memory.
pub fn memory(partitions: u32) -> MemoryCluster {
    let cluster = MemoryCluster::new();
    let prefix = Prefix::default();
    for topic in [prefix.up_control(), prefix.down_control(), prefix.up_bulk(), prefix.down_bulk()] {
        cluster.create(&topic, partitions as i32);
    }
    cluster
}

impl World {
    pub fn new(cluster: SharedCluster, seed: u64, partitions: u32) -> Self {
        let config = Config { partitions, seed: Some(seed), ..Config::default() };
        let identity = Arc::new(Identity::from_pem(IDENTITY).expect("a fixed identity"));
        Self { cluster, config, identity, people: Arc::default() }
    }

    /// Admits an agent.
    pub fn admit(&self, name: &str) -> Arc<Credential> {
        let credential = Credential::generate(name.parse().expect("name"), self.identity.fingerprint());
        let entry = (credential.secret_hash(), false);
        self.people.0.lock().expect("lock").insert(credential.name.clone(), entry);
        Arc::new(credential)
    }

    pub async fn listen(&self, epoch: u32) -> (Listener, mpsc::Receiver<Session>) {
        let mut config = self.config.clone();
        config.seed = config.seed.map(|seed| seed + u64::from(epoch) * 1000);
        Listener::open(self.cluster.clone(), config, self.identity.clone(), epoch, self.people.clone())
            .await
            .expect("listener")
    }

    pub async fn dial(&self, credential: &Arc<Credential>, starts: u64) -> Dialer {
        self.try_dial(credential, starts).await.expect("dialer")
    }

    pub async fn try_dial(&self, credential: &Arc<Credential>, starts: u64) -> Result<Dialer, LinkError> {
        let mut config = self.config.clone();
        config.seed = config.seed.map(|seed| seed + starts);
        Dialer::open(self.cluster.clone(), config, credential.clone(), Profile::default(), starts).await
    }
}

/// Answers every stream with what comes on it, until the session ends, and says why it did.
pub async fn echo(mut session: AgentSession) -> LinkError {
    let mut streams = tokio::task::JoinSet::new();
    loop {
        match session.accept().await {
            Ok((_, send, recv)) => {
                streams.spawn(echo_stream(send, recv));
            }
            Err(error) => return error,
        }
    }
}

async fn echo_stream(mut send: SendStream, mut recv: RecvStream) {
    while let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await {
        if send.write_chunk(chunk.bytes).await.is_err() {
            return;
        }
    }
    let _ = send.finish();
}

/// Connects for ever, as an agent does, and echoes.
pub async fn live(dialer: Dialer) -> LinkError {
    loop {
        match dialer.connect().await {
            Ok(session) => {
                let error = echo(session).await;
                if matches!(error, LinkError::Superseded(_) | LinkError::Removed(_)) {
                    return error;
                }
            }
            Err(LinkError::NoAnswer(_) | LinkError::Ended(_) | LinkError::Kafka(_)) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return error,
        }
    }
}

/// Bytes that tell where they belong: a loss, a doubling or a swap shows.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed | 1;
    std::iter::repeat_with(|| {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as u8
    })
    .take(length)
    .collect()
}

/// Sends `length` bytes and reads them back.
pub async fn round_trip(session: &Session, lane: Lane, seed: u64, length: usize) -> Result<(), String> {
    let (mut send, mut recv) = loop {
        match session.open_stream(lane).await {
            Ok(pair) => break pair,
            // Opening is bounded, outages may be longer; nothing was sent yet.
            Err(LinkError::NoAnswer(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    };
    let bytes = pattern(seed, length);
    let write = async {
        send.write_all(&bytes).await.map_err(|e| e.to_string())?;
        send.finish().map_err(|e| e.to_string())
    };
    let read = async { recv.read_to_end(length + 1).await.map_err(|e| format!("{lane:?}: {e:?}")) };
    let (written, back) = tokio::join!(write, read);
    written?;
    let back = back?;
    if back == bytes { Ok(()) } else { Err(format!("{} bytes came back of {length}, or wrong ones", back.len())) }
}
