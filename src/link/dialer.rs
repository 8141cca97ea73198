//! The agent's side of the link.

use std::sync::Arc;

use super::{Config, Credential, Lane, LinkError, Profile, RecvStream, SendStream};
use crate::kafka::SharedCluster;

/// An agent's connection to the packet topics, from which sessions are dialled one after the other.
pub struct Dialer {}

impl Dialer {
    /// Starts reading and writing the agent's partition. `starts` counts the agent's starts (persisted by the
    /// caller, who increments it before each start): the newest process of a name wins.
    pub async fn open(
        _cluster: SharedCluster,
        _config: Config,
        _credential: Arc<Credential>,
        _profile: Profile,
        _starts: u64,
    ) -> Result<Self, LinkError> {
        todo!()
    }

    /// Dials, authenticates the controller by its pinned key, and shows the secret. Ends within `connect_timeout`.
    pub async fn connect(&self) -> Result<AgentSession, LinkError> {
        todo!()
    }

    /// Sends what is queued (bounded by 2 s) and stops.
    pub async fn close(self) {
        todo!()
    }
}

/// An authenticated session, seen from the agent.
pub struct AgentSession {}

impl AgentSession {
    /// The next stream that the controller opened, on whichever lane; the error says why there will be no more.
    pub async fn accept(&mut self) -> Result<(Lane, SendStream, RecvStream), LinkError> {
        todo!()
    }

    /// Ends the session; the controller sees that it was on purpose.
    pub fn close(&self, _reason: &str) {
        todo!()
    }
}
