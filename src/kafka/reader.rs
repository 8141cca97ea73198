//! Reads one partition over a connection that nobody else uses meanwhile.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchRequest, ListOffsetsRequest, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::{Request, StrBytes},
};
use tokio::time::{Instant, sleep};

use super::{
    At, Error, Fetched, PartitionReader, batch,
    cluster::within,
    code::{self, Asked},
    connection::Connection,
    metadata::Metadata,
};

/// What a call may take beyond the wait that was asked for.
const GRACE: Duration = Duration::from_secs(10);

/// How long an offset may take in all.
const OFFSET: Duration = Duration::from_secs(30);

/// A consumer, as Kafka numbers replicas.
const CONSUMER: BrokerId = BrokerId(-1);

pub(super) struct Reader {
    metadata: Arc<Metadata>,
    topic: String,
    partition: i32,
    connection: Option<Open>,
    /// Until when the broker wants us to hold still (a fetch or request quota).
    throttled_until: Option<Instant>,
    /// The end of the partition at the last answer.
    high_watermark: i64,
    /// Batches that could not be read.
    stepped_over: u64,
}

struct Open {
    connection: Connection,
    /// The answer that named this leader.
    answer: u64,
}

impl Reader {
    pub(super) fn new(metadata: Arc<Metadata>, topic: &str, partition: i32) -> Self {
        Self {
            metadata,
            topic: topic.to_owned(),
            partition,
            connection: None,
            throttled_until: None,
            high_watermark: 0,
            stepped_over: 0,
        }
    }

