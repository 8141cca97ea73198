//! Between a socket and its partition: one task that writes what is queued, one that reads what comes.
//!
//! Both go on for ever, whatever the cluster does, until they are told to stop. Order does not matter and duplicates
//! do no harm, QUIC sorts it out; so several batches are in flight, and one that failed is simply sent again.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rand::{RngExt, rngs::StdRng};
use tokio::sync::watch;

use super::{
    queue::{MAX_RECORD, Queue},
    until::until,
};
use crate::{
    backoff::Backoff,
    kafka::{At, Error, PartitionReader, PartitionWriter, Record},
};

/// Produce requests in flight. With four a stream reaches what the broker takes; more only add delay.
const IN_FLIGHT: usize = 4;
/// Bytes of one produce request.
const BATCH: usize = MAX_RECORD;
/// Bytes of one fetch.
const FETCH: usize = 512 << 10;
/// So many bytes at once are a stream's, or many calls': the next fetch is under way while they are worked on.
const MANY: usize = 2 << 10;
/// How long an idle fetch is parked at the broker. A connection that died without a word is found after this and the
/// reader's own bound.
const PARK: Duration = Duration::from_secs(5);

/// How Kafka answers the pumps of a lane: the last error of each direction, until it works again.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Default)]
struct State {
    reading: Option<Error>,
    writing: Option<Error>,
}

impl Health {
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// What stands in the way now.
    pub fn error(&self) -> Option<Error> {
        let state = self.0.borrow();
        state.writing.clone().or_else(|| state.reading.clone())
    }

    /// Waits for an error that does not pass by itself.
    pub async fn fatal(&self) -> Error {
        let fatal = |s: &State| [&s.writing, &s.reading].into_iter().flatten().find(|e| !e.is_transient()).cloned();
        until(&self.0, fatal).await
    }

    fn set_writing(&self, error: Option<&Error>) {
        self.set(|s| &mut s.writing, error);
    }

    fn set_reading(&self, error: Option<&Error>) {
        self.set(|s| &mut s.reading, error);
    }

    fn set(&self, field: impl Fn(&mut State) -> &mut Option<Error>, error: Option<&Error>) {
        self.0.send_if_modified(|state| {
            let slot = field(state);
            let changed = slot.is_some() || error.is_some();
            if changed {
                *slot = error.cloned();
            }
            changed
        });
    }
}

/// Writes the queue until it is closed and empty.
pub async fn write(queue: Arc<Queue>, writer: Arc<dyn PartitionWriter>, health: Health, random: StdRng) {
    let random = Mutex::new(random);
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = in_flight.next() => {}
            batch = queue.take(BATCH), if in_flight.len() < IN_FLIGHT => match batch {
                Some(batch) => in_flight.push(send(&*writer, batch, &health, &random)),
                None => break,
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

async fn send(writer: &dyn PartitionWriter, batch: Vec<Record>, health: &Health, random: &Mutex<StdRng>) {
    let mut backoff = Backoff::kafka();
    let mut waiting = vec![batch];
    while let Some(batch) = waiting.pop() {
        match writer.produce(batch.clone()).await {
            Ok(_) => health.set_writing(None),
            Err(Error::TooLarge { .. }) if batch.len() > 1 => {
                let mut head = batch;
                waiting.push(head.split_off(head.len() / 2));
                waiting.push(head);
            }
            Err(error) => {
                tracing::debug!(%error, "packets could not be written");
                health.set_writing(Some(&error));
                if matches!(error, Error::TooLarge { .. }) {
                    // Never again the same bytes: QUIC notices the loss and sends smaller ones.
                    continue;
                }
                waiting.push(batch);
                let delay = backoff.next(random.lock().expect("no holder panics").random());
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Reads from the log's present end for ever. Each fetch's records are handed to `deliver`; between two fetches
/// `delivered` may wait for room.
pub async fn read<D, F>(
    mut reader: Box<dyn PartitionReader>,
    mut offset: i64,
    mut deliver: D,
    health: Health,
    mut random: StdRng,
) where
    D: FnMut(Vec<(i64, Record)>) -> F,
    F: Future<Output = ()>,
{
    let mut backoff = Backoff::kafka();
    loop {
        let result = match reader.fetch(offset, FETCH, PARK).await {
            // Retention took what we had not read: go on with what is left. An offset beyond the end is the same case
            // after the topic was made anew.
            Err(Error::OffsetOutOfRange { .. }) => reader.offset(At::Earliest).await.map(|earliest| {
                tracing::warn!(offset, earliest, "packets were deleted before they were read");
                offset = earliest;
            }),
            Err(error) => Err(error),
            Ok(fetched) => {
                offset = fetched.next_offset;
                let few = fetched.records.iter().map(|(_, record)| record.value.len()).sum::<usize>() < MANY;
                if !fetched.records.is_empty() {
                    deliver(fetched.records).await;
                    if few {
                        // A call, or its answer: what comes of it goes out before the next fetch is asked for.
                        tokio::task::yield_now().await;
                    }
                }
                Ok(())
            }
        };
        match result {
            Ok(()) => {
                health.set_reading(None);
                backoff.reset();
            }
            Err(error) => {
                tracing::debug!(%error, "packets could not be read");
                health.set_reading(Some(&error));
                tokio::time::sleep(backoff.next(random.random())).await;
            }
        }
    }
}
