//! What a writer has sealed and not yet read back: the records of one tenure, and which of them must be sent (again).
//!
//! Promises: a record keeps its bytes however often it is sent; it leaves only by being read back as valid, or by being
//! cut off together with all behind it; after a gap everything from the gap on is sent again. Pure: the driver sends,
//! and says what came of it. `R` is who waits for a record.
//!
//! Input: [`Outbox::claim`], [`Outbox::push`]; what became of a batch ([`Outbox::acked`], [`Outbox::failed`],
//! [`Outbox::cut`]) and of the log ([`Outbox::read_back`], [`Outbox::passed`]). Output: [`Outbox::next_batch`].

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    head::Head,
    record::{Codec, Kind, Record},
};

/// One tenure's records, from the claim on.
pub(super) struct Outbox<R> {
    epoch: u32,
    writer: u128,
    /// The last record that was read back, and the head after it: where the sealed ones start.
    committed: Option<(u64, Head)>,
    /// Ascending by seq, without a gap, starting behind `committed`.
    pending: VecDeque<Pending<R>>,
    /// The payloads' and overheads' bytes in `pending`.
    bytes: usize,
}

struct Pending<R> {
    seq: u64,
    /// The head after this record.
    head: Head,
    sealed: Bytes,
    place: Place,
    waiter: R,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// To be sent.
    Queued,
    /// In a batch whose outcome is open.
    InFlight(u64),
    /// Appended at this offset, so the broker says. No commit.
    Acked(i64),
}

/// The log holds another record where ours would have to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diverged;

impl<R> Outbox<R> {
    /// Starts a tenure with its claim. `writer` and `nonce` are random.
    pub(super) fn claim(codec: &Codec, epoch: u32, prev: Head, writer: u128, nonce: [u8; 12], waiter: R) -> Self {
        let claim = Record { kind: Kind::Claim, epoch, writer, seq: 0, prev, payload: Bytes::new() };
        let sealed = codec.seal(&claim, nonce);
        let bytes = sealed.len();
        // The head after the claim is known only once it was read back: others may write before it.
        let claim = Pending { seq: 0, head: Head::default(), sealed, place: Place::Queued, waiter };
        Self { epoch, writer, committed: None, pending: [claim].into(), bytes }
    }

    /// The tenure's epoch.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether the claim was read back as winning.
    pub(super) fn won(&self) -> bool {
        self.committed.is_some()
    }

    /// Whether this tenure wrote `record`.
    pub(super) fn wrote(&self, record: &Record) -> bool {
        (record.epoch, record.writer) == (self.epoch, self.writer)
    }

