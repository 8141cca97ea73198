//! What a broker's error codes mean to us.

use kafka_protocol::error::ResponseError;

use super::Error;

/// What was asked, for the error's text and its cure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The request's name.
    pub request: &'static str,
    /// The topic.
    pub topic: &'a str,
    /// The partition, where there is one.
    pub partition: Option<i32>,
    /// The right that it takes, by Kafka's name.
    pub right: &'static str,
    /// Who asks, as Kafka's access rules name it.
    pub principal: &'a str,
    /// How large it is, where that matters.
    pub bytes: usize,
}

impl Asked<'_> {
    /// `Ok` if the code is none, else our error for it.
    pub(super) fn check(&self, code: i16) -> Result<(), Error> {
        ResponseError::try_from_code(code).map_or(Ok(()), |error| Err(self.error(error)))
    }

    /// Our error for Kafka's.
    pub(super) fn error(&self, error: ResponseError) -> Error {
        let topic = self.topic.to_owned();
        match error {
            ResponseError::TopicAuthorizationFailed => Error::Authorization { detail: self.grant() },
            ResponseError::ClusterAuthorizationFailed => {
                Error::Authorization { detail: format!("{} needs {} on the cluster", self.principal, self.right) }
            }
            // Of one partition the leader says so before it has heard of a new topic: the metadata decide what is missing.
            ResponseError::UnknownTopicOrPartition if self.partition.is_none() => Error::TopicMissing { topic },
            ResponseError::InvalidTopicException => Error::TopicMissing { topic },
            ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => {
                Error::TooLarge { topic, bytes: self.bytes }
            }
            _ if passes(error) => Error::Transient { broker: self.place(), request: self.request, code: name(error) },
            _ => Error::Refused { broker: self.place(), request: self.request, code: name(error) },
        }
    }

    /// `topic/partition`.
    pub(super) fn place(&self) -> String {
        match self.partition {
            Some(partition) => format!("{}/{partition}", self.topic),
            None => self.topic.to_owned(),
        }
    }

    fn grant(&self) -> String {
        let Self { principal, right, topic, .. } = self;
        format!(
            "{principal} needs {right} on topic {topic}; grant it with `kafka-acls.sh --bootstrap-server … --add \
             --allow-principal '{principal}' --operation {right} --topic {topic}`"
        )
    }
}

/// Whether the leader of the partition is another one, or none, so that we have to look again.
pub(super) fn is_stale_leader(code: i16) -> bool {
    matches!(
        ResponseError::try_from_code(code),
        Some(
            ResponseError::NotLeaderOrFollower
                | ResponseError::LeaderNotAvailable
                | ResponseError::UnknownTopicOrPartition
                | ResponseError::ReplicaNotAvailable
                | ResponseError::FencedLeaderEpoch
                | ResponseError::UnknownLeaderEpoch
                | ResponseError::KafkaStorageError
                | ResponseError::ListenerNotFound
                | ResponseError::BrokerNotAvailable
        )
    )
}

/// Whether the error passes by itself. The broker's own "unexpected error" is among them: it names no cause that anybody
/// could mend by changing the request.
fn passes(error: ResponseError) -> bool {
    error.is_retriable() || matches!(error, ResponseError::UnknownServerError | ResponseError::BrokerNotAvailable)
}

/// Kafka's own spelling: `NOT_LEADER_OR_FOLLOWER`.
pub(super) fn name(error: ResponseError) -> String {
    if let ResponseError::Unknown(code) = error {
        return format!("error {code}");
    }
    let mut name = String::new();
    for c in format!("{error:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'static> = Asked {
        request: "Produce",
        topic: "rk.up.control",
        partition: Some(3),
        right: "Write",
        principal: "User:agent",
        bytes: 7,
    };

    #[test]
    fn what_passes_by_itself_is_transient() {
        use ResponseError::*;
        for error in [
            NotLeaderOrFollower,
            LeaderNotAvailable,
            NotEnoughReplicas,
            NotEnoughReplicasAfterAppend,
            RequestTimedOut,
            KafkaStorageError,
            FencedLeaderEpoch,
            UnknownLeaderEpoch,
            UnknownServerError,
            ThrottlingQuotaExceeded,
        ] {
            assert!(ASKED.error(error).is_transient(), "{error:?}");
        }
        for error in [InvalidTimestamp, UnsupportedVersion, InvalidRecord, Unknown(999)] {
            assert!(matches!(ASKED.error(error), Error::Refused { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_missing_right_comes_with_the_command_that_grants_it() {
        let text = ASKED.error(ResponseError::TopicAuthorizationFailed).to_string();
        assert!(text.contains("--allow-principal 'User:agent' --operation Write --topic rk.up.control"), "{text}");
    }

    #[test]
    fn size_and_absence_have_their_own_errors() {
        assert!(matches!(ASKED.error(ResponseError::MessageTooLarge), Error::TooLarge { bytes: 7, .. }));
        assert!(matches!(ASKED.error(ResponseError::RecordListTooLarge), Error::TooLarge { .. }));
        assert!(ASKED.error(ResponseError::UnknownTopicOrPartition).is_transient());
        let whole = Asked { partition: None, ..ASKED };
        assert!(matches!(whole.error(ResponseError::UnknownTopicOrPartition), Error::TopicMissing { .. }));
        assert!(ASKED.check(0).is_ok());
    }

    #[test]
    fn names_are_those_of_kafka() {
        assert_eq!(name(ResponseError::NotLeaderOrFollower), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(name(ResponseError::Unknown(999)), "error 999");
    }
}
