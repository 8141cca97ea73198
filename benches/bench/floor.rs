//! What the way through Kafka costs without us: rskafka on both ends, the same security, the same broker, the other
//! end in a process of its own. A call is a record there and one back, with both fetches parked; a stream is records of
//! 256 KiB, four produced at once, and one reader.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rskafka::{
    chrono::DateTime,
    client::{
        Client,
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::Record,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
    task::JoinSet,
    time::Instant,
};

use crate::{
    place::{Place, again},
    support::{another::connect, user},
};

const RECORD: usize = 256 << 10;
const IN_FLIGHT: usize = 4;
/// How long a fetch may be parked at the broker.
const PARKED_MS: i32 = 5_000;

/// Both ends, connected.
pub struct Floor {
    down: Arc<PartitionClient>,
    up: PartitionClient,
    next: i64,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _peer: Child,
}

impl Floor {
    /// Makes two topics and starts the other end.
    pub async fn open(place: &Place) -> Self {
        let client = connect(place.bootstrap.clone(), &place.ca, user::ADMIN).await;
        let admin = client.controller_client().unwrap();
        for topic in ["floor.down", "floor.up"] {
            let replicas = i16::try_from(place.nodes.min(3)).unwrap();
            admin.create_topic(topic, 1, replicas, 10_000).await.unwrap();
        }
        let (down, up) = (Arc::new(partition(&client, "floor.down").await), partition(&client, "floor.up").await);
        let mut command = tokio::process::Command::from(again(&["floor-peer", &place.bootstrap.join(",")]));
        command.arg(&place.ca).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut peer = command.spawn().unwrap();
        let (orders, out) = (peer.stdin.take().unwrap(), peer.stdout.take().unwrap());
        let mut floor = Self { next: 0, down, up, orders, answers: BufReader::new(out).lines(), _peer: peer };
        floor.answer().await;
        floor
    }

    /// Round trips one after the other, in ms.
    pub async fn calls(&mut self, count: usize, bytes: usize) -> Vec<f64> {
        self.order(&format!("calls {count}")).await;
        self.next = self.up.get_offset(OffsetAt::Latest).await.unwrap();
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            let produced = append(&self.down, vec![7; bytes]);
            let fetched = fetch_some(&self.up, &mut self.next);
            tokio::join!(produced, fetched);
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        self.answer().await;
        took
    }

    /// A stream from the other end to this one, in MiB/s.
    pub async fn stream(&mut self, bytes: usize) -> f64 {
        self.next = self.up.get_offset(OffsetAt::Latest).await.unwrap();
        let start = Instant::now();
        self.order(&format!("stream {bytes}")).await;
        let mut got = 0;
        while got < bytes {
            got += fetch_some(&self.up, &mut self.next).await;
        }
        let rate = bytes as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20);
        self.answer().await;
        rate
    }

    /// A stream from here that nobody reads, in MiB/s.
    pub async fn produce(&self, bytes: usize) -> f64 {
        let start = Instant::now();
        append_stream(&self.down, bytes).await;
        bytes as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20)
    }

    async fn order(&mut self, order: &str) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        if order.starts_with("calls") {
            self.answer().await;
        }
    }

    async fn answer(&mut self) {
        assert_eq!(self.answers.next_line().await.unwrap().as_deref(), Some("ok"), "the floor's other end");
    }
}

/// The other end: takes orders on stdin, says `ok` when it is ready for calls and when an order is done.
pub async fn peer(bootstrap: &str, ca: &str) {
    let bootstrap: Vec<String> = bootstrap.split(',').map(str::to_owned).collect();
    let client = connect(bootstrap, ca.as_ref(), user::ADMIN).await;
    let (down, up) = (partition(&client, "floor.down").await, Arc::new(partition(&client, "floor.up").await));
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    println!("ok");
    while let Some(order) = orders.next_line().await.unwrap() {
        let (what, count) = order.split_once(' ').unwrap();
        let count: usize = count.parse().unwrap();
        match what {
            "calls" => {
                let mut next = down.get_offset(OffsetAt::Latest).await.unwrap();
                println!("ok");
                // The next fetch is parked while the answer is on its way.
                let mut answering = JoinSet::new();
                for _ in 0..count {
                    let (bytes, up) = (fetch_some(&down, &mut next).await, up.clone());
                    answering.spawn(async move { append(&up, vec![7; bytes]).await });
                }
                answering.join_all().await;
            }
            "stream" => append_stream(&up, count).await,
            other => panic!("no such order: {other}"),
        }
        println!("ok");
    }
}

async fn partition(client: &Client, topic: &str) -> PartitionClient {
    client.partition_client(topic, 0, UnknownTopicHandling::Retry).await.unwrap()
}

/// Records of 256 KiB, four at once.
async fn append_stream(partition: &Arc<PartitionClient>, bytes: usize) {
    let mut flying = JoinSet::new();
    for _ in 0..bytes.div_ceil(RECORD) {
        if flying.len() == IN_FLIGHT {
            flying.join_next().await.unwrap().unwrap();
        }
        let partition = partition.clone();
        flying.spawn(async move { append(&partition, vec![7; RECORD]).await });
    }
    flying.join_all().await;
}

async fn append(partition: &PartitionClient, value: Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let timestamp = DateTime::from_timestamp_millis(i64::try_from(now).unwrap()).unwrap();
    let record = Record { key: None, value: Some(value), headers: BTreeMap::new(), timestamp };
    partition.produce(vec![record], Compression::NoCompression).await.unwrap();
}

/// Waits for records, and returns how many bytes came.
async fn fetch_some(partition: &PartitionClient, next: &mut i64) -> usize {
    loop {
        let (records, _) = partition.fetch_records(*next, 1..8 << 20, PARKED_MS).await.unwrap();
        if let Some(last) = records.last() {
            *next = last.offset + 1;
            return records.iter().map(|record| record.record.value.as_ref().map_or(0, Vec::len)).sum();
        }
    }
}
