//! Appends to one partition over a connection of its own.
//!
//! Any number of calls may overlap; as many batches as [`IN_FLIGHT`] are on the way at once. An answer that says
//! "done, but hold still for a while" is a success: the batch is not sent again, the next one waits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use kafka_protocol::messages::{ApiKey, ProduceResponse};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Error, PartitionWriter, Record, batch, cluster::within, code::Asked, connection::Connection, metadata::Metadata,
    produce,
};

/// Batches on the way at once. Kafka works on one at a time per connection; more only hide the way there and back.
const IN_FLIGHT: u32 = 8;

/// What a call may take in all.
const LIMIT: Duration = Duration::from_secs(40);

/// How long a batch may wait for its turn. Nothing has been sent then, so that the caller may try again without doubling.
const TURN: Duration = Duration::from_secs(9);

/// The broker gives up so much earlier than we do, so that its answer still reaches us.
const AHEAD: Duration = Duration::from_secs(5);

pub(super) struct Writer {
    metadata: Arc<Metadata>,
    topic: String,
    partition: i32,
    /// Taken to look at it or to open it; never for the time of a request.
    connection: tokio::sync::Mutex<Option<Open>>,
    turns: Semaphore,
    /// Until when the broker wants us to hold still, if its last answer said so.
    throttled_until: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Open {
    connection: Arc<Connection>,
    /// The answer that named this leader.
    answer: u64,
}

impl Writer {
    pub(super) fn new(metadata: Arc<Metadata>, topic: &str, partition: i32) -> Self {
        Self {
            metadata,
            topic: topic.to_owned(),
            partition,
            connection: tokio::sync::Mutex::new(None),
            turns: Semaphore::new(IN_FLIGHT as usize),
            throttled_until: Mutex::new(None),
        }
    }

    async fn send(&self, records: &[Record]) -> Result<i64, Error> {
        let _turn = self.turn().await?;
        let open = self.open().await?;
        match self.produce_on(&open, records).await {
            Ok(offset) => Ok(offset),
            Err(error) => {
                if error.is_transient() || matches!(error, Error::TopicMissing { .. }) {
                    self.close(&open).await;
                }
                Err(error)
            }
        }
    }

    async fn produce_on(&self, open: &Open, records: &[Record]) -> Result<i64, Error> {
        let connection = &open.connection;
        let version = connection.version(ApiKey::Produce, produce::VERSIONS)?;
        let limit = self.metadata.dialer.request_timeout();
        let timeout_ms = i32::try_from(limit.saturating_sub(AHEAD).as_millis().max(1000)).unwrap_or(i32::MAX);
        let frame = connection.frame(ApiKey::Produce, version, |frame| {
            produce::encode(&self.topic, self.partition, timeout_ms, records, frame);
            Ok::<_, std::convert::Infallible>(())
        })?;
        let body = connection.send(frame, "Produce", limit).await?.wait().await?;
        let response: ProduceResponse = connection.decode(body, version, "Produce")?;
        self.throttle(response.throttle_time_ms);
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let code = answer.map_or(-1, |partition| partition.error_code);
        let asked = Asked {
            request: "Produce",
            topic: &self.topic,
            partition: Some(self.partition),
            right: "Write",
            principal: self.metadata.dialer.principal(),
            bytes: batch::encoded_size(records),
        };
        asked.check(code)?;
        Ok(answer.map_or(-1, |partition| partition.base_offset))
    }

    /// Waits until one more batch may be on the way: alone, while the broker holds us back.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        let deadline = Instant::now() + TURN;
        let late = || Error::Transient {
            broker: format!("{}/{}", self.topic, self.partition),
            request: "Produce",
            code: "that a quota holds us back".to_owned(),
        };
        let alone = self.throttled().is_some();
        let turn = timeout_at(deadline, self.turns.acquire_many(if alone { IN_FLIGHT } else { 1 }))
            .await
            .map_err(|_| late())?
            .expect("nobody closes it");
        match self.throttled() {
            Some(until) if until > deadline => {
                sleep_until(deadline).await;
                Err(late())
            }
            Some(until) => {
                sleep_until(until).await;
                Ok(turn)
            }
            None => Ok(turn),
        }
    }

    fn throttled(&self) -> Option<Instant> {
        *self.throttled_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self, ms: i32) {
        let until = u64::try_from(ms).ok().filter(|ms| *ms > 0).map(|ms| Instant::now() + Duration::from_millis(ms));
        *self.throttled_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    async fn open(&self) -> Result<Open, Error> {
        let mut slot = self.connection.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| open.connection.is_usable()) {
            return Ok(open.clone());
        }
        if let Some(closed) = slot.take() {
            // The leader may have gone, and with it the connection.
            self.metadata.forget(&self.topic, closed.answer);
        }
        let leader = self.metadata.leader(&self.topic, self.partition).await?;
        match self.metadata.dialer.open(&leader.broker).await {
            Ok(connection) => {
                let open = Open { connection: Arc::new(connection), answer: leader.answer };
                *slot = Some(open.clone());
                Ok(open)
            }
            Err(error) => {
                self.metadata.forget(&self.topic, leader.answer);
                Err(error)
            }
        }
    }

    /// Others may still wait for answers on it; no new batch goes out on it.
    async fn close(&self, failed: &Open) {
        self.metadata.forget(&self.topic, failed.answer);
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|open| Arc::ptr_eq(&open.connection, &failed.connection)) {
            *slot = None;
        }
    }
}

impl PartitionWriter for Writer {
    fn produce(&self, records: Vec<Record>) -> BoxFuture<'_, Result<i64, Error>> {
        Box::pin(async move {
            if records.is_empty() {
                return Err(Error::Config("an empty batch was to be appended".to_owned()));
            }
            within(LIMIT, self.metadata.dialer.bootstrap(), "Produce", self.send(&records)).await
        })
    }
}
