//! What a request that failed is answered with.

use serde::{Deserialize, Serialize};

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of error: for programs.
    pub code: Code,
    /// Cause and cure in one line: for people.
    pub message: String,
}

/// The kinds of errors. Programs take one that they do not know as [`Code::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The bearer token is missing or another one. HTTP 401.
    Unauthorized,
    /// The token does not allow this. HTTP 403.
    Forbidden,
    /// The request is malformed. HTTP 400.
    Invalid,
    /// It was there, and is not any more. HTTP 410.
    Gone,
    /// The body is above the limit. HTTP 413.
    TooLarge,
    /// No such path, method or protocol. HTTP 404.
    NotFound,
    /// No such agent. HTTP 404.
    UnknownAgent,
    /// An agent of this name exists. HTTP 409.
    AgentExists,
    /// Something of this name exists. HTTP 409.
    Exists,
    /// The agent has no session. HTTP 503.
    AgentOffline,
    /// The agent has a session, and did not answer in time, or the session ended meanwhile. HTTP 504.
    NoAnswer,
    /// The agent answered that it could not. HTTP 502.
    AgentFailed,
    /// Kafka did not take or return the record in time; what was asked for may still happen. HTTP 503.
    KafkaUnreachable,
    /// Another controller took over. HTTP 503.
    Superseded,
    /// Too many requests at once. HTTP 503.
    Busy,
    /// Too many requests in a time; `Retry-After` says when to ask again. HTTP 429.
    TooOften,
    /// The controller could not, for a reason of its own. HTTP 500.
    Internal,
    /// A kind that this program does not know.
    #[serde(other)]
    Other,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Code {
    /// The HTTP status that carries it.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::Invalid => 400,
            Self::Gone => 410,
            Self::TooLarge => 413,
            Self::NotFound | Self::UnknownAgent => 404,
            Self::AgentExists | Self::Exists => 409,
            Self::AgentOffline | Self::KafkaUnreachable | Self::Superseded | Self::Busy => 503,
            Self::NoAnswer => 504,
            Self::TooOften => 429,
            Self::AgentFailed => 502,
            Self::Internal | Self::Other => 500,
        }
    }

    /// The exit code of a command that ends with it: 1 gone, 64 usage, 69 unreachable, 75 try again, 77 refused.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Invalid | Self::TooLarge | Self::NotFound | Self::UnknownAgent | Self::AgentExists | Self::Exists => {
                64
            }
            Self::Gone => 1,
            Self::Unauthorized | Self::Forbidden => 77,
            Self::Busy | Self::TooOften | Self::Superseded => 75,
            Self::AgentOffline | Self::NoAnswer | Self::AgentFailed | Self::KafkaUnreachable => 69,
            Self::Internal | Self::Other => 69,
        }
    }

    /// Whether the same request may succeed later although nobody changes anything.
    pub fn may_pass(self) -> bool {
        match self {
            Self::KafkaUnreachable
            | Self::Superseded
            | Self::Busy
            | Self::TooOften
            | Self::NoAnswer
            | Self::AgentOffline => true,
            Self::Unauthorized
            | Self::Forbidden
            | Self::Exists
            | Self::Invalid
            | Self::Gone
            | Self::TooLarge
            | Self::NotFound
            | Self::UnknownAgent
            | Self::AgentExists
            | Self::AgentFailed
            | Self::Internal
            | Self::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_newer_controller_is_still_read() {
        let error: ApiError = serde_json::from_str(r#"{"code":"on_fire","message":"x","more":1}"#).expect("read");
        assert_eq!(error, ApiError::new(Code::Other, "x"));
        let text = serde_json::to_string(&ApiError::new(Code::AgentOffline, "y")).expect("written");
        assert_eq!(text, r#"{"code":"agent_offline","message":"y"}"#);
    }
}
