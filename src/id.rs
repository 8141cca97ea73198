//! Names and ids that everybody shares.
//!
//! They are validated once, where they enter; a value of these types is well-formed for ever.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest agent name in bytes. A name is a Kafka record key and part of topic names, whose limit is 249.
pub const MAX_AGENT_NAME: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent name {name:?} {problem}; use 1 to 63 of a-z, A-Z, 0-9, '-', '_', starting with a letter or digit")]
pub struct InvalidName {
    name: String,
    problem: &'static str,
}

/// An agent's name: unique in a cluster, 1 to [`MAX_AGENT_NAME`] bytes of `[A-Za-z0-9_-]`, starting with a letter or
/// digit. Dots are left out because a credential uses them as separator.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentName(String);

impl AgentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentName {
    type Err = InvalidName;

    fn from_str(s: &str) -> Result<Self, InvalidName> {
        let refuse = |problem| {
            let name = s.chars().take(80).collect();
            Err(InvalidName { name, problem })
        };
        if s.is_empty() {
            return refuse("is empty");
        }
        if s.len() > MAX_AGENT_NAME {
            return refuse("is too long");
        }
        if !s.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return refuse("starts with a wrong character");
        }
        if !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return refuse("has a wrong character");
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for AgentName {
    type Error = InvalidName;

    fn try_from(s: String) -> Result<Self, InvalidName> {
        s.parse()
    }
}

impl From<AgentName> for String {
    fn from(name: AgentName) -> String {
        name.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Names one execution on an agent; random, so that two controllers never draw the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecId(pub u128);

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl ExecId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().as_u128())
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken_and_bad_ones_say_why() {
        for good in ["a", "build-7", "Node_1", &"x".repeat(63)] {
            assert_eq!(good.parse::<AgentName>().expect("good").as_str(), good);
        }
        for bad in ["", "-a", "a.b", "a b", "ä", "a/b", &"x".repeat(64)] {
            let e = bad.parse::<AgentName>().expect_err("bad").to_string();
            assert!(e.contains("use 1 to 63"), "{e}");
        }
    }
}
