//! QUIC over Kafka: authenticated, encrypted, multiplexed streams between one controller and its agents, carried as
//! records.
//!
//! The controller [`Listener::open`]s, and gets a [`Session`] for each agent that authenticated. An agent
//! [`Dialer::open`]s, connects, and accepts the streams that the controller opens. Above this module nobody knows of
//! topics, partitions, packets or incarnations.

pub mod credential;
mod dialer;
mod error;
pub mod identity;
mod listener;
mod profile;

use std::time::Duration;

pub use credential::{Credential, SecretHash};
pub use dialer::{AgentSession, Dialer};
pub use error::LinkError;
pub use identity::{Fingerprint, Identity};
pub use listener::{Listener, Roster, Session};
pub use profile::Profile;
pub use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::kafka::Prefix;

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
    /// How long a session outlives silence. Default 15 minutes, so that a broker outage ends none.
    pub idle_timeout: Duration,
    /// How long connecting and authenticating may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long an unused bulk lane stays open. Default 30 s.
    pub bulk_idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: Prefix::default(),
            partitions: 8,
            idle_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(10),
            bulk_idle: Duration::from_secs(30),
        }
    }
}
