//! Where an agent's packets run.

use serde::{Deserialize, Serialize};

/// Which topics carry packets to an agent. What agents write goes to the same topics in either layout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Fixed topics, whose partitions it reads together with others: no topic is made for it.
    #[default]
    Shared,
    /// A topic of its own, which Kafka lets nobody else read.
    PerAgent,
}

impl Layout {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Shared, Self::PerAgent];

    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::PerAgent => "per-agent",
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|layout| layout.as_str() == text)
            .ok_or_else(|| format!("there is no layout {text:?}; use shared or per-agent"))
    }
}
