//! What an agent says of itself when it connects.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

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
    /// What program it is, if it could be replaced from afar. The first agents don't say: how that is read stands with `Hello`.
    #[serde(skip_deserializing, serialize_with = "if_told")]
    pub program: Option<Program>,
}

/// An agent's program. What is added comes at the end, behind a further step of the reader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its SHA-256, if that is known by now: an agent does not read itself unasked.
    pub digest: Option<Digest>,
    /// The last change to another one.
    pub update: Option<Update>,
}

/// What is not told takes no byte: that is how the first agents wrote it.
fn if_told<S: Serializer>(program: &Option<Program>, serializer: S) -> Result<S::Ok, S::Error> {
    match program {
        Some(program) => program.serialize(serializer),
        None => serializer.serialize_unit(),
    }
}
