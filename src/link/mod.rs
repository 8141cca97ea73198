//! QUIC over Kafka: authenticated, encrypted, multiplexed streams between one controller and its agents, carried as
//! records.
//!
//! The controller [`Listener::open`]s, and gets a [`Session`] for each agent that authenticated. An agent
//! [`Dialer::open`]s, connects, and accepts the streams that the controller opens. Above this module nobody knows of
//! topics, partitions, packets or incarnations.

mod accept;
mod address;
mod caller;
mod connection_id;
pub mod credential;
mod dialer;
mod enrol;
mod error;
mod gate;
mod half_open;
mod held;
mod hello;
pub mod identity;
mod inbox;
mod line;
mod listener;
mod notice;
mod own;
pub mod packet;
mod port;
mod profile;
mod proof;
mod pump;
mod queue;
mod route;
mod session;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod transport;
mod until;

use std::time::Duration;

pub use credential::{Credential, SecretHash};
pub use dialer::{AgentSession, Dialer};
pub use enrol::{EnrolRefusal, EnrolRequest, Enrolment, enrol};
pub use error::LinkError;
pub use gate::{Dropped, Roster, Secrets};
pub use held::Held;
pub use identity::{Fingerprint, Identity};
pub use listener::Listener;
pub use profile::{Profile, Program};
use rand::{SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
pub use session::{Dismissal, Session};
pub use stream::{RecvStream, SendStream};
pub use tls::PROTOCOLS;
pub use token::{InvalidToken, JoinToken, TokenId};

use crate::{kafka::Prefix, layout::Layout, secret};

/// Which of an agent's two connections a stream runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Calls, starts, signals: small, always fast.
    Control,
    /// Stdio, files, forwarded connections. Opened when first needed.
    Bulk,
}

/// The link's settings. Both sides of an installation have the same `prefix` and `partitions`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The topics' prefix. Default `rk`.
    pub prefix: Prefix,
    /// Partitions of each packet topic, fixed when the topics are created: an agent's partition depends on it.
    /// Default 8; about agents ÷ 16 in larger installations.
    pub partitions: u32,
    /// Where the agent that dials is written to. Default shared; a listener asks its [`Roster`] for each agent.
    pub layout: Layout,
    /// How long a session outlives silence. Default 15 minutes, so that a broker outage ends none.
    pub idle_timeout: Duration,
    /// How long connecting and authenticating may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long an unused bulk lane stays open. Default 30 s.
    pub bulk_idle: Duration,
    /// The versions of the protocol that a listener speaks, best first. Default [`PROTOCOLS`]; a simulation has others.
    pub protocols: Vec<&'static str>,
    /// For simulations: all randomness of the link, other than that of keys, derives from it.
    pub seed: Option<u64>,
}

impl Config {
    /// A source of randomness for the part that `label` names.
    fn random(&self, label: &str) -> StdRng {
        let Some(seed) = self.seed else {
            return StdRng::from_seed(secret::random());
        };
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(&seed.to_le_bytes());
        hash.update(label.as_bytes());
        StdRng::from_seed(hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: Prefix::default(),
            partitions: 8,
            layout: Layout::Shared,
            idle_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(10),
            bulk_idle: Duration::from_secs(30),
            protocols: PROTOCOLS.to_vec(),
            seed: None,
        }
    }
}
