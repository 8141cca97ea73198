//! Writes what was told. One batch at a time, so that the topic's order is that of the telling.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{
    Feed,
    event::{Id, Place},
    queue::Line,
    seldom,
};
use crate::{
    backoff::Backoff,
    kafka::{At, Error, PartitionReader, PartitionWriter, Record, SharedCluster},
};

/// A batch has this many bytes; the topic takes four times as much.
const BATCH: usize = 256 << 10;
/// So many records at the topic's end are looked at for what was written before.
const LOOKED_AT: i64 = 4096;
/// A fetch of them.
const FETCH: usize = 1 << 20;
/// How long it may find nothing.
const WAIT: Duration = Duration::from_millis(500);

/// What CloudEvents in Kafka are told by.
const CONTENT_TYPE: (&str, &str) = ("content-type", "application/cloudevents+json; charset=UTF-8");

/// Writes the events. Never ends.
pub async fn write(feed: Feed, cluster: SharedCluster) {
    let topic = feed.0.topic.clone();
    let mut delivery = Delivery { writer: cluster.writer(&topic, 0), feed, backoff: backoff(), warned: None };
    let last = delivery.last_written(&cluster, &topic).await;
    delivery.feed.skip_written(last);
    let mut waiting = delivery.feed.0.waiting.subscribe();
    // The sender lives as long as the feed.
    while waiting.wait_for(|waiting| *waiting > 0).await.is_ok() {
        let batch = delivery.feed.take(BATCH);
        delivery.deliver(batch).await;
    }
}

struct Delivery {
    feed: Feed,
    writer: Arc<dyn PartitionWriter>,
    backoff: Backoff,
    warned: Option<Instant>,
}

impl Delivery {
    /// Writes a batch, however long that takes. What the topic does not take is dropped.
    async fn deliver(&mut self, batch: Vec<Line>) {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match self.writer.produce(part.iter().map(record).collect()).await {
                Ok(_) => {
                    self.backoff.reset();
                    self.done(part.len(), &self.feed.0.written);
                }
                Err(Error::TooLarge { .. }) if part.len() > 1 => {
                    let rest = part.split_off(part.len() / 2);
                    parts.extend([rest, part]);
                }
                Err(error @ Error::TooLarge { .. }) => {
                    tracing::warn!(%error, "an event is dropped");
                    self.done(part.len(), &self.feed.0.dropped);
                }
                Err(error) => {
                    self.hold_on("events are not written; it is tried again", &error).await;
                    parts.push(part);
                }
            }
        }
    }

    /// The place in our journal that the last events in the topic are about. None if there is none, or nobody may know.
    async fn last_written(&mut self, cluster: &SharedCluster, topic: &str) -> Option<Place> {
        let mut reader = cluster.reader(topic, 0);
        loop {
            match last_place(reader.as_mut(), self.feed.0.journal).await {
                Ok(last) => return last,
                Err(error @ Error::Authorization { .. }) => {
                    tracing::warn!(%error, "events of the controller before this one are not repeated");
                    return None;
                }
                Err(error) => self.hold_on("the topic of events cannot be read; it is tried again", &error).await,
            }
        }
    }

    async fn hold_on(&mut self, what: &str, error: &Error) {
        if seldom(&mut self.warned) {
            tracing::warn!(%error, "{what}");
        }
        sleep(self.backoff.next(rand::random())).await;
    }

    /// These wait no more.
    fn done(&self, events: usize, count: &AtomicU64) {
        count.fetch_add(events as u64, Relaxed);
        self.feed.0.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(events));
    }
}

async fn last_place(reader: &mut dyn PartitionReader, journal: u128) -> Result<Option<Place>, Error> {
    let (start, end) = (reader.offset(At::Earliest).await?, reader.offset(At::Latest).await?);
    let mut next = start.max(end.saturating_sub(LOOKED_AT));
    let mut last = None;
    while next < end {
        let fetched = reader.fetch(next, FETCH, WAIT).await?;
        if fetched.next_offset <= next {
            break;
        }
        next = fetched.next_offset;
        let places = fetched.records.iter().filter_map(|(_, record)| place(&record.value));
        last = places.filter(|place| place.journal == journal).max().max(last);
    }
    Ok(last)
}

/// Where what an event is about stands in the journal; none if it does not, or it is no event of ours.
fn place(value: &[u8]) -> Option<Place> {
    #[derive(Deserialize)]
    struct Known {
        id: String,
    }
    let known: Known = serde_json::from_slice(value).ok()?;
    match known.id.parse() {
        Ok(Id::Journal(place)) => Some(place),
        _ => None,
    }
}

fn record(line: &Line) -> Record {
    let (name, value) = CONTENT_TYPE;
    let headers = vec![(name.to_owned(), Bytes::from_static(value.as_bytes()))];
    Record { key: line.key.clone(), value: line.value.clone(), headers }
}

/// Nobody waits for an event; the topic may be missing for days.
fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(10))
}
