//! Somebody who asks, and what becomes of it.

use std::sync::Arc;

use super::{Grant, Scope};
use crate::{
    api::{ApiError, Code, access::Verb},
    id::AgentName,
    selector::Labels,
};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Who can read the controller's data directory.
    Root,
    /// The holder of a token.
    Granted(Arc<Grant>),
}

/// Why somebody may not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The token does not include the verb.
    #[error("the token of {caller} does not allow {verb}, which takes the role {}; ask an admin for one that does (`rk access add`)", .verb.least())]
    Verb {
        /// Whose token.
        caller: AgentName,
        /// What for.
        verb: Verb,
    },
    /// Not on this agent.
    #[error(
        "the token of {caller} is not for agent {agent}; ask an admin for one that is (`rk access add --agent {agent}`)"
    )]
    Agent {
        /// Whose token.
        caller: AgentName,
        /// On which agent.
        agent: AgentName,
    },
    /// Not for all agents.
    #[error("the token of {caller} is limited to some agents; {cure}")]
    Limited {
        /// Whose token.
        caller: AgentName,
        /// What to do.
        cure: &'static str,
    },
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        Self::new(Code::Forbidden, denied.to_string())
    }
}

impl Caller {
    /// The name that others see.
    pub fn name(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Granted(grant) => grant.name.as_str(),
        }
    }

    /// Whether it may do this at all.
    pub fn check(&self, verb: Verb) -> Result<(), Denied> {
        match self {
            Self::Granted(grant) if !grant.may(verb) => Err(Denied::Verb { caller: grant.name.clone(), verb }),
            Self::Root | Self::Granted(_) => Ok(()),
        }
    }

    /// Whether it may work with this agent.
    pub fn check_agent(&self, agent: &AgentName, labels: &Labels) -> Result<(), Denied> {
        match self {
            Self::Granted(grant) if !grant.scope.contains(agent, labels) => {
                Err(Denied::Agent { caller: grant.name.clone(), agent: agent.clone() })
            }
            Self::Root | Self::Granted(_) => Ok(()),
        }
    }

    /// The agents that it may work with, if not all.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Root => None,
            Self::Granted(grant) => Some(&grant.scope).filter(|scope| !scope.is_everything()),
        }
    }

    /// An error for who is limited to some agents.
    pub fn check_unlimited(&self, cure: &'static str) -> Result<(), Denied> {
        match (self, self.scope()) {
            (Self::Granted(grant), Some(_)) => Err(Denied::Limited { caller: grant.name.clone(), cure }),
            _ => Ok(()),
        }
    }

    /// Who stands in the records of what it asks for. Who may do all may also speak for others.
    pub fn signs(&self, said: String) -> String {
        match self {
            Self::Root => said,
            Self::Granted(grant) => grant.name.to_string(),
        }
    }
}
