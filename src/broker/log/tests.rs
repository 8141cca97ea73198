//! Partitions on a real file system: what a crash leaves, what retention takes, what a reader finds.

use super::batch::Header;
use super::batch::tests::produced;
use super::partition::{AppendError, DeleteError, Extent, Partition, Read};
use crate::broker::settings::Settings;
use crate::broker::settings::tests::settings;
use bytes::Bytes;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const NOW: i64 = 1_700_000_000_000;

struct Log {
    directory: tempfile::TempDir,
    partition: Partition,
    settings: Settings,
}

impl Log {
    fn new(given: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let partition = Partition::open(directory.path().to_owned(), 0, NOW).unwrap();
        Self { directory, partition, settings: settings(given) }
    }

    fn reopen(self) -> Self {
        let Self { directory, partition, settings } = self;
        drop(partition);
        let partition = Partition::open(directory.path().to_owned(), 0, NOW).unwrap();
        Self { directory, partition, settings }
    }

    fn append(&self, values: &[&[u8]]) -> i64 {
        self.append_at(values, NOW)
    }

    fn append_at(&self, values: &[&[u8]], time: i64) -> i64 {
        self.partition.append(&produced(values, time, None), &self.settings, time).unwrap().base_offset
    }

    fn extent(&self) -> (i64, i64) {
        let Extent { log_start, next_offset } = self.partition.extent();
        (log_start, next_offset)
    }

