//! What a client is told that may not do what it asks for.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use kafka_protocol::ResponseError;

/// An error and its text.
pub(super) type Refusal = (ResponseError, String);

/// Nothing, if the client may do this with the topic.
pub(super) fn topic(rights: &Rights, operation: Operation, name: &str) -> Result<(), Refusal> {
    if rights.topic(operation, name) { Ok(()) } else { Err(no_topic(operation)) }
}

/// The refusal of something with a topic. It does not tell whether there is such a topic.
pub(super) fn no_topic(operation: Operation) -> Refusal {
    (ResponseError::TopicAuthorizationFailed, format!("Topic authorization failed: {operation:?} is not allowed."))
}

/// Nothing, if the client may do this with the cluster.
pub(super) fn cluster(rights: &Rights, operation: Operation) -> Result<(), Refusal> {
    if rights.cluster(operation) {
        return Ok(());
    }
    let message = format!("Cluster authorization failed: {operation:?} is not allowed.");
    Err((ResponseError::ClusterAuthorizationFailed, message))
}
