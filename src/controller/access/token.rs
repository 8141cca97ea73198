//! A token of the API as text: `rka1.<name>.<secret>`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{id::AgentName, link::SecretHash, secret::Secret};

/// What every token begins with.
const VERSION: &str = "rka1";

/// A token that somebody showed.
pub struct Token {
    /// Whose it says that it is.
    pub name: AgentName,
    secret: Secret<[u8; 32]>,
}

impl Token {
    /// The token of `name` with this secret.
    pub fn new(name: AgentName, secret: [u8; 32]) -> Self {
        Self { name, secret: Secret::new(secret) }
    }

    /// Reads a token; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (version, name, secret) = (parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        Some(Self::new(name.parse().ok()?, secret))
    }

    /// The text itself: a secret.
    pub fn to_text(&self) -> String {
        format!("{VERSION}.{}.{}", self.name, URL_SAFE_NO_PAD.encode(self.secret.expose()))
    }

    #[cfg(test)]
    pub(super) fn hash_bytes(&self) -> [u8; 32] {
        self.hash().0
    }

    /// What is kept of it. The secret has 256 random bits: nothing to be guessed, and nothing to be slow about.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.secret.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_nothing_else_is_one() {
        let token = Token::new("jenkins".parse().expect("name"), [7; 32]);
        let again = Token::parse(&token.to_text()).expect("a token");
        assert_eq!((again.name.as_str(), again.hash()), ("jenkins", token.hash()));
        assert_ne!(Token::new("jenkins".parse().expect("name"), [8; 32]).hash(), token.hash());
        let text = token.to_text();
        for bad in ["", "rka1", "rka1.a", "rka1.a.b", "rka2.a.b", &format!("{text}.x"), &text[..text.len() - 1]] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }
}
