//! What becomes of bytes on their way, and what readers make of what Kafka and others do to a log.

use super::*;
use crate::kafka::{Cluster, Record};

#[tokio::test(start_paused = true)]
async fn what_is_shipped_is_read_with_its_times_and_ends() {
    for format in [Format::Sealed, Format::Open] {
        let cluster = FaultyCluster::new(&cluster(), Faults::default(), 1);
        let mut shipper = ship(&cluster, Acked::default(), Config { format, ..Config::default() }).await;
        let mut reader = read(&cluster, Options::default()).await;
        within(shipper.ship(Stream::Stdout, 0, 10, b"one\n")).await.expect("taken");
        assert_eq!(
            within(reader.next()).await.expect("readable"),
            Some(Event::Chunk { stream: Stream::Stdout, offset: 0, time: 10, bytes: "one\n".into() })
        );
        within(shipper.ship(Stream::Stderr, 0, 11, b"two\n")).await.expect("taken");
        within(shipper.ship(Stream::System, 0, 12, b"agent\n")).await.expect("taken");
        let streams = [b"one\n".to_vec(), b"two\n".to_vec(), b"agent\n".to_vec()];
        let acked = within(shipper.finish(ends(&streams))).await.expect("finished");
        assert_eq!(acked.positions, Positions([4, 4, 6]));
        let events = rest(&mut reader).await;
        assert_eq!(text(&events, Stream::Stderr), "two\n<Matches>");
        assert_eq!(text(&events, Stream::System), "agent\n<Matches>");
        assert_eq!(text(&events, Stream::Stdout), "<Matches>");
        assert_eq!((reader.is_done(), reader.forged(), reader.counts()), (true, 0, Counts::default()));
    }
}

