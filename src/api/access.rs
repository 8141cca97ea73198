//! Access to the API as the API shows it: who may ask for what, on which agents.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{id::AgentName, selector::Selector};

/// What a token may do at most; each role may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Work with agents that are there: execute, call, run and end jobs, drain.
    Operator,
    /// All: also who may be an agent, which program it is, and who may ask.
    Admin,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Status, agents, jobs and their logs.
    View,
    /// Calls that an agent answers itself.
    Call,
    /// Executions.
    Exec,
    /// New jobs.
    Run,
    /// A job's end, or until when it is waited for.
    Cancel,
    /// Whether an agent gets new jobs.
    Drain,
    /// Who may be an agent.
    Enrol,
    /// Who may ask for what.
    Grant,
    /// Which bundles there are.
    Push,
    /// Which program an agent is.
    Update,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// Whether it includes `verb`.
    pub fn may(self, verb: Verb) -> bool {
        self >= verb.least()
    }

    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::View,
        Self::Call,
        Self::Exec,
        Self::Run,
        Self::Cancel,
        Self::Drain,
        Self::Enrol,
        Self::Grant,
        Self::Push,
        Self::Update,
    ];

    /// The least role that includes it.
    pub fn least(self) -> Role {
        match self {
            Self::View => Role::Viewer,
            Self::Call | Self::Exec | Self::Run | Self::Cancel | Self::Drain | Self::Push => Role::Operator,
            // What an agent is outlives every command, and every token.
            Self::Enrol | Self::Grant | Self::Update => Role::Admin,
        }
    }

    /// The word that people and JSON see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Call => "call",
            Self::Exec => "exec",
            Self::Run => "run",
            Self::Cancel => "cancel",
            Self::Drain => "drain",
            Self::Enrol => "enrol",
            Self::Grant => "grant",
            Self::Push => "push",
            Self::Update => "update",
        }
    }
}

/// The text names no role or verb.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} {text:?}; use {known}")]
pub struct Unknown {
    what: &'static str,
    text: String,
    known: String,
}

impl Unknown {
    /// The one of `all` that is called `text`.
    fn or_find<T: Copy>(what: &'static str, text: &str, all: &[T], word: fn(T) -> &'static str) -> Result<T, Self> {
        all.iter().copied().find(|one| word(*one) == text).ok_or_else(|| Self {
            what,
            text: text.chars().take(40).collect(),
            known: all.iter().copied().map(word).collect::<Vec<_>>().join(", "),
        })
    }
}

impl std::str::FromStr for Role {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Unknown::or_find("role", text, &Self::ALL, Self::as_str)
    }
}

impl std::str::FromStr for Verb {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        Unknown::or_find("verb", text, &Self::ALL, Self::as_str)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The body of `POST /v1/access`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAccess {
    /// Whom the token is for, unique among tokens. Shown as the submitter of its jobs.
    pub name: AgentName,
    /// What it may do at most.
    pub role: Role,
    /// If not empty, what of that.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub verbs: BTreeSet<Verb>,
    /// If not empty, on which agents.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub agents: BTreeSet<AgentName>,
    /// On agents with which labels.
    #[serde(default, skip_serializing_if = "Selector::is_empty")]
    pub selector: Selector,
    /// For how many milliseconds; for ever if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Whom it is for.
    pub name: AgentName,
    /// What it may do at most.
    pub role: Role,
    /// What it may do.
    pub verbs: BTreeSet<Verb>,
    /// If not empty, on which agents.
    pub agents: BTreeSet<AgentName>,
    /// On agents with which labels.
    pub selector: Selector,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Whether it is good now.
    pub expired: bool,
}

/// The answer to `GET /v1/access`, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessList {
    /// All tokens, expired ones too.
    pub access: Vec<Access>,
}

/// The answer to `POST /v1/access`. The token is in here and nowhere else: the controller keeps only its hash.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedAccess {
    /// `rka1.<name>.<secret>`: what goes into `--api-token`.
    pub token: String,
    /// What it may do.
    pub access: Access,
}

impl std::fmt::Debug for AddedAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddedAccess").field("token", &"***").field("access", &self.access).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_one_before_it_may_and_more() {
        let of = |role: Role| Verb::ALL.into_iter().filter(|verb| role.may(*verb)).collect::<Vec<_>>();
        assert_eq!(of(Role::Viewer), [Verb::View]);
        assert_eq!(
            of(Role::Operator),
            [Verb::View, Verb::Call, Verb::Exec, Verb::Run, Verb::Cancel, Verb::Drain, Verb::Push]
        );
        assert_eq!(of(Role::Admin), Verb::ALL);
    }

    #[test]
    fn words_are_read_and_odd_ones_are_told_the_known_ones() {
        for verb in Verb::ALL {
            assert_eq!(verb.as_str().parse(), Ok(verb));
            assert_eq!(serde_json::to_string(&verb).expect("written"), format!("\"{verb}\""));
        }
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        let e = "root".parse::<Role>().expect_err("no role").to_string();
        assert_eq!(e, "there is no role \"root\"; use viewer, operator, admin");
    }
}
