//! Reads one attempt's log: verified bytes in order, nothing twice, every gap by name.
//!
//! Promises: what [`Reader::next`] returns was written with the attempt's key; each stream's chunks follow each other
//! without a hole but those that a [`Event::Gap`] names; a gap that may still be filled is waited for. An outage of
//! the cluster takes time and fails nothing, and [`Reader::stalled`] says so. Memory is bounded, whatever lies in the topic.
//!
//! Other jobs' records in the partition are passed over by their key, and cost a comparison.

use std::{collections::VecDeque, ops::Range, time::Duration};

use tokio::sync::watch;

use super::{
    Random, Stream,
    assemble::{Assembler, Cause, Counts, Event},
    error::Error,
    locate::{self, Located},
    meta::{Meta, Positions},
    random,
    record::Attempt,
    source::Source,
};
use crate::kafka::{self, SharedCluster};

/// One fetch's worth of records.
const FETCH_BYTES: usize = 1 << 20;
/// How long a fetch is parked where nothing comes.
const FETCH_WAIT: Duration = Duration::from_secs(5);
/// The same for who reads to the present end, where something is.
const PRESENT_WAIT: Duration = Duration::from_millis(500);
/// How often it is looked whether the topic is still the same one.
const ID_CHECK: Duration = Duration::from_secs(30);
/// The pause while the topic does not exist.
const MISSING: Duration = Duration::from_secs(1);

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// At byte 0.
    #[default]
    Start,
    /// So many lines before the present end, counted over the streams that are shown; at most 16 MiB of them.
    Tail(u64),
    /// With what was written at this time or later: milliseconds since 1970, by the agent's clock.
    Since(i64),
}

/// Where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Until {
    /// With the streams: waits for what is not written yet.
    #[default]
    End,
    /// With what is in the topic when reading begins. What waits behind a gap that may still be filled is not shown.
    Present,
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where reading begins.
    pub from: Begin,
    /// Where reading ends.
    pub until: Until,
    /// One stream alone. Reading still ends with all three.
    pub only: Option<Stream>,
    /// An offset that no record of the attempt lies in front of, if one is known: nothing before it is read, unless something
    /// is missing then.
    pub first: Option<i64>,
    /// The offset of a late record of the attempt, the last at best (a shipper's [`Acked::batch`](super::Acked::batch)):
    /// there a reader that begins at the end looks first. One that does not know it looks at what was appended last, which,
    /// while an old shipper still runs beside its successor, may be what lags behind.
    pub last: Option<i64>,
}

/// Reads one attempt's log.
pub struct Reader {
    source: Source,
    options: Options,
    assembler: Assembler,
    position: i64,
    /// What a gap would come from.
    cause: Cause,
    /// Where to go back to, once, before a gap is named: whoever began in the middle may have passed over a record.
    rewind: Option<i64>,
    /// The end that is read up to, if it is not the streams'.
    present: Option<i64>,
    events: VecDeque<Event>,
}

impl Reader {
    /// Looks where to begin; an error of the cluster that passes is waited out. Returns Kafka's error if the topic can't be
    /// looked up.
    pub async fn open(
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: Attempt,
        options: Options,
    ) -> Result<Self, Error> {
        Self::open_with(cluster, topic, partition, attempt, options, random()).await
    }

    pub(super) async fn open_with(
        cluster: SharedCluster,
        topic: &str,
        partition: i32,
        attempt: Attempt,
        options: Options,
        random: Random,
    ) -> Result<Self, Error> {
        let mut source = Source::open(cluster, topic, partition, attempt, random).await?;
        let range = source.range().await?;
        // One that the topic has not reached is another topic's.
        let first = options.first.filter(|first| *first <= range.end).unwrap_or(0);
        let cause = if range.start > first { Cause::Retention } else { Cause::Lost };
        let known = first.clamp(range.start, range.end)..range.end;
        let Located { assembler, position, rewind, events } = match options.from {
            // What is known of the first record may be of a topic that is no more.
            Begin::Start => Located {
                rewind: (known.start > range.start).then_some(range.start),
                ..Located::at(Positions::default(), known.start)
            },
            Begin::Tail(lines) => locate::tail(&mut source, known, options.last, lines, options.only).await?,
            Begin::Since(time) => locate::since(&mut source, known, options.last, time).await?,
        };
        let present = (options.until == Until::Present).then_some(range.end);
        Ok(Self { source, options, assembler, position, cause, rewind, present, events })
    }

