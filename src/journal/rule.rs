//! Which records count: the one rule that every reader of the journal applies, in log order.
//!
//! - A claim is valid iff its epoch exceeds the current one. The first in log order wins: its epoch and writer are the
//!   current ones.
//! - Any other record is valid iff it has the current epoch and writer, the next seq, and the current head as `prev`.
//! - Everything else is ignored.
//!
//! So duplicates, late copies, other writers and records that overtook each other change nothing, and all readers agree
//! whatever they read and when.
//!
//! # Where a log was cut
//!
//! A snapshot's records are judged as all others. A log is cut, if at all, at the begin of a snapshot that some reader
//! judged valid, and read to its valid end. So the first record of a cut log is such a begin, and nothing else may be:
//!
//! - Its header holds the epoch and writer that were current, its own seq, and as `prev` the head over all before it:
//!   with [`Rule::before`] a reader that starts there is in the state in which the other one judged it. From there on both
//!   judge the same records in the same states, so they agree for ever, and on whether the snapshot is whole.
//! - It is sealed, so nobody without the state key can have written it. A copy of it, or of an older one, further on in
//!   the log is judged like any record, and its seq or epoch is behind. A copy counts only where it stands first, and to
//!   bring it there takes the right to delete all before it, the valid snapshot and the events since: then the journal
//!   was rolled back, which records cannot tell, and a [`Witness`](super::Witness) can.
//! - A first record that is no begin, or a snapshot there that turns out torn, is a log that something else cut: an error.
//!
//! Within an epoch there is one writer, so (epoch, seq) orders all valid records. A witness of a record that was cut away
//! accepts a begin that is behind it in this order, and no other. Of a journal that was rolled back *and* claimed with a
//! higher epoch it can't tell; those who keep their own mark of the head can.
//!
//! Input: [`Rule::judge`] for each record that could be opened; output: the verdict.
//! Pure; knows nothing of payloads.

use super::{
    head::Head,
    record::{Kind, Record},
};

/// What the valid records so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    epoch: u32,
    writer: u128,
    seq: u64,
    head: Head,
}

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A claim that won: its writer has the journal from here on.
    Claimed,
    /// A valid record of the current writer.
    Applied,
    /// It does not count.
    Ignored(Reason),
}

/// Why a record does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A claim whose epoch does not exceed the current one: it lost, or came twice.
    LateClaim,
    /// Not of the current epoch and writer: a writer that was superseded, or never won.
    NotCurrent,
    /// It was there before: a copy.
    Repeated,
    /// One before it is missing.
    Gap,
    /// The right seq after another history.
    Fork,
}

impl Rule {
    /// Nothing was read: no writer, epoch 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Judges the next record of the log, whose bytes were `sealed`.
    pub fn judge(&mut self, record: &Record, sealed: &[u8]) -> Verdict {
        let verdict = self.verdict(record);
        if let Verdict::Claimed | Verdict::Applied = verdict {
            *self = Self { epoch: record.epoch, writer: record.writer, seq: record.seq, head: self.head.after(sealed) };
        }
        verdict
    }

    /// The state of a reader that has read everything before `begin`, so far as `begin` tells; none if it can't be a
    /// snapshot's begin. Judging it comes next. Only for the first record of a log that was cut: see the module.
    pub fn before(begin: &Record) -> Option<Self> {
        let Record { kind, epoch, writer, seq, prev, .. } = begin;
        let is_possible = *kind == Kind::SnapshotBegin && *epoch > 0;
        let seq = seq.checked_sub(1).filter(|_| is_possible)?;
        Some(Self { epoch: *epoch, writer: *writer, seq, head: *prev })
    }

    /// How far the journal is: the epoch of the claim that won last (0 before the first), and the last valid record's
    /// number in it.
    pub fn progress(&self) -> (u32, u64) {
        (self.epoch, self.seq)
    }

    /// The epoch of the claim that won last; 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The hash over all valid records.
    pub fn head(&self) -> Head {
        self.head
    }

