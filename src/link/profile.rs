//! What an agent says of itself when it connects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{bundle::Digest, update::Update};

/// An agent's description of itself. Labels that the controller gave it win over these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The version of the agent's program.
    pub version: String,
    /// `os`, `arch`, `hostname`, and what the agent was started with.
    pub labels: BTreeMap<String, String>,
    /// The process id, for people who look for it.
    pub pid: u32,
    /// What program it is. The first agents don't say: how that is read stands with `Hello`.
    #[serde(skip_deserializing)]
    pub program: Program,
}

/// An agent's program. What is added comes at the end, behind a further step of the reader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its SHA-256; none if it is nothing that could be replaced from afar.
    pub digest: Option<Digest>,
    /// The last change to another one.
    pub update: Option<Update>,
}
