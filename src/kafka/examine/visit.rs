//! Questions on one logged-in connection, each asked once. What an answer says of quotas and of the broker's clock, which
//! nobody else needs, is kept.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, BrokerId, DescribeConfigsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceResponse,
        TopicName,
        describe_configs_request::DescribeConfigsResource,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
    },
    protocol::StrBytes,
};

use crate::kafka::{At, Error, Fetched, Record, batch, code::Asked, config::Address, connection::Connection, produce};

/// A topic, as Kafka numbers the kinds of things that have settings.
const TOPIC: i8 = 2;

/// A consumer, as Kafka numbers replicas.
const CONSUMER: BrokerId = BrokerId(-1);

/// How much a fetch brings at most.
const FETCH: i32 = 1 << 20;

/// A logged-in connection.
pub struct Visit {
    connection: Connection,
    principal: String,
    limit: Duration,
    /// The longest time for which an answer asked us to hold still, in milliseconds.
    throttled: AtomicI32,
}

/// The cluster as a broker describes it.
#[derive(Debug, Clone, Default)]
pub struct ClusterView {
    /// The brokers that are alive, by id, with the addresses that clients are told.
    pub brokers: BTreeMap<i32, Address>,
    /// The topics that were asked for.
    pub topics: BTreeMap<String, Result<TopicView, Error>>,
}

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its partitions, by number.
    pub partitions: Vec<PartitionView>,
}

/// A partition as the cluster describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionView {
    /// The leader's id; none while there is none.
    pub leader: Option<i32>,
    /// How many replicas it should have.
    pub replicas: usize,
    /// How many are in sync.
    pub in_sync: usize,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it lies.
    pub offset: i64,
    /// The broker's clock in milliseconds since 1970, if the topic is stamped by the broker.
    pub time: Option<i64>,
}

impl Visit {
    pub(super) fn new(connection: Connection, principal: String, limit: Duration) -> Self {
        Self { connection, principal, limit, throttled: AtomicI32::new(0) }
    }

    /// The broker at the other end.
    pub fn broker(&self) -> &Address {
        self.connection.broker()
    }

    /// The longest time for which an answer asked us to hold still; zero if none did. The broker ignores the
    /// connection for so long.
    pub fn throttled(&self) -> Duration {
        Duration::from_millis(self.throttled.load(Ordering::Relaxed).max(0).unsigned_abs().into())
    }

