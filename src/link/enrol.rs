//! Enrolment: the holder of a join token asks for a credential, inside the encrypted session, and gets one.
//!
//! The whole conversation is one request and one answer on the first stream. It can be repeated: the same
//! [`Enrolment`] gets a credential for the same agent again, so that neither a lost answer nor a crash before it was
//! stored costs a use of the token.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Config, Credential, Fingerprint, Held, JoinToken, Lane, LinkError, TokenId, caller::Caller, hello::close,
    line::Line,
};
use crate::{
    id::AgentName,
    kafka::SharedCluster,
    secret::{self, Secret},
};

/// Drawn once by whoever enrols, and told to nobody but the controller: who asks with the same again is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Enrolment(pub [u8; 16]);

impl Enrolment {
    /// A new one.
    pub fn random() -> Self {
        Self(secret::random())
    }
}

/// What the holder of a token asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    /// By which token.
    pub token: TokenId,
    /// Who asks.
    pub enrolment: Enrolment,
    /// The name that it wishes for.
    pub name: AgentName,
}

/// Holder of a token to controller, once.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// Give me a credential.
    Credential {
        /// By this token. The routing key must be the same.
        token: TokenId,
        /// What proves it. Shown only inside the encrypted connection to the pinned controller.
        secret: [u8; 32],
        /// Who asks.
        enrolment: Enrolment,
        /// Under this name.
        name: AgentName,
    },
}

/// Controller to holder of a token, once.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    /// Here it is. Its use is in the journal.
    Credential {
        /// The agent's secret; its name is the one wished for, its controller this one.
        secret: [u8; 32],
        /// The controller's key that the credential names.
        controller: Fingerprint,
    },
    /// No.
    Refused(EnrolRefusal),
}

/// Why there is no credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrolRefusal {
    /// The token is not known, or its secret is another one.
    Unknown,
    /// All its uses are used.
    Exhausted,
    /// Its time is over, by the controller's clock.
    Expired,
    /// It was revoked.
    Revoked,
    /// Another agent has the name.
    NameTaken,
    /// The token is for names that begin with this.
    NamePrefix(String),
    /// The controller can't write it down now. Asking again may help.
    Unavailable(String),
}

impl EnrolRefusal {
    /// What is in the way, and the cure.
    fn explain(&self, token: TokenId, name: &AgentName) -> LinkError {
        let another = "`rk tokens create` makes another";
        LinkError::NotEnrolled(match self {
            Self::Unknown => format!("the controller does not know join token {token} with this secret; {another}"),
            Self::Exhausted => format!("join token {token} has no uses left; {another}"),
            Self::Expired => format!("join token {token} has expired; {another}"),
            Self::Revoked => format!("join token {token} was revoked; {another}"),
            Self::NameTaken => format!(
                "the name {name} is taken by another agent; choose one with --name, or free it with `rk agents rm {name}`"
            ),
            Self::NamePrefix(prefix) => {
                let prefix: String = prefix.chars().take(80).collect();
                format!(
                    "join token {token} is for names that begin with {prefix:?}, and {name} does not; choose one with --name"
                )
            }
            Self::Unavailable(why) => {
                let why: String = why.chars().take(200).collect();
                return LinkError::Ended(format!("the controller can enrol nobody now: {why}"));
            }
        })
    }
}

/// What an agent is told whose token the controller does not know.
pub(super) fn unknown(token: TokenId, name: &AgentName) -> LinkError {
    EnrolRefusal::Unknown.explain(token, name)
}

/// Asks once for a credential, within the link's `connect_timeout` and the time that opening takes. Asking again with
/// the same `enrolment` and `name` gives a credential of the same agent. `starts` is that of [`Dialer::open`].
///
/// [`Dialer::open`]: super::Dialer::open
pub async fn enrol(
    cluster: SharedCluster,
    config: Config,
    token: &JoinToken,
    name: &AgentName,
    enrolment: Enrolment,
    starts: u64,
) -> Result<Credential, LinkError> {
    // Until there is a credential the token's secret proves what it would.
    let stand_in = Credential { name: name.clone(), secret: token.secret.clone(), controller: token.controller };
    let caller = Caller::Token(token.id);
    let held = Held::from(Arc::new(stand_in));
    let line = Line::new(cluster, config, caller, held, starts);
    let port = line.open_control().await?;
    let asked = async {
        let ask = Ask::Credential { token: token.id, secret: *token.secret.expose(), enrolment, name: name.clone() };
        let (connection, _found) = line.dial(&port, Lane::Control).await?;
        let limit = line.config.connect_timeout;
        let exchange = tokio::time::timeout(limit, line.exchange(&connection, &ask));
        let (answer, _) = exchange.await.map_err(|_| LinkError::NoAnswer(limit))??;
        connection.close(close::GOING_AWAY, b"");
        match answer {
            Answer::Credential { secret, controller } => {
                Ok(Credential { name: name.clone(), secret: Secret::new(secret), controller })
            }
            Answer::Refused(refusal) => Err(refusal.explain(token.id, name)),
        }
    };
    let answered = tokio::select! {
        biased;
        answered = asked => answered.map_err(|error| line.explain(&port, error)),
        error = port.health.fatal() => Err(error.into()),
        error = line.turned_away() => Err(error),
    };
    port.close(close::GOING_AWAY, b"").await;
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_has_these_bytes() {
        let ask = Ask::Credential {
            token: TokenId([1; 8]),
            secret: [2; 32],
            enrolment: Enrolment([3; 16]),
            name: "a".parse().expect("name"),
        };
        let bytes = [&[0][..], &[1; 8], &[2; 32], &[3; 16], &[1, b'a']].concat();
        assert_eq!(postcard::to_stdvec(&ask).expect("encode"), bytes);
        let answer = Answer::Credential { secret: [4; 32], controller: Fingerprint([5; 32]) };
        assert_eq!(postcard::to_stdvec(&answer).expect("encode"), [&[0][..], &[4; 32], &[5; 32]].concat());
        for (refusal, bytes) in [
            (EnrolRefusal::Unknown, &[1, 0][..]),
            (EnrolRefusal::Exhausted, &[1, 1]),
            (EnrolRefusal::Expired, &[1, 2]),
            (EnrolRefusal::Revoked, &[1, 3]),
            (EnrolRefusal::NameTaken, &[1, 4]),
            (EnrolRefusal::NamePrefix("x".to_owned()), &[1, 5, 1, b'x']),
            (EnrolRefusal::Unavailable("x".to_owned()), &[1, 6, 1, b'x']),
        ] {
            assert_eq!(postcard::to_stdvec(&Answer::Refused(refusal)).expect("encode"), bytes);
        }
    }
}
