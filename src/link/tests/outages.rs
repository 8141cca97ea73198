//! What a session survives: outages of the cluster, held and lost packets, an old controller that wakes up.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    faults::{FaultyCluster, Outage, Weather},
    pair::*,
};
use crate::link::{Lane, LinkError};

/// A session goes on within this after any outage that it survives.
const USABLE: Duration = Duration::from_secs(6);

async fn outage(kind: Outage, length: Duration, busy: bool) {
    let weather = Weather { delay: 2, ..Weather::default() };
    let cluster = FaultyCluster::new(memory(2), weather, 7);
    let world = World::new(Arc::new(cluster.view(0)), 7, 2);
    let (_listener, mut sessions) = world.listen(1).await;
    let agent = tokio::spawn(live(world.dial(&world.admit("a"), 1).await));
    let session = sessions.recv().await.expect("session");
    round_trip(&session, Lane::Control, 1, 100).await.expect("before");
    round_trip(&session, Lane::Bulk, 1, 100_000).await.expect("before");
    let through = busy.then(|| {
        let session = session.clone();
        tokio::spawn(async move {
            let control = round_trip(&session, Lane::Control, 2, 200_000);
            let bulk = round_trip(&session, Lane::Bulk, 3, 20 << 20);
            tokio::join!(control, bulk)
        })
    });
    tokio::time::sleep(Duration::from_millis(3)).await;
    cluster.set_outage(Some(kind));
    tokio::time::sleep(length).await;
    cluster.set_outage(None);
    let over = Instant::now();
    let used = tokio::time::timeout(EVER, round_trip(&session, Lane::Control, 4, 100)).await.expect("not stuck");
    let took = over.elapsed();
    used.unwrap_or_else(|e| panic!("{kind:?} for {length:?}: the session ended: {e}"));
    assert!(took < USABLE, "{kind:?} for {length:?}: usable after {took:?}");
    if let Some(through) = through {
        let (control, bulk) = tokio::time::timeout(EVER, through).await.expect("not stuck").expect("ran");
        control.expect("a control stream goes through the outage");
        bulk.expect("a bulk stream goes through the outage");
    }
    assert!(!session.is_closed());
    agent.abort();
}

const MINUTES: [u64; 5] = [60, 240, 600, 780, 840];

#[tokio::test(start_paused = true)]
async fn a_session_is_usable_within_6_s_after_any_outage_of_up_to_14_min_that_held_packets() {
    for length in [1, 10, 30].into_iter().chain(MINUTES) {
        outage(Outage::Held, Duration::from_secs(length), false).await;
        outage(Outage::Held, Duration::from_secs(length), true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_usable_within_6_s_after_any_outage_of_up_to_14_min_that_lost_packets() {
    for length in [1, 10, 30].into_iter().chain(MINUTES) {
        outage(Outage::Lost, Duration::from_secs(length), false).await;
        outage(Outage::Lost, Duration::from_secs(length), true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_controller_that_wakes_up_harms_nobody() {
    let cluster = FaultyCluster::new(memory(2), Weather { delay: 2, ..Weather::default() }, 9);
    let mut world = World::new(Arc::new(cluster.view(1)), 9, 2);
    let credentials = [world.admit("a"), world.admit("b"), world.admit("c")];
    let (old, mut old_sessions) = world.listen(1).await;
    world.cluster = Arc::new(cluster.view(0));
    for credential in &credentials {
        tokio::spawn(live(world.dial(credential, 1).await));
        old_sessions.recv().await.expect("session");
    }
    for pause in [1, 8, 60, 600] {
        // The old one stops; a new one takes over; the old one wakes up and does what its timers say.
        cluster.pause(Some(1));
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let (new, mut sessions) = world.listen(2 + pause as u32).await;
        let mut live = Vec::new();
        while live.len() < credentials.len() {
            live.push(tokio::time::timeout(EVER, sessions.recv()).await.expect("not stuck").expect("session"));
        }
        cluster.pause(None);
        for round in 0..10 {
            for session in &live {
                round_trip(session, Lane::Control, round, 300).await.expect("the new controller's session works");
                round_trip(session, Lane::Bulk, round, 3000).await.expect("the new controller's session works");
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert!(live.iter().all(|s| !s.is_closed()), "after a pause of {pause} s");
        new.close().await;
    }
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_knows_a_newer_controller_fences_the_old_one() {
    let world = World::new(Arc::new(memory(1)), 3, 1);
    let credential = world.admit("a");
    let (new, mut sessions) = world.listen(5).await;
    let dialer = world.dial(&credential, 1).await;
    let session = dialer.connect().await.expect("connected");
    sessions.recv().await.expect("session");
    let new = new.stop_dead();
    let (old, mut old_sessions) = world.listen(4).await;
    drop(session);
    let error = dialer.connect().await.err().expect("the old one does not let it in");
    assert!(matches!(error, LinkError::NoAnswer(_)), "{error}");
    assert_eq!(old.fenced().await, 5);
    assert!(old_sessions.try_recv().is_err());
    drop(new);
}
