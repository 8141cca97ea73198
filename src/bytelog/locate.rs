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
struct Found {
    records: BTreeMap<i64, Opened>,
    bytes: usize,
    /// From here on to the end everything was read.
    from: i64,
}

impl Found {
    fn new(from: i64) -> Self {
        Self { records: BTreeMap::new(), bytes: 0, from }
    }

    fn insert(&mut self, offset: i64, record: Opened) {
        if matches!(record.meta.body, Body::Index(_)) || self.records.contains_key(&offset) {
            return;
        }
        self.bytes += record.bytes.len() + RECORD;
        self.records.insert(offset, record);
    }

    /// Drops the first ones if they are too many.
    fn trim(&mut self) {
        while self.is_full()
            && self.records.len() > 1
            && let Some((offset, record)) = self.records.pop_first()
        {
            self.from = self.from.max(offset + 1);
            self.bytes -= record.bytes.len() + RECORD;
        }
    }

    /// How many lines end in what was written from `start` on.
    fn lines(&self, start: Positions, only: Option<Stream>) -> u64 {
        tail::lines(self.records.values().filter(|record| record.offset >= start[record.stream]), only)
    }

    fn is_full(&self) -> bool {
        self.bytes >= TAIL_BYTES
    }

    /// The one that was written first.
    fn first(&self) -> Option<(i64, Opened)> {
        let first = self.records.iter().min_by_key(|(offset, record)| (order(record), **offset));
        first.map(|(offset, record)| (*offset, record.clone()))
    }

    /// The one that was written last: where two shippers run at once, the one that is ahead has written all before it.
    fn last(&self) -> Option<(i64, Opened)> {
        let last = self.records.iter().max_by_key(|(offset, record)| (order(record), -**offset));
        last.map(|(offset, record)| (*offset, record.clone()))
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
    let Some(mut back) = found.last() else { return Ok(Located::at(Positions::default(), range.end)) };
    let (mut goal, mut all) = (lines, false);
    let (assembler, mut events, whole) = loop {
        while !all && !found.is_full() && found.lines(back.1.meta.before, only) <= goal {
            if let Some(before) = step_back(source, &range, &back, &mut found).await? {
                back = before;
                continue;
            }
            all = true;
            // The first batches of a log point to nothing, and one that points to what is gone does not know the rest.
            if back.1.meta.before != Positions::default() {
                found.from = range.start;
                scan(source, range.clone(), &mut found).await?;
                back = found.first().unwrap_or(back);
            }
        }
        let mut made = assemble(source, &found, back.1.meta.before);
        if !made.2 {
            // Some were passed over: everything between is read, and that is that.
            let from = pointer(&back.1, source, &range).unwrap_or(range.start);
            scan(source, from..range.end, &mut found).await?;
            made = assemble(source, &found, back.1.meta.before);
        }
        if !made.2 && !all {
            // A shipper that was ahead for a while may have written further in front.
            all = true;
            found.from = range.start;
            scan(source, range.clone(), &mut found).await?;
            back = found.first().unwrap_or(back);
            made = assemble(source, &found, back.1.meta.before);
        }
        // Records that came twice were counted twice.
        let missing = lines.saturating_add(1).saturating_sub(tail::shown_lines(&made.1, only));
        if missing == 0 || all || found.is_full() {
            break made;
        }
        goal = goal.saturating_add(missing);
    };
    tail::cut(&mut events, lines, only);
    Ok(Located { assembler, position: range.end, rewind: whole.then_some(range.start), events })
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
    let Some(mut back) = found.last() else { return Ok(start) };
    loop {
        let meta = &back.1.meta;
        // What is in front of it may be of the same time.
        if meta.body.time().is_some_and(|first| first < time) {
            return Ok(from(&back.1, source, &range).unwrap_or(start));
        }
        if let Some(index) = meta.index {
            return Ok(over_indexes(source, &range, index, time).await?.unwrap_or(start));
        }
        match step_back(source, &range, &back, &mut found).await? {
            Some(before) => back = before,
            None => return Ok(start),
        }
    }
}

/// Reading so that every byte from `record` on comes; none if only the beginning will do.
fn from(record: &Opened, source: &Source, range: &Range<i64>) -> Option<Located> {
    let located = Located::at(record.meta.before, pointer(record, source, range)?);
    Some(Located { rewind: Some(range.start), ..located })
}

/// Goes back from index to index to the first that begins before `time`.
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
        let begins = points.first().is_some_and(|point| point.time < time);
        target = points.iter().take_while(|point| point.time < time).last().or(points.first()).copied();
        match meta.index {
            // Indexes lead back, and nowhere else.
            Some(before) if !begins && before < index => index = before,
            _ => break,
        }
    }
    let Some(point) = target.filter(|point| point.time < time && range.contains(&point.offset)) else {
        return Ok(None);
    };
    let page = page(source, point.offset, range).await?;
    let record = page.iter().find(|(_, record)| record.meta.before == point.before);
    Ok(record.and_then(|(_, record)| from(record, source, range)))
}