    /// Asks the leader. A connection that was closed while nobody looked gets a successor at once.
    async fn call<R: Request>(&mut self, request: &R, limit: Duration) -> Result<R::Response, Error> {
        loop {
            let kept = self.connection.take().filter(|open| open.connection.is_usable());
            let (open, was_kept) = match kept {
                Some(open) => (open, true),
                None => self.open().await?,
            };
            match open.connection.call(request, limit).await {
                Ok(response) => {
                    self.connection = Some(open);
                    return Ok(response);
                }
                Err(error) => {
                    self.metadata.forget(&self.topic, open.answer);
                    if !was_kept || !matches!(error, Error::Unreachable { .. }) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// A connection to the leader, and whether somebody else had it before.
    async fn open(&self) -> Result<(Open, bool), Error> {
        let leader = self.metadata.leader(&self.topic, self.partition).await?;
        if let Some(connection) = self.metadata.dialer.reuse(&leader.broker) {
            return Ok((Open { connection, answer: leader.answer }, true));
        }
        match self.metadata.dialer.open(&leader.broker).await {
            Ok(connection) => Ok((Open { connection, answer: leader.answer }, false)),
            Err(error) => {
                self.metadata.forget(&self.topic, leader.answer);
                Err(error)
            }
        }
    }

    async fn fetch_once(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> Result<Fetched, Error> {
        if let Some(until) = self.throttled_until.take() {
            let left = until.saturating_duration_since(Instant::now());
            sleep(left.min(max_wait)).await;
            if left > max_wait {
                self.throttled_until = Some(until);
                return Ok(self.nothing(offset));
            }
        }
        let request = self.fetch_request(offset, max_bytes, max_wait);
        let response = self.call(&request, max_wait + GRACE).await?;
        self.asked("Fetch", "Read").check(response.error_code)?;
        self.throttled_until = throttle(response.throttle_time_ms);
        let answer = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let Some(answer) = answer else {
            // A broker that holds us back answers with nothing at all.
            return match self.throttled_until {
                Some(_) => Ok(self.nothing(offset)),
                None => Err(self.refused("Fetch", "nothing about the partition")),
            };
        };
        if answer.error_code == ResponseError::OffsetOutOfRange.code() {
            return Err(Error::OffsetOutOfRange { topic: self.topic.clone(), partition: self.partition, offset });
        }
        self.check_partition("Fetch", answer.error_code)?;
        self.high_watermark = answer.high_watermark;
        let decoded = batch::decode(answer.records.unwrap_or_default(), offset);
        if let Some((count, why)) = decoded.unreadable {
            self.warn(count, why);
        }
        Ok(Fetched {
            records: decoded.records,
            next_offset: decoded.next_offset.unwrap_or(offset).max(offset),
            high_watermark: answer.high_watermark,
        })
    }

    fn fetch_request(&self, offset: i64, max_bytes: usize, max_wait: Duration) -> FetchRequest {
        let bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX);
        let partition = FetchPartition::default()
            .with_partition(self.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(bytes);
        FetchRequest::default()
            .with_replica_id(CONSUMER)
            .with_max_wait_ms(i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(bytes)
            // No session: one partition is all that we ask for.
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(self.name()).with_partitions(vec![partition])])
    }

    async fn ask_offset(&mut self, at: At) -> Result<i64, Error> {
        let timestamp = match at {
            At::Earliest => -2,
            At::Latest => -1,
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(self.partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let request = ListOffsetsRequest::default()
            .with_replica_id(CONSUMER)
            .with_topics(vec![ListOffsetsTopic::default().with_name(self.name()).with_partitions(vec![partition])]);
        let limit = self.metadata.dialer.request_timeout();
        let response = self.call(&request, limit).await?;
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(|| self.refused("ListOffsets", "nothing about the partition"))?;
        let (code, offset) = (answer.error_code, answer.offset);
        self.check_partition("ListOffsets", code)?;
        Ok(offset)
    }

    /// Checks a partition's error code. If its leader is another one, the next call looks for it.
    fn check_partition(&mut self, request: &'static str, code: i16) -> Result<(), Error> {
        if code::is_stale_leader(code)
            && let Some(open) = self.connection.take()
        {
            self.metadata.forget(&self.topic, open.answer);
        }
        let right = if request == "Fetch" { "Read" } else { "Describe" };
        self.asked(request, right).check(code)
    }

    fn asked(&self, request: &'static str, right: &'static str) -> Asked<'_> {
        Asked {
            request,
            topic: &self.topic,
            partition: Some(self.partition),
            right,
            principal: self.metadata.dialer.principal(),
            bytes: 0,
        }
    }

    fn refused(&self, request: &'static str, what: &str) -> Error {
        Error::Refused { broker: self.asked(request, "Read").place(), request, code: what.to_owned() }
    }

    fn nothing(&self, offset: i64) -> Fetched {
        Fetched { records: Vec::new(), next_offset: offset, high_watermark: self.high_watermark }
    }

    fn name(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.topic.clone()))
    }

    /// Warns at the first batch and at every thousandth: whoever may write to the topic could else fill our log.
    fn warn(&mut self, count: u32, why: &str) {
        let before = self.stepped_over;
        self.stepped_over += u64::from(count);
        if before == 0 || before / 1000 != self.stepped_over / 1000 {
            tracing::warn!(
                topic = self.topic,
                partition = self.partition,
                so_far = self.stepped_over,
                "stepped over {why}"
            );
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // One with a request under way is not here, and closes.
        if let Some(open) = self.connection.take().filter(|_| self.throttled_until.is_none()) {
            self.metadata.dialer.give_back(open.connection);
        }
    }
}

fn throttle(ms: i32) -> Option<Instant> {
    u64::try_from(ms).ok().filter(|ms| *ms > 0).map(|ms| Instant::now() + Duration::from_millis(ms))
}

impl PartitionReader for Reader {
    fn fetch(&mut self, offset: i64, max_bytes: usize, max_wait: Duration) -> BoxFuture<'_, Result<Fetched, Error>> {
        let metadata = Arc::clone(&self.metadata);
        Box::pin(async move {
            within(max_wait + GRACE, metadata.dialer.bootstrap(), "Fetch", self.fetch_once(offset, max_bytes, max_wait))
                .await
        })
    }

    fn offset(&mut self, at: At) -> BoxFuture<'_, Result<i64, Error>> {
        let metadata = Arc::clone(&self.metadata);
        Box::pin(async move { within(OFFSET, metadata.dialer.bootstrap(), "ListOffsets", self.ask_offset(at)).await })
    }
}
