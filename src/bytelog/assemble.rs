//! Makes three streams out of verified records. Pure: the [`reader`](super::reader) hands in the records in the order of the
//! log, and hands on what comes out.
//!
//! The rule: the first valid record in log order wins a byte range. What comes again is dropped, and counted where it
//! differs. What is missing is named as a gap when it can't come any more: a record says that it was acknowledged before
//! (so it lies in front, and was not there), or more bytes came behind it than a shipper has in flight.
//!
//! Input: [`Assembler::record`]. Output: events, in order for each stream.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use bytes::Bytes;
use ring::digest;

use super::{
    Stream,
    meta::{Body, Meta, Positions, Run},
    record::Opened,
};

/// More bytes behind a gap than this, and it is one for ever. Four batches of half the largest message that is usual are
/// in flight; this is four times as much.
const REORDER: usize = 8 << 20;
/// So many of the last bytes of a stream are kept, to see whether what comes again is the same.
const RECENT: usize = 4 << 20;
/// What a piece takes in memory besides its bytes, about.
const PIECE: usize = 128;

/// What a reader hands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next bytes of a stream.
    Chunk {
        /// The stream.
        stream: Stream,
        /// The first byte's position.
        offset: u64,
        /// When they were written: milliseconds since 1970, by the agent's clock.
        time: i64,
        /// The bytes; never none.
        bytes: Bytes,
    },
    /// Bytes of a stream that will not come any more.
    Gap {
        /// The stream.
        stream: Stream,
        /// Which.
        bytes: Range<u64>,
        /// Why.
        cause: Cause,
    },
    /// A stream is at its end.
    End {
        /// The stream.
        stream: Stream,
        /// How many bytes it has.
        total: u64,
        /// Whether they are the ones that were written.
        digest: Digest,
    },
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// They were older than the topic keeps records, or made room for newer ones.
    Retention,
    /// The topic was deleted and created anew.
    Recreated,
    /// The cluster acknowledged and lost them (an unclean leader election, say).
    Lost,
}

/// What an end's SHA-256 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// These are the bytes that were written, all of them.
    Matches,
    /// They are not.
    Differs,
    /// The reader did not see all of them: it began later, or there was a gap.
    Incomplete,
}

/// What did not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Bytes that came again.
    pub repeated: u64,
    /// Records that say something else than an earlier one about the same bytes, or about the stream's end.
    pub differing: u64,
}

/// Three streams in the making.
pub struct Assembler {
    lanes: [Lane; 3],
    counts: Counts,
}

struct Lane {
    stream: Stream,
    /// All before it was handed on, or named as a gap.
    next: u64,
    /// Pieces behind a gap, which do not overlap.
    pending: BTreeMap<u64, Piece>,
    /// What they take in memory.
    pending_bytes: usize,
    /// The last bytes that were handed on.
    recent: VecDeque<(u64, Bytes)>,
    recent_bytes: usize,
    /// Of all bytes so far; none if there are some that we have not seen.
    digest: Option<digest::Context>,
    end: Option<(u64, [u8; 32])>,
    ended: bool,
}

/// Bytes with their times.
struct Piece {
    bytes: Bytes,
    runs: VecDeque<Run>,
}

impl Piece {
    /// Takes the first bytes off.
    fn split_to(&mut self, length: usize) -> Self {
        let bytes = self.bytes.split_to(length);
        let mut runs = VecDeque::new();
        let mut left = length as u64;
        while left > 0
            && let Some(run) = self.runs.front_mut()
        {
            let taken = left.min(u64::from(run.length)) as u32;
            runs.push_back(Run { length: taken, ..*run });
            run.length -= taken;
            left -= u64::from(taken);
            if run.length == 0 {
                self.runs.pop_front();
            }
        }
        Self { bytes, runs }
    }
}

impl Assembler {
    /// Streams from `start` on.
    pub fn new(start: Positions) -> Self {
        let lane = |stream| Lane {
            stream,
            next: start[stream],
            pending: BTreeMap::new(),
            pending_bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            digest: (start[stream] == 0).then(|| digest::Context::new(&digest::SHA256)),
            end: None,
            ended: false,
        };
        Self { lanes: Stream::ALL.map(lane), counts: Counts::default() }
    }

    /// Up to where each stream was handed on.
    pub fn positions(&self) -> Positions {
        Positions([0, 1, 2].map(|lane: usize| self.lanes[lane].next))
    }

    /// Whether all streams are at their end.
    pub fn is_done(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended)
    }

    /// Whether nothing waits behind a gap.
    pub fn is_whole(&self) -> bool {
        self.lanes.iter().all(|lane| lane.pending.is_empty() && (lane.end.is_none() || lane.ended))
    }

    /// What did not count so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether handing `meta`'s record in would name a gap, because it says that bytes lie before it which did not come.
    pub fn misses(&self, meta: &Meta) -> bool {
        self.lanes.iter().any(|lane| lane.misses(meta.acked[lane.stream]))
    }

    /// Takes the next record of the log. `same_topic` says whether what it says was acknowledged was so in the topic
    /// that is read; `cause` is what a gap would come from.
    pub fn record(&mut self, record: Opened, same_topic: bool, cause: Cause, out: &mut VecDeque<Event>) {
        if same_topic {
            for lane in &mut self.lanes {
                lane.give_up(record.meta.acked[lane.stream], cause, out);
            }
        }
        let counts = &mut self.counts;
        let lane = &mut self.lanes[record.stream as usize];
        let piece = match record.meta.body {
            Body::Index(_) => return,
            Body::End(digest) => {
                match lane.end {
                    None => lane.end = Some((record.offset, digest)),
                    Some(end) => counts.differing += u64::from(end != (record.offset, digest)),
                }
                lane.finish(counts, out);
                return;
            }
            Body::Data(runs) => Piece { bytes: record.bytes, runs: runs.into() },
        };
        if lane.insert(record.offset, piece, counts) {
            counts.differing += 1;
        }
        lane.deliver(out);
        while lane.pending_bytes > REORDER
            && let Some((&first, _)) = lane.pending.first_key_value()
        {
            lane.give_up(first, cause, out);
        }
        lane.finish(counts, out);
    }
}

