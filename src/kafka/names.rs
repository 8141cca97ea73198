//! The topics' names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::AgentName;

/// The prefix of all topics of one installation: 1 to 64 bytes of `[A-Za-z0-9_-]`; default `rk`. Everything that talks
/// to each other has the same one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

impl Prefix {
    /// Packets from the controller to agents; small and always fast.
    pub fn down_control(&self) -> String {
        format!("{self}.down.control")
    }

    /// Packets from agents to the controller; small and always fast.
    pub fn up_control(&self) -> String {
        format!("{self}.up.control")
    }

    /// Packets of the bulk lane to agents.
    pub fn down_bulk(&self) -> String {
        format!("{self}.down.bulk")
    }

    /// Packets of the bulk lane to the controller.
    pub fn up_bulk(&self) -> String {
        format!("{self}.up.bulk")
    }

    /// The controller's state.
    pub fn journal(&self) -> String {
        format!("{self}.journal")
    }

    /// The output of jobs.
    pub fn logs(&self) -> String {
        format!("{self}.logs")
    }

    /// What happens to agents and jobs, for other systems.
    pub fn events(&self) -> String {
        format!("{self}.events")
    }

    /// The archives of bundles.
    pub fn blobs(&self) -> String {
        format!("{self}.blobs")
    }

    /// The files that jobs leave.
    pub fn artifacts(&self) -> String {
        format!("{self}.artifacts")
    }

    /// Packets to one agent of the per-agent layout, a partition for each lane.
    pub fn agent_down(&self, agent: &AgentName) -> String {
        format!("{self}.agent.{agent}.down")
    }

    /// Whose topic of the per-agent layout this is.
    pub fn agent_of(&self, topic: &str) -> Option<AgentName> {
        let rest = topic.strip_prefix(&self.0)?.strip_prefix(".agent.")?;
        rest.strip_suffix(".down")?.parse().ok()
    }

    /// How all topics of the installation start.
    pub fn start(&self) -> String {
        format!("{self}.")
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("rk".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let fits =
            (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits {
            Ok(Self(s.to_owned()))
        } else {
            Err(format!("topic prefix {s:?} is refused; use 1 to 64 of a-z, A-Z, 0-9, '-', '_'"))
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> String {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agents_topic_names_the_agent_and_no_other_does() {
        let prefix = Prefix::default();
        let agent: AgentName = "build-7".parse().expect("a name");
        assert_eq!(prefix.agent_down(&agent), "rk.agent.build-7.down");
        assert_eq!(prefix.agent_of("rk.agent.build-7.down"), Some(agent));
        for other in ["rk.down.bulk", "rk2.agent.a.down", "rk.agent.a.up", "rk.agent..down", "rk.agent.a.b.down"] {
            assert_eq!(prefix.agent_of(other), None, "{other}");
        }
    }
}
