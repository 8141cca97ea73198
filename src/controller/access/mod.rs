//! Who may ask the API for what: tokens with a role, limited to verbs and agents. Pure: the state is the fold of its events, and
//! the time is an argument.
//!
//! The token in the controller's data directory stands above: it may do all, and makes the others.

mod caller;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

pub use caller::{Caller, Denied};
pub use token::Token;

use crate::{
    api::access::{Access, Role, Verb},
    id::AgentName,
    link::SecretHash,
    selector::{Labels, Selector},
};

/// The most tokens that there are at once.
pub const MAX_TOKENS: usize = 1000;

/// Something that became true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// There is a token. Without effect if there is one of this name.
    Granted(Grant),
    /// There is none any more.
    Revoked {
        /// Whose.
        name: AgentName,
    },
}

/// What one token may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whom it is for.
    pub name: AgentName,
    /// What proves it.
    pub hash: SecretHash,
    /// What it may do at most.
    pub role: Role,
    /// If not empty, what of that.
    pub verbs: BTreeSet<Verb>,
    /// On which agents.
    pub scope: Scope,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Until when it is good, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
}

/// Some agents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// If not empty, these.
    pub agents: BTreeSet<AgentName>,
    /// Of those, the ones with these labels.
    pub selector: Selector,
}

impl Scope {
    /// Whether an agent with these labels is in it.
    pub fn contains(&self, name: &AgentName, labels: &Labels) -> bool {
        (self.agents.is_empty() || self.agents.contains(name)) && self.selector.matches(labels)
    }

    /// Whether it holds all agents.
    pub fn is_everything(&self) -> bool {
        self.agents.is_empty() && self.selector.is_empty()
    }
}

impl Grant {
    /// Whether it includes `verb`.
    pub fn may(&self, verb: Verb) -> bool {
        self.role.may(verb) && (self.verbs.is_empty() || self.verbs.contains(&verb))
    }

    fn is_good(&self, now_ms: u64) -> bool {
        self.expires_ms.is_none_or(|expires| now_ms < expires)
    }

    /// As the API shows it.
    pub fn info(&self, now_ms: u64) -> Access {
        Access {
            name: self.name.clone(),
            role: self.role,
            verbs: Verb::ALL.into_iter().filter(|verb| self.may(*verb)).collect(),
            agents: self.scope.agents.clone(),
            selector: self.scope.selector.clone(),
            created_ms: self.created_ms,
            expires_ms: self.expires_ms,
            expired: !self.is_good(now_ms),
        }
    }
}

/// All tokens.
#[derive(Debug, Default)]
pub struct Tokens(BTreeMap<AgentName, Arc<Grant>>);

/// What a shown token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Good.
    Good(Arc<Grant>),
    /// It was good once.
    Expired,
    /// Nobody's.
    Unknown,
}

impl Tokens {
    /// Applies an event of the journal.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::Granted(grant) => {
                self.0.entry(grant.name.clone()).or_insert_with(|| Arc::new(grant.clone()));
            }
            Event::Revoked { name } => {
                self.0.remove(name);
            }
        }
    }

    /// Events that, folded by none, give the same tokens.
    pub fn snapshot(&self) -> impl Iterator<Item = Event> + '_ {
        self.0.values().map(|grant| Event::Granted(Grant::clone(grant)))
    }

    /// What a shown token is now.
    pub fn standing(&self, token: &Token, now_ms: u64) -> Standing {
        self.standing_of(&token.name, &token.hash(), now_ms)
    }

    /// What the token with this name and hash is now.
    pub fn standing_of(&self, name: &AgentName, hash: &SecretHash, now_ms: u64) -> Standing {
        match self.0.get(name) {
            Some(grant) if grant.hash != *hash => Standing::Unknown,
            Some(grant) if grant.is_good(now_ms) => Standing::Good(grant.clone()),
            Some(_) => Standing::Expired,
            None => Standing::Unknown,
        }
    }

    /// One of them.
    pub fn get(&self, name: &AgentName) -> Option<&Arc<Grant>> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Grant>> {
        self.0.values()
    }

    /// Whether there may be no more.
    pub fn are_full(&self) -> bool {
        self.0.len() >= MAX_TOKENS
    }
}

#[cfg(test)]
mod tests;
