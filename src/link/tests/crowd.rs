//! Many agents on the shared layout: each reads all of its control partition, and none reads a neighbour's bulk stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    faults::{FaultyCluster, Weather},
    pair::*,
};
use crate::link::Lane;

const AGENTS: u32 = 500;
/// 16 agents on each.
const PARTITIONS: u32 = 32;
/// What a keep-alive and its acknowledgement may cost, both ways, with all envelopes.
const IDLE_RECORD: usize = 300;

#[tokio::test(start_paused = true)]
async fn five_hundred_agents_share_partitions_and_no_bulk_stream_reaches_a_neighbour() {
    let cluster = FaultyCluster::new(memory(PARTITIONS), Weather::default(), 1);
    let mut world = World::new(Arc::new(cluster.view(0)), 1, PARTITIONS);
    let (_listener, mut sessions) = world.listen(1).await;
    for viewer in 1..=AGENTS {
        world.cluster = Arc::new(cluster.view(viewer));
        tokio::spawn(live(world.dial(&world.admit(&format!("a{viewer}")), 1).await));
    }
    let mut online = BTreeMap::new();
    let began = Instant::now();
    while online.len() < AGENTS as usize {
        let session = timeout(EVER, sessions.recv()).await.expect("in time").expect("open");
        online.insert(session.name().clone(), session);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "all are online after {:?}", began.elapsed());
    let received = || (1..=AGENTS).map(|viewer| cluster.received(viewer)).collect::<Vec<_>>();

    sleep(Duration::from_secs(60)).await;
    let before = received();
    sleep(Duration::from_secs(600)).await;
    let idle: Vec<usize> = received().iter().zip(&before).map(|(now, before)| now - before).collect();
    // Each keep-alive of 4 or 5 s and its answer is read by all on the partition.
    let most = *idle.iter().max().expect("agents");
    let crowd = AGENTS as usize / PARTITIONS as usize * 3;
    println!(
        "an idle agent received {} bytes a minute, the most {}",
        idle.iter().sum::<usize>() / idle.len() / 10,
        most / 10
    );
    assert!(most < 600 / 4 * 2 * IDLE_RECORD * crowd, "{most} bytes in ten minutes");

    let before = received();
    let busy = &online[&"a7".parse().expect("name")];
    round_trip(busy, Lane::Bulk, 1, 32 << 20).await.expect("bulk");
    let during: Vec<usize> = received().iter().zip(&before).map(|(now, before)| now - before).collect();
    for (viewer, bytes) in (1..).zip(&during) {
        match viewer {
            7 => assert!(*bytes >= 32 << 20, "the stream went through Kafka"),
            _ => assert!(*bytes < 256 << 10, "a{viewer} received {bytes} bytes of it"),
        }
    }
}
