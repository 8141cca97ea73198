//! An installation's topics and the rights around them: what they have to be like ([`Desired`]), how a cluster differs
//! ([`plan`]), and making it so ([`apply`]).
//!
//! Deciding is pure: [`Desired`], [`plan`] and the [`commands`] know no cluster. Promises: nothing here makes a topic
//! smaller, changes a number of partitions or of replicas, or deletes anything.

mod agent;
mod apply;
pub mod commands;
mod desired;
mod difference;
mod ensure;
mod found;
mod layout;
mod plan;
mod rights;
mod strimzi;

pub use agent::AgentNeeds;
pub use apply::{Applied, apply};
pub use desired::{Desired, Installation, agent_of_user, principal_of, user_of_agent};
pub use difference::{Difference, Mend};
pub use ensure::{Manage, Report, check, ensure, prepare};
pub use found::{Depth, Found, Seen, look};
pub use plan::plan;
pub use strimzi::strimzi;

const MIB: u64 = 1 << 20;

/// A topic as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// The name.
    pub name: String,
    /// The number of partitions, fixed for ever: an agent's partition depends on it.
    pub partitions: i32,
    /// The number of replicas.
    pub replication: i16,
    /// Kafka's settings by name.
    pub settings: Vec<(&'static str, String)>,
}

impl Topic {
    /// A setting by its name.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    /// The most disk that all replicas take together; `None` where nothing bounds it.
    pub fn most_bytes(&self) -> Option<u64> {
        most_bytes(|name| self.setting(name), self.partitions, self.replication)
    }
}

/// The most disk that all replicas of a topic with these settings take together, in bytes; `None` where nothing bounds
/// it.
pub fn most_bytes<'a>(setting: impl Fn(&str) -> Option<&'a str>, partitions: i32, replication: i16) -> Option<u64> {
    let number = |name| setting(name)?.parse::<u64>().ok();
    // Retention deletes whole segments, and never the one that is being written.
    let partition = number("retention.bytes")?.checked_add(number("segment.bytes").unwrap_or(1024 * MIB))?;
    partition.checked_mul(u64::try_from(partitions).ok()?)?.checked_mul(u64::try_from(replication).ok()?)
}
