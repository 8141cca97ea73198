//! The feed on a cluster in memory that goes away, is full, or lacks the topic.

use serde_json::Value;
use tokio::time::timeout;

use super::*;
use crate::kafka::{
    Record, SharedCluster,
    faulty::{Faults, FaultyCluster},
    memory::MemoryCluster,
};

const TOPIC: &str = "rk.events";
const JOURNAL: u128 = 5;

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn happening(agent: &str) -> Happening {
    Happening::agent("rotated", &name(agent))
}

fn feed() -> Feed {
    Feed::new(&Prefix::default(), JOURNAL)
}

fn leading() -> Feed {
    let feed = feed();
    feed.lead(2);
    feed
}

fn refused() -> Entry<'static> {
    Entry { who: None, from: None, verb: "", request: "GET /v1/status", detail: None, status: 401 }
}

/// A cluster with the topic.
fn cluster() -> MemoryCluster {
    let cluster = MemoryCluster::new();
    cluster.create(TOPIC, 1);
    cluster
}

/// Writes until nothing waits; the clock is paused, so that no time is too long.
async fn settle(feed: &Feed, cluster: SharedCluster) {
    let writer = tokio::spawn(write(feed.clone(), cluster));
    timeout(Duration::from_secs(3600), feed.idle()).await.expect("all is written");
    writer.abort();
}

fn records(cluster: &MemoryCluster) -> Vec<Record> {
    cluster.everything(TOPIC, 0).expect("the topic is there")
}

