//! What can go wrong between us and a cluster: which hop, whose fault, what to do.

/// The step on the way to a record at which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// Looking the broker's name up.
    Dns,
    /// Opening the TCP connection.
    Tcp,
    /// The TLS handshake, which came to no end: the broker hung up or was silent. It passes when the broker, or what
    /// stands before it, was just dying; it does not if the port speaks no TLS.
    Handshake,
    /// The TLS handshake, in which one side refused the other: chain, name, expiry, client certificate.
    Tls,
    /// Logging in.
    Sasl,
    /// Sending a request or waiting for its response.
    Request,
}

impl std::fmt::Display for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::Handshake | Self::Tls => "TLS",
            Self::Sasl => "SASL",
            Self::Request => "request",
        })
    }
}

/// An error of the Kafka layer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No broker could be reached; the hop says how far we came.
    #[error("{hop} to {broker} failed: {detail}")]
    Unreachable {
        /// How far we came.
        hop: Hop,
        /// `host:port`.
        broker: String,
        /// What happened and the cure.
        detail: String,
    },
    /// The broker refused who we say we are. Retrying without a change is useless.
    #[error("SASL login at {broker} was refused: {detail}")]
    Login {
        /// `host:port`.
        broker: String,
        /// What the broker said and the cure.
        detail: String,
    },
    /// We lack a Kafka right.
    #[error("not authorized: {detail}")]
    Authorization {
        /// Which right on what is missing, and the command that grants it.
        detail: String,
    },
    /// The topic does not exist, or we may not see it.
    #[error("topic {topic} does not exist, or this user may not see it; `rk topics plan` prints how it is created")]
    TopicMissing {
        /// Its name.
        topic: String,
    },
    /// The offset is not in the log: retention took it, or the topic was made anew.
    #[error("offset {offset} is out of range in {topic}/{partition}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What was asked for.
        offset: i64,
    },
    /// A batch is larger than the topic takes.
    #[error("{bytes} bytes are too large for {topic}; raise its max.message.bytes or send less at once")]
    TooLarge {
        /// The topic.
        topic: String,
        /// How large.
        bytes: usize,
    },
    /// The broker answered with an error that passes by itself (leader moves, too few replicas, throttling, …).
    #[error("{broker} answered {code} to {request}; it is tried again")]
    Transient {
        /// `host:port`, or the topic and partition.
        broker: String,
        /// What was asked.
        request: &'static str,
        /// Kafka's name of the error.
        code: String,
    },
    /// The broker answered with an error that does not pass, or with something we do not understand.
    #[error("{broker} answered {code} to {request}")]
    Refused {
        /// `host:port`, or the topic and partition.
        broker: String,
        /// What was asked.
        request: &'static str,
        /// Kafka's name of the error, or what is wrong with the answer.
        code: String,
    },
    /// Our settings cannot work.
    #[error("{0}")]
    Config(String),
}

impl Error {
    /// Whether trying again, without anybody changing anything, can succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Transient { .. })
    }

    /// Whether the cluster may just be away: what is [transient](Self::is_transient), without certificates. At the first
    /// contact a wrong one is a wrong setting, while later it may be a rotation.
    pub fn is_outage(&self) -> bool {
        self.is_transient() && !matches!(self, Self::Unreachable { hop: Hop::Tls, .. })
    }
}
