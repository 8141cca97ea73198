//! Where a reader begins that does not begin at the beginning: finds the last records, and goes back from them over the
//! pointers that each record carries, so that little more is read than is shown.
//!
//! Each record says at which offset a batch of the job had been acknowledged before it was sent, and with which
//! positions it began: reading from there on brings every byte from those positions on. Where two batches on this
//! way follow each other without a hole, nothing between them is read: a job that writes little on a busy partition costs one
//! small fetch a batch. Index records list 256 batches or 8 MiB each, for a way that leads far.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::Duration,
};

use super::{
    Stream,
    assemble::{Assembler, Cause, Event},
    error::Error,
    meta::{Body, Point, Positions},
    reader::is_of_topic,
    record::Opened,
    source::Source,
    tail,
};
use crate::kafka;

/// One fetch's worth of records.
const FETCH_BYTES: usize = 1 << 20;
/// The smallest fetch: one batch.
const ONE_BATCH: usize = 1;
/// Everything that is asked for is there.
const WAIT: Duration = Duration::from_millis(500);
/// Without a hint the last records are looked for in the last so many offsets, then in four times as many, and so on.
const WINDOW: i64 = 64;
/// How many batches that lead nowhere are gone over.
const DETOURS: usize = 16;
/// The most bytes that a tail is made of.
const TAIL_BYTES: usize = 16 << 20;
/// What a record takes in memory besides its bytes, about.
const RECORD: usize = 512;

/// Where reading goes on, and what comes before.
pub(super) struct Located {
    pub(super) assembler: Assembler,
    pub(super) position: i64,
    pub(super) rewind: Option<i64>,
    pub(super) events: VecDeque<Event>,
}

impl Located {
    /// Reading from `offset` on brings every byte from `start` on.
    pub(super) fn at(start: Positions, offset: i64) -> Self {
        Self { assembler: Assembler::new(start), position: offset, rewind: None, events: VecDeque::new() }
    }
}

/// Records that were found, by offset.
#[derive(Default)]
struct Found {
    records: BTreeMap<i64, Opened>,
    bytes: usize,
}

impl Found {
    fn insert(&mut self, offset: i64, record: Opened) {
        if matches!(record.meta.body, Body::Index(_)) || self.records.contains_key(&offset) {
            return;
        }
        self.bytes += record.bytes.len() + RECORD;
        self.records.insert(offset, record);
    }

    fn is_full(&self) -> bool {
        self.bytes >= TAIL_BYTES
    }

    /// The one that was written first.
    fn first(&self) -> Option<(i64, &Opened)> {
        self.records
            .iter()
            .map(|(offset, record)| (*offset, record))
            .min_by_key(|(offset, record)| (order(record), *offset))
    }

    /// The one that was written last.
    fn last(&self) -> Option<&Opened> {
        self.records.values().max_by_key(|record| order(record))
    }
}

/// Ascends in the order in which a job's records were written.
fn order(record: &Opened) -> u128 {
    record.meta.before.0.iter().map(|position| u128::from(*position)).sum()
}

/// The last `lines` lines of `range`, whatever is behind it follows.
pub(super) async fn tail(
    source: &mut Source,
    range: Range<i64>,
    last: Option<i64>,
    lines: u64,
    only: Option<Stream>,
) -> Result<Located, Error> {
    let mut found = newest(source, &range, last).await?;
    let Some(newest) = found.last() else { return Ok(Located::at(Positions::default(), range.end)) };
    let rewind = pointer(newest, source, &range).or(Some(range.start));
    let (mut goal, mut all) = (lines, false);
    let (assembler, mut events, whole) = loop {
        while !all && !found.is_full() && tail::lines(found.records.values(), only) <= goal {
            if step_back(source, &range, &mut found).await? {
                continue;
            }
            all = true;
            // The first batches of a log point to nothing, and one that points to what is gone does not know the rest.
            if found.first().is_some_and(|(_, first)| first.meta.before != Positions::default()) {
                scan(source, range.clone(), &mut found).await?;
            }
        }
        let mut made = assemble(source, &found);
        if !made.2
            && let Some((offset, first)) = found.first()
        {
            // Some were passed over: everything between is read, and that is that.
            let from = first.meta.batch.unwrap_or(range.start).clamp(range.start, offset.max(range.start));
            scan(source, from..range.end, &mut found).await?;
            made = assemble(source, &found);
        }
        // Records that came twice were counted twice.
        let missing = lines.saturating_add(1).saturating_sub(tail::shown_lines(&made.1, only));
        if missing == 0 || all || found.is_full() {
            break made;
        }
        goal = goal.saturating_add(missing);
    };
    tail::cut(&mut events, lines, only);
    Ok(Located { assembler, position: range.end, rewind: rewind.filter(|_| whole), events })
}

/// From what was written at `time` on.
pub(super) async fn since(
    source: &mut Source,
    range: Range<i64>,
    last: Option<i64>,
    time: i64,
) -> Result<Located, Error> {
    let mut found = newest(source, &range, last).await?;
    let start = Located::at(Positions::default(), range.start);
    loop {
        let Some((_, first)) = found.first() else { return Ok(start) };
        if first.meta.body.time().is_some_and(|first| first <= time) {
            return Ok(from(first, source, &range).unwrap_or(start));
        }
        if let Some(index) = first.meta.index {
            return Ok(over_indexes(source, &range, index, time).await?.unwrap_or(start));
        }
        if !step_back(source, &range, &mut found).await? {
            return Ok(start);
        }
        let last = found.first().map(|(offset, _)| offset);
        found.records.retain(|offset, _| Some(*offset) == last);
    }
}

