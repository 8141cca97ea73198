use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::journal::{
    head::Head,
    snapshot::{Part, encode_begin},
};

/// A log of valid records, and what a reader that read them all folded.
#[derive(Default)]
struct Log {
    records: Vec<Record>,
    epoch: u32,
    seq: u64,
}

impl Log {
    fn push(&mut self, kind: Kind, payload: Bytes) -> &Record {
        (self.epoch, self.seq) = if kind == Kind::Claim { (self.epoch + 1, 0) } else { (self.epoch, self.seq + 1) };
        let (epoch, seq, writer, prev) = (self.epoch, self.seq, 1, Head::default());
        self.records.push(Record { kind, epoch, writer, seq, prev, payload });
        self.records.last().expect("pushed")
    }

    fn claim(&mut self) {
        self.push(Kind::Claim, Bytes::new());
    }

    fn event(&mut self, payload: &str) {
        self.push(Kind::Event, payload.to_owned().into());
    }

    fn begin(&mut self, founding: bool) -> u64 {
        self.push(Kind::SnapshotBegin, encode_begin(founding)).seq
    }

    fn part(&mut self, payloads: &[&str]) {
        let mut part = Part::default();
        for payload in payloads {
            assert_eq!(part.push(payload.as_bytes(), 1000), None);
        }
        self.push(Kind::SnapshotPart, part.finish().unwrap_or_default());
    }

    fn end(&mut self, begin: u64, parts: u64) {
        self.push(Kind::SnapshotEnd, End { begin, parts }.encode());
    }
}

/// A reader of a log from `start` on.
struct Reader {
    feed: Feed,
    state: Vec<String>,
    begun: usize,
}

impl Reader {
    fn new() -> Self {
        Self { feed: Feed::new("t"), state: Vec::new(), begun: 0 }
    }

    /// Reads `records`, the first of them at `start`; of a log that was cut, unless that is 0.
    fn read(&mut self, records: &[Record], start: usize, mine: bool) -> Result<(), Error> {
        for (record, offset) in records.iter().zip(start..) {
            self.read_one(record, offset, mine, start > 0 && offset == start)?;
        }
        Ok(())
    }

    fn read_one(&mut self, record: &Record, offset: usize, mine: bool, is_anchor: bool) -> Result<(), Error> {
        let valid = Valid { record: record.clone(), head: Head::default(), is_anchor };
        self.feed.read(&valid, offset as i64, mine)?;
        while let Some(committed) = self.feed.next() {
            self.apply(committed);
        }
        Ok(())
    }

    fn apply(&mut self, committed: Committed) {
        let text = |payload: &Bytes| String::from_utf8(payload.to_vec()).expect("text");
        match committed {
            Committed::Event { payload, .. } | Committed::Restored { payload } => self.state.push(text(&payload)),
            Committed::Restore(_) => self.state.clear(),
            Committed::SnapshotBegun(_) => self.begun += 1,
            _ => {}
        }
    }
}

fn fold(log: &Log, start: usize, mine: bool) -> Result<(Vec<String>, Option<Snapshot>), Error> {
    let mut reader = Reader::new();
    reader.read(&log.records[start..], start, mine)?;
    Ok((reader.state, reader.feed.whole()))
}

/// A log with a snapshot whose parts are `c d`, and events around and in it.
fn example(founding: bool, ends: impl FnOnce(&mut Log, u64)) -> Log {
    let mut log = Log::default();
    log.claim();
    log.event("a");
    let begin = log.begin(founding);
    log.part(&["c"]);
    log.event("x");
    log.part(&["d"]);
    ends(&mut log, begin);
    log.event("z");
    log
}

const BEGIN: usize = 2;

