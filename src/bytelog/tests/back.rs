//! Readers that begin at the end: the last lines, and what was written since a time.

use super::*;
use crate::kafka::Record;

/// What `count` lines a millisecond apart are, and where each ends.
fn lines(count: u64) -> (Vec<u8>, Vec<u64>) {
    let (mut whole, mut ends) = (Vec::new(), Vec::new());
    for line in 0..count {
        whole.extend_from_slice(format!("line {line}\n").as_bytes());
        ends.push(whole.len() as u64);
    }
    (whole, ends)
}

/// Ships each line alone, and lets others write between.
async fn ship_lines(cluster: &FaultyCluster, memory: &MemoryCluster, count: u64, others: usize) -> Vec<u8> {
    let (whole, line_ends) = lines(count);
    let mut shipper = ship(cluster, Acked::default(), Config::default()).await;
    let mut from = 0;
    for (line, end) in line_ends.into_iter().enumerate() {
        let bytes = &whole[from as usize..end as usize];
        within(shipper.ship(Stream::Stdout, from, line as i64, bytes)).await.expect("taken");
        within(shipper.flush()).await.expect("flushed");
        from = end;
        memory.append(TOPIC, 0, vec![Record::new("another job", "x"); others]).expect("appended");
    }
    whole
}

fn last(whole: &[u8], lines: usize) -> String {
    let whole = std::str::from_utf8(whole).expect("text");
    let lines: Vec<_> = whole.split_inclusive('\n').rev().take(lines).collect();
    lines.into_iter().rev().collect()
}

fn shown(events: &[Event]) -> String {
    text(events, Stream::Stdout)
}

#[tokio::test(start_paused = true)]
async fn the_last_lines_are_found_without_reading_what_lies_between() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let whole = ship_lines(&cluster, &memory, 300, 1000).await;
    for count in [0, 1, 5, 20] {
        let before = cluster.fetches();
        let options = Options { from: Begin::Tail(count), ..to_present() };
        let events = rest(&mut read(&cluster, options).await).await;
        assert_eq!(shown(&events), last(&whole, count as usize));
        let after = cluster.fetches();
        let (fetches, fetched) = (after.0 - before.0, after.1 - before.1);
        assert!(fetches <= count as usize + 12, "{count} lines took {fetches} fetches");
        assert!(fetched <= 6000, "{count} lines took {fetched} records of 300,000");
    }
    let options = Options { from: Begin::Tail(5000), ..to_present() };
    assert_eq!(shown(&rest(&mut read(&cluster, options).await).await).len(), whole.len());
}

#[tokio::test(start_paused = true)]
async fn a_tail_goes_on_with_what_is_written_then() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let mut shipper = ship(&cluster, Acked::default(), Config { max_record: 7, ..Config::default() }).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"one\ntwo\nthree\nfour\n")).await.expect("taken");
    within(shipper.flush()).await.expect("flushed");
    let mut reader = read(&cluster, Options { from: Begin::Tail(2), ..Options::default() }).await;
    within(shipper.ship(Stream::Stdout, 19, 0, b"five\n")).await.expect("taken");
    within(shipper.finish(ends(&[b"one\ntwo\nthree\nfour\nfive\n".to_vec(), vec![], vec![]]))).await.expect("finished");
    assert_eq!(shown(&rest(&mut reader).await), "three\nfour\nfive\n<Matches>");
    let mut late = read(&cluster, Options { from: Begin::Tail(1), last: Some(3), ..Options::default() }).await;
    assert_eq!(shown(&rest(&mut late).await), "five\n<Matches>");
}

#[tokio::test(start_paused = true)]
async fn what_was_written_since_a_time_is_found_over_the_indexes() {
    let memory = cluster();
    let cluster = FaultyCluster::new(&memory, Faults::default(), 1);
    let whole = ship_lines(&cluster, &memory, 2000, 20).await;
    for since in [0, 1, 255, 256, 1000, 1990, 1999, 2000] {
        let before = cluster.fetches().1;
        let options = Options { from: Begin::Since(since), ..to_present() };
        let events = rest(&mut read(&cluster, options).await).await;
        assert_eq!(shown(&events), last(&whole, 2000 - since as usize), "since {since}");
        // An index names batches only when there are 256 of them.
        let (fetched, wanted) = (cluster.fetches().1 - before, (2000 - since as usize) * 21);
        assert!(fetched < wanted + 7000, "since {since}: {fetched} records for {wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_without_records_has_no_last_lines_and_is_waited_for() {
    let cluster = FaultyCluster::new(&cluster(), Faults::default(), 1);
    for from in [Begin::Tail(3), Begin::Since(7)] {
        assert_eq!(rest(&mut read(&cluster, Options { from, ..to_present() }).await).await, []);
    }
    let mut reader = read(&cluster, Options { from: Begin::Tail(3), ..Options::default() }).await;
    let mut shipper = ship(&cluster, Acked::default(), Config::default()).await;
    within(shipper.ship(Stream::Stdout, 0, 0, b"one\n")).await.expect("taken");
    within(shipper.finish(ends(&[b"one\n".to_vec(), vec![], vec![]]))).await.expect("finished");
    assert_eq!(shown(&rest(&mut reader).await), "one\n<Matches>");
}