    /// The next event; `None` at the end. May be dropped and called again.
    ///
    /// Errors are those that waiting does not cure: a missing right, a topic that does not exist (for who reads to the
    /// present end), a record of a newer version. The reader may be asked again after them.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(event) = self.events.pop_front() {
                if self.shows(&event) {
                    return Ok(Some(event));
                }
            }
            if self.assembler.is_done() || self.present.is_some_and(|end| self.position >= end) {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Up to where each stream was read.
    pub fn positions(&self) -> Positions {
        self.assembler.positions()
    }

    /// Where the next fetch begins: a good hint for another reader of what comes next.
    pub fn offset(&self) -> i64 {
        self.position
    }

    /// Whether all three streams are at their ends.
    pub fn is_done(&self) -> bool {
        self.assembler.is_done()
    }

    /// Records that bear the attempt's name and were not written with its key.
    pub fn forged(&self) -> u64 {
        self.source.forged()
    }

    /// What did not count.
    pub fn counts(&self) -> Counts {
        self.assembler.counts()
    }

    /// Why nothing can be read at present, as it changes; it is tried again.
    pub fn stalled(&self) -> watch::Receiver<Option<kafka::Error>> {
        self.source.stalled()
    }

    fn shows(&self, event: &Event) -> bool {
        let stream = match event {
            Event::Chunk { time, .. } if matches!(self.options.from, Begin::Since(since) if *time < since) => {
                return false;
            }
            Event::Chunk { stream, .. } | Event::Gap { stream, .. } | Event::End { stream, .. } => *stream,
        };
        self.options.only.is_none_or(|only| only == stream)
    }

    /// One fetch.
    async fn read(&mut self) -> Result<(), Error> {
        if self.source.checked().elapsed() >= ID_CHECK && self.source.was_recreated().await {
            return self.recreated().await;
        }
        let wait = if self.present.is_some() { PRESENT_WAIT } else { FETCH_WAIT };
        let page = match self.source.page(self.position, FETCH_BYTES, wait).await {
            Ok(page) => page,
            Err(Error::Kafka(kafka::Error::OffsetOutOfRange { .. })) => return self.out_of_range().await,
            Err(Error::Kafka(error @ kafka::Error::TopicMissing { .. })) if self.present.is_none() => {
                self.source.wait(error, MISSING).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if page.idle
            && let Some(end) = self.present
        {
            // A log that lost its tail never gets there.
            self.present = Some(end.min(self.source.range().await?.end));
        }
        for (_, record) in page.records {
            let same_topic = is_of_topic(&record.meta, self.source.topic_id());
            if let Some(rewind) = self.rewind.filter(|_| same_topic && self.assembler.misses(&record.meta)) {
                self.rewind = None;
                self.position = rewind;
                return Ok(());
            }
            self.assembler.record(record, same_topic, self.cause, &mut self.events);
            if self.assembler.is_whole() {
                self.cause = Cause::Lost;
            }
        }
        self.position = page.next_offset;
        Ok(())
    }

    async fn out_of_range(&mut self) -> Result<(), Error> {
        if self.source.was_recreated().await {
            return self.recreated().await;
        }
        let Range { start, end } = self.source.range().await?;
        if self.position < start {
            self.cause = Cause::Retention;
        }
        self.position = self.position.clamp(start, end);
        self.rewind = None;
        self.present = self.present.map(|present| present.min(end));
        Ok(())
    }

    /// From the beginning of the new topic: what is not shipped again is gone.
    async fn recreated(&mut self) -> Result<(), Error> {
        let Range { start, end } = self.source.range().await?;
        self.cause = Cause::Recreated;
        self.position = start;
        self.rewind = None;
        self.present = self.present.map(|_| end);
        Ok(())
    }
}

/// Whether what a record says was acknowledged was so in this topic. Zero is a broker that knows no ids.
pub(super) fn is_of_topic(meta: &Meta, topic_id: u128) -> bool {
    meta.topic == topic_id || meta.topic == 0 || topic_id == 0
}
