//! An agent's way to its controller: from a port on the packet topics to an authenticated connection.
//!
//! The controller is known by its pinned key, who calls by a MAC on the handshake; what is said then is the caller's
//! business: a session begins, or a credential is asked for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use quinn::{
    Connection, ConnectionError,
    crypto::rustls::{HandshakeData, QuicClientConfig},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::{
    Config, Fingerprint, Held, Lane, LinkError, address,
    caller::Caller,
    enrol,
    hello::close,
    notice::{self, Notice, Reason, Sent},
    own,
    packet::{Datagrams, Header, Incarnation, Kind},
    port::{Mouth, Plan, Port},
    route::{Route, Up},
    tls::{self, SERVER_NAME},
    transport,
    until::until,
};
use crate::{
    frame,
    kafka::{Record, SharedCluster},
    layout::Layout,
};

/// What all connections of one run of a caller share.
pub(super) struct Line {
    pub cluster: SharedCluster,
    pub config: Config,
    pub caller: Caller,
    pub held: Held,
    incarnation: Incarnation,
    /// Connections tried so far.
    attempts: AtomicU32,
    /// The highest epoch that an accepted controller showed.
    pub epoch: Arc<AtomicU32>,
    random: Mutex<StdRng>,
    /// A key that a controller showed and that is not accepted.
    refused_key: Arc<Mutex<Option<Fingerprint>>>,
    notices: watch::Sender<Option<Notice>>,
    /// What a notice may be about.
    sent: Arc<Sent>,
}

impl Line {
    /// Nothing is opened yet. `starts` is that of [`Dialer::open`](super::Dialer::open).
    pub fn new(cluster: SharedCluster, config: Config, caller: Caller, held: Held, starts: u64) -> Arc<Self> {
        let mut random = config.random(&caller.text());
        Arc::new(Self {
            cluster,
            caller,
            held,
            incarnation: Incarnation { starts, random: random.random() },
            attempts: AtomicU32::new(0),
            epoch: Arc::default(),
            random: Mutex::new(random),
            refused_key: Arc::default(),
            notices: watch::Sender::new(None),
            sent: Arc::default(),
            config,
        })
    }

    /// Starts reading and writing the control partition of the caller.
    pub async fn open_control(self: &Arc<Self>) -> Result<Port, LinkError> {
        self.open(Lane::Control, address::partition(&self.caller, self.config.partitions)).await
    }

