//! The fixed topics' names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

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
