//! A stream to a named service of an agent.
//!
//! The controller opens a stream with [`Start`]. After it both sides send [tagged](crate::tagged) frames of at most
//! [`MAX_PAYLOAD`] bytes, each direction for itself:
//!
//! | kind | payload |
//! |---|---|
//! | [`DATA`] | bytes, as many as the receiver allowed |
//! | [`END`] | –: there will be no more; all is there |
//! | [`RESET`] | –: there will be no more, and what came is not all |
//! | [`ALLOW`] | `u64` little-endian: so many bytes may have been sent in total, see [`allowance`](super::allowance) |
//! | [`STOP`] | –: the rest will not be read |
//! | [`OUTCOME`] | [`Outcome`] in postcard; the last frame towards the opener, always |
//!
//! An opener that goes away closes the stream without a word, and whoever serves it stops. A stream that ends without an
//! outcome broke: nobody knows what became of it. The frames are the same on the way between a client and the controller, which
//! passes them on and adds nothing but an outcome when the agent cannot be reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest payload of a frame: 64 KiB. What is smaller lets small streams pass large ones.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// Frame kind: bytes.
pub const DATA: u8 = 1;
/// Frame kind: the end of the bytes.
pub const END: u8 = 2;
/// Frame kind: the bytes broke off.
pub const RESET: u8 = 3;
/// Frame kind: how far the other side may run.
pub const ALLOW: u8 = 4;
/// Frame kind: the other side may stop.
pub const STOP: u8 = 5;
/// Frame kind: how it ended.
pub const OUTCOME: u8 = 6;

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The service's name.
    pub service: String,
    /// Who asked the controller.
    pub caller: String,
    /// How long it may take, on the agent's clock; for ever if none.
    pub deadline: Option<Duration>,
    /// What it is about, for the service to read before the first byte; its form is the service's own.
    pub about: String,
}

/// How a service's stream ended. Exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The service did its work.
    Done,
    /// The service says that it could not.
    Failed(String),
    /// It was not begun.
    Refused(Refusal, String),
    /// Its deadline passed, and it was stopped.
    TimedOut,
    /// Nobody knows: the agent does not answer, or the way broke.
    NoAnswer(String),
}

/// Why a service was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The agent has no such service.
    NoService,
    /// The agent's own policy, or the token, does not allow it.
    Denied,
    /// The agent takes no new work: it drains, or has too much.
    Busy,
    /// The agent has no session now.
    Offline,
    /// The controller knows no such agent.
    UnknownAgent,
    /// What was asked for makes no sense.
    Invalid,
}

impl Outcome {
    /// What a command exits with that ends so: 0, 1 for a failure, 64 for what cannot work, 69 where nobody answered, 75 to try
    /// again, 77 for what is not allowed, 124 timed out.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed(_) => 1,
            Self::Refused(Refusal::Denied, _) => 77,
            Self::Refused(Refusal::Busy, _) => 75,
            Self::Refused(Refusal::NoService | Refusal::UnknownAgent | Refusal::Invalid, _) => 64,
            Self::Refused(Refusal::Offline, _) | Self::NoAnswer(_) => 69,
            Self::TimedOut => 124,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(why) | Self::Refused(_, why) | Self::NoAnswer(why) => f.write_str(why),
            Self::TimedOut => f.write_str("the deadline passed, and the service was stopped"),
        }
    }
}
