//! Reads the topic from an offset on, for ever, through every outage.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{Random, error::Error, health::Health};
use crate::{
    backoff::Backoff,
    kafka::{self, At, Fetched, PartitionReader, SharedCluster},
};

/// One fetch's worth of records; three of them are in memory at most.
const FETCH_BYTES: usize = 1 << 20;
/// How long a fetch is parked where nothing comes.
const FETCH_WAIT: Duration = Duration::from_secs(5);
/// A fetch ends within its wait and 10 s by contract; this is the belt to those braces.
const FETCH_LIMIT: Duration = Duration::from_secs(20);
/// How often it is looked whether the topic is still the same one.
const ID_CHECK: Duration = Duration::from_secs(30);
/// How long the reading may stand still for it.
const ID_LIMIT: Duration = Duration::from_secs(5);

/// What the tail comes upon.
pub(super) enum Step {
    /// Records.
    Fetched(Fetched),
    /// What was to be read next was cut away. The log reaches from `start` to `end` now, and the reading goes on there.
    Jumped { start: i64, end: i64 },
}

pub(super) struct Tail {
    pub(super) cluster: SharedCluster,
    pub(super) topic: String,
    pub(super) topic_id: u128,
    pub(super) position: i64,
    /// Where the replay ends. Up to there an error that does not pass by itself ends the journal; later it is waited for.
    pub(super) replay_end: i64,
    pub(super) health: watch::Sender<Health>,
    pub(super) random: Random,
}

impl Tail {
    /// Ends when `out` is closed, or with an error that no waiting cures as the last item.
    pub(super) async fn run(mut self, out: mpsc::Sender<Result<Step, Error>>) {
        let end = tokio::select! {
            biased;
            () = out.closed() => return,
            end = self.follow(&out) => end,
        };
        if let Err(error) = end {
            // Nobody listens any more: then nobody needs the error.
            let _ = out.send(Err(error)).await;
        }
    }

    async fn follow(&mut self, out: &mpsc::Sender<Result<Step, Error>>) -> Result<(), Error> {
        let mut reader = self.cluster.reader(&self.topic, 0);
        let mut backoff = Backoff::kafka();
        let mut checked = Instant::now();
        loop {
            let fetch = timeout(FETCH_LIMIT, reader.fetch(self.position, FETCH_BYTES, FETCH_WAIT)).await;
            match fetch.unwrap_or_else(|_| Err(hung(&self.topic))) {
                Ok(fetched) => {
                    self.health.send_if_modified(|health| health.reading.take().is_some());
                    backoff.reset();
                    if checked.elapsed() >= ID_CHECK {
                        self.check_id().await?;
                        checked = Instant::now();
                    }
                    self.position = self.position.max(fetched.next_offset);
                    if out.send(Ok(Step::Fetched(fetched))).await.is_err() {
                        return Ok(());
                    }
                }
                Err(kafka::Error::OffsetOutOfRange { .. }) => {
                    self.check_id().await?;
                    if let Some((start, end)) = self.out_of_range(&mut *reader).await? {
                        self.position = start;
                        self.replay_end = self.replay_end.max(end);
                        if out.send(Ok(Step::Jumped { start, end })).await.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                    sleep(backoff.next((self.random)() as u64)).await;
                }
                Err(error) => {
                    if !error.is_transient() && self.position < self.replay_end {
                        return Err(error.into());
                    }
                    tracing::debug!(topic = self.topic, %error, "the journal can't be read, trying again");
                    self.health.send_modify(|health| health.reading = Some(error));
                    sleep(backoff.next((self.random)() as u64)).await;
                    self.check_id().await?;
                    checked = Instant::now();
                }
            }
        }
    }

    /// A topic that was made anew gives no error of its own once it has outgrown our offset.
    async fn check_id(&self) -> Result<(), Error> {
        // What can't be found out now is asked again later.
        let Ok(Ok(found)) = timeout(ID_LIMIT, self.cluster.describe(&self.topic)).await else { return Ok(()) };
        if found.id == self.topic_id || found.id == 0 || self.topic_id == 0 {
            return Ok(());
        }
        Err(Error::Recreated { topic: self.topic.clone() })
    }

    /// Why our offset is not in the log: the log was cut, and begins and ends there; or it shrank, which is an error.
    /// None while that can't be found out.
    async fn out_of_range(&self, reader: &mut dyn PartitionReader) -> Result<Option<(i64, i64)>, Error> {
        // Asked for in this order, so that the end belongs to a log that begins there or later.
        let Ok(start) = reader.offset(At::Earliest).await else { return Ok(None) };
        let Ok(end) = reader.offset(At::Latest).await else { return Ok(None) };
        let position = self.position;
        if position < start {
            return Ok(Some((start, end)));
        }
        let detail = format!("it ends at offset {end}, and was read up to {position} before");
        if position > end { Err(Error::RolledBack { topic: self.topic.clone(), detail }) } else { Ok(None) }
    }
}

fn hung(topic: &str) -> kafka::Error {
    let code = format!("nothing within {} s", FETCH_LIMIT.as_secs());
    kafka::Error::Transient { broker: format!("{topic}/0"), request: "Fetch", code }
}
