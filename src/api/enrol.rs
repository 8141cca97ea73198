//! How agents get in: join tokens, new secrets, and the end of old ones.

use serde::{Deserialize, Serialize};

use super::agents::{KafkaLogin, pass};
use crate::{id::AgentName, layout::Layout, selector::Labels};

/// The most agents that one token may enrol.
pub const MAX_USES: u32 = 100_000;

/// The longest life of a token: a year of 366 days, in milliseconds.
pub const MAX_TTL_MS: u64 = 366 * 24 * 3600 * 1000;

/// The body of `POST /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// How many agents it may enrol: 1 to [`MAX_USES`].
    pub uses: u32,
    /// For how many milliseconds from now: 1 to [`MAX_TTL_MS`].
    pub ttl_ms: u64,
    /// The labels that its agents get; they win over what the agents say of themselves.
    #[serde(default)]
    pub labels: Labels,
    /// What the names of its agents must begin with.
    #[serde(default)]
    pub name_prefix: String,
}

/// The answer to `POST /v1/tokens`. The secret is in here and nowhere else: the controller keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// `rkt1.<id>.<secret>.<fingerprint>`: what agents are started with.
    pub token: String,
    /// All else about it.
    pub info: Token,
    /// The topics' prefix that the agents must be started with as well.
    pub prefix: String,
    /// The number of partitions that the agents must be started with as well.
    pub partitions: u32,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken").field("token", &"***").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Whether a token can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It can.
    Valid,
    /// All its uses are used.
    Exhausted,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl TokenState {
    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id: 16 hexadecimal digits.
    pub id: String,
    /// Whether it can be used.
    pub state: TokenState,
    /// How many agents it may enrol.
    pub uses: u32,
    /// How many more it may enrol.
    pub uses_left: u32,
    /// When it was made, in milliseconds since 1970 on the controller's clock.
    pub created_ms: u64,
    /// When it expires, in milliseconds since 1970 on the controller's clock.
    pub expires_ms: u64,
    /// How many milliseconds from now that is; 0 when it is over.
    pub expires_in_ms: u64,
    /// The labels that its agents get.
    pub labels: Labels,
    /// What the names of its agents must begin with.
    pub name_prefix: String,
}

/// The answer to `GET /v1/tokens`, the newest first. Tokens are listed until a week after their end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenList {
    /// All that are remembered.
    pub tokens: Vec<Token>,
}

/// The body of `POST /v1/agents/{name}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateAgent {
    /// For how many milliseconds the old secret is valid too, up to [`MAX_TTL_MS`]. With 0 only until the agent has the
    /// new one, or has shown that it does not take it.
    pub overlap_ms: u64,
    /// Whether the answer is to hold the credential also if the agent took it by itself.
    #[serde(default)]
    pub show: bool,
}

/// Whether the agent has its new secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how", content = "detail")]
pub enum Taken {
    /// It took and stored it.
    Yes,
    /// It has no session.
    Offline,
    /// It has a session and did not take it; the text says why.
    No(String),
}

/// The answer to `POST /v1/agents/{name}/rotate`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotatedAgent {
    /// The agent.
    pub name: AgentName,
    /// Whether it has its new secret.
    pub taken: Taken,
    /// Until when the old secret is valid, in milliseconds since 1970 on the controller's clock; none if it is void.
    pub old_until_ms: Option<u64>,
    /// The new credential, if the agent did not take it or it was asked for.
    pub credential: Option<String>,
    /// Where it is written to.
    #[serde(default)]
    pub layout: Layout,
    /// The topics' prefix.
    #[serde(default)]
    pub prefix: String,
    /// The number of partitions.
    #[serde(default)]
    pub partitions: u32,
    /// Its new Kafka login, if the one that it had was taken away when it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaLogin>,
    /// What somebody still has to do in Kafka who may: commands of Kafka's own tools, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<String>,
}

impl RotatedAgent {
    /// What goes into the agent's credential file. A login that stood under the old credential of an agent that was not revoked
    /// stays good, and is not known here.
    pub fn pass(&self) -> Option<String> {
        let place = (self.prefix.as_str(), self.partitions);
        self.credential.as_ref().map(|credential| pass(credential, self.layout, self.kafka.as_ref(), place))
    }
}

impl std::fmt::Debug for RotatedAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotatedAgent").field("name", &self.name).field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// The answer to `POST /v1/agents/{name}/revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedAgent {
    /// The agent, which stays listed.
    pub name: AgentName,
    /// Whether it had a session, which was ended.
    pub had_session: bool,
}
