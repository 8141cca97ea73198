//! What is known of the idempotent producers of one partition: which sequence numbers came, and where they lie.
//!
//! Pure: `check` decides, `record` remembers, both on numbers alone. The state is a function of the log, so that a
//! restart rebuilds it from the batches' headers.

use super::batch::Header;
use std::collections::{BTreeMap, VecDeque};

/// As many batches as a client may have in flight; a repeat of one of them is recognised.
const REMEMBERED: usize = 5;
/// A producer that was silent for this long is forgotten (Kafka's `producer.id.expiration.ms`).
const EXPIRY_MS: i64 = 24 * 3600 * 1000;
/// More producers than this in one partition push out the longest silent one, which bounds the memory.
const MOST: usize = 10_000;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// New: append it.
    Append,
    /// Appended before, at this offset and time: acknowledge it again, append nothing.
    Duplicate { base_offset: i64, timestamp: i64 },
    /// A gap or a step back.
    OutOfOrder,
    /// A newer instance of the producer has written since.
    Fenced,
}

#[derive(Debug, Clone, Copy)]
struct Appended {
    first: i32,
    last: i32,
    base_offset: i64,
    timestamp: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Appended>,
    seen_ms: i64,
}

/// The producers of one partition, by their id.
#[derive(Debug, Default)]
pub(crate) struct Producers(BTreeMap<i64, Producer>);

impl Producers {
    /// Decides about a batch before it is appended. Batches without a producer id always pass.
    pub fn check(&self, header: &Header) -> Verdict {
        if header.producer_id < 0 {
            return Verdict::Append;
        }
        // An unknown producer may start anywhere: retention may have taken what was known of it.
        let Some(known) = self.0.get(&header.producer_id) else { return Verdict::Append };
        if header.producer_epoch < known.epoch {
            return Verdict::Fenced;
        }
        if header.producer_epoch > known.epoch {
            return if header.base_sequence == 0 { Verdict::Append } else { Verdict::OutOfOrder };
        }
        let last = last_sequence(header);
        let repeat = known.batches.iter().find(|b| b.first == header.base_sequence && b.last == last);
        if let Some(repeat) = repeat {
            return Verdict::Duplicate { base_offset: repeat.base_offset, timestamp: repeat.timestamp };
        }
        match known.batches.back() {
            Some(newest) if header.base_sequence != increment(newest.last, 1) => Verdict::OutOfOrder,
            _ => Verdict::Append,
        }
    }

    /// Remembers a batch that was appended (or found in the log), at broker time `now_ms`.
    pub fn record(&mut self, header: &Header, now_ms: i64) {
        if header.producer_id < 0 {
            return;
        }
        let producer = self.0.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::with_capacity(REMEMBERED),
            seen_ms: now_ms,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Appended {
            first: header.base_sequence,
            last: last_sequence(header),
            base_offset: header.base_offset,
            timestamp: header.max_timestamp,
        });
        producer.seen_ms = producer.seen_ms.max(now_ms);
        if self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, p)| p.seen_ms).map(|(id, _)| *id);
            oldest.map(|id| self.0.remove(&id));
        }
    }

    /// Forgets the producers that have been silent for a day.
    pub fn expire(&mut self, now_ms: i64) {
        self.0.retain(|_, p| now_ms.saturating_sub(p.seen_ms) < EXPIRY_MS);
    }
}

fn last_sequence(header: &Header) -> i32 {
    increment(header.base_sequence, header.last_offset_delta)
}

/// Sequence numbers go on at 0 after the largest.
fn increment(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    i32::try_from(sum).unwrap_or_else(|_| (sum - i64::from(i32::MAX) - 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Incoming, tests::produced};
    use super::*;

    fn header(id: i64, epoch: i16, sequence: i32, offset: i64) -> Header {
        let batch = produced(&[b"a", b"b"], 5, Some((id, epoch, sequence)));
        Incoming::check(&batch, None).unwrap().place(offset).0
    }

    #[test]
    fn a_repeat_is_acknowledged_with_its_first_offset() {
        let mut producers = Producers::default();
        for round in 0..7 {
            let batch = header(1, 0, round * 2, 100 + i64::from(round) * 2);
            assert_eq!(producers.check(&batch), Verdict::Append);
            producers.record(&batch, 0);
        }
        let again = header(1, 0, 4, 0);
        assert_eq!(producers.check(&again), Verdict::Duplicate { base_offset: 104, timestamp: 6 });
        assert_eq!(producers.check(&header(1, 0, 0, 0)), Verdict::OutOfOrder, "older than what is remembered");
        assert_eq!(producers.check(&header(1, 0, 16, 0)), Verdict::OutOfOrder, "a gap");
        assert_eq!(producers.check(&header(1, 0, 14, 0)), Verdict::Append);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        let mut producers = Producers::default();
        producers.record(&header(1, 3, 0, 0), 0);
        assert_eq!(producers.check(&header(1, 4, 2, 0)), Verdict::OutOfOrder);
        assert_eq!(producers.check(&header(1, 4, 0, 0)), Verdict::Append);
        assert_eq!(producers.check(&header(1, 2, 2, 0)), Verdict::Fenced);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut producers = Producers::default();
        producers.record(&header(1, 0, i32::MAX - 1, 0), 0);
        assert_eq!(producers.check(&header(1, 0, 0, 0)), Verdict::Append);
        producers.record(&header(2, 0, i32::MAX, 0), 0);
        assert_eq!(producers.check(&header(2, 0, 1, 0)), Verdict::Append);
    }

    #[test]
    fn silent_producers_are_forgotten() {
        let mut producers = Producers::default();
        producers.record(&header(1, 0, 0, 0), 0);
        producers.expire(EXPIRY_MS);
        assert_eq!(producers.check(&header(1, 0, 50, 0)), Verdict::Append);
    }
}