/// Reading so that every byte from `record` on comes; none if only the beginning will do.
fn from(record: &Opened, source: &Source, range: &Range<i64>) -> Option<Located> {
    Some(Located::at(record.meta.before, pointer(record, source, range)?))
}

/// Goes back from index to index to the first that begins at `time` or before.
async fn over_indexes(
    source: &mut Source,
    range: &Range<i64>,
    mut index: i64,
    time: i64,
) -> Result<Option<Located>, Error> {
    let mut target: Option<Point> = None;
    while range.contains(&index) {
        let page = page(source, index, range).await?;
        let found = page.into_iter().find(|(offset, _)| *offset == index);
        let Some(Opened { meta, .. }) = found.map(|(_, record)| record) else { break };
        let Body::Index(points) = meta.body else { break };
        let begins = points.first().is_some_and(|point| point.time <= time);
        target = points.iter().take_while(|point| point.time <= time).last().or(points.first()).copied();
        match meta.index {
            // Indexes lead back, and nowhere else.
            Some(before) if !begins && before < index => index = before,
            _ => break,
        }
    }
    let Some(point) = target.filter(|point| point.time <= time && range.contains(&point.offset)) else {
        return Ok(None);
    };
    let page = page(source, point.offset, range).await?;
    let record = page.iter().find(|(_, record)| record.meta.before == point.before);
    Ok(record.and_then(|(_, record)| from(record, source, range)))
}

/// What was appended last, all of it from some offset on to the end.
async fn newest(source: &mut Source, range: &Range<i64>, hint: Option<i64>) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut upto = range.end;
    if let Some(hint) = hint.filter(|hint| range.contains(hint)) {
        scan(source, hint..upto, &mut found).await?;
        upto = hint;
    }
    let mut window = WINDOW;
    while found.records.is_empty() && upto > range.start {
        let from = upto.saturating_sub(window).max(range.start);
        scan(source, from..upto, &mut found).await?;
        upto = from;
        window = window.saturating_mul(4);
    }
    Ok(found)
}

/// Goes back by one batch, and fills the hole between if there is one. Returns whether that was possible.
async fn step_back(source: &mut Source, range: &Range<i64>, found: &mut Found) -> Result<bool, Error> {
    let Some((offset, first)) = found.first() else { return Ok(false) };
    let (before, at) = (first.meta.before, order(first));
    let mut pointer = pointer(first, source, range);
    // A shipper that started again may point to a batch of its predecessor's that comes behind its own first one.
    for _ in 0..DETOURS {
        let Some(batch) = pointer else { return Ok(false) };
        let page = page(source, batch, range).await?;
        pointer = page.iter().filter_map(|(_, record)| self::pointer(record, source, range)).min();
        let earlier: Vec<_> = page.into_iter().filter(|(_, record)| order(record) < at).collect();
        if earlier.is_empty() {
            pointer = pointer.filter(|next| *next < batch);
            continue;
        }
        let joins = earlier.iter().any(|(_, record)| record.after() == before);
        earlier.into_iter().for_each(|(offset, record)| found.insert(offset, record));
        if !joins && batch < offset {
            scan(source, batch..offset, found).await?;
        }
        return Ok(true);
    }
    Ok(false)
}

/// Where `record` points back to, if that is still there.
fn pointer(record: &Opened, source: &Source, range: &Range<i64>) -> Option<i64> {
    record.meta.batch.filter(|batch| range.contains(batch) && is_of_topic(&record.meta, source.topic_id()))
}

/// The attempt's records of the batch at `offset`, as far as one fetch brings them.
async fn page(source: &mut Source, offset: i64, range: &Range<i64>) -> Result<Vec<(i64, Opened)>, Error> {
    if !range.contains(&offset) {
        return Ok(Vec::new());
    }
    match source.page(offset, ONE_BATCH, WAIT).await {
        Ok(page) => Ok(page.records),
        // Retention came between.
        Err(Error::Kafka(kafka::Error::OffsetOutOfRange { .. })) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// All the attempt's records of `range`. If they are too many, only the last ones are kept.
async fn scan(source: &mut Source, range: Range<i64>, found: &mut Found) -> Result<(), Error> {
    let mut position = range.start;
    while position < range.end {
        let page = match source.page(position, FETCH_BYTES, WAIT).await {
            Ok(page) => page,
            Err(Error::Kafka(kafka::Error::OffsetOutOfRange { .. })) => return Ok(()),
            Err(error) => return Err(error),
        };
        if page.idle && page.next_offset == position {
            return Ok(());
        }
        position = page.next_offset;
        for (offset, record) in page.records {
            if offset < range.end {
                found.insert(offset, record);
            }
        }
        while found.is_full()
            && found.records.len() > 1
            && let Some((offset, record)) = found.records.pop_first()
        {
            debug_assert!(offset < position);
            found.bytes -= record.bytes.len() + RECORD;
        }
    }
    Ok(())
}

/// The events of what was found, and whether nothing is missing between.
fn assemble(source: &Source, found: &Found) -> (Assembler, VecDeque<Event>, bool) {
    let start = found.first().map_or(Positions::default(), |(_, first)| first.meta.before);
    let (mut assembler, mut events, mut whole) = (Assembler::new(start), VecDeque::new(), true);
    for record in found.records.values() {
        let same_topic = is_of_topic(&record.meta, source.topic_id());
        whole &= !(same_topic && assembler.misses(&record.meta));
        assembler.record(record.clone(), same_topic, Cause::Lost, &mut events);
    }
    let whole = whole && assembler.is_whole();
    (assembler, events, whole)
}