    /// The brokers, and `topics`.
    pub async fn cluster(&self, topics: &[&str]) -> Result<ClusterView, Error> {
        let named = topics.iter().map(|topic| MetadataRequestTopic::default().with_name(Some(name(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(named.collect())).with_allow_auto_topic_creation(false);
        let response = self.connection.call(&request, self.limit).await?;
        self.note(response.throttle_time_ms);
        let address = |host: &str, port| Some(Address { host: host.to_owned(), port: u16::try_from(port).ok()? });
        let brokers = response.brokers.iter().filter_map(|b| Some((b.node_id.0, address(&b.host, b.port)?))).collect();
        let view = |topic: &&str| {
            let found = response.topics.iter().find(|t| t.name.as_ref().is_some_and(|name| name.as_str() == *topic));
            let view = found.ok_or_else(|| Error::TopicMissing { topic: (*topic).to_owned() });
            ((*topic).to_owned(), view.and_then(|found| self.topic(topic, found)))
        };
        Ok(ClusterView { brokers, topics: topics.iter().map(view).collect() })
    }

    fn topic(&self, topic: &str, found: &MetadataResponseTopic) -> Result<TopicView, Error> {
        self.asked("Metadata", "Describe", topic, None).check(found.error_code)?;
        let mut partitions: Vec<_> = found.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        let partition = |p: &&kafka_protocol::messages::metadata_response::MetadataResponsePartition| PartitionView {
            leader: (p.leader_id.0 >= 0).then_some(p.leader_id.0),
            replicas: p.replica_nodes.len(),
            in_sync: p.isr_nodes.len(),
        };
        Ok(TopicView { partitions: partitions.iter().map(partition).collect() })
    }

    /// The settings `keys` of `topics`, by topic.
    pub async fn settings(
        &self,
        topics: &[&str],
        keys: &[&'static str],
    ) -> Result<BTreeMap<String, Result<BTreeMap<String, String>, Error>>, Error> {
        let resource = |topic: &&str| {
            DescribeConfigsResource::default()
                .with_resource_type(TOPIC)
                .with_resource_name(string(topic))
                .with_configuration_keys(Some(keys.iter().map(|key| StrBytes::from_static_str(key)).collect()))
        };
        let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
        let response = self.connection.call(&request, self.limit).await?;
        self.note(response.throttle_time_ms);
        let of = |topic: &&str| {
            let asked = self.asked("DescribeConfigs", "DescribeConfigs", topic, None);
            let answer = response.results.iter().find(|answer| answer.resource_name.as_str() == *topic);
            let answer = answer.ok_or_else(|| asked.error(ResponseError::UnknownTopicOrPartition));
            let settings = answer.and_then(|answer| {
                asked.check(answer.error_code)?;
                let value = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string).unwrap_or_default();
                Ok(answer.configs.iter().map(|c| (c.name.to_string(), value(&c.value))).collect())
            });
            ((*topic).to_owned(), settings)
        };
        Ok(topics.iter().map(of).collect())
    }

    /// One end of a partition that this broker leads.
    pub async fn offset(&self, topic: &str, partition: i32, at: At) -> Result<i64, Error> {
        let asked = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(match at {
                At::Earliest => -2,
                At::Latest => -1,
            });
        let request = ListOffsetsRequest::default()
            .with_replica_id(CONSUMER)
            .with_topics(vec![ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![asked])]);
        let response = self.connection.call(&request, self.limit).await?;
        self.note(response.throttle_time_ms);
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let (code, offset) = answer.map_or((-1, -1), |answer| (answer.error_code, answer.offset));
        self.asked("ListOffsets", "Describe", topic, Some(partition)).check(code)?;
        Ok(offset)
    }

    /// Appends one record to a partition that this broker leads; all replicas in sync have it then.
    pub async fn produce(&self, topic: &str, partition: i32, record: Record) -> Result<Appended, Error> {
        let records = [record];
        let version = self.connection.version(ApiKey::Produce, produce::VERSIONS)?;
        let wait = self.limit.mul_f64(0.8);
        let timeout_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let frame = self.connection.frame(ApiKey::Produce, version, |frame| {
            produce::encode(topic, partition, timeout_ms, &records, frame);
            Ok::<_, std::convert::Infallible>(())
        })?;
        let body = self.connection.send(frame, "Produce", self.limit).await?.wait().await?;
        let response: ProduceResponse = self.connection.decode(body, version, "Produce")?;
        self.note(response.throttle_time_ms);
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let asked = self.asked("Produce", "Write", topic, Some(partition));
        let answer = answer.ok_or_else(|| asked.error(ResponseError::UnknownServerError))?;
        Asked { bytes: batch::encoded_size(&records), ..asked }.check(answer.error_code)?;
        let time = Some(answer.log_append_time_ms).filter(|time| *time >= 0);
        Ok(Appended { offset: answer.base_offset, time })
    }

    /// Reads what lies in a partition that this broker leads from `offset` on; waits up to `wait` if nothing does.
    pub async fn fetch(&self, topic: &str, partition: i32, offset: i64, wait: Duration) -> Result<Fetched, Error> {
        let asked = FetchPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(FETCH);
        let request = FetchRequest::default()
            .with_replica_id(CONSUMER)
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(FETCH)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![asked])]);
        let response = self.connection.call(&request, self.limit).await?;
        self.note(response.throttle_time_ms);
        let asked = self.asked("Fetch", "Read", topic, Some(partition));
        asked.check(response.error_code)?;
        let answer = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        // A broker that holds us back answers with nothing at all.
        let Some(answer) = answer else { return Ok(Fetched { next_offset: offset, ..Fetched::default() }) };
        if answer.error_code == ResponseError::OffsetOutOfRange.code() {
            return Err(Error::OffsetOutOfRange { topic: topic.to_owned(), partition, offset });
        }
        asked.check(answer.error_code)?;
        let decoded = batch::decode(answer.records.unwrap_or_default(), offset);
        Ok(Fetched {
            records: decoded.records,
            next_offset: decoded.next_offset.unwrap_or(offset).max(offset),
            high_watermark: answer.high_watermark,
        })
    }

    fn asked<'a>(
        &'a self,
        request: &'static str,
        right: &'static str,
        topic: &'a str,
        partition: Option<i32>,
    ) -> Asked<'a> {
        Asked { request, topic, partition, right, principal: &self.principal, bytes: 0 }
    }

    fn note(&self, ms: i32) {
        self.throttled.fetch_max(ms, Ordering::Relaxed);
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(string(topic))
}

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
