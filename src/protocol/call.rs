//! Calls: one request, one answer.
//!
//! After `Open::Call` the caller sends the body as raw bytes and finishes its side. The answer is one [`Answer`] frame,
//! the answer's body as raw bytes, and the end of the stream. The answer may start before the body has ended: a caller
//! reads while it writes, or the two block each other on flow control.

use serde::{Deserialize, Serialize};

/// The largest body of a call or an answer: 512 MiB.
pub const MAX_BODY: usize = 512 << 20;

/// The largest body of [`Call::TakeCredential`] and [`Call::PinNext`].
pub const MAX_CREDENTIAL: usize = 1 << 10;

/// Which call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// The answer's body is the call's: for round trips and tests.
    Echo,
    /// How the agent is: answered with a body that is a [`Condition`] in postcard.
    Condition,
    /// The body is a credential that the agent holds from now on: the same name, a new secret. Answered when it is stored.
    TakeCredential,
    /// The body is the fingerprint, as text, of the key that the controller will have next: the agent accepts both from now
    /// on. Answered when it is stored.
    PinNext,
    /// The body is an [`Order`](super::update::Order) in postcard: change to another version of the program. Answered when the agent has
    /// taken it, or says why not.
    Update,
    /// What the program is, and how its last change stands: answered with a body that is a [`Program`](crate::link::Program) in postcard.
    UpdateState,
}

/// How a call went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It went well; the body follows.
    Ok,
    /// The agent could not do it; the text says why.
    Failed(String),
}

/// What an agent says of its own condition: it forked and can write, it is not merely alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Processes that run for controllers.
    pub running: u32,
    /// Seconds since the agent started.
    pub uptime: u64,
}
