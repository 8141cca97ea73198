//! The controller's side of the link.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{Config, Identity, Lane, LinkError, Profile, RecvStream, SecretHash, SendStream};
use crate::{id::AgentName, kafka::SharedCluster};

/// Who may connect. Called for each first packet of a connection: fast, no waiting.
pub trait Roster: Send + Sync + 'static {
    /// The stored hash of the agent's secret, also of a removed agent that is still remembered; `None` if the name
    /// is not known.
    fn secret_hash(&self, name: &AgentName) -> Option<SecretHash>;

    /// Whether the agent was removed: it authenticates, and is told so.
    fn is_removed(&self, name: &AgentName) -> bool;
}

/// The open endpoints of a controller. Clones are handles of the same.
#[derive(Clone)]
pub struct Listener {}

impl Listener {
    /// Opens the endpoints of all partitions, for the controller that holds `epoch`. Sessions of authenticated agents
    /// come through the receiver; a second session of a name means that the first was superseded or broken.
    pub async fn open(
        _cluster: SharedCluster,
        _config: Config,
        _identity: Arc<Identity>,
        _epoch: u32,
        _roster: Arc<dyn Roster>,
    ) -> Result<(Self, mpsc::Receiver<Session>), LinkError> {
        todo!()
    }

    /// The control partition of an agent.
    pub fn partition_of(&self, _name: &AgentName) -> u32 {
        todo!()
    }

    /// How long ago the controller's own last probe record came back from control partition `partition`; the
    /// controller writes one every second. While this is large, silence says nothing about agents.
    pub fn probe_age(&self, _partition: u32) -> Duration {
        todo!()
    }

    /// Whether a controller with a higher epoch was seen: this one has stopped serving, and must exit.
    pub async fn fenced(&self) -> u32 {
        todo!()
    }

    /// Tells the agents that the controller goes away, sends what is queued (bounded by 2 s) and stops.
    pub async fn close(&self) {
        todo!()
    }
}

/// An authenticated session with one agent. Clones are handles of the same.
#[derive(Clone)]
pub struct Session {}

impl Session {
    /// Who authenticated.
    pub fn name(&self) -> &AgentName {
        todo!()
    }

    /// What the agent said of itself.
    pub fn profile(&self) -> &Profile {
        todo!()
    }

    /// Opens a stream, and the bulk lane first if it is not open yet. Ends within `connect_timeout`.
    pub async fn open_stream(&self, _lane: Lane) -> Result<(SendStream, RecvStream), LinkError> {
        todo!()
    }

    /// A number that grows whenever something authentic came from the agent.
    pub fn heard(&self) -> u64 {
        todo!()
    }

    /// Waits until the session has ended and says why.
    pub async fn closed(&self) -> LinkError {
        todo!()
    }

    /// Whether it is already closed.
    pub fn is_closed(&self) -> bool {
        todo!()
    }

    /// Ends the session because the agent was removed.
    pub fn close_removed(&self) {
        todo!()
    }

    /// Bytes and packets sent and received, round-trip time; for `rk status`.
    pub fn round_trip(&self) -> Duration {
        todo!()
    }
}
