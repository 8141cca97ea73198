//! Who a packet claims to come from: the key of its record.
//!
//! It is a routing hint and no proof. An agent calls under its name; one that has none yet under the id of its join
//! token, with a `+` before it, which starts no name.

use std::borrow::Cow;

use super::TokenId;
use crate::id::AgentName;

/// What tells a token's id from a name.
const TOKEN: char = '+';

/// The key of packet records.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// An agent.
    Agent(AgentName),
    /// Whoever holds this join token.
    Token(TokenId),
}

impl Caller {
    /// The key's text.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Agent(name) => Cow::Borrowed(name.as_str()),
            Self::Token(id) => Cow::Owned(format!("{TOKEN}{id}")),
        }
    }

    /// Reads a record's key; `None` if it is nobody's.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?;
        match text.strip_prefix(TOKEN) {
            Some(id) => Some(Self::Token(id.parse().ok()?)),
            None => Some(Self::Agent(text.parse().ok()?)),
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_an_agents_or_a_tokens_or_nobodys() {
        let agent = Caller::Agent("00ff00ff00ff00ff".parse().expect("name"));
        let token = Caller::Token("00ff00ff00ff00ff".parse().expect("id"));
        for caller in [&agent, &token] {
            assert_eq!(Caller::parse(caller.text().as_bytes()).as_ref(), Some(caller));
        }
        assert_ne!(agent, token);
        for nobody in [&b""[..], b"+", b"-controller", b"+00FF00ff00ff00ff", b"++0ff00ff00ff00ff", b"\xff"] {
            assert_eq!(Caller::parse(nobody), None, "{nobody:?}");
        }
    }
}
