//! What became of the batches that a shipper sent: up to where everything is acknowledged, and what the next record may
//! say of it. Pure: the [`shipper`](super::shipper) sends, and tells what came of it.

use std::collections::VecDeque;

use super::meta::{MAX_ITEMS, Meta, Point, Positions};
use super::{meta::Body, pack::Draft};

/// An index comes when so many bytes were acknowledged since the last,
const INDEX_BYTES: u64 = 8 << 20;
/// or so many batches: a reader goes back over a job that writes little by little in this many steps at most.
const INDEX_BATCHES: usize = 256;

/// Up to where the cluster has everything, and the way back: what the next start of a shipper begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Acked {
    /// All bytes in front of these positions are in the topic.
    pub positions: Positions,
    /// The lowest offset at which a batch begins: the log is read from there on.
    pub first: Option<i64>,
    /// The highest offset at which a batch of the job begins.
    pub batch: Option<i64>,
    /// The offset of the latest index record.
    pub index: Option<i64>,
}

/// Batches in flight, and the acknowledged prefix.
pub(super) struct Ledger {
    topic: u128,
    acked: Acked,
    /// In the order of their bytes.
    flights: VecDeque<Flight>,
    numbers: u64,
    /// How many records are in the acknowledged prefix.
    records: u64,
    /// Batches that no index names yet.
    points: Vec<Point>,
    /// The bytes in `points`.
    bytes: u64,
    /// An index is on its way.
    indexing: bool,
}

struct Flight {
    number: u64,
    records: u64,
    after: Positions,
    bytes: u64,
    time: Option<i64>,
    before: Positions,
    base: Option<i64>,
    index: bool,
}

/// A batch stands in front of one that was acknowledged before it was first sent: the log is another one, or has lost its
/// tail.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WentBack;

impl Ledger {
    pub(super) fn new(topic: u128, start: Acked) -> Self {
        let (flights, points) = (VecDeque::new(), Vec::new());
        Self { topic, acked: start, flights, numbers: 0, records: 0, points, bytes: 0, indexing: false }
    }

    pub(super) fn acked(&self) -> Acked {
        self.acked
    }

    /// How many records were acknowledged together with all before them.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Notes a batch that is about to be sent; what its records say, but for their own `before` and body.
    pub(super) fn send(&mut self, batch: &[Draft]) -> (u64, Meta) {
        self.numbers += 1;
        let before = batch.first().map_or(self.acked.positions, |draft| draft.before);
        let mut after = before;
        for draft in batch {
            after[draft.stream] = draft.before[draft.stream] + draft.bytes.len() as u64;
        }
        let index = batch.iter().any(|draft| matches!(draft.body, Body::Index(_)));
        let bytes = batch.iter().map(|draft| draft.bytes.len() as u64).sum();
        let time = batch.iter().find_map(|draft| draft.body.time());
        let (number, records) = (self.numbers, if index { 0 } else { batch.len() as u64 });
        self.flights.push_back(Flight { number, records, after, bytes, time, before, base: None, index });
        let Acked { positions: acked, batch, index, .. } = self.acked;
        (number, Meta { topic: self.topic, batch, index, before, acked, body: Body::Data(Vec::new()) })
    }

