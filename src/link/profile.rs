//! What an agent says of itself when it connects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An agent's description of itself. Labels that the controller gave it win over these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The version of the agent's program.
    pub version: String,
    /// `os`, `arch`, `hostname`, and what the agent was started with.
    pub labels: BTreeMap<String, String>,
    /// The process id, for people who look for it.
    pub pid: u32,
}