/// What was written last, and all that was appended from some offset on. What was appended last need not be that: it may be
/// a late copy. So everything is read from where the found ones point back to.
async fn newest(source: &mut Source, range: &Range<i64>, hint: Option<i64>) -> Result<Found, Error> {
    let mut found = Found::new(range.end);
    let mut upto = range.end;
    if let Some(hint) = hint.filter(|hint| range.contains(hint)) {
        found.from = hint;
        scan(source, hint..upto, &mut found).await?;
        upto = hint;
    }
    let mut window = WINDOW;
    while found.records.is_empty() && upto > range.start {
        let from = upto.saturating_sub(window).max(range.start);
        found.from = from;
        scan(source, from..upto, &mut found).await?;
        upto = from;
        window = window.saturating_mul(4);
    }
    while let Some((_, last)) = found.last() {
        let from = pointer(&last, source, range).unwrap_or(range.start);
        if from >= found.from {
            break;
        }
        let upto = std::mem::replace(&mut found.from, from);
        scan(source, from..upto, &mut found).await?;
        if found.is_full() {
            break;
        }
    }
    Ok(found)
}

/// Goes back from `back` by one batch, and fills the hole between if there is one. Returns the batch's first record; none
/// if that was not possible.
async fn step_back(
    source: &mut Source,
    range: &Range<i64>,
    back: &(i64, Opened),
    found: &mut Found,
) -> Result<Option<(i64, Opened)>, Error> {
    let Some(batch) = pointer(&back.1, source, range).filter(|batch| *batch < back.0) else { return Ok(None) };
    if batch >= found.from {
        return Ok(found.records.get(&batch).map(|record| (batch, record.clone())));
    }
    let page = page(source, batch, range).await?;
    let Some(first) = page.iter().find(|(offset, _)| *offset == batch).cloned() else { return Ok(None) };
    let joins = page.iter().any(|(_, record)| record.after() == back.1.meta.before);
    page.into_iter().for_each(|(offset, record)| found.insert(offset, record));
    if !joins {
        scan(source, batch..back.0, found).await?;
    }
    Ok(Some(first))
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
        found.trim();
    }
    Ok(())
}

/// The events from `start` on of what was found, and whether nothing is missing between.
fn assemble(source: &Source, found: &Found, start: Positions) -> (Assembler, VecDeque<Event>, bool) {
    let (mut assembler, mut events, mut whole) = (Assembler::new(start), VecDeque::new(), true);
    for record in found.records.values() {
        let same_topic = is_of_topic(&record.meta, source.topic_id());
        whole &= !(same_topic && assembler.misses(&record.meta));
        assembler.record(record.clone(), same_topic, Cause::Lost, &mut events);
    }
    let whole = whole && assembler.is_whole();
    (assembler, events, whole)
}
