//! Sessions: who gets in, who is told what, and what ends them.

use std::{sync::Arc, time::Duration};

use super::pair::*;
use crate::{
    kafka::Prefix,
    layout::Layout,
    link::{Credential, Dismissal, Fingerprint, Lane, LinkError},
};

fn world(partitions: u32) -> World {
    World::new(Arc::new(memory(partitions)), 1, partitions)
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_on_both_lanes() {
    let world = world(2);
    let (_listener, mut sessions) = world.listen(1).await;
    let dialer = world.dial(&world.admit("a"), 1).await;
    let agent = tokio::spawn(live(dialer));
    let session = sessions.recv().await.expect("session");
    assert_eq!(session.name().as_str(), "a");
    round_trip(&session, Lane::Control, 1, 1000).await.expect("control");
    round_trip(&session, Lane::Bulk, 2, 3 << 20).await.expect("bulk");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_bulk_lane_closes_when_unused_and_opens_again() {
    let world = world(2);
    let (_listener, mut sessions) = world.listen(1).await;
    tokio::spawn(live(world.dial(&world.admit("a"), 1).await));
    let session = sessions.recv().await.expect("session");
    for round in 0..3 {
        round_trip(&session, Lane::Bulk, round, 100_000).await.expect("bulk");
        tokio::time::sleep(Duration::from_secs(45)).await;
    }
    assert!(!session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_agent_is_told_so_by_its_own_controller() {
    let world = world(1);
    let (_listener, _sessions) = world.listen(1).await;
    let stranger = Credential::generate("nobody".parse().expect("name"), world.identity.fingerprint());
    let dialer = world.dial(&Arc::new(stranger), 1).await;
    let error = dialer.connect().await.err().expect("refused");
    assert!(matches!(&error, LinkError::UnknownAgent(name) if name == "nobody"), "{error}");
    let known = world.admit("a");
    let wrong = Credential::generate(known.name.clone(), known.controller);
    let error = world.dial(&Arc::new(wrong), 1).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::UnknownAgent(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn another_controllers_key_is_named() {
    let world = world(1);
    let (_listener, _sessions) = world.listen(1).await;
    let mut other = (*world.admit("a")).clone();
    other.controller = Fingerprint([9; 32]);
    let error = world.dial(&Arc::new(other.clone()), 1).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::AnotherController { .. }), "{error}");
    other.name = "b".parse().expect("name");
    let error = world.dial(&Arc::new(other), 1).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::AnotherController { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_agent_is_told_so() {
    let world = world(1);
    let (_listener, mut sessions) = world.listen(1).await;
    let credential = world.admit("a");
    let agent = tokio::spawn(live(world.dial(&credential, 1).await));
    let session = sessions.recv().await.expect("session");
    world.people.0.lock().expect("lock").get_mut(&credential.name).expect("known").1 = true;
    session.dismiss(Dismissal::Removed);
    assert!(matches!(agent.await.expect("ran"), LinkError::Removed(_)));
    let error = world.dial(&credential, 2).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::Removed(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_newest_process_of_a_name_wins() {
    let world = world(1);
    let (_listener, mut sessions) = world.listen(1).await;
    let credential = world.admit("a");
    let first = tokio::spawn(live(world.dial(&credential, 1).await));
    sessions.recv().await.expect("first");
    let second = tokio::spawn(live(world.dial(&credential, 2).await));
    let session = sessions.recv().await.expect("second");
    assert!(matches!(first.await.expect("ran"), LinkError::Superseded(_)));
    round_trip(&session, Lane::Control, 1, 100).await.expect("the second works");
    // The first one comes back, as a supervisor would start it with the same count: it is told.
    let error = world.dial(&credential, 1).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::Superseded(_)), "{error}");
    assert!(!session.is_closed());
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn agents_notice_a_restarted_controller_within_a_heartbeat() {
    let world = world(2);
    let (listener, mut sessions) = world.listen(1).await;
    tokio::spawn(live(world.dial(&world.admit("a"), 1).await));
    sessions.recv().await.expect("session");
    // As `kill -9` leaves it: nobody says good-bye.
    std::mem::forget(sessions);
    let before = listener.stop_dead();
    let start = tokio::time::Instant::now();
    let (_listener, mut sessions) = world.listen(2).await;
    let session = tokio::time::timeout(EVER, sessions.recv()).await.expect("in time").expect("session");
    assert!(start.elapsed() < Duration::from_secs(6), "took {:?}", start.elapsed());
    round_trip(&session, Lane::Control, 1, 100).await.expect("works");
    drop(before);
}

#[tokio::test(start_paused = true)]
async fn a_closed_listener_tells_its_agents() {
    let world = world(2);
    let (listener, mut sessions) = world.listen(1).await;
    let dialer = world.dial(&world.admit("a"), 1).await;
    let session = dialer.connect().await.expect("connected");
    sessions.recv().await.expect("session");
    let start = tokio::time::Instant::now();
    listener.close().await;
    let error = echo(session).await;
    assert!(matches!(error, LinkError::Ended(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
}

/// An installation whose agents have topics of their own.
fn apart(agents: &[&str]) -> (World, crate::kafka::memory::MemoryCluster) {
    let cluster = memory(2);
    for agent in agents {
        cluster.create(&Prefix::default().agent_down(&agent.parse().expect("name")), 2);
    }
    let mut world = World::new(Arc::new(cluster.clone()), 1, 2);
    world.config.layout = Layout::PerAgent;
    *world.people.1.lock().expect("lock") = Layout::PerAgent;
    (world, cluster)
}

#[tokio::test(start_paused = true)]
async fn agents_with_topics_of_their_own_are_written_to_nowhere_else() {
    let (world, cluster) = apart(&["a", "b"]);
    let (_listener, mut sessions) = world.listen(1).await;
    for name in ["a", "b"] {
        tokio::spawn(live(world.dial(&world.admit(name), 1).await));
        let session = sessions.recv().await.expect("session");
        assert_eq!(session.name().as_str(), name);
        round_trip(&session, Lane::Control, 1, 1000).await.expect("control");
        round_trip(&session, Lane::Bulk, 2, 3 << 20).await.expect("bulk");
    }
    let prefix = Prefix::default();
    for topic in [prefix.down_control(), prefix.down_bulk()] {
        for partition in 0..2 {
            assert_eq!(cluster.range(&topic, partition).expect("range"), 0..0, "{topic}/{partition}");
        }
    }
    for name in ["a", "b"] {
        let topic = prefix.agent_down(&name.parse().expect("name"));
        assert!(
            !cluster.range(&topic, 0).expect("range").is_empty()
                && !cluster.range(&topic, 1).expect("range").is_empty()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_with_a_topic_of_its_own_finds_the_next_controller_and_is_told_why_it_may_not_come_in() {
    let (world, _cluster) = apart(&["a"]);
    let (first, mut sessions) = world.listen(1).await;
    let credential = world.admit("a");
    tokio::spawn(live(world.dial(&credential, 1).await));
    sessions.recv().await.expect("session");
    let kept = first.stop_dead();
    let (_second, mut sessions) = world.listen(2).await;
    let before = tokio::time::Instant::now();
    let session = sessions.recv().await.expect("session");
    assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    round_trip(&session, Lane::Control, 1, 1000).await.expect("control");
    let wrong = Credential::generate(credential.name.clone(), credential.controller);
    let error = world.dial(&Arc::new(wrong), 2).await.connect().await.err().expect("refused");
    assert!(matches!(error, LinkError::UnknownAgent(_)), "{error}");
    drop(kept);
}