#[tokio::test(start_paused = true)]
async fn in_the_open_format_any_consumer_reads_the_bytes_and_in_the_sealed_none() {
    for (format, visible) in [(Format::Open, true), (Format::Sealed, false)] {
        let memory = cluster();
        let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
        let mut shipper = ship(&cluster, Acked::default(), Config { format, ..Config::default() }).await;
        within(shipper.ship(Stream::Stdout, 0, 10, b"plain to see")).await.expect("taken");
        within(shipper.flush()).await.expect("flushed");
        let fetched = within(memory.reader(TOPIC, 0).fetch(0, 1000, LONG)).await.expect("fetched");
        let [(0, record)] = &fetched.records[..] else { panic!("{fetched:?}") };
        assert_eq!((&record.key[..], record.value == b"plain to see"[..]), (&b"job-1"[..], visible));
        assert_eq!(record.value.windows(5).any(|bytes| bytes == b"plain"), visible);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_cluster_that_stands_still_is_bounded() {
    let cluster = FaultyCluster::new(&cluster(), Faults::default(), 1);
    let config = Config { max_record: 1000, max_batch: 5000, ..Config::default() };
    let mut shipper = ship(&cluster, Acked::default(), config).await;
    cluster.stop();
    let mut taken = 0;
    while let Ok(shipped) = timeout(Duration::from_secs(1), shipper.ship(Stream::Stdout, taken, 0, &[7; 700])).await {
        shipped.expect("taken");
        taken += 700;
    }
    assert!((7_000..40_000).contains(&taken), "{taken}");
    assert_eq!(shipper.acked(), Acked::default());
    cluster.go_on();
    // What was dropped half way is given again.
    within(shipper.ship(Stream::Stdout, taken, 0, &[7; 700])).await.expect("taken");
    let acked = within(shipper.flush()).await.expect("flushed");
    assert_eq!(acked.positions, Positions([taken + 700, 0, 0]));
    let events = rest(&mut read(&cluster, to_present()).await).await;
    assert_eq!(text(&events, Stream::Stdout).len() as u64, taken + 700);
}

#[tokio::test(start_paused = true)]
async fn a_slow_cluster_gets_fewer_and_larger_batches() {
    let faults = Faults { delay: Duration::from_millis(50), ..Faults::default() };
    let cluster = FaultyCluster::new(&cluster(), faults, 1);
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    for line in 0..2000_u64 {
        within(shipper.ship(Stream::Stdout, line * 5, line as i64, b"line\n")).await.expect("taken");
        if line % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    within(shipper.flush()).await.expect("flushed");
    assert!(cluster.produces() < 10, "{}", cluster.produces());
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_ends_the_shipper_and_a_large_batch_is_split() {
    let cluster = FaultyCluster::new(&cluster(), Faults { max_batch: Some(1500), ..Faults::default() }, 1);
    let config = Config { max_record: 1000, ..Config::default() };
    let mut shipper = ship(&cluster, Acked::default(), config).await;
    within(shipper.ship(Stream::Stdout, 0, 0, &[7; 10_000])).await.expect("taken");
    assert_eq!(within(shipper.flush()).await.expect("flushed").positions, Positions([10_000, 0, 0]));
    let error = within(shipper.ship(Stream::Stdout, 10_001, 0, b"x")).await.expect_err("a hole");
    assert!(matches!(error, Error::OutOfOrder { taken: 10_000, .. }), "{error}");
    let error = within(shipper.finish(ends(&Default::default()))).await.expect_err("another length");
    assert!(matches!(error, Error::Length { taken: 10_000, .. }), "{error}");
    cluster.deny(true);
    within(shipper.ship(Stream::Stdout, 10_000, 0, b"x")).await.expect("taken");
    let error = within(shipper.flush()).await.expect_err("no right");
    assert!(matches!(error, Error::Kafka(kafka::Error::Authorization { .. })), "{error}");
    assert!(within(shipper.ship(Stream::Stdout, 10_001, 0, b"x")).await.is_err());
    assert_eq!(shipper.acked().positions, Positions([10_000, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn a_shipper_that_starts_again_leaves_no_trace_in_what_is_read() {
    let cluster = FaultyCluster::new(&cluster(), Faults::default(), 1);
    let config = Config { max_record: 4, ..Config::default() };
    let mut first = ship(&cluster, Acked::default(), config.clone()).await;
    within(first.ship(Stream::Stdout, 0, 0, b"0123456789")).await.expect("taken");
    within(first.flush()).await.expect("flushed");
    drop(first);
    let start = Acked { positions: Positions([3, 0, 0]), ..Acked::default() };
    let mut second = ship(&cluster, start, Config { max_record: 5, ..config }).await;
    within(second.ship(Stream::Stdout, 3, 0, b"3456789abc")).await.expect("taken");
    within(second.finish(ends(&[b"0123456789abc".to_vec(), vec![], vec![]]))).await.expect("finished");
    let mut reader = read(&cluster, Options::default()).await;
    assert_eq!(text(&rest(&mut reader).await, Stream::Stdout), "0123456789abc<Matches>");
    assert_eq!(reader.counts(), Counts { repeated: 7, differing: 0 });
}

#[tokio::test(start_paused = true)]
async fn forged_records_are_refused_and_counted_and_others_are_passed_over() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"right")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    // Somebody with Kafka rights, and a key of their own, under this job's id.
    let stolen = JobKey::new("job-1").expect("fits");
    let key = JobSecret::new([8; 32]).attempt(&stolen, 1);
    let mut forger =
        ship_as(&cluster.shared(), Attempt::new(stolen, 1, &key), Acked::default(), Config::default()).await;
    within(forger.ship(Stream::Stdout, 0, 0, b"wrong and longer")).await.expect("taken");
    within(forger.flush()).await.expect("flushed");
    memory.append(TOPIC, 0, vec![Record::new("job-1", "garbage"), Record::new("", "")]).expect("appended");
    // Another attempt, and another job.
    for attempt in [attempt_of("job-1", 2), attempt_of("job-2", 1)] {
        let mut other = ship_as(&cluster.shared(), attempt, Acked::default(), Config::default()).await;
        within(other.ship(Stream::Stdout, 0, 0, b"not this one")).await.expect("taken");
        within(other.flush()).await.expect("flushed");
    }
    within(shipper.finish(ends(&[b"right".to_vec(), vec![], vec![]]))).await.expect("finished");
    let mut reader = read(&cluster, Options::default()).await;
    assert_eq!(text(&rest(&mut reader).await, Stream::Stdout), "right<Matches>");
    assert_eq!((reader.forged(), reader.counts()), (2, Counts::default()));
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_that_differ_the_first_in_the_log_wins() {
    let cluster = FaultyCluster::new(&cluster(), Faults::default(), 1);
    for bytes in [b"first....", b"second..."] {
        let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
        within(shipper.ship(Stream::Stdout, 0, 0, bytes)).await.expect("taken");
        within(shipper.finish(ends(&[bytes.to_vec(), vec![], vec![]]))).await.expect("finished");
    }
    let mut reader = read(&cluster, Options::default()).await;
    assert_eq!(text(&rest(&mut reader).await, Stream::Stdout), "first....<Matches>");
    let mut reader = read(&cluster, to_present()).await;
    rest(&mut reader).await;
    assert!(reader.is_done());
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_a_gap_with_its_range() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let config = Config { max_record: 2, ..Config::default() };
    let mut shipper = ship(&cluster, Acked::default(), config).await;
    let mut follower = read(&cluster, Options::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"0123")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    for expected in ["01", "23"] {
        let event = within(follower.next()).await.expect("readable").expect("goes on");
        assert_eq!(text(&[event], Stream::Stdout), expected);
    }
    within(shipper.ship(Stream::Stdout, 4, 0, b"456789")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    memory.truncate(TOPIC, 0, 4).expect("truncated");
    within(shipper.finish(ends(&[b"0123456789".to_vec(), vec![], vec![]]))).await.expect("finished");
    let events = rest(&mut follower).await;
    assert_eq!(text(&events, Stream::Stdout), "[4..8 Retention]89<Incomplete>");
    let mut late = read(&cluster, Options { first: Some(0), ..to_present() }).await;
    assert_eq!(text(&rest(&mut late).await, Stream::Stdout), "[0..4 Retention][4..8 Retention]89<Incomplete>");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_is_shipped_again_and_the_rest_is_a_gap() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    let mut follower = read(&cluster, Options::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"01234")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    assert!(within(follower.next()).await.expect("readable").is_some());
    memory.create(TOPIC, 1);
    within(shipper.ship(Stream::Stdout, 5, 0, b"5678")).await.expect("taken");
    let error = within(shipper.flush()).await.expect_err("anew");
    assert!(matches!(error, Error::Recreated { .. }), "{error}");
    assert_eq!(shipper.acked().positions, Positions([5, 0, 0]));
    // The spool still holds everything from byte 3 on.
    let start = Acked { positions: Positions([3, 0, 0]), ..Acked::default() };
    let mut shipper = ship(&cluster, start, Config::default()).await;
    within(shipper.ship(Stream::Stdout, 3, 0, b"345678")).await.expect("taken");
    within(shipper.finish(ends(&[b"012345678".to_vec(), vec![], vec![]]))).await.expect("finished");
    assert_eq!(text(&rest(&mut follower).await, Stream::Stdout), "5678<Matches>");
    let mut late = read(&cluster, to_present()).await;
    assert_eq!(text(&rest(&mut late).await, Stream::Stdout), "[0..3 Lost]345678<Incomplete>");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_and_has_grown_again_is_noticed_before_the_ends_are_written() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"01234")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    memory.create(TOPIC, 1);
    // Others wrote: what is shipped now does not stand before what was.
    memory.append(TOPIC, 0, vec![Record::new("other", "x"); 10]).expect("appended");
    within(shipper.ship(Stream::Stdout, 5, 0, b"5678")).await.expect("taken");
    let all = ends(&[b"012345678".to_vec(), vec![], vec![]]);
    let error = within(shipper.finish(all)).await.expect_err("anew");
    assert!(matches!(error, Error::Recreated { .. }), "{error}");
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"012345678")).await.expect("taken");
    within(shipper.finish(all)).await.expect("finished");
    let mut late = read(&cluster, to_present()).await;
    assert_eq!(text(&rest(&mut late).await, Stream::Stdout), "012345678<Matches>");
    // Also for who was told where it began before: behind what is in front of the ends now.
    for first in [1, 11, 12, 100] {
        let mut late = read(&cluster, Options { first: Some(first), ..to_present() }).await;
        assert_eq!(text(&rest(&mut late).await, Stream::Stdout), "012345678<Matches>", "{first}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_newer_version_is_not_passed_over() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    memory.append(TOPIC, 0, vec![record::tests::newer(attempt())]).expect("appended");
    let mut reader = read(&cluster, to_present()).await;
    let error = within(reader.next()).await.expect_err("newer");
    assert!(matches!(error, Error::Newer { version: 2, offset: 0, .. }), "{error}");
}
