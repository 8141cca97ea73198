//! Shippers and readers on logs in memory, under paused time: what the documentation promises, one sentence at a time.
//! [`simulation`] then mixes all faults.

mod back;
mod shipping;
mod simulation;

use std::{sync::Arc, time::Duration};

use ring::digest;
use tokio::time::timeout;

use super::*;
use crate::kafka::{
    self,
    faulty::{self, Faults, FaultyCluster, Rng},
    memory::MemoryCluster,
};

const TOPIC: &str = "rk.logs";
const LONG: Duration = Duration::from_secs(3600);

fn cluster() -> MemoryCluster {
    let cluster = MemoryCluster::new();
    cluster.create(TOPIC, 1);
    cluster
}

fn attempt() -> Attempt {
    attempt_of("job-1", 1)
}

fn attempt_of(job: &'static str, number: u32) -> Attempt {
    let job = JobKey::new(job).expect("fits");
    let key = JobSecret::new([7; 32]).attempt(&job, number);
    Attempt::new(job, number, &key)
}

/// What takes for ever fails.
async fn within<F: Future>(future: F) -> F::Output {
    timeout(LONG, future).await.expect("in time")
}

fn seeded(seed: u64) -> Random {
    let mut rng = Rng(seed);
    Box::new(move || u128::from(rng.next()) << 64 | u128::from(rng.next()))
}

async fn ship_as(cluster: &kafka::SharedCluster, attempt: Attempt, start: Acked, config: Config) -> Shipper {
    static STARTS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1 << 40);
    let seed = STARTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let random = seeded(seed);
    within(Shipper::start_with(cluster.clone(), TOPIC, 0, attempt, start, config, random)).await.expect("started")
}

async fn ship(cluster: &FaultyCluster, start: Acked, config: Config) -> Shipper {
    ship_as(&cluster.shared(), attempt(), start, config).await
}

async fn read(cluster: &FaultyCluster, options: Options) -> Reader {
    within(Reader::open_with(cluster.shared(), TOPIC, 0, attempt(), options, seeded(3))).await.expect("opened")
}

fn to_present() -> Options {
    Options { until: Until::Present, ..Options::default() }
}

/// All that a reader brings up to its end.
async fn rest(reader: &mut Reader) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(event) = within(reader.next()).await.expect("readable") {
        events.push(event);
    }
    events
}

fn ends(streams: &[Vec<u8>; 3]) -> [End; 3] {
    [0, 1, 2].map(|stream: usize| {
        let digest = digest::digest(&digest::SHA256, &streams[stream]);
        End { total: streams[stream].len() as u64, sha256: digest.as_ref().try_into().expect("32 bytes") }
    })
}

/// The events of one stream as text: gaps in brackets, the end's digest in angles.
fn text(events: &[Event], wanted: Stream) -> String {
    let event = |event: &Event| match event {
        Event::Chunk { stream, bytes, .. } if *stream == wanted => String::from_utf8_lossy(bytes).into_owned(),
        Event::Gap { stream, bytes, cause } if *stream == wanted => {
            format!("[{}..{} {cause:?}]", bytes.start, bytes.end)
        }
        Event::End { stream, digest, .. } if *stream == wanted => format!("<{digest:?}>"),
        _ => String::new(),
    };
    events.iter().map(event).collect()
}