impl Lane {
    fn misses(&self, upto: u64) -> bool {
        let mut next = self.next;
        for (&at, piece) in self.pending.range(..upto) {
            if at > next {
                return true;
            }
            next = at + piece.bytes.len() as u64;
        }
        next < upto
    }

    /// What did not come of the bytes before `upto` will not.
    fn give_up(&mut self, upto: u64, cause: Cause, out: &mut VecDeque<Event>) {
        while self.next < upto && !self.ended {
            let end = self.pending.first_key_value().map_or(upto, |(&first, _)| first.min(upto));
            let (stream, bytes) = (self.stream, self.next..end);
            if !bytes.is_empty() {
                out.push_back(Event::Gap { stream, bytes, cause });
                self.digest = None;
                self.recent.clear();
                self.recent_bytes = 0;
                self.next = end;
            }
            self.deliver(out);
        }
    }

    /// Takes what is new of `piece`. Returns whether the rest differs from what was there before.
    fn insert(&mut self, mut at: u64, mut piece: Piece, counts: &mut Counts) -> bool {
        let mut differs = false;
        if at < self.next {
            let length = (self.next - at).min(piece.bytes.len() as u64);
            let old = piece.split_to(length as usize);
            differs |= self.differs_from_recent(at, &old.bytes);
            counts.repeated += length;
            at += length;
        }
        if self.ended {
            // Behind the end nothing counts.
            return differs || !piece.bytes.is_empty();
        }
        while !piece.bytes.is_empty() {
            let before = self.pending.range(..=at).next_back();
            if let Some((&from, there)) = before.filter(|(from, there)| *from + there.bytes.len() as u64 > at) {
                let skip = (at - from) as usize;
                let length = (there.bytes.len() - skip).min(piece.bytes.len());
                let old = piece.split_to(length);
                differs |= there.bytes[skip..skip + length] != old.bytes;
                counts.repeated += length as u64;
                at += length as u64;
                continue;
            }
            let room = self.pending.range(at..).next().map_or(u64::MAX, |(&from, _)| from - at);
            let length = room.min(piece.bytes.len() as u64) as usize;
            self.pending_bytes += length + PIECE;
            self.pending.insert(at, piece.split_to(length));
            at += length as u64;
        }
        differs
    }

    fn differs_from_recent(&self, at: u64, bytes: &Bytes) -> bool {
        let upto = at + bytes.len() as u64;
        let first = self.recent.partition_point(|(from, there)| from + there.len() as u64 <= at);
        self.recent.range(first..).take_while(|(from, _)| *from < upto).any(|(from, there)| {
            let start = at.max(*from);
            let end = upto.min(from + there.len() as u64);
            start < end
                && bytes[(start - at) as usize..(end - at) as usize]
                    != there[(start - from) as usize..(end - from) as usize]
        })
    }

    /// Hands on what has everything before it.
    fn deliver(&mut self, out: &mut VecDeque<Event>) {
        while let Some(mut entry) = self.pending.first_entry()
            && *entry.key() == self.next
            && !self.ended
        {
            let limit = self.end.map_or(u64::MAX, |(total, _)| total.saturating_sub(self.next));
            let length = entry.get().bytes.len();
            let piece = if length as u64 > limit { entry.get_mut().split_to(limit as usize) } else { entry.remove() };
            // Behind the end nothing counts.
            self.pending_bytes -= length + PIECE;
            self.emit(piece, out);
            if length as u64 > limit {
                self.pending.clear();
                self.pending_bytes = 0;
            }
        }
    }

    fn emit(&mut self, piece: Piece, out: &mut VecDeque<Event>) {
        if let Some(digest) = &mut self.digest {
            digest.update(&piece.bytes);
        }
        let length = piece.bytes.len();
        self.recent.push_back((self.next, piece.bytes.clone()));
        self.recent_bytes += length + PIECE;
        while self.recent_bytes > RECENT
            && let Some((_, oldest)) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.len() + PIECE;
        }
        let mut rest = piece.bytes;
        for run in piece.runs {
            let bytes = rest.split_to((run.length as usize).min(rest.len()));
            let (stream, offset, time) = (self.stream, self.next, run.time);
            self.next += bytes.len() as u64;
            if !bytes.is_empty() {
                out.push_back(Event::Chunk { stream, offset, time, bytes });
            }
        }
    }

    /// Ends the stream if all up to its end was handed on.
    fn finish(&mut self, counts: &mut Counts, out: &mut VecDeque<Event>) {
        let Some((total, sha256)) = self.end.filter(|(total, _)| !self.ended && self.next >= *total) else { return };
        self.ended = true;
        counts.differing += u64::from(self.next > total || self.pending_bytes > 0);
        self.pending.clear();
        self.pending_bytes = 0;
        let digest = self.digest.take().map_or(Digest::Incomplete, |digest| {
            if digest.finish().as_ref() == sha256 { Digest::Matches } else { Digest::Differs }
        });
        out.push_back(Event::End { stream: self.stream, total, digest });
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
