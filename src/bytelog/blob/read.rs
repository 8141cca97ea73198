//! Reads a blob out of a topic.

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Error,
    chunk::{CHUNK, Chunks, Seen},
};
use crate::{
    backoff::Backoff,
    bundle::{Archive, Place},
    kafka::{self, At, SharedCluster},
    secret,
};

/// One fetch's worth of records: four chunks.
pub(super) const FETCH_BYTES: usize = 1 << 20;
/// Everything that is asked for is there.
pub(super) const WAIT: Duration = Duration::from_millis(500);
/// A fetch ends within its wait and 10 s by contract; this is the belt to those braces.
pub(super) const LIMIT: Duration = Duration::from_secs(20);
/// So many fetches in a row that bring nothing say that the log ends there. A broker that holds us back brings nothing either.
pub(super) const IDLE: u32 = 6;

/// Takes a blob's bytes.
pub trait Sink: Send {
    /// Takes bytes that belong at `offset`. Each comes once, in any order.
    fn put(&mut self, offset: u64, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// Forgets what it gets: only whether it is there is looked at.
pub struct Nowhere;

impl Sink for Nowhere {
    async fn put(&mut self, _: u64, _: Bytes) -> io::Result<()> {
        Ok(())
    }
}

/// How far reading came.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Bytes that were taken.
    pub done: u64,
    /// Why nothing comes now.
    pub stalled: Option<kafka::Error>,
}

/// What was passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that have the blob's name and are none of its chunks.
    pub rubbish: u64,
    /// Chunks that had come before.
    pub doubled: u64,
}

/// Reads a blob, through every outage: the caller bounds it. Errors are those that waiting does not cure.
pub async fn fetch(
    cluster: &SharedCluster,
    topic: &str,
    archive: &Archive,
    place: &Place,
    sink: &mut impl Sink,
    progress: &watch::Sender<Progress>,
) -> Result<Counts, Error> {
    let mut pauses = Pauses::new(progress);
    let gone = |why| Error::Gone { topic: topic.to_owned(), why };
    while let Err(error) = look(cluster, topic, place).await? {
        pauses.wait(error).await;
    }
    let chunks = Chunks::new(*archive, place.key.expose());
    let mut missing = vec![true; chunks.count()];
    let mut left = missing.len();
    let mut counts = Counts::default();
    let (mut position, mut idle) = (place.first, 0);
    let mut reader = cluster.reader(topic, i32::try_from(place.partition).unwrap_or(i32::MAX));
    while left > 0 && position <= place.last {
        let fetched = timeout(LIMIT, reader.fetch(position, FETCH_BYTES, WAIT)).await;
        let fetched = match fetched.unwrap_or_else(|_| Err(hung(topic))) {
            Ok(fetched) => fetched,
            Err(kafka::Error::OffsetOutOfRange { .. }) => return Err(gone("they were deleted, or lost")),
            Err(error) if error.is_transient() => {
                pauses.wait(error).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        pauses.over();
        idle = if fetched.next_offset > position { 0 } else { idle + 1 };
        if idle == IDLE {
            return Err(gone("the log ends before them"));
        }
        position = fetched.next_offset.max(position);
        for (offset, record) in fetched.records {
            match chunks.open(&record) {
                Seen::Chunk(number, bytes) if missing[number] => {
                    sink.put(number as u64 * CHUNK as u64, bytes.clone()).await?;
                    missing[number] = false;
                    left -= 1;
                    progress.send_modify(|progress| progress.done += bytes.len() as u64);
                }
                Seen::Chunk(..) => counts.doubled += 1,
                Seen::Other => {}
                Seen::Rubbish => {
                    // The first and every thousandth: whoever may write there could else fill our log.
                    if counts.rubbish.is_multiple_of(1000) {
                        tracing::warn!(
                            topic,
                            place.partition,
                            offset,
                            so_far = counts.rubbish + 1,
                            "passed over a forged record of a blob"
                        );
                    }
                    counts.rubbish += 1;
                }
            }
        }
    }
    if left > 0 {
        return Err(gone("some were deleted, or lost"));
    }
    Ok(counts)
}

/// Whether the records may still be there, judged by the topic and the ends of its log.
pub async fn is_there(cluster: &SharedCluster, topic: &str, place: &Place) -> Result<bool, Error> {
    match look(cluster, topic, place).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error.into()),
        Err(Error::Gone { .. }) => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut reader = cluster.reader(topic, i32::try_from(place.partition).unwrap_or(i32::MAX));
    Ok(reader.offset(At::Earliest).await? <= place.first && reader.offset(At::Latest).await? > place.last)
}

/// Whether the topic is still the one. The inner error may pass.
pub(super) async fn look(
    cluster: &SharedCluster,
    topic: &str,
    place: &Place,
) -> Result<Result<(), kafka::Error>, Error> {
    let gone = |why| Err(Error::Gone { topic: topic.to_owned(), why });
    match cluster.describe(topic).await {
        Ok(found) if found.id != place.topic && found.id != 0 && place.topic != 0 => {
            gone("the topic was deleted and created anew")
        }
        Ok(found) if i64::from(place.partition) >= i64::from(found.partitions) => gone("their partition is not there"),
        Ok(_) => Ok(Ok(())),
        Err(error) if error.is_transient() => Ok(Err(error)),
        Err(error) => Err(error.into()),
    }
}

pub(super) struct Pauses<'a> {
    backoff: Backoff,
    progress: &'a watch::Sender<Progress>,
}

impl<'a> Pauses<'a> {
    pub(super) fn new(progress: &'a watch::Sender<Progress>) -> Self {
        Self { backoff: Backoff::kafka(), progress }
    }

    pub(super) async fn wait(&mut self, error: kafka::Error) {
        tracing::debug!(%error, "a blob can't be read, trying again");
        self.progress.send_modify(|progress| progress.stalled = Some(error));
        sleep(self.backoff.next(u64::from_ne_bytes(secret::random()))).await;
    }

    pub(super) fn over(&mut self) {
        self.backoff.reset();
        self.progress.send_if_modified(|progress| progress.stalled.take().is_some());
    }
}

pub(super) fn hung(topic: &str) -> kafka::Error {
    let code = format!("nothing within {} s", LIMIT.as_secs());
    kafka::Error::Transient { broker: topic.to_owned(), request: "Fetch", code }
}
