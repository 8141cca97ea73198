//! An agent's change to another version of its program, as agent, controller and command line speak of it.
//!
//! An agent tells it in each session's first words, where fields only come at the end: see `link::hello`.

use serde::{Deserialize, Serialize};

use crate::bundle::{Digest, Name};

/// The longest reason, in bytes.
const LONGEST: usize = 500;

/// One change, from the request to its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which request it was, by a random number below 2^53: it survives every reader of JSON.
    pub id: u64,
    /// As the bundle was called.
    pub to: Name,
    /// The bundle.
    pub bundle: Digest,
    /// The SHA-256 of the program before.
    pub from: Digest,
    /// The version of the program before.
    pub from_version: String,
    /// The SHA-256 of the new program, once it is there.
    pub program: Option<Digest>,
    /// The version of the new program, once it said so.
    pub version: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// Why it ended so.
    pub why: Option<String>,
    /// Since when, in milliseconds since 1970 on the agent's clock.
    pub at_ms: u64,
}

/// How far a change is. New ones come at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The bundle is fetched, and the program in it is asked who it is.
    Fetching,
    /// No new work is taken, and what a new start would end is waited for.
    Draining,
    /// The new program runs as the agent, to show that it can.
    Trying,
    /// The new program is in the old one's place, and runs.
    Updated,
    /// It was the same program.
    Current,
    /// The old program runs on, and its file was not touched.
    RolledBack,
    /// Nothing was tried.
    Refused,
    /// Nothing was tried: what ran did not end in time.
    Busy,
}

impl Update {
    /// Goes on to another stage, with the reason if there is one.
    pub fn at(self, stage: Stage, why: Option<&str>, now_ms: u64) -> Self {
        Self { stage, why: why.map(shortened), at_ms: now_ms, ..self }
    }
}

impl Stage {
    /// Whether nothing follows.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Fetching | Self::Draining | Self::Trying)
    }

    /// Whether the agent has the program that was asked for.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Updated | Self::Current)
    }

    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fetching => "fetching",
            Self::Draining => "draining",
            Self::Trying => "trying",
            Self::Updated => "updated",
            Self::Current => "current",
            Self::RolledBack => "rolled back",
            Self::Refused => "refused",
            Self::Busy => "busy",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A reason as one line that fits everywhere.
fn shortened(why: &str) -> String {
    let words = why.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = (0..=LONGEST.min(words.len())).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
    words[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(shortened("a\n  b\t"), "a b");
        let long = shortened(&"ä".repeat(1000));
        assert!(long.len() <= LONGEST && long.len() > LONGEST - 4, "{}", long.len());
    }

    #[test]
    fn what_is_good_is_an_end() {
        use Stage::*;
        for stage in [Fetching, Draining, Trying, Updated, Current, RolledBack, Refused, Busy] {
            assert!(stage.is_end() || !stage.is_good(), "{stage}");
        }
    }
}