    /// How many records wait, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.pending.len(), self.bytes)
    }

    /// Seals a record behind the others. The claim must have won.
    pub(super) fn push(&mut self, codec: &Codec, nonce: [u8; 12], kind: Kind, payload: Bytes, waiter: R) {
        let (last, prev) = self.end().expect("events come after the claim was won");
        let (epoch, writer, seq) = (self.epoch, self.writer, last + 1);
        let sealed = codec.seal(&Record { kind, epoch, writer, seq, prev, payload }, nonce);
        self.bytes += sealed.len();
        self.pending.push_back(Pending { seq, head: prev.after(&sealed), sealed, place: Place::Queued, waiter });
    }

    /// The next batch to produce: all records from the first that must be sent on, up to `max_bytes` and at least one.
    /// One batch at a time, so that order is kept as far as it is in our hands. It gets `number`, which no batch had
    /// before, not even in an earlier tenure: what became of those may be told late.
    pub(super) fn next_batch(&mut self, number: u64, max_bytes: usize) -> Option<Vec<Bytes>> {
        if self.pending.iter().any(|record| matches!(record.place, Place::InFlight(_))) {
            return None;
        }
        let first = self.pending.iter().position(|record| record.place == Place::Queued)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in self.pending.iter_mut().skip(first) {
            bytes += record.sealed.len();
            if bytes > max_bytes && !batch.is_empty() {
                break;
            }
            record.place = Place::InFlight(number);
            batch.push(record.sealed.clone());
        }
        Some(batch)
    }

    /// Batch `batch` was appended at `base`, so the broker says; the reader stands at `position`. See
    /// [`passed`](Self::passed) for what is returned.
    pub(super) fn acked(&mut self, batch: u64, base: i64, length: usize, position: i64) -> bool {
        // Those that were read back meanwhile left at the front, so the rest is the batch's tail.
        let left = self.pending.iter().filter(|record| record.place == Place::InFlight(batch)).count();
        let mut offset = base.saturating_add_unsigned((length - left.min(length)) as u64);
        for record in self.pending.iter_mut().filter(|record| record.place == Place::InFlight(batch)) {
            record.place = Place::Acked(offset);
            offset = offset.saturating_add(1);
        }
        self.passed(position)
    }

    /// Nobody knows whether batch `batch` was or will be appended.
    pub(super) fn failed(&mut self, batch: u64) {
        for record in self.pending.iter_mut().filter(|record| record.place == Place::InFlight(batch)) {
            record.place = Place::Queued;
        }
    }

    /// Batch `batch` can't be appended: takes its records off, and all behind them.
    pub(super) fn cut(&mut self, batch: u64) -> Vec<R> {
        let first = self.pending.iter().position(|record| record.place == Place::InFlight(batch));
        let cut = self.pending.split_off(first.unwrap_or(self.pending.len()));
        self.bytes -= cut.iter().map(|record| record.sealed.len()).sum::<usize>();
        cut.into_iter().map(|record| record.waiter).collect()
    }

    /// The reader has passed all offsets below `position`: what should stand there and was not read back as valid came
    /// too early, and is sent again. Returns whether there is any.
    pub(super) fn passed(&mut self, position: i64) -> bool {
        let mut any = false;
        for record in &mut self.pending {
            if matches!(record.place, Place::Acked(offset) if offset < position) {
                record.place = Place::Queued;
                any = true;
            }
        }
        any
    }

    /// Acknowledged records do not come back: sends them again.
    pub(super) fn distrust(&mut self) {
        self.passed(i64::MAX);
    }

    /// Whether acknowledged records have yet to be read back.
    pub(super) fn awaits(&self) -> bool {
        self.pending.iter().any(|record| matches!(record.place, Place::Acked(_)))
    }

    /// A valid record of this tenure was read, with the head after it: returns who waits for it.
    pub(super) fn read_back(&mut self, seq: u64, head: Head) -> Result<R, Diverged> {
        let ours = |first: &Pending<R>| first.seq == seq && (seq == 0 || first.head == head);
        if !self.pending.front().is_some_and(ours) {
            return Err(Diverged);
        }
        let record = self.pending.pop_front().ok_or(Diverged)?;
        self.bytes -= record.sealed.len();
        self.committed = Some((seq, head));
        Ok(record.waiter)
    }

    /// Ends the tenure: all who wait.
    pub(super) fn into_waiters(self) -> impl Iterator<Item = R> {
        self.pending.into_iter().map(|record| record.waiter)
    }

    /// The last sealed record's seq, and the head after it.
    fn end(&self) -> Option<(u64, Head)> {
        let committed = self.committed?;
        Some(self.pending.back().map_or(committed, |record| (record.seq, record.head)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::StateKey;

    fn codec() -> Codec {
        Codec::new(&StateKey::new([1; 32]), "t")
    }

    /// An outbox whose claim was read back, with events 1 to `events`.
    fn outbox(events: u64) -> Outbox<u64> {
        let codec = codec();
        let mut outbox = Outbox::claim(&codec, 1, Head::default(), 7, [0; 12], 0);
        assert!(!outbox.won());
        let claim = outbox.next_batch(100, 1000).expect("the claim");
        outbox.acked(100, 0, 1, 0);
        assert_eq!(outbox.read_back(0, Head::default().after(&claim[0])), Ok(0));
        for seq in 1..=events {
            outbox.push(&codec, [seq as u8; 12], Kind::Event, Bytes::from_static(b"x"), seq);
        }
        outbox
    }

    fn heads(outbox: &Outbox<u64>) -> Vec<Head> {
        outbox.pending.iter().map(|record| record.head).collect()
    }

    #[test]
    fn a_batch_holds_what_fits_and_the_next_waits_for_it() {
        let mut outbox = outbox(3);
        let each = outbox.size().1 / 3;
        let records = outbox.next_batch(1, 2 * each).expect("a batch");
        assert_eq!(records.len(), 2);
        assert_eq!(outbox.next_batch(2, 2 * each), None);
        outbox.acked(1, 1, 2, 1);
        let records = outbox.next_batch(2, 1).expect("the rest, however small the limit");
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn a_failed_batch_is_sent_again_with_the_same_bytes() {
        let mut outbox = outbox(3);
        let records = outbox.next_batch(1, 10_000).expect("a batch");
        outbox.failed(1);
        assert_eq!(outbox.next_batch(2, 10_000).expect("again"), records);
    }

    #[test]
    fn what_was_acknowledged_and_passed_without_counting_is_sent_again() {
        let mut outbox = outbox(3);
        let heads = heads(&outbox);
        let records = outbox.next_batch(1, 10_000).expect("a batch");
        outbox.acked(1, 10, 3, 0);
        outbox.passed(10);
        assert_eq!(outbox.next_batch(2, 10_000), None);
        assert_eq!(outbox.read_back(1, heads[0]), Ok(1));
        outbox.passed(11);
        assert_eq!(outbox.next_batch(2, 10_000), None);
        outbox.passed(12);
        assert_eq!(outbox.next_batch(2, 10_000).expect("from the gap on"), records[1..]);
    }

    #[test]
    fn an_acknowledgement_that_comes_after_the_records_were_passed_counts() {
        let mut outbox = outbox(3);
        let heads = heads(&outbox);
        let records = outbox.next_batch(1, 10_000).expect("a batch");
        assert_eq!(outbox.read_back(1, heads[0]), Ok(1));
        // The batch stands at 10, 11, 12; the reader has passed 11 without taking record 2.
        outbox.acked(1, 10, 3, 12);
        assert_eq!(outbox.next_batch(2, 10_000).expect("again"), records[1..]);
    }

    #[test]
    fn read_back_records_do_not_hold_the_next_batch_up() {
        let mut outbox = outbox(2);
        let heads = heads(&outbox);
        let each = outbox.size().1 / 2;
        outbox.next_batch(1, each).expect("a batch");
        assert_eq!(outbox.read_back(1, heads[0]), Ok(1));
        assert!(outbox.next_batch(2, each).is_some());
        outbox.failed(1);
        assert_eq!(outbox.next_batch(2, each), None);
    }

    #[test]
    fn an_acknowledged_record_that_does_not_come_is_sent_again_in_the_end() {
        let mut outbox = outbox(1);
        let records = outbox.next_batch(1, 10_000).expect("a batch");
        outbox.acked(1, 10, 1, 0);
        assert!(outbox.awaits());
        outbox.distrust();
        assert!(!outbox.awaits());
        assert_eq!(outbox.next_batch(2, 10_000).expect("again"), records);
    }

    #[test]
    fn a_cut_takes_the_batch_and_all_behind_it_and_the_chain_goes_on_before_it() {
        let mut outbox = outbox(3);
        let heads = heads(&outbox);
        let each = outbox.size().1 / 3;
        outbox.next_batch(1, each).expect("a batch");
        outbox.acked(1, 1, 1, 1);
        outbox.next_batch(2, each).expect("a batch");
        assert_eq!(outbox.cut(2), [2, 3]);
        assert_eq!(outbox.size(), (1, each));
        outbox.push(&codec(), [9; 12], Kind::Event, Bytes::from_static(b"y"), 22);
        assert_eq!(outbox.read_back(1, heads[0]), Ok(1));
        // The record that was cut lands after all.
        assert_eq!(outbox.read_back(2, heads[1]), Err(Diverged));
        let own = self::heads(&outbox)[0];
        assert_eq!(outbox.read_back(2, own), Ok(22));
        assert_eq!(outbox.read_back(3, own), Err(Diverged));
    }
}