    /// Starts reading and writing a partition.
    pub async fn open(self: &Arc<Self>, lane: Lane, partition: u32) -> Result<Port, LinkError> {
        let prefix = &self.config.prefix;
        let partition = partition as i32;
        let (down, up_topic) = match lane {
            Lane::Control => (prefix.down_control(), prefix.up_control()),
            Lane::Bulk => (prefix.down_bulk(), prefix.up_bulk()),
        };
        let read = match (self.config.layout, &self.caller) {
            (Layout::PerAgent, Caller::Agent(name)) => (prefix.agent_down(name), own::partition(lane)),
            // Who has no name yet has no topic yet.
            (Layout::Shared, _) | (Layout::PerAgent, Caller::Token(_)) => (down, partition),
        };
        let local = address::agent(&self.caller, lane, self.incarnation);
        let up = Up {
            caller: self.caller.clone(),
            held: self.held.clone(),
            incarnation: self.incarnation,
            epoch: self.epoch.clone(),
            sent: self.sent.clone(),
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
        let key = self.caller.text();
        if record.key != key.as_bytes() {
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
                let notice = notice::read(&key, self.incarnation, &value);
                if let Some(notice) = notice.filter(|notice| self.sent.has(notice.subject)) {
                    // What the pinned controller says is not displaced by what another says.
                    let pins = self.held.pins();
                    self.notices.send_if_modified(|known| {
                        let pinned = known.is_some_and(|n| pins.contains(&n.controller));
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

    /// Connects one lane, and checks that the controller has an accepted key. What is returned is which.
    pub async fn dial(&self, port: &Port, lane: Lane) -> Result<(Connection, Fingerprint), LinkError> {
        match self.dial_as(port, lane, tls::client).await {
            Err(LinkError::Version(_)) => Err(self.older_side(port, lane).await),
            dialled => dialled,
        }
    }

    /// Who must be upgraded, of two that have no version of the protocol in common. The controller proves its key here too, so
    /// nobody else can make an agent give up.
    async fn older_side(&self, port: &Port, lane: Lane) -> LinkError {
        let connection = match self.dial_as(port, lane, tls::asking).await {
            Ok((connection, _)) => connection,
            // Not even one of those that there may be.
            Err(error) => return error,
        };
        let agreed = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let theirs = agreed.and_then(|data| tls::number(&data.protocol?));
        connection.close(close::REFUSED, b"another version");
        let ours = tls::PROTOCOLS.iter().filter_map(|protocol| tls::number(protocol.as_bytes()));
        theirs.zip(ours.max()).and_then(|(theirs, ours)| differ(theirs, ours)).unwrap_or_else(|| {
            // It was another one a moment ago: the next try shows.
            LinkError::Ended("the controller was replaced by one of another version".to_owned())
        })
    }

    async fn dial_as(
        &self,
        port: &Port,
        lane: Lane,
        crypto: fn(Vec<Fingerprint>, tls::Keys) -> Arc<QuicClientConfig>,
    ) -> Result<(Connection, Fingerprint), LinkError> {
        let keys = tls::Keys { accepted: Arc::default(), refused: self.refused_key.clone() };
        let crypto = crypto(self.held.pins(), keys.clone());
        let client = transport::client(&self.config, lane, crypto);
        let connecting = port
            .endpoint
            .connect_with(client, address::CONTROLLER, SERVER_NAME)
            .map_err(|e| LinkError::Ended(e.to_string()))?;
        let limit = self.config.connect_timeout;
        let connected = tokio::time::timeout(limit, connecting).await;
        let connection = connected.map_err(|_| LinkError::NoAnswer(limit))?.map_err(|e| self.why(&e))?;
        let found = keys.accepted.lock().expect("no holder panics").expect("who was let in showed a key");
        Ok((connection, found))
    }

    /// Says the first words on a connection and waits for the answer to them. What is returned too is the rest of the
    /// stream.
    pub async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        connection: &Connection,
        words: &Q,
    ) -> Result<(A, quinn::RecvStream), LinkError> {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| self.why(&e))?;
        let said = async {
            frame::write(&mut send, words).await?;
            frame::read::<A>(&mut recv).await
        };
        match said.await {
            Ok(answer) => Ok((answer, recv)),
            Err(error) => {
                let reason = connection.close_reason();
                Err(reason.map_or_else(|| LinkError::Ended(error.to_string()), |reason| self.why(&reason)))
            }
        }
    }

    /// The number of the next connection.
    pub fn attempt(&self) -> u32 {
        self.attempts.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets what was heard when the connection before was tried.
    pub fn listen_anew(&self) {
        self.notices.send_replace(None);
        *self.refused_key.lock().expect("no holder panics") = None;
    }

    /// Waits until the pinned controller says that it will not let us in.
    pub async fn turned_away(&self) -> LinkError {
        let pins = self.held.pins();
        let notice = until(&self.notices, |notice| notice.filter(|n| pins.contains(&n.controller))).await;
        match (notice.reason, &self.caller) {
            (Reason::Unknown, Caller::Agent(name)) => LinkError::UnknownAgent(name.to_string()),
            (Reason::Unknown, Caller::Token(id)) => enrol::unknown(*id, &self.held.credential().name),
            (Reason::Superseded, caller) => LinkError::Superseded(caller.to_string()),
        }
    }

    /// Says why nobody answered on `port`, as far as we can tell.
    pub fn explain(&self, port: &Port, error: LinkError) -> LinkError {
        if !matches!(error, LinkError::NoAnswer(_)) {
            return error;
        }
        let notice = *self.notices.borrow();
        match (port.health.error(), notice) {
            (Some(error), _) => error.into(),
            (None, Some(notice)) => self.another_controller(notice.controller),
            (None, None) => error,
        }
    }

    /// What the end of a connection means to an agent.
    pub fn why(&self, error: &ConnectionError) -> LinkError {
        let name = || self.caller.to_string();
        /// TLS alert `no_application_protocol` as a QUIC transport error.
        const NO_PROTOCOL: u64 = 0x178;
        match error {
            ConnectionError::ApplicationClosed(closed) if closed.error_code == close::SUPERSEDED => {
                LinkError::Superseded(name())
            }
            ConnectionError::ApplicationClosed(closed) if closed.error_code == close::REMOVED => {
                LinkError::Removed(name())
            }
            ConnectionError::ApplicationClosed(closed) if closed.error_code == close::REVOKED => {
                LinkError::Revoked(name())
            }
            ConnectionError::ConnectionClosed(closed) if u64::from(closed.error_code) == NO_PROTOCOL => {
                LinkError::Version("the controller speaks none of this agent's; upgrade the older side".to_owned())
            }
            ConnectionError::VersionMismatch => {
                LinkError::Version("QUIC versions differ; upgrade the older side".to_owned())
            }
            other => match *self.refused_key.lock().expect("no holder panics") {
                Some(found) => self.another_controller(found),
                None => LinkError::Ended(other.to_string()),
            },
        }
    }

    fn another_controller(&self, found: Fingerprint) -> LinkError {
        LinkError::AnotherController { expected: self.held.credential().controller, found }
    }

    /// A source of randomness of its own.
    pub fn rng(&self) -> StdRng {
        StdRng::from_seed(self.random.lock().expect("no holder panics").random())
    }
}

/// Two versions that don't fit, and which side is the older.
fn differ(theirs: u32, ours: u32) -> Option<LinkError> {
    let older = match theirs.cmp(&ours) {
        std::cmp::Ordering::Greater => "the agent",
        std::cmp::Ordering::Less => "the controller",
        std::cmp::Ordering::Equal => return None,
    };
    Some(LinkError::Version(format!("the controller speaks rk/{theirs}, this agent rk/{ours}; upgrade {older}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_of_two_sides_is_named() {
        let text = |theirs, ours| differ(theirs, ours).map(|error| error.to_string()).unwrap_or_default();
        assert!(text(2, 1).ends_with("the controller speaks rk/2, this agent rk/1; upgrade the agent"));
        assert!(text(1, 3).ends_with("the controller speaks rk/1, this agent rk/3; upgrade the controller"));
        assert_eq!(text(2, 2), "");
    }
}
