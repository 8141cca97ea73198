//! The broker as a process that is killed, again and again, while a client writes.

use crate::support::{PATIENCE, builder, partition, record};
use remoting_kafka::broker::{self, Config};
use rskafka::client::partition::{Compression, PartitionClient};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

const KILLS: usize = 50;
const DATA: &str = "RK_TEST_BROKER_DATA";
const ADDRESS: &str = "RK_TEST_BROKER_ADDRESS";

/// Not a test of its own: the process that the test below starts and kills.
#[test]
#[ignore = "the broker process of the test that kills it"]
#[allow(clippy::disallowed_methods, reason = "a process's only argument here")]
fn broker_process() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(std::env::var(ADDRESS).unwrap()).await.unwrap();
        // Small segments, so that kills meet rolling, and retention that takes nothing.
        let config = Config {
            data: std::env::var(DATA).unwrap().into(),
            segment_bytes: 64 << 10,
            cache_bytes: 16 << 10,
            ..Config::default()
        };
        broker::run(listener, config, std::future::pending()).await.unwrap();
    });
}

/// Offsets and values that the broker acknowledged, in order.
type Acknowledged = Arc<std::sync::Mutex<Vec<(i64, Vec<u8>)>>>;

/// A child that does not outlive the test.
struct Process(Child);

impl Process {
    fn start(data: &Path, address: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "kill::broker_process", "--nocapture"])
            .env(DATA, data)
            .env(ADDRESS, address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn kill(&mut self) {
        // SIGKILL: nothing is flushed, nothing is said.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address on loopback that nobody listens on.
async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

async fn up(address: &str) {
    let start = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the broker process does not come up");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn open(address: &str) -> PartitionClient {
    let client = timeout(PATIENCE, builder(address).build()).await.unwrap().unwrap();
    partition(&client, "ledger").await
}

/// One record after the other; every acknowledgement is noted with its offset.
async fn write(address: String, acknowledged: Acknowledged, count: Arc<AtomicUsize>) {
    let mut log = open(&address).await;
    let mut n = 0u64;
    loop {
        n += 1;
        let mut value = n.to_string().into_bytes();
        value.resize(16 + (n as usize * 37) % 3000, b'.');
        let produced = log.produce(vec![record(value.clone())], Compression::NoCompression);
        match timeout(Duration::from_secs(3), produced).await {
            Ok(Ok(offsets)) => {
                acknowledged.lock().unwrap().push((offsets[0], value));
                count.fetch_add(1, Ordering::Relaxed);
            }
            // The connection died with the broker; whether the record is there is not known.
            Ok(Err(_)) | Err(_) => log = open(&address).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_lose_no_acknowledged_record() {
    let data = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let mut process = Process::start(data.path(), &address);
    up(&address).await;
    let acknowledged = Acknowledged::default();
    let count = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(write(address.clone(), Arc::clone(&acknowledged), Arc::clone(&count)));
    for kill in 0..KILLS {
        let before = count.load(Ordering::Relaxed);
        // A different number of records each time, so that kills meet different moments.
        let wanted = before + 3 + kill * 7 % 40;
        let start = Instant::now();
        while count.load(Ordering::Relaxed) < wanted {
            assert!(start.elapsed() < PATIENCE, "no record was acknowledged after kill {kill}");
            assert!(!writer.is_finished(), "the writer ended");
            sleep(Duration::from_millis(1)).await;
        }
        process.kill();
        process = Process::start(data.path(), &address);
        up(&address).await;
    }
    writer.abort();
    let _ = writer.await;
    let acknowledged = std::mem::take(&mut *acknowledged.lock().unwrap());
    println!("{} acknowledged records, {KILLS} kills", acknowledged.len());
    assert!(acknowledged.is_sorted_by(|a, b| a.0 < b.0), "acknowledged in order");
    let found = read_all(&address).await;
    for (offset, value) in &acknowledged {
        let (at, there) = &found[usize::try_from(*offset).unwrap()];
        assert_eq!((at, there), (offset, value));
    }
}

/// Every record from the start of the log on, at the place that its offset names.
async fn read_all(address: &str) -> Vec<(i64, Vec<u8>)> {
    let log = open(address).await;
    let mut found = Vec::new();
    loop {
        let (records, end) =
            timeout(PATIENCE, log.fetch_records(found.len() as i64, 1..1_000_000, 500)).await.unwrap().unwrap();
        for record in records {
            assert_eq!(record.offset, found.len() as i64, "no gap and nothing twice");
            found.push((record.offset, record.record.value.unwrap()));
        }
        if found.len() as i64 >= end {
            return found;
        }
    }
}