#[test]
fn a_whole_snapshot_is_skipped_or_taken_and_the_events_in_it_come_behind_it() {
    let log = example(false, |log, begin| log.end(begin, 2));
    let at = Snapshot { epoch: 1, seq: 2, offset: BEGIN as i64 };
    assert_eq!(fold(&log, 0, false).expect("read"), (vec!["a".into(), "x".into(), "z".into()], Some(at)));
    assert_eq!(fold(&log, 0, true).expect("read"), (vec!["a".into(), "x".into(), "z".into()], Some(at)));
    let taken = ["c", "d", "x", "z"].map(String::from).to_vec();
    assert_eq!(fold(&log, BEGIN, false).expect("read"), (taken, Some(at)));
}

#[test]
fn a_snapshot_is_torn_by_a_claim_another_begin_or_an_end_that_does_not_fit() {
    type Ends = fn(&mut Log, u64);
    let torn: [Ends; 6] = [
        |log, _| log.claim(),
        |log, begin| {
            log.claim();
            log.end(begin, 2);
        },
        |log, _| {
            log.begin(false);
        },
        |log, begin| {
            log.begin(false);
            log.end(begin, 2);
        },
        |log, begin| log.end(begin, 1),
        |log, begin| log.end(begin + 1, 2),
    ];
    for (case, ends) in torn.into_iter().enumerate() {
        let log = example(false, ends);
        let (state, whole) = fold(&log, 0, false).expect("read");
        assert_eq!((state, whole), (vec!["a".into(), "x".into(), "z".into()], None), "case {case}");
        let error = fold(&log, BEGIN, false).expect_err("nobody cuts there");
        assert!(matches!(error, Error::Truncated { start, .. } if start == BEGIN as i64), "case {case}: {error}");
        // A founding one takes with it what was before it, and nothing else.
        let log = example(true, ends);
        assert_eq!(fold(&log, 0, false).expect("read"), (vec!["x".into(), "z".into()], None), "case {case}");
    }
}

#[test]
fn a_founding_snapshot_replaces_the_state_of_all_but_its_writer() {
    let log = example(true, |log, begin| log.end(begin, 2));
    let taken = ["c", "d", "x", "z"].map(String::from).to_vec();
    for start in [0, BEGIN] {
        assert_eq!(fold(&log, start, false).expect("read").0, taken);
    }
    assert_eq!(fold(&log, 0, true).expect("read").0, ["a", "x", "z"]);
}

#[test]
fn a_founder_that_others_supersede_before_it_is_done_is_told_however_its_snapshot_was_torn() {
    let torn: [fn(&mut Log, u64); 2] = [|_, _| (), |log, begin| log.end(begin, 9)];
    for ends in torn {
        let mut log = example(true, ends);
        let mut founder = Reader::new();
        founder.read(&log.records, 0, true).expect("read");
        assert!(!founder.feed.is_founded());
        let read = log.records.len();
        log.claim();
        assert!(matches!(founder.read(&log.records[read..], 0, false), Err(Error::Superseded { by: 2 })));
    }
    let mut log = example(true, |log, begin| log.end(begin, 2));
    let mut founder = Reader::new();
    founder.read(&log.records, 0, true).expect("read");
    assert!(founder.feed.is_founded());
    let read = log.records.len();
    log.claim();
    founder.read(&log.records[read..], 0, false).expect("all others have its state");
}

#[test]
fn a_snapshot_with_too_many_events_in_it_is_torn() {
    let mut log = Log::default();
    log.claim();
    log.event("a");
    let begin = log.begin(false);
    let each = 1 << 20;
    let payload = Bytes::from(vec![b'x'; each - EACH]);
    for _ in 0..BESIDE_BYTES / each {
        log.push(Kind::Event, payload.clone());
    }
    let mut fits = Log { records: log.records.clone(), ..log };
    fits.end(begin, 0);
    assert!(fold(&fits, 0, false).expect("read").1.is_some());
    assert_eq!(fold(&fits, BEGIN, false).expect("read").0.len(), BESIDE_BYTES / each);
    log.event("");
    log.end(begin, 0);
    assert_eq!(fold(&log, 0, false).expect("read").1, None);
    assert!(matches!(fold(&log, BEGIN, false), Err(Error::Truncated { .. })));
}