    fn verdict(&self, record: &Record) -> Verdict {
        if record.kind == Kind::Claim {
            return if record.epoch > self.epoch { Verdict::Claimed } else { Verdict::Ignored(Reason::LateClaim) };
        }
        // Epoch 0 is nobody's: without a claim there is no current writer.
        if self.epoch == 0 || (record.epoch, record.writer) != (self.epoch, self.writer) {
            return Verdict::Ignored(Reason::NotCurrent);
        }
        if record.seq <= self.seq {
            return Verdict::Ignored(Reason::Repeated);
        }
        if record.seq - self.seq > 1 {
            return Verdict::Ignored(Reason::Gap);
        }
        if record.prev != self.head {
            return Verdict::Ignored(Reason::Fork);
        }
        Verdict::Applied
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use Reason::*;
    use Verdict::*;

    const A: u128 = 0xa;
    const B: u128 = 0xb;

    /// Writes a log by hand; a record's bytes are a number of its own.
    struct Log {
        rule: Rule,
        written: u32,
    }

    impl Log {
        fn new() -> Self {
            Self { rule: Rule::new(), written: 0 }
        }

        fn read(&mut self, kind: Kind, epoch: u32, writer: u128, seq: u64, prev: Head) -> Verdict {
            self.written += 1;
            let sealed = self.written.to_be_bytes();
            self.rule.judge(&Record { kind, epoch, writer, seq, prev, payload: Bytes::new() }, &sealed)
        }

        fn claim(&mut self, epoch: u32, writer: u128) -> Verdict {
            self.read(Kind::Claim, epoch, writer, 0, Head([0xee; 32]))
        }

        fn event(&mut self, epoch: u32, writer: u128, seq: u64) -> Verdict {
            let head = self.rule.head();
            self.read(Kind::Event, epoch, writer, seq, head)
        }
    }

    #[test]
    fn a_claim_counts_iff_its_epoch_exceeds_the_current_one() {
        for (current, claim, expected) in [
            (0, 0, Ignored(LateClaim)),
            (0, 1, Claimed),
            (0, u32::MAX, Claimed),
            (5, 4, Ignored(LateClaim)),
            (5, 5, Ignored(LateClaim)),
            (5, 6, Claimed),
            (5, 9, Claimed),
            (u32::MAX, u32::MAX, Ignored(LateClaim)),
        ] {
            let mut log = Log::new();
            if current > 0 {
                assert_eq!(log.claim(current, A), Claimed);
            }
            let before = log.rule;
            assert_eq!(log.claim(claim, B), expected, "{claim} after {current}");
            let (epoch, writer) = if expected == Claimed { (claim, B) } else { (before.epoch, before.writer) };
            assert_eq!((log.rule.epoch, log.rule.writer), (epoch, writer));
            assert_eq!(log.rule == before, expected != Claimed);
        }
    }

    #[test]
    fn any_other_record_counts_iff_epoch_writer_seq_and_prev_fit() {
        let right = |log: &Log| log.rule.head();
        let wrong = |_: &Log| Head([1; 32]);
        type Prev = fn(&Log) -> Head;
        let table: [(u32, u128, u64, Prev, Verdict); 11] = [
            (2, A, 3, right, Applied),
            (2, A, 3, wrong, Ignored(Fork)),
            (2, A, 2, right, Ignored(Repeated)),
            (2, A, 0, right, Ignored(Repeated)),
            (2, A, 4, right, Ignored(Gap)),
            (2, A, u64::MAX, right, Ignored(Gap)),
            (2, B, 3, right, Ignored(NotCurrent)),
            (1, A, 3, right, Ignored(NotCurrent)),
            (3, A, 3, right, Ignored(NotCurrent)),
            (0, A, 3, right, Ignored(NotCurrent)),
            (1, B, 3, wrong, Ignored(NotCurrent)),
        ];
        for (epoch, writer, seq, prev, expected) in table {
            for kind in [Kind::Event, Kind::SnapshotBegin, Kind::SnapshotPart, Kind::SnapshotEnd, Kind::Other(9)] {
                let mut log = Log::new();
                assert_eq!(log.claim(2, A), Claimed);
                assert_eq!(log.event(2, A, 1), Applied);
                assert_eq!(log.event(2, A, 2), Applied);
                let before = log.rule;
                let prev = prev(&log);
                assert_eq!(log.read(kind, epoch, writer, seq, prev), expected, "{epoch} {writer} {seq} {prev}");
                assert_eq!(log.rule == before, expected != Applied);
            }
        }
    }

    #[test]
    fn a_reader_that_starts_at_a_snapshot_judges_as_one_that_read_all_before() {
        let mut whole = Log::new();
        assert_eq!(whole.claim(4, A), Claimed);
        assert_eq!(whole.event(4, A, 1), Applied);
        let begin = Record {
            kind: Kind::SnapshotBegin,
            epoch: 4,
            writer: A,
            seq: 2,
            prev: whole.rule.head(),
            payload: Bytes::new(),
        };
        let mut cut = Rule::before(&begin).expect("a begin");
        assert_eq!(cut, whole.rule);
        assert_eq!((cut.judge(&begin, b"begin"), whole.rule.judge(&begin, b"begin")), (Applied, Applied));
        assert_eq!(cut, whole.rule);
        assert_eq!(cut.judge(&begin, b"begin"), Ignored(Repeated));
        let impossible = [
            Record { kind: Kind::Event, ..begin.clone() },
            Record { kind: Kind::Claim, ..begin.clone() },
            Record { seq: 0, ..begin.clone() },
            Record { epoch: 0, ..begin },
        ];
        for record in impossible {
            assert_eq!(Rule::before(&record), None, "{record:?}");
        }
    }

    #[test]
    fn without_a_claim_nothing_counts() {
        let mut log = Log::new();
        for (epoch, writer, seq) in [(0, 0, 1), (0, 0, 0), (1, A, 1)] {
            assert_eq!(log.event(epoch, writer, seq), Ignored(NotCurrent));
        }
        assert_eq!(log.rule, Rule::new());
    }

    #[test]
    fn a_writer_that_was_superseded_never_comes_back() {
        let mut log = Log::new();
        assert_eq!(log.claim(1, A), Claimed);
        assert_eq!(log.event(1, A, 1), Applied);
        assert_eq!(log.claim(2, B), Claimed);
        assert_eq!(log.event(1, A, 2), Ignored(NotCurrent));
        assert_eq!(log.claim(1, A), Ignored(LateClaim));
        assert_eq!(log.event(2, B, 1), Applied);
    }

    #[test]
    fn what_stands_before_a_claim_is_part_of_the_head_after_it() {
        let (mut whole, mut cut) = (Log::new(), Log::new());
        assert_eq!((whole.claim(1, A), cut.claim(1, A)), (Claimed, Claimed));
        assert_eq!(whole.event(1, A, 1), Applied);
        // The same claim, in a log that lost the event before it.
        cut.written += 1;
        assert_eq!((whole.claim(2, B), cut.claim(2, B)), (Claimed, Claimed));
        let prev = whole.rule.head();
        assert_eq!(whole.read(Kind::Event, 2, B, 1, prev), Applied);
        assert_eq!(cut.read(Kind::Event, 2, B, 1, prev), Ignored(Fork));
    }
}
