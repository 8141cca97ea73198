//! Streams to services through the API: `POST /v1/services` with `Upgrade: rk-service/1`.
//!
//! After 101 the client sends one [tagged](crate::tagged) frame of kind [`OPEN`] with [`OpenService`] in JSON; then both sides
//! send the frames of `protocol::service`, with the agent at the other end. The last towards the client is the outcome.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Verb;
use crate::id::AgentName;

/// Kind of the first frame.
pub const OPEN: u8 = 16;

/// The longest first frame: 64 KiB.
pub const MAX_OPEN: usize = 64 << 10;

/// Services of this prefix are ours; they touch files and networks, and need what an execution needs.
const OURS: &str = "rk.";

/// What is wanted of whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenService {
    /// On which agent.
    pub agent: AgentName,
    /// The service's name.
    pub service: String,
    /// What it is about, in the service's own form.
    #[serde(default)]
    pub about: String,
    /// How long it may take, in milliseconds on the agent's clock; for ever if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl OpenService {
    /// A stream to `service` on `agent` without a deadline.
    pub fn new(agent: AgentName, service: impl Into<String>, about: impl Into<String>) -> Self {
        Self { agent, service: service.into(), about: about.into(), deadline_ms: None }
    }

    /// The deadline.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline_ms.map(Duration::from_millis)
    }

    /// What a token must allow for it.
    pub fn verb(&self) -> Verb {
        let ours = self.service.starts_with(OURS) && self.service != crate::service::json::LIST;
        if ours { Verb::Exec } else { Verb::Call }
    }
}
