//! Agents as the API shows them.

use serde::{Deserialize, Serialize};

use crate::{bundle::Digest, id::AgentName, layout::Layout, selector::Labels, update::Update};

/// Whether an agent can be worked with. Counted only in time in which the controller's own records came back from
/// Kafka, so that a broker outage makes nobody silent or offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// It was heard within 6 s.
    Online,
    /// It has a session, and was not heard for 6 s.
    Silent,
    /// It has no session, or was not heard for 15 s. A session is not ended by it.
    Offline,
    /// It was revoked, and is not let in before it gets a new secret. Only where agents are shown.
    Revoked,
}

impl AgentState {
    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Silent => "silent",
            Self::Offline => "offline",
            Self::Revoked => "revoked",
        }
    }
}

impl std::fmt::Display for AgentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Whether it can be worked with.
    pub state: AgentState,
    /// What selectors see: what the agent said of its host (`os`, `arch`, `hostname`, …) under what it was given.
    pub labels: Labels,
    /// The part of the labels that it was given when it was added.
    pub given_labels: Labels,
    /// Which topics carry what is sent to it.
    #[serde(default)]
    pub layout: Layout,
    /// The version of its program, once it had a session with this controller.
    pub version: Option<String>,
    /// The SHA-256 of its program, if it says so.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The last change of its program to another version, or the one that goes on.
    #[serde(default)]
    pub update: Option<Update>,
    /// Its process id, while it has a session.
    pub pid: Option<u32>,
    /// Milliseconds since it was last heard by this controller.
    pub last_heard_ms: Option<u64>,
    /// Microseconds of a round trip, while it has a session.
    pub round_trip_us: Option<u64>,
    /// The Kafka partition on which its control packets run.
    pub partition: u32,
    /// Whether it gets no new jobs, because an operator or the agent itself wants that.
    #[serde(default)]
    pub drained: bool,
    /// How many jobs it takes at once; 0 until it said so in a session.
    #[serde(default)]
    pub slots: u32,
    /// How many jobs it has.
    #[serde(default)]
    pub jobs: u32,
}

/// The answer to `GET /v1/agents`, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentList {
    /// Those that were selected.
    pub agents: Vec<Agent>,
}

/// The body of `POST /v1/agents`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAgent {
    /// The name, unique in the cluster.
    pub name: AgentName,
    /// Labels that it gets; they win over what the agent says of itself.
    #[serde(default)]
    pub labels: Labels,
    /// Which topics carry what is sent to it; the controller's choice if nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
}

/// The body of `POST /v1/agents/{name}/update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateAgent {
    /// Any number below 2^53: a request that comes again with the same does nothing more.
    pub id: u64,
    /// The bundle with the program: name, digest or both.
    pub bundle: String,
    /// How long the new program may take until it has shown that it is good.
    #[serde(default = "deadline_ms")]
    pub deadline_ms: u64,
    /// How long what a new start would end is waited for.
    #[serde(default = "drain_ms")]
    pub drain_ms: u64,
    /// Whether that is ended then.
    #[serde(default)]
    pub interrupt: bool,
    /// Whether an older version is taken too.
    #[serde(default)]
    pub allow_downgrade: bool,
}

fn deadline_ms() -> u64 {
    60_000
}

fn drain_ms() -> u64 {
    300_000
}

/// An agent's own login at the brokers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaLogin {
    /// How.
    pub mechanism: String,
    /// As whom.
    pub username: String,
    /// With which password.
    pub password: String,
}

impl std::fmt::Debug for KafkaLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLogin").field("username", &self.username).field("password", &"***").finish_non_exhaustive()
    }
}

/// The answer to `POST /v1/agents`. The secret is in here and nowhere else: the controller keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedAgent {
    /// The name.
    pub name: AgentName,
    /// `rk1.<name>.<secret>.<fingerprint>`: what the agent is started with.
    pub credential: String,
    /// The topics' prefix that the agent must be started with as well.
    pub prefix: String,
    /// The number of partitions that the agent must be started with as well.
    pub partitions: u32,
    /// Where it is written to; the agent must be started with the same.
    #[serde(default)]
    pub layout: Layout,
    /// Its own login at the brokers, if it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaLogin>,
    /// What somebody still has to do in Kafka who may: commands of Kafka's own tools, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<String>,
}

impl AddedAgent {
    /// What goes into the agent's credential file: the credential, and under it what else differs from the defaults.
    pub fn pass(&self) -> String {
        pass(&self.credential, self.layout, self.kafka.as_ref(), (&self.prefix, self.partitions))
    }
}

impl std::fmt::Debug for AddedAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedAgent").field("name", &self.name).field("credential", &"***").finish_non_exhaustive()
    }
}

/// A credential, and under it where its agent is written to, if that is not the default, and how it logs in, if it has a login of
/// its own. `place` are the topics' prefix and their partitions.
pub(super) fn pass(credential: &str, layout: Layout, login: Option<&KafkaLogin>, place: (&str, u32)) -> String {
    let mut text = format!("{credential}\n");
    let mut line = |key: &str, value: &str| text.push_str(&format!("{key}: {value}\n"));
    if layout != Layout::default() {
        line("layout", layout.as_str());
    }
    if let Some(login) = login {
        line("prefix", place.0);
        line("partitions", &place.1.to_string());
        line("sasl-mechanism", &login.mechanism);
        line("sasl-username", &login.username);
        line("sasl-password", &login.password);
    }
    text
}

/// The answer to `DELETE /v1/agents/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedAgent {
    /// The name, which is free again.
    pub name: AgentName,
    /// Whether it had a session, which was ended.
    pub had_session: bool,
}

/// The answer to `GET /v1/agents/{name}/condition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCondition {
    /// Processes that run for controllers.
    pub running: u32,
    /// Seconds since the agent started.
    pub uptime: u64,
    /// Microseconds that the question took.
    pub took_us: u64,
}
