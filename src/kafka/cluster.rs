//! A real cluster behind the face of this module.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use kafka_protocol::{
    messages::{DeleteRecordsRequest, TopicName, delete_records_request},
    protocol::StrBytes,
};
use tokio::time::timeout;

use super::{
    Cluster, Error, Hop, PartitionReader, PartitionWriter, TopicDescription,
    code::{self, Asked},
    config::Config,
    dialer::Dialer,
    metadata::Metadata,
    reader::Reader,
    writer::Writer,
};

/// How long a question about the cluster may take in all.
pub(super) const QUESTION: Duration = Duration::from_secs(30);

/// A cluster of Kafka brokers. Clones share what is known of it, and one connection for questions; nothing is opened
/// before the first call.
#[derive(Clone)]
pub struct KafkaCluster {
    metadata: Arc<Metadata>,
}

impl KafkaCluster {
    /// Reads the files that `config` names. Does not connect.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { metadata: Arc::new(Metadata::new(Dialer::new(config)?)) })
    }

    /// Connects, logs in and counts the brokers: that the settings are right. Ends within 30 s.
    pub async fn check(&self) -> Result<usize, Error> {
        self.within("Metadata", self.metadata.describe(&[])).await?;
        Ok(self.metadata.brokers())
    }

    pub(super) fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    async fn delete(&self, topic: &str, partition: i32, offset: i64) -> Result<(), Error> {
        let dialer = &self.metadata.dialer;
        let leader = self.metadata.leader(topic, partition).await?;
        let connection =
            dialer.open(&leader.broker).await.inspect_err(|_| self.metadata.forget(topic, leader.answer))?;
        let limit = dialer.request_timeout();
        let partitions = delete_records_request::DeleteRecordsPartition::default()
            .with_partition_index(partition)
            .with_offset(offset);
        let topics = delete_records_request::DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![partitions]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topics])
            .with_timeout_ms(i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
        let response = connection.call(&request, limit).await?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let code = answer.map_or(-1, |partition| partition.error_code);
        if code::is_stale_leader(code) {
            self.metadata.forget(topic, leader.answer);
        }
        if code == kafka_protocol::error::ResponseError::OffsetOutOfRange.code() {
            return Err(Error::OffsetOutOfRange { topic: topic.to_owned(), partition, offset });
        }
        let asked = Asked {
            request: "DeleteRecords",
            topic,
            partition: Some(partition),
            right: "Delete",
            principal: dialer.principal(),
            bytes: 0,
        };
        asked.check(code)
    }

    async fn within<T>(&self, request: &'static str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(QUESTION, self.metadata.dialer.bootstrap(), request, call).await
    }
}

impl Cluster for KafkaCluster {
    fn reader(&self, topic: &str, partition: i32) -> Box<dyn PartitionReader> {
        Box::new(Reader::new(Arc::clone(&self.metadata), topic, partition))
    }

    fn writer(&self, topic: &str, partition: i32) -> Arc<dyn PartitionWriter> {
        Arc::new(Writer::new(Arc::clone(&self.metadata), topic, partition))
    }

    fn describe<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Result<TopicDescription, Error>> {
        Box::pin(async move {
            let mut answers = self.within("Metadata", self.metadata.describe(&[topic])).await?;
            let missing = || Err(Error::TopicMissing { topic: topic.to_owned() });
            answers.pop().unwrap_or_else(missing).map(|topic| topic.description)
        })
    }

    fn delete_records<'a>(&'a self, topic: &'a str, partition: i32, offset: i64) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.within("DeleteRecords", self.delete(topic, partition, offset)))
    }
}

/// Bounds a call that may take several steps.
pub(super) async fn within<T>(
    limit: Duration,
    brokers: &[super::config::Address],
    request: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, call).await.unwrap_or_else(|_| {
        let broker = brokers.first().map(ToString::to_string).unwrap_or_default();
        Err(Error::Unreachable {
            hop: Hop::Request,
            broker,
            detail: format!("{request} was not done within {limit:?}"),
        })
    })
}