    /// Batch `number` stands at `base`; when it was first sent, `bound` was the highest offset of a batch.
    pub(super) fn landed(&mut self, number: u64, base: i64, bound: Option<i64>) -> Result<(), WentBack> {
        let went_back = bound.is_some_and(|bound| base <= bound);
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.number == number) {
            flight.base = Some(base);
            if flight.index {
                self.acked.index = Some(base);
                self.indexing = false;
            } else {
                self.acked.batch = self.acked.batch.max(Some(base));
                self.acked.first = Some(self.acked.first.map_or(base, |first| first.min(base)));
            }
        }
        while self.flights.front().is_some_and(|flight| flight.base.is_some()) {
            let Some(flight) = self.flights.pop_front() else { break };
            self.records += flight.records;
            if flight.index {
                continue;
            }
            self.acked.positions = flight.after;
            if let (Some(time), Some(offset)) = (flight.time, flight.base) {
                self.points.push(Point { offset, before: flight.before, time });
                self.bytes += flight.bytes;
            }
        }
        if went_back { Err(WentBack) } else { Ok(()) }
    }

    /// An index record, if one is due.
    pub(super) fn index(&mut self) -> Option<Body> {
        let due = self.bytes >= INDEX_BYTES || self.points.len() >= INDEX_BATCHES;
        if !due || self.indexing {
            return None;
        }
        self.indexing = true;
        self.bytes = 0;
        let rest = self.points.split_off(self.points.len().min(MAX_ITEMS));
        Some(Body::Index(std::mem::replace(&mut self.points, rest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytelog::{Stream, meta::Run};

    fn draft(from: u64, length: usize) -> Draft {
        let body = Body::Data(vec![Run { time: from as i64, length: length as u32 }]);
        Draft { stream: Stream::Stdout, before: Positions([from, 0, 0]), bytes: vec![0; length], body }
    }

    #[test]
    fn only_what_has_everything_before_it_counts_as_acknowledged() {
        let mut ledger = Ledger::new(1, Acked::default());
        let first = ledger.send(&[draft(0, 10), draft(10, 5)]);
        let second = ledger.send(&[draft(15, 5)]);
        assert_eq!(
            (second.1.batch, second.1.before, second.1.acked),
            (None, Positions([15, 0, 0]), Positions::default())
        );
        assert_eq!(ledger.landed(second.0, 100, None), Ok(()));
        assert_eq!(
            (ledger.acked().positions, ledger.acked().batch, ledger.records()),
            (Positions::default(), Some(100), 0)
        );
        let third = ledger.send(&[draft(20, 5)]);
        assert_eq!((third.1.batch, third.1.acked), (Some(100), Positions::default()));
        assert_eq!(ledger.landed(first.0, 103, None), Ok(()));
        assert_eq!(
            (ledger.acked().positions, ledger.acked().batch, ledger.records()),
            (Positions([20, 0, 0]), Some(103), 3)
        );
    }

    #[test]
    fn where_a_log_begins_is_known_to_later_shippers_too() {
        let mut ledger = Ledger::new(1, Acked::default());
        let (later, earlier) = (ledger.send(&[draft(0, 1)]).0, ledger.send(&[draft(1, 1)]).0);
        ledger.landed(earlier, 7, None).expect("goes on");
        ledger.landed(later, 9, None).expect("goes on");
        assert_eq!(ledger.acked().first, Some(7));
        let mut next = Ledger::new(1, ledger.acked());
        let number = next.send(&[draft(2, 1)]).0;
        next.landed(number, 20, Some(9)).expect("goes on");
        assert_eq!((next.acked().first, next.acked().batch), (Some(7), Some(20)));
    }

    #[test]
    fn a_log_that_went_back_is_noticed() {
        let mut ledger = Ledger::new(1, Acked { batch: Some(500), ..Acked::default() });
        let (number, meta) = ledger.send(&[draft(0, 1)]);
        assert_eq!(ledger.landed(number, 0, meta.batch), Err(WentBack));
    }

    #[test]
    fn an_index_comes_every_eight_mebibytes_or_256_batches() {
        for (length, batches) in [(1 << 20, 8), (1, 256)] {
            let mut ledger = Ledger::new(1, Acked::default());
            for batch in 0..batches {
                assert_eq!(ledger.index(), None);
                let (number, _) = ledger.send(&[draft(batch * length, length as usize)]);
                ledger.landed(number, 2 * batch as i64, None).expect("goes on");
            }
            let Some(Body::Index(points)) = ledger.index() else { panic!("it is due") };
            assert_eq!((points.len() as u64, points[1].offset, points[1].time), (batches, 2, length as i64));
            assert_eq!(ledger.index(), None);
            let index = Draft { body: Body::Index(points), bytes: vec![], ..draft(0, 0) };
            let (number, _) = ledger.send(&[index]);
            let before = ledger.acked();
            ledger.landed(number, 9999, None).expect("goes on");
            assert_eq!(ledger.acked(), Acked { index: Some(9999), ..before });
        }
    }
}