#[test]
fn the_growth_counts_from_the_begin_and_without_the_parts() {
    let log = example(false, |log, begin| log.end(begin, 2));
    let mut reader = Reader::new();
    reader.read(&log.records[..BEGIN], 0, false).expect("read");
    assert_eq!(reader.feed.growth(), Growth { records: 2, bytes: 2 * OVERHEAD as u64 + 1 });
    reader.read(&log.records[BEGIN..], 0, false).expect("read");
    reader.feed.ignored(10);
    let since = Growth { records: 4, bytes: 3 * OVERHEAD as u64 + 3 + 10 };
    assert_eq!(reader.feed.growth(), since, "the begin, x, z, and what does not count");
}

#[test]
fn a_snapshots_records_of_another_form_are_an_error() {
    for kind in [Kind::SnapshotBegin, Kind::SnapshotEnd, Kind::Other(9)] {
        let mut log = Log::default();
        log.claim();
        log.push(kind, Bytes::from_static(b"other"));
        assert!(matches!(fold(&log, 0, false), Err(Error::Newer { offset: 1, .. })), "{kind:?}");
    }
    let mut log = Log::default();
    log.claim();
    log.event("a");
    log.begin(false);
    log.push(Kind::SnapshotPart, Bytes::from_static(b"other"));
    assert!(matches!(fold(&log, BEGIN, false), Err(Error::Newer { offset: 3, .. })));
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Claim,
    Event,
    Begin { founding: bool },
    Part,
    End { early: bool },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => Just(Op::Claim),
        4 => Just(Op::Event),
        3 => prop::bool::weighted(0.3).prop_map(|founding| Op::Begin { founding }),
        8 => Just(Op::Part),
        3 => prop::bool::weighted(0.2).prop_map(|early| Op::End { early }),
    ]
}

/// Does what a leader does that has the state of all other readers.
fn write(ops: &[Op]) -> (Log, Reader, Vec<Snapshot>) {
    let (mut log, mut reader, mut wholes) = (Log::default(), Reader::new(), Vec::new());
    let (mut begin, mut parts, mut left, mut read) = (0, 0, VecDeque::<String>::new(), 0);
    log.claim();
    for (number, op) in ops.iter().enumerate() {
        match *op {
            Op::Claim => log.claim(),
            Op::Event => log.event(&format!("e{number}")),
            Op::Begin { founding } => (begin, parts) = (log.begin(founding), 0),
            Op::Part => {
                let Some(payload) = left.pop_front() else { continue };
                log.part(&[&payload]);
                parts += 1;
            }
            Op::End { early } if early || left.is_empty() => log.end(begin, parts + left.len() as u64),
            Op::End { .. } => continue,
        }
        let before = reader.feed.whole();
        while read < log.records.len() {
            reader.read_one(&log.records[read], read, false, false).expect("read");
            read += 1;
        }
        if let Op::Begin { founding } = *op {
            left = if founding { [format!("f{number}")].into() } else { reader.state.clone().into() };
        }
        if reader.feed.whole() != before {
            wholes.extend(reader.feed.whole());
        }
    }
    (log, reader, wholes)
}

proptest! {
    #[test]
    fn wherever_a_log_is_cut_at_a_whole_snapshot_its_readers_fold_the_same(ops in prop::collection::vec(op(), 1..80)) {
        let (log, reader, wholes) = write(&ops);
        prop_assert_eq!(&fold(&log, 0, false).expect("read").0, &reader.state);
        for whole in wholes {
            let (state, _) = fold(&log, whole.offset as usize, false).expect("read");
            prop_assert_eq!(&state, &reader.state, "cut at {}", whole.offset);
        }
    }
}