    fn read(&self, offset: i64, most: usize) -> Bytes {
        match self.partition.read(offset, most, true) {
            Read::Ready(bytes) => bytes,
            Read::OnDisk { snapshot, position } => snapshot.read(position, offset, most, true).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn segments(&self) -> Vec<PathBuf> {
        files(self.directory.path(), "log")
    }
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

/// Offsets of the batches in an answer.
fn offsets(mut bytes: &[u8]) -> Vec<i64> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let header = Header::read_checked(bytes).unwrap();
        found.push(header.base_offset);
        bytes = &bytes[header.size..];
    }
    found
}

#[test]
fn records_are_read_from_the_batch_that_holds_the_offset() {
    let log = Log::new(&[]);
    for n in 0..1000u32 {
        assert_eq!(log.append(&[&n.to_be_bytes(), &[0; 100]]), i64::from(n) * 2);
    }
    for offset in [0, 1, 2, 777, 1500, 1998, 1999] {
        let found = offsets(&log.read(offset, 2_000));
        assert_eq!(found[0], offset / 2 * 2);
        assert!(found.is_sorted_by(|a, b| a + 2 == *b));
    }
    assert!(log.read(2000, 1000).is_empty(), "the log's end");
    assert!(matches!(log.partition.read(2001, 1000, true), Read::OutOfRange));
    assert!(matches!(log.partition.read(-1, 1000, true), Read::OutOfRange));
}

#[test]
fn a_batch_above_the_limit_comes_alone_or_not_at_all() {
    let log = Log::new(&[]);
    log.append(&[b"small"]);
    log.append(&[&[7; 200_000]]);
    log.append(&[b"small"]);
    log.append(&[b"small"]);
    assert_eq!(offsets(&log.read(1, 1000)), [1]);
    assert_eq!(offsets(&log.read(0, 1000)), [0]);
    assert_eq!(offsets(&log.read(2, 1000)), [2, 3]);
    assert_eq!(offsets(&log.read(0, 1 << 20)), [0, 1, 2, 3]);
    match log.partition.read(1, 1000, false) {
        Read::OnDisk { snapshot, position } => assert!(snapshot.read(position, 1, 1000, false).unwrap().is_empty()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_crash_left_half_written_is_cut_and_nothing_else() {
    let log = Log::new(&[("segment.bytes", "1000")]);
    for _ in 0..50 {
        log.append(&[&[1; 150]]);
    }
    let last = log.segments().pop().unwrap();
    let half = produced(&[&[9; 5000]], NOW, None);
    let mut torn = std::fs::read(&last).unwrap();
    let whole = torn.len();
    torn.extend_from_slice(&half[..half.len() / 2]);
    std::fs::write(&last, &torn).unwrap();
    let log = log.reopen();
    assert_eq!(log.extent(), (0, 50));
    assert_eq!(std::fs::read(&last).unwrap().len(), whole);
    assert_eq!(log.append(&[b"next"]), 50);
}

#[test]
fn segments_beyond_damage_are_set_aside_not_deleted() {
    let log = Log::new(&[("segment.bytes", "1000")]);
    for _ in 0..50 {
        log.append(&[&[1; 150]]);
    }
    let segments = log.segments();
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    bytes[400] ^= 1;
    std::fs::write(&segments[1], bytes).unwrap();
    let log = log.reopen();
    assert!(log.extent().1 < 10);
    assert_eq!(files(log.directory.path(), "aside").len(), segments.len() - 2);
    log.append(&[b"goes on"]);
}

#[test]
fn an_empty_log_keeps_its_end_across_a_restart() {
    let log = Log::new(&[("retention.ms", "1000"), ("segment.bytes", "1000")]);
    for _ in 0..20 {
        log.append(&[&[1; 150]]);
    }
    log.partition.retain(&log.settings, NOW + 5_000).unwrap();
    assert_eq!(log.extent(), (20, 20));
    assert_eq!(log.segments().len(), 1);
    let log = log.reopen();
    assert_eq!(log.extent(), (20, 20));
    assert_eq!(log.append(&[b"next"]), 20);
}

#[test]
fn retention_by_size_drops_the_oldest_segments_only() {
    let log = Log::new(&[("retention.bytes", "3000"), ("segment.bytes", "1000")]);
    for _ in 0..50 {
        log.append(&[&[1; 150]]);
    }
    assert!(log.partition.retain(&log.settings, NOW).unwrap() > 0);
    let kept: u64 = log.segments().iter().map(|s| s.metadata().unwrap().len()).sum();
    assert!((3000..4000).contains(&kept), "{kept}");
    assert_eq!(log.extent().1, 50);
    assert!(log.extent().0 > 20);
    assert!(matches!(log.partition.read(0, 1000, true), Read::OutOfRange));
}

#[test]
fn retention_by_time_spares_what_is_young() {
    let log = Log::new(&[("retention.ms", "60000"), ("segment.ms", "10000")]);
    for second in 0..100 {
        log.append_at(&[b"tick"], NOW + second * 1000);
    }
    log.partition.retain(&log.settings, NOW + 100_000).unwrap();
    let (start, end) = log.extent();
    assert_eq!(end, 100);
    assert!((30..=40).contains(&start), "{start}");
}

#[test]
fn an_old_segment_is_rolled_even_if_nothing_is_appended() {
    let log = Log::new(&[("retention.ms", "-1"), ("segment.ms", "1000")]);
    log.append(&[b"one"]);
    log.partition.retain(&log.settings, NOW + 2_000).unwrap();
    assert_eq!(log.segments().len(), 2);
    log.partition.retain(&log.settings, NOW + 9_000).unwrap();
    assert_eq!(log.segments().len(), 2, "an empty segment does not age");
}

#[test]
fn deleted_records_stay_deleted() {
    let log = Log::new(&[("segment.bytes", "1000")]);
    for _ in 0..50 {
        log.append(&[&[1; 150]]);
    }
    let before = log.segments().len();
    assert_eq!(log.partition.delete_before(33).unwrap(), 33);
    assert!(log.segments().len() < before);
    assert_eq!(log.partition.delete_before(5).unwrap(), 33, "never back");
    assert!(matches!(log.partition.delete_before(51), Err(DeleteError::OutOfRange)));
    let log = log.reopen();
    assert_eq!(log.extent(), (33, 50));
    assert!(matches!(log.partition.read(32, 1000, true), Read::OutOfRange));
    assert_eq!(log.partition.delete_before(-1).unwrap(), 50);
    assert_eq!(log.reopen().extent(), (50, 50));
}

#[test]
fn offsets_are_found_by_time() {
    let log = Log::new(&[("segment.bytes", "1000")]);
    for n in 0..100 {
        log.append_at(&[b"a", b"b", b"c"], NOW + n * 1000);
    }
    let find = |time| log.partition.find_timestamp(time).unwrap();
    assert_eq!(find(0), Some((0, NOW)));
    assert_eq!(find(NOW + 50_001), Some((151, NOW + 50_001)), "within a batch");
    assert_eq!(find(NOW + 50_003), Some((153, NOW + 51_000)), "between batches");
    assert_eq!(find(NOW + 200_000), None);
    assert_eq!(log.partition.find_max_timestamp().unwrap(), Some((299, NOW + 99_002)));
    log.partition.delete_before(200).unwrap();
    assert_eq!(find(0).unwrap().0, 200);
}

#[test]
fn the_brokers_time_replaces_the_producers() {
    let log = Log::new(&[("message.timestamp.type", "LogAppendTime")]);
    let appended = log.partition.append(&produced(&[b"x"], 5, None), &log.settings, NOW).unwrap();
    assert_eq!(appended.append_time, NOW);
    let header = Header::read_checked(&log.read(0, 1000)).unwrap();
    assert_eq!((header.max_timestamp, header.is_log_append_time()), (NOW, true));
    assert_eq!(log.partition.find_timestamp(NOW).unwrap(), Some((0, NOW)));
}

#[test]
fn a_producers_time_may_not_be_far_ahead() {
    let log = Log::new(&[]);
    let append = |time| log.partition.append(&produced(&[b"x"], time, None), &log.settings, NOW);
    assert!(append(NOW + 3_599_000).is_ok());
    assert!(matches!(append(NOW + 3_601_000), Err(AppendError::Timestamp(_))));
    assert!(append(0).is_ok(), "the past is allowed");
}

#[test]
fn producers_are_known_again_after_a_restart() {
    let log = Log::new(&[("segment.bytes", "500")]);
    let batch = |sequence| produced(&[b"x"], NOW, Some((7, 0, sequence)));
    for sequence in 0..20 {
        log.partition.append(&batch(sequence), &log.settings, NOW).unwrap();
    }
    let log = log.reopen();
    let repeated = log.partition.append(&batch(18), &log.settings, NOW).unwrap();
    assert_eq!((repeated.base_offset, repeated.file.is_none()), (18, true));
    let gap = log.partition.append(&batch(21), &log.settings, NOW);
    assert!(matches!(gap, Err(AppendError::OutOfOrder)));
    assert_eq!(log.partition.append(&batch(20), &log.settings, NOW).unwrap().base_offset, 20);
}

#[test]
fn transactions_are_refused() {
    let log = Log::new(&[]);
    let mut batch = produced(&[b"x"], NOW, Some((7, 0, 0)));
    batch[22] |= 0x10;
    let sum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&sum.to_be_bytes());
    assert!(matches!(log.partition.append(&batch, &log.settings, NOW), Err(AppendError::Transactional)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to the end of the last file, what lies before the damage is there after a restart.
    #[test]
    fn damage_costs_only_what_it_hit(at in 0.0f64..1.0, garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
        let log = Log::new(&[]);
        let mut ends = vec![0];
        for n in 0..20u8 {
            log.append(&[&vec![n; usize::from(n) * 10]]);
            ends.push(std::fs::metadata(&log.segments()[0]).unwrap().len());
        }
        let path = log.segments()[0].clone();
        let mut bytes = std::fs::read(&path).unwrap();
        let cut = (at * bytes.len() as f64) as usize;
        bytes.truncate(cut);
        bytes.extend_from_slice(&garbage);
        std::fs::write(&path, &bytes).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut as u64).count() as i64 - 1;
        let log = log.reopen();
        prop_assert_eq!(log.extent(), (0, whole));
        prop_assert_eq!(log.append(&[b"next"]), whole);
        prop_assert_eq!(log.reopen().extent(), (0, whole + 1));
    }
}
