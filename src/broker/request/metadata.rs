//! `Metadata`: topics, their ids and partitions, and this node as everybody's leader.
//!
//! Who may not describe a topic is not told whether it exists, and does not find it among all topics.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::server::{NODE, Shared};
use super::super::topics::{Topic, is_valid_name};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;
use uuid::Uuid;

/// Topics are never created by asking for them.
pub(super) fn handle(shared: &Shared, rights: &Rights, request: &MetadataRequest, version: i16) -> MetadataResponse {
    let wanted = request.topics.as_deref().filter(|topics| version > 0 || !topics.is_empty());
    let mut topics: Vec<_> = match wanted {
        None => {
            let all = shared.topics.all().into_iter();
            let seen = all.filter(|topic| rights.topic(Operation::Describe, &topic.name));
            seen.map(|topic| describe(&topic, version)).collect()
        }
        Some(wanted) => wanted
            .iter()
            .map(|topic| match &topic.name {
                Some(name) => named(shared, rights, name, version),
                None => with_id(shared, rights, topic.topic_id, version),
            })
            .collect(),
    };
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = rights.topic_operations(topic.name.as_ref().map_or("", |name| name));
        }
    }
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE))
        .with_host(StrBytes::from_string(shared.host.clone()))
        .with_port(i32::from(shared.port));
    let response =
        MetadataResponse::default().with_brokers(vec![node]).with_controller_id(BrokerId(NODE)).with_topics(topics);
    let response = if request.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(rights.cluster_operations())
    } else {
        response
    };
    if version >= 2 {
        response.with_cluster_id(Some(StrBytes::from_string(shared.topics.cluster_id.clone())))
    } else {
        response
    }
}

fn with_id(shared: &Shared, rights: &Rights, id: Uuid, version: i16) -> MetadataResponseTopic {
    let refused = |error: ResponseError| {
        MetadataResponseTopic::default().with_name(None).with_topic_id(id).with_error_code(error.code())
    };
    match shared.topics.with_id(id) {
        None => refused(ResponseError::UnknownTopicId),
        Some(topic) if !rights.topic(Operation::Describe, &topic.name) => {
            refused(ResponseError::TopicAuthorizationFailed)
        }
        Some(topic) => describe(&topic, version),
    }
}

fn named(shared: &Shared, rights: &Rights, name: &TopicName, version: i16) -> MetadataResponseTopic {
    if !rights.topic(Operation::Describe, name) {
        let error = ResponseError::TopicAuthorizationFailed.code();
        return MetadataResponseTopic::default().with_name(Some(name.clone())).with_error_code(error);
    }
    match shared.topics.named(name) {
        Some(topic) => describe(&topic, version),
        None => {
            let error = if is_valid_name(name) {
                ResponseError::UnknownTopicOrPartition
            } else {
                ResponseError::InvalidTopicException
            };
            MetadataResponseTopic::default().with_name(Some(name.clone())).with_error_code(error.code())
        }
    }
}

fn describe(topic: &Arc<Topic>, version: i16) -> MetadataResponseTopic {
    let me = || vec![BrokerId(NODE)];
    let partitions = (0..topic.partitions.len()).map(|index| {
        let partition = MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(index).expect("topics have few partitions"))
            .with_leader_id(BrokerId(NODE))
            .with_replica_nodes(me())
            .with_isr_nodes(me());
        if version >= 7 { partition.with_leader_epoch(0) } else { partition }
    });
    let described = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_partitions(partitions.collect());
    if version >= 10 { described.with_topic_id(topic.id) } else { described }
}
