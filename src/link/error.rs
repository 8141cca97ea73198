//! Why a session could not be had, or ended.

use crate::kafka;

use super::Fingerprint;

/// An error of the link.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Kafka stands in the way.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// Nobody answered in time. The next try may succeed.
    #[error(
        "no answer from the controller within {0:?}; is `rk controller run` up, with the same --prefix and cluster?"
    )]
    NoAnswer(std::time::Duration),
    /// The controller does not know this agent, or the secret is another one. Trying again is useless.
    #[error(
        "the controller does not know agent {0} with this secret; `rk agents add {0}` or `rk agents rotate {0}` on the controller's side prints a new credential"
    )]
    UnknownAgent(String),
    /// The agent was removed. Trying again is useless.
    #[error("agent {0} was removed from the controller; `rk agents add {0}` admits it again with a new credential")]
    Removed(String),
    /// Its secret was revoked. Trying again is useless.
    #[error("agent {0} was revoked; `rk agents rotate {0}` on the controller's side prints a new credential")]
    Revoked(String),
    /// The join token or the name was refused; the text says why, with the cure. Trying again is useless.
    #[error("{0}")]
    NotEnrolled(String),
    /// A controller with another key answers. Trying again is useless.
    #[error(
        "a controller with another key answers on this cluster: the credential pins {expected}, the controller has {found}; \
         use a credential that this controller issued, or another --prefix; if its key was rotated while this agent was \
         away, `rk agents rotate NAME` prints a new credential"
    )]
    AnotherController {
        /// What the credential pins.
        expected: Fingerprint,
        /// Who answered.
        found: Fingerprint,
    },
    /// A newer process with the same name took over.
    #[error("superseded: another process runs as agent {0}, and the newest wins")]
    Superseded(String),
    /// The two programs have no protocol version in common. Trying again is useless.
    #[error("no common protocol version: {0}")]
    Version(String),
    /// The session ended: closed by the peer, or silent for longer than the idle timeout.
    #[error("the session ended: {0}")]
    Ended(String),
}
