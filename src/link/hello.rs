//! The first stream of a connection: who the agent is, what the controller answers, and what the link itself has to
//! say later. The agent opens it; it stays open as long as the connection.

use serde::{Deserialize, Serialize};

use super::{Lane, Profile};
use crate::id::AgentName;

/// Agent to controller, once. Read by [`read`](Self::read), for what came later than the first version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// Who I am.
    pub name: AgentName,
    /// What proves it. Shown only inside the encrypted connection to the pinned controller.
    pub secret: [u8; 32],
    /// What this connection is for.
    pub lane: Lane,
    /// Counts my connections: of two that arrive late, the greater is the one that I am in.
    pub attempt: u32,
    /// The highest epoch that I know: a controller with less is not the leader any more.
    pub epoch: u32,
    /// What I am.
    pub profile: Profile,
}

impl Hello {
    /// Reads the frame's bytes. What an older agent does not say has its default, and what a newer one says behind what is known
    /// here is passed over.
    pub fn read(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut hello, more) = postcard::take_from_bytes::<Self>(bytes)?;
        if !more.is_empty() {
            hello.profile.program = Some(postcard::from_bytes(more)?);
        }
        Ok(hello)
    }
}

/// Controller to agent: first one of `Welcome` and `Refused`, then orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Come in.
    Welcome {
        /// The controller's epoch.
        epoch: u32,
        /// The version of the controller's program.
        version: String,
    },
    /// Go away.
    Refused(Refusal),
    /// Dial the bulk lane on this bulk partition.
    OpenBulk {
        /// The leased partition.
        partition: u32,
    },
}

/// Why an authenticated agent is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It is not known, or the secret is another one.
    Unknown,
    /// It was removed.
    Removed,
    /// This controller is not the leader any more.
    Stale,
    /// Its secret was revoked.
    Revoked,
}

/// QUIC application close codes.
pub mod close {
    use quinn::VarInt;

    /// A newer process with the same name took over.
    pub const SUPERSEDED: VarInt = VarInt::from_u32(1);
    /// The agent was removed.
    pub const REMOVED: VarInt = VarInt::from_u32(2);
    /// The peer shuts down.
    pub const GOING_AWAY: VarInt = VarInt::from_u32(3);
    /// The same process opened this lane again.
    pub const REPLACED: VarInt = VarInt::from_u32(4);
    /// Nobody used the lane.
    pub const IDLE: VarInt = VarInt::from_u32(5);
    /// The handshake above QUIC failed.
    pub const REFUSED: VarInt = VarInt::from_u32(6);
    /// The agent's secret was revoked.
    pub const REVOKED: VarInt = VarInt::from_u32(7);
}
