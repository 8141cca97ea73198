//! What only an administrator's client asks: creating topics with settings, reading settings.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, DescribeConfigsRequest, ListOffsetsRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        describe_configs_request::DescribeConfigsResource,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};

use super::{
    Error,
    code::{self, Asked},
    config::Address,
    metadata::Metadata,
    topics::Topic,
};

/// A topic, as Kafka numbers the kinds of things that have settings.
const TOPIC: i8 = 2;

/// Creates `topics`. One result per topic, in their order; one that somebody else has just created is a success.
pub(super) async fn create_topics(metadata: &Metadata, topics: &[&Topic]) -> Result<Vec<Result<(), Error>>, Error> {
    let limit = metadata.dialer.request_timeout();
    let connection = metadata.controller().await?;
    let request = CreateTopicsRequest::default()
        .with_topics(topics.iter().map(|topic| creatable(topic)).collect())
        .with_timeout_ms(i32::try_from(limit.as_millis() * 4 / 5).unwrap_or(i32::MAX));
    let response = connection.call(&request, limit).await?;
    Ok(topics
        .iter()
        .map(|topic| {
            let answer = response.topics.iter().find(|answer| answer.name.as_str() == topic.name);
            let code = answer.map_or(-1, |answer| answer.error_code);
            let said = answer.and_then(|answer| answer.error_message.as_ref()).map(|said| said.as_str());
            created(metadata, topic, code, said)
        })
        .collect())
}

fn created(metadata: &Metadata, topic: &Topic, code: i16, said: Option<&str>) -> Result<(), Error> {
    let asked = asked(metadata, "CreateTopics", &topic.name, "Create");
    let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
    match (error, asked.error(error)) {
        (ResponseError::TopicAlreadyExists, _) => Ok(()),
        (ResponseError::ClusterAuthorizationFailed, _) => Err(asked.error(ResponseError::TopicAuthorizationFailed)),
        // The broker's words say which setting or policy it is.
        (_, Error::Refused { broker, request, code }) => {
            let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
            Err(Error::Refused { broker, request, code: code + &said })
        }
        (_, other) => Err(other),
    }
}

fn creatable(topic: &Topic) -> CreatableTopic {
    let settings = topic.settings.iter().map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_value(Some(StrBytes::from_string(value.clone())))
    });
    CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.clone())))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication)
        .with_configs(settings.collect())
}

/// Whether every partition of `topics` is served by its leader. A leader may hear of a new topic later than whoever is
/// asked for it.
pub(super) async fn are_served(metadata: &Metadata, topics: &[&Topic]) -> Result<(), Error> {
    let mut by_leader: BTreeMap<Address, BTreeMap<&str, Vec<ListOffsetsPartition>>> = BTreeMap::new();
    for topic in topics {
        for partition in 0..topic.partitions {
            let leader = metadata.leader(&topic.name, partition).await?;
            let asked = ListOffsetsPartition::default()
                .with_partition_index(partition)
                .with_current_leader_epoch(-1)
                .with_timestamp(-1);
            by_leader.entry(leader.broker).or_default().entry(&topic.name).or_default().push(asked);
        }
    }
    for (leader, topics) in by_leader {
        let connection = metadata.dialer.open(&leader).await?;
        let topics = topics.into_iter().map(|(name, partitions)| {
            let name = TopicName(StrBytes::from_string(name.to_owned()));
            ListOffsetsTopic::default().with_name(name).with_partitions(partitions)
        });
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
        let response = connection.call(&request, metadata.dialer.request_timeout()).await?;
        for topic in &response.topics {
            for partition in &topic.partitions {
                let asked = asked(metadata, "ListOffsets", topic.name.as_str(), "Describe");
                Asked { partition: Some(partition.partition_index), ..asked }.check(partition.error_code)?;
            }
        }
    }
    Ok(())
}

/// A topic's settings, by name.
type Settings = Vec<(String, String)>;

/// The settings `keys` of `topics`. One result per topic, in their order.
pub(super) async fn topic_settings(
    metadata: &Metadata,
    topics: &[&str],
    keys: &[&'static str],
) -> Result<Vec<Result<Settings, Error>>, Error> {
    let connection = metadata.controller().await?;
    let resource = |topic: &&str| {
        DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(StrBytes::from_string((*topic).to_owned()))
            .with_configuration_keys(Some(keys.iter().map(|key| StrBytes::from_static_str(key)).collect()))
    };
    let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
    let response = connection.call(&request, metadata.dialer.request_timeout()).await?;
    Ok(topics
        .iter()
        .map(|topic| {
            let asked = asked(metadata, "DescribeConfigs", topic, "DescribeConfigs");
            let answer = response.results.iter().find(|answer| answer.resource_name.as_str() == *topic);
            let answer = answer.ok_or_else(|| asked.error(ResponseError::UnknownTopicOrPartition))?;
            asked.check(answer.error_code)?;
            let value = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            Ok(answer.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect())
        })
        .collect())
}

fn asked<'a>(metadata: &'a Metadata, request: &'static str, topic: &'a str, right: &'static str) -> code::Asked<'a> {
    Asked { request, topic, partition: None, right, principal: metadata.dialer.principal(), bytes: 0 }
}
