//! Topics: seeing, creating, deleting.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
};

use super::{Admin, text};
use crate::kafka::{Error, code::Asked, config::Address, topics::Topic};

/// A topic that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    /// The name.
    pub name: String,
    /// The number of partitions.
    pub partitions: i32,
    /// The number of replicas of the partition that has the fewest.
    pub replication: i16,
    /// The number of replicas in sync of the partition that has the fewest.
    pub in_sync: i16,
}

impl FoundTopic {
    fn of(topic: &MetadataResponseTopic) -> Self {
        let least = |count: &dyn Fn(usize) -> usize| {
            let least = (0..topic.partitions.len()).map(count).min().unwrap_or(0);
            i16::try_from(least).unwrap_or(i16::MAX)
        };
        Self {
            name: topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default(),
            partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
            replication: least(&|at| topic.partitions[at].replica_nodes.len()),
            in_sync: least(&|at| topic.partitions[at].isr_nodes.len()),
        }
    }
}

impl Admin {
    /// How many brokers there are.
    pub async fn brokers(&self) -> Result<usize, Error> {
        self.within("Metadata", self.metadata.describe(&[])).await?;
        Ok(self.metadata.brokers())
    }

    /// Looks topics up. One result per name, in their order: [`Error::TopicMissing`] or, from a cluster that does not tell
    /// us whether there is one, [`Error::Authorization`].
    pub async fn find_topics(&self, names: &[&str]) -> Result<Vec<Result<FoundTopic, Error>>, Error> {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let topics = self.within("Metadata", self.describe(Some(names.iter().map(topic).collect()))).await?;
        let of = |name: &&str| {
            let asked = self.asked("Metadata", name, "Describe");
            let found = topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| n.as_str() == *name));
            let found = found.ok_or_else(|| asked.error(ResponseError::UnknownTopicOrPartition))?;
            // A partition whose leader is being chosen has an error of its own, and is there.
            asked.check(found.error_code)?;
            Ok(FoundTopic::of(found))
        };
        Ok(names.iter().map(of).collect())
    }

    /// All topics whose names start with `start` and which we may see, by name.
    pub async fn topics_below(&self, start: &str) -> Result<Vec<FoundTopic>, Error> {
        let topics = self.within("Metadata", self.describe(None)).await?;
        let ours = topics.iter().filter(|topic| topic.error_code == 0).map(FoundTopic::of);
        let mut ours: Vec<_> = ours.filter(|topic| topic.name.starts_with(start)).collect();
        ours.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ours)
    }

    async fn describe(&self, topics: Option<Vec<MetadataRequestTopic>>) -> Result<Vec<MetadataResponseTopic>, Error> {
        let connection = self.metadata.controller().await?;
        let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        Ok(connection.call(&request, self.metadata.dialer.request_timeout()).await?.topics)
    }

    /// Creates `topics`. One result per topic, in their order; one that is there already is a success, whatever it is
    /// like. They can be used when [`Admin::are_served`] says so. Takes Create on each, or on the cluster.
    pub async fn create_topics(&self, topics: &[&Topic]) -> Result<Vec<Result<(), Error>>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        self.within("CreateTopics", self.create(topics)).await
    }

    async fn create(&self, topics: &[&Topic]) -> Result<Vec<Result<(), Error>>, Error> {
        let limit = self.metadata.dialer.request_timeout();
        let connection = self.metadata.controller().await?;
        let request = CreateTopicsRequest::default()
            .with_topics(topics.iter().map(|topic| creatable(topic)).collect())
            .with_timeout_ms(self.patience());
        let response = connection.call(&request, limit).await?;
        let of = |topic: &&Topic| {
            let asked = self.asked("CreateTopics", &topic.name, "Create");
            let answer = response.topics.iter().find(|answer| answer.name.as_str() == topic.name);
            let code = answer.map_or(-1, |answer| answer.error_code);
            match ResponseError::try_from_code(code) {
                Some(ResponseError::TopicAlreadyExists) => Ok(()),
                Some(ResponseError::ClusterAuthorizationFailed) => {
                    Err(asked.error(ResponseError::TopicAuthorizationFailed))
                }
                // The broker's words say which setting or policy it is.
                _ => asked.check_with(code, answer.and_then(|answer| answer.error_message.as_ref())),
            }
        };
        Ok(topics.iter().map(of).collect())
    }

    /// Whether every partition of `topics` is served by its leader. A leader may hear of a new topic later than whoever
    /// is asked for it.
    pub async fn are_served(&self, topics: &[&Topic]) -> Result<(), Error> {
        self.within("ListOffsets", self.leaders_serve(topics)).await
    }

    async fn leaders_serve(&self, topics: &[&Topic]) -> Result<(), Error> {
        let metadata = &self.metadata;
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
                ListOffsetsTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
            });
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
            let response = connection.call(&request, metadata.dialer.request_timeout()).await?;
            for topic in &response.topics {
                for partition in &topic.partitions {
                    let asked = self.asked("ListOffsets", topic.name.as_str(), "Describe");
                    Asked { partition: Some(partition.partition_index), ..asked }.check(partition.error_code)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets who leads `topics`, so that the next question asks the cluster.
    pub(in crate::kafka) fn forget(&self, topics: &[&Topic]) {
        for topic in topics {
            self.metadata.forget(&topic.name, u64::MAX);
        }
    }

    /// Deletes topics with all that they hold. One result per name, in their order; one that is not there is a success.
    /// Takes Delete on each.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Vec<Result<(), Error>>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        self.within("DeleteTopics", self.delete(names)).await
    }

    async fn delete(&self, names: &[&str]) -> Result<Vec<Result<(), Error>>, Error> {
        let connection = self.metadata.controller().await?;
        let request = DeleteTopicsRequest::default()
            .with_topic_names(names.iter().map(|name| TopicName(text(name))).collect())
            .with_timeout_ms(self.patience());
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let of = |name: &&str| {
            self.metadata.forget(name, u64::MAX);
            let answer = response.responses.iter().find(|a| a.name.as_ref().is_some_and(|n| n.as_str() == *name));
            let code = answer.map_or(-1, |answer| answer.error_code);
            if code == ResponseError::UnknownTopicOrPartition.code() {
                return Ok(());
            }
            let said = answer.and_then(|answer| answer.error_message.as_ref());
            self.asked("DeleteTopics", name, "Delete").check_with(code, said)
        };
        Ok(names.iter().map(of).collect())
    }

    /// How long a broker may take over it, in milliseconds; we wait a little longer.
    fn patience(&self) -> i32 {
        i32::try_from(self.metadata.dialer.request_timeout().as_millis() * 4 / 5).unwrap_or(i32::MAX)
    }
}

fn creatable(topic: &Topic) -> CreatableTopic {
    let settings = topic
        .settings
        .iter()
        .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
    CreatableTopic::default()
        .with_name(TopicName(text(&topic.name)))
        .with_num_partitions(topic.partitions)
        .with_replication_factor(topic.replication)
        .with_configs(settings.collect())
}
