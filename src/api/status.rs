//! The answer to `GET /v1/status`.

use serde::{Deserialize, Serialize};

/// How the controller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The controller's version.
    pub version: String,
    /// Seconds since it took over.
    pub uptime: u64,
    /// The topics' prefix.
    pub prefix: String,
    /// The epoch that it claimed: grows with each controller that takes over.
    pub epoch: u32,
    /// SHA-256 of its public key, as agents' credentials pin it.
    pub fingerprint: String,
    /// Whether its own records come back from Kafka.
    pub kafka: KafkaStatus,
    /// How many agents are in which state.
    pub agents: AgentCounts,
    /// Control partitions.
    pub partitions: u32,
    /// Executions that run now.
    pub executions: u32,
    /// How many jobs are in which state.
    #[serde(default)]
    pub jobs: JobCounts,
    /// What an operator should look at; one line each, with the cure.
    pub warnings: Vec<String>,
}

impl Status {
    /// Whether the controller can do its work now.
    pub fn is_healthy(&self) -> bool {
        self.kafka.reachable
    }
}

/// What the controller knows of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaStatus {
    /// Whether the controller's own records came back from every partition within the last seconds. While this is
    /// false, agents' states stand still.
    pub reachable: bool,
    /// What is wrong, if something is.
    pub detail: Option<String>,
    /// The control partitions from which nothing comes back.
    pub unreachable_partitions: Vec<u32>,
}

/// How many agents are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Heard within 6 s.
    pub online: u32,
    /// Not heard for 6 s.
    pub silent: u32,
    /// No session, or not heard for 15 s.
    pub offline: u32,
}

impl AgentCounts {
    /// All that are known.
    pub fn total(&self) -> u32 {
        self.online + self.silent + self.offline
    }
}

/// How many jobs are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// They wait for an agent.
    pub queued: u32,
    /// They were given to an agent, which has not said that they run.
    pub assigned: u32,
    /// They run, as far as is known.
    pub running: u32,
    /// They have ended, and are still remembered.
    pub ended: u32,
}
