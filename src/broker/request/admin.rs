//! `CreateTopics` and `DeleteTopics`.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::server::{NODE, Shared};
use super::super::topics::{Topic, TopicError};
use super::refusal::{self, Refusal};
use super::{RequestError, configs, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// For clients that leave the number to the broker.
const DEFAULT_PARTITIONS: usize = 1;

impl TopicError {
    pub(super) fn code(&self) -> ResponseError {
        match self {
            Self::Exists(_) => ResponseError::TopicAlreadyExists,
            Self::Unknown(_) => ResponseError::UnknownTopicOrPartition,
            Self::Name(_) => ResponseError::InvalidTopicException,
            Self::Assignment => ResponseError::InvalidReplicaAssignment,
            Self::Partitions | Self::NoMore(..) => ResponseError::InvalidPartitions,
            Self::Setting(_) => ResponseError::InvalidConfig,
            Self::Io(_) => ResponseError::KafkaStorageError,
        }
    }
}

pub(super) async fn create(
    shared: &Arc<Shared>,
    rights: Rights,
    request: CreateTopicsRequest,
    version: i16,
) -> Result<CreateTopicsResponse, RequestError> {
    let shared = Arc::clone(shared);
    let created = tokio::task::spawn_blocking(move || {
        let validate_only = request.validate_only;
        // On the cluster for all topics, or on each one.
        let all = rights.cluster(Operation::Create);
        let topics = request.topics.into_iter().map(|wanted| {
            let name = wanted.name.clone();
            let allowed = if all { Ok(()) } else { refusal::topic(&rights, Operation::Create, &name) };
            match allowed.and_then(|()| create_one(&shared, wanted, validate_only)) {
                Ok(new) => created(&shared, &rights, name, &new, version),
                Err((error, message)) => CreatableTopicResult::default()
                    .with_name(name)
                    .with_error_code(error.code())
                    .with_error_message(text(message)),
            }
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    });
    Ok(created.await?)
}

/// A topic that was created, or could be.
struct Created {
    topic: Option<Arc<Topic>>,
    partitions: usize,
    settings: BTreeMap<String, String>,
}

fn create_one(shared: &Shared, wanted: CreatableTopic, validate_only: bool) -> Result<Created, Refusal> {
    if !matches!(wanted.replication_factor, -1 | 1) {
        let message = format!(
            "Replication factor {} is larger than the number of nodes: the embedded broker is one node, use 1",
            wanted.replication_factor
        );
        return Err((ResponseError::InvalidReplicationFactor, message));
    }
    let partitions = if wanted.assignments.is_empty() {
        if wanted.num_partitions == -1 {
            DEFAULT_PARTITIONS
        } else {
            usize::try_from(wanted.num_partitions).unwrap_or(0)
        }
    } else {
        let here = wanted.assignments.iter().all(|a| a.broker_ids.iter().all(|id| id.0 == NODE));
        let mut indexes: Vec<_> = wanted.assignments.iter().map(|a| a.partition_index).collect();
        indexes.sort_unstable();
        if !here || !indexes.iter().copied().eq(0..i32::try_from(indexes.len()).unwrap_or(i32::MAX)) {
            let message = format!("partitions must be numbered from 0 on and assigned to node {NODE}");
            return Err((ResponseError::InvalidReplicaAssignment, message));
        }
        indexes.len()
    };
    let mut settings = BTreeMap::new();
    for config in wanted.configs {
        let Some(value) = config.value else {
            let message = format!("Null value not supported for topic config: {}", config.name);
            return Err((ResponseError::InvalidConfig, message));
        };
        settings.insert(config.name.to_string(), value.to_string());
    }
    let given = settings.clone();
    let created = shared.topics.create(&wanted.name, partitions, settings, validate_only);
    let topic = created.map_err(|error| (error.code(), error.to_string()))?;
    if let Some(topic) = &topic {
        tracing::info!(topic = topic.name, id = %topic.id, partitions, "created a topic");
    }
    Ok(Created { topic, partitions, settings: given })
}

fn created(shared: &Shared, rights: &Rights, name: TopicName, new: &Created, version: i16) -> CreatableTopicResult {
    let described = rights.topic(Operation::DescribeConfigs, &name);
    let mut result = CreatableTopicResult::default().with_name(name);
    if version >= 5 && !described {
        result = result.with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code());
    } else if version >= 5 {
        let configs = configs::values(shared, &new.settings).map(|value| {
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(value.known.name))
                .with_value(Some(StrBytes::from_string(value.value)))
                .with_config_source(value.source)
        });
        result = result
            .with_num_partitions(i32::try_from(new.partitions).unwrap_or(i32::MAX))
            .with_replication_factor(1)
            .with_configs(Some(configs.collect()));
    }
    match &new.topic {
        Some(topic) if version >= 7 => result.with_topic_id(topic.id),
        _ => result,
    }
}

pub(super) async fn delete(
    shared: &Arc<Shared>,
    rights: Rights,
    request: DeleteTopicsRequest,
    version: i16,
) -> Result<DeleteTopicsResponse, RequestError> {
    let shared = Arc::clone(shared);
    let deleted = tokio::task::spawn_blocking(move || {
        let by_name = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
        let wanted = by_name.chain(request.topics);
        let responses = wanted.map(|wanted| delete_one(&shared, &rights, wanted, version));
        DeleteTopicsResponse::default().with_responses(responses.collect())
    });
    Ok(deleted.await?)
}

fn delete_one(shared: &Shared, rights: &Rights, wanted: DeleteTopicState, version: i16) -> DeletableTopicResult {
    let refused = |name: Option<TopicName>, error: ResponseError, message: String| {
        let result = DeletableTopicResult::default().with_name(name).with_error_code(error.code());
        if version >= 5 { result.with_error_message(text(message)) } else { result }
    };
    let by_name = wanted.name.is_some();
    let name = match (&wanted.name, shared.topics.with_id(wanted.topic_id)) {
        (Some(name), _) => name.clone(),
        (None, Some(topic)) => TopicName(StrBytes::from_string(topic.name.clone())),
        (None, None) => {
            let message = "no topic has this id".to_owned();
            return refused(None, ResponseError::UnknownTopicId, message).with_topic_id(wanted.topic_id);
        }
    };
    // On the cluster for all topics, or on each one.
    if !rights.cluster(Operation::Delete) && !rights.topic(Operation::Delete, &name) {
        let (error, message) = refusal::no_topic(Operation::Delete);
        // Who knows only the id may learn the name if they may describe the topic.
        let name = if by_name || rights.topic(Operation::Describe, &name) { Some(name) } else { None };
        let result = refused(name, error, message);
        return if by_name { result } else { result.with_topic_id(wanted.topic_id) };
    }
    match shared.topics.delete(&name) {
        Ok(id) => {
            tracing::info!(topic = %name.as_str(), %id, "deleted a topic");
            let result = DeletableTopicResult::default().with_name(Some(name));
            if version >= 6 { result.with_topic_id(id) } else { result }
        }
        Err(error) => refused(Some(name), error.code(), error.to_string()),
    }
}
