//! The records of one attempt in a partition: fetched, verified, and told from everybody else's.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Random,
    error::Error,
    record::{Attempt, Opened, Opener, Unopened},
};
use crate::{
    backoff::Backoff,
    kafka::{self, At, PartitionReader, SharedCluster},
};

/// A fetch ends within its wait and 10 s by contract; this is the belt to those braces.
const FETCH_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to look the topic up while reading goes on.
const ID_LIMIT: Duration = Duration::from_secs(5);

/// What a fetch brought of this attempt.
pub(super) struct Page {
    pub(super) records: Vec<(i64, Opened)>,
    pub(super) next_offset: i64,
    /// Whether the fetch brought nothing of anybody.
    pub(super) idle: bool,
}

pub(super) struct Source {
    cluster: SharedCluster,
    topic: String,
    partition: i32,
    reader: Box<dyn PartitionReader>,
    topic_id: u128,
    opener: Opener,
    forged: u64,
    stalled: watch::Sender<Option<kafka::Error>>,
    random: Random,
    checked: Instant,
}

impl Source {
    pub(super) async fn open(
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: Attempt,
        random: Random,
    ) -> Result<Self, Error> {
        let topic_id = cluster.describe(topic).await?.id;
        let reader = cluster.reader(topic, partition);
        let (opener, stalled) = (Opener::new(attempt), watch::Sender::new(None));
        let (topic, checked) = (topic.to_owned(), Instant::now());
        Ok(Self { cluster, topic, partition, reader, topic_id, opener, forged: 0, stalled, random, checked })
    }

    pub(super) fn topic_id(&self) -> u128 {
        self.topic_id
    }

    pub(super) fn forged(&self) -> u64 {
        self.forged
    }

    pub(super) fn stalled(&self) -> watch::Receiver<Option<kafka::Error>> {
        self.stalled.subscribe()
    }

    /// When the topic's id was last looked at.
    pub(super) fn checked(&self) -> Instant {
        self.checked
    }

    /// The offsets of the earliest record and behind the last.
    pub(super) async fn range(&mut self) -> Result<std::ops::Range<i64>, Error> {
        let start = self.offset(At::Earliest).await?;
        Ok(start..self.offset(At::Latest).await?.max(start))
    }

    async fn offset(&mut self, at: At) -> Result<i64, Error> {
        let mut backoff = Backoff::kafka();
        loop {
            match self.reader.offset(at).await {
                Ok(offset) => return Ok(offset),
                Err(error) => self.pass(error, &mut backoff).await?,
            }
        }
    }

    /// Fetches from `from` on, through every outage. Errors are those that waiting does not cure; an offset that is out of
    /// range is one of them.
    pub(super) async fn page(&mut self, from: i64, max_bytes: usize, wait: Duration) -> Result<Page, Error> {
        let mut backoff = Backoff::kafka();
        loop {
            let fetch = timeout(FETCH_LIMIT, self.reader.fetch(from, max_bytes, wait)).await;
            match fetch.unwrap_or_else(|_| Err(hung(&self.topic))) {
                Ok(fetched) => {
                    self.stalled.send_if_modified(|stalled| stalled.take().is_some());
                    return self.verify(from, fetched);
                }
                Err(error) => self.pass(error, &mut backoff).await?,
            }
        }
    }

    async fn pass(&mut self, error: kafka::Error, backoff: &mut Backoff) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error.into());
        }
        let pause = backoff.next((self.random)() as u64);
        self.wait(error, pause).await;
        Ok(())
    }

    /// Waits because of `error`.
    pub(super) async fn wait(&mut self, error: kafka::Error, pause: Duration) {
        tracing::debug!(topic = self.topic, %error, "a log can't be read, trying again");
        self.stalled.send_replace(Some(error));
        sleep(pause).await;
    }

    fn verify(&mut self, from: i64, fetched: kafka::Fetched) -> Result<Page, Error> {
        let idle = fetched.records.is_empty();
        let mut records = Vec::new();
        for (offset, record) in fetched.records {
            match self.opener.open(&record) {
                Ok(opened) => records.push((offset, opened)),
                Err(Unopened::Other) => {}
                Err(Unopened::Forged) => self.count_forged(offset),
                Err(Unopened::Newer(version)) => {
                    let (topic, partition) = (self.topic.clone(), self.partition);
                    return Err(Error::Newer { topic, partition, offset, version });
                }
            }
        }
        Ok(Page { records, next_offset: fetched.next_offset.max(from), idle })
    }

    /// Warns at the first and at every thousandth: whoever may write to the topic could else fill our log.
    fn count_forged(&mut self, offset: i64) {
        if self.forged.is_multiple_of(1000) {
            let Self { topic, partition, forged, .. } = self;
            tracing::warn!(
                topic,
                partition,
                offset,
                before = forged,
                "refused a record that was not written with the job's key"
            );
        }
        self.forged += 1;
    }

    /// Whether the topic was made anew since it was last looked at. What can't be found out now is asked again later.
    pub(super) async fn was_recreated(&mut self) -> bool {
        self.checked = Instant::now();
        let Ok(Ok(found)) = timeout(ID_LIMIT, self.cluster.describe(&self.topic)).await else { return false };
        if found.id == self.topic_id || found.id == 0 {
            return false;
        }
        std::mem::replace(&mut self.topic_id, found.id) != 0
    }
}

fn hung(topic: &str) -> kafka::Error {
    let code = format!("nothing within {} s", FETCH_LIMIT.as_secs());
    kafka::Error::Transient { broker: topic.to_owned(), request: "Fetch", code }
}