/// The ids in the topic, from the epoch on.
fn ids(cluster: &MemoryCluster) -> Vec<String> {
    let id = |record: &Record| {
        let event: Value = serde_json::from_slice(&record.value).expect("JSON");
        let id = event["id"].as_str().expect("text").to_owned();
        id.split_once('.').expect("a journal").1.to_owned()
    };
    records(cluster).iter().map(id).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_cloud_events_under_their_subjects_in_the_order_of_the_telling() {
    let (cluster, feed) = (cluster(), leading());
    feed.journalled(2, 1, happening("a"));
    feed.access(7, &refused());
    feed.look(Duration::ZERO, 8, &[(name("a"), AgentState::Online)]);
    feed.journalled(2, 2, happening("a"));
    settle(&feed, Arc::new(cluster.clone())).await;
    assert_eq!(ids(&cluster), ["2.1", "2.s1", "2.s2", "2.2"]);
    let records = records(&cluster);
    let keys: Vec<_> = records.iter().map(|record| record.key.as_ref()).collect();
    assert_eq!(keys, [&b"agent/a"[..], b"access", b"agent/a", b"agent/a"]);
    let header = [("content-type".to_owned(), Bytes::from("application/cloudevents+json; charset=UTF-8"))];
    assert!(records.iter().all(|record| record.headers == header));
    assert_eq!((feed.written(), feed.dropped(), feed.waiting()), (4, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_tells_never_waits_and_what_is_too_much_is_dropped_and_counted() {
    let feed = leading();
    let guesses = 10_000;
    feed.journalled(2, 1, happening("a"));
    for _ in 0..guesses {
        feed.access(7, &refused());
    }
    let waiting = feed.waiting() as u64;
    assert!(feed.dropped() > 0 && waiting > 1000, "{} {waiting}", feed.dropped());
    assert_eq!(feed.dropped() + waiting, guesses + 1);
    let cluster = cluster();
    settle(&feed, Arc::new(cluster.clone())).await;
    let ids = ids(&cluster);
    assert_eq!(ids.first().map(String::as_str), Some("2.1"), "a flood of requests displaces no agent");
    assert_eq!(ids.last(), Some(&format!("2.s{guesses}")), "the newest stay");
    assert_eq!((feed.written(), feed.waiting()), (waiting, 0));
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_events_and_costs_none() {
    let (memory, feed) = (cluster(), leading());
    let faulty = FaultyCluster::new(&memory, Faults::default(), 1);
    faulty.fail(true);
    let writer = tokio::spawn(write(feed.clone(), faulty.shared()));
    for seq in 1..=5 {
        feed.journalled(2, seq, happening("a"));
        assert!(timeout(Duration::from_secs(60), feed.idle()).await.is_err(), "it is away");
    }
    faulty.fail(false);
    timeout(Duration::from_secs(60), feed.idle()).await.expect("it came back");
    assert_eq!(ids(&memory), ["2.1", "2.2", "2.3", "2.4", "2.5"]);
    // A right that is missing for a while is the same.
    faulty.deny(true);
    feed.journalled(2, 6, happening("a"));
    assert!(timeout(Duration::from_secs(60), feed.idle()).await.is_err(), "it may not");
    faulty.deny(false);
    timeout(Duration::from_secs(60), feed.idle()).await.expect("it may again");
    assert_eq!((feed.written(), feed.dropped()), (6, 0));
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_missing_is_waited_for() {
    let (cluster, feed) = (MemoryCluster::new(), leading());
    let writer = tokio::spawn(write(feed.clone(), Arc::new(cluster.clone())));
    feed.journalled(2, 1, happening("a"));
    assert!(timeout(Duration::from_secs(60), feed.idle()).await.is_err(), "it is missing");
    cluster.create(TOPIC, 1);
    timeout(Duration::from_secs(60), feed.idle()).await.expect("it was made");
    assert_eq!(ids(&cluster), ["2.1"]);
    writer.abort();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_divided_and_an_event_that_is_is_dropped() {
    let (memory, feed) = (cluster(), leading());
    let faulty = FaultyCluster::new(&memory, Faults { max_batch: Some(1000), ..Faults::default() }, 1);
    for seq in 1..=7 {
        feed.journalled(2, seq, happening("a"));
    }
    let labels = [("k".to_owned(), "v".repeat(2000))].into();
    feed.journalled(2, 8, Happening::added(&name("b"), &labels, None));
    feed.journalled(2, 9, happening("a"));
    settle(&feed, faulty.shared()).await;
    assert_eq!(ids(&memory), ["2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "2.7", "2.9"]);
    assert_eq!((feed.written(), feed.dropped(), feed.waiting()), (8, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_controller_tells_again_what_was_not_written_under_the_same_ids() {
    let cluster = cluster();
    let old = feed();
    old.lead(1);
    (1..=3).for_each(|seq| old.journalled(1, seq, happening("a")));
    old.access(7, &refused());
    settle(&old, Arc::new(cluster.clone())).await;
    let other = Record::new("agent/a", r#"{"id":"00000000000000000000000000000009.9.9"}"#);
    cluster.append(TOPIC, 0, vec![other, Record::new("x", "no event")]).expect("appended");

    let new = feed();
    (1..=5).for_each(|seq| new.journalled(1, seq, happening("a")));
    assert_eq!(new.waiting(), 0, "who follows writes nothing");
    new.lead(2);
    new.journalled(2, 1, happening("b"));
    settle(&new, Arc::new(cluster.clone())).await;
    let written: Vec<String> = {
        let records = records(&cluster);
        let ours = records.iter().filter(|record| record.key != "x" && !record.headers.is_empty());
        ours.map(|record| serde_json::from_slice::<Value>(&record.value).expect("JSON")["id"].to_string()).collect()
    };
    let ids: Vec<&str> = written.iter().map(|id| id.trim_matches('"').split_once('.').expect("a journal").1).collect();
    assert_eq!(ids, ["1.1", "1.2", "1.3", "1.s1", "1.4", "1.5", "2.1"]);
    assert_eq!((new.written(), new.dropped(), new.waiting()), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn into_an_empty_topic_no_history_is_written() {
    let (cluster, feed) = (cluster(), feed());
    (1..=3000).for_each(|seq| feed.journalled(1, seq, happening("a")));
    feed.lead(2);
    assert_eq!(feed.waiting(), REPEATED, "and of a long one only the end is held");
    feed.journalled(2, 1, happening("a"));
    settle(&feed, Arc::new(cluster.clone())).await;
    assert_eq!(ids(&cluster), ["2.1"]);
}
