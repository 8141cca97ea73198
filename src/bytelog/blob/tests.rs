use std::{collections::BTreeMap, io, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::{
    bundle::{Archive, Digest, Place},
    kafka::{
        Record, SharedCluster,
        faulty::{self, Faults, FaultyCluster, Rng},
        memory::MemoryCluster,
    },
};

const TOPIC: &str = "rk.blobs";

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    (0..length.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).take(length).collect()
}

fn archive(bytes: &[u8]) -> Archive {
    Archive { sha256: Digest::of(bytes), size: bytes.len() as u64 }
}

fn cluster() -> MemoryCluster {
    let cluster = MemoryCluster::new();
    cluster.create(TOPIC, 2);
    cluster
}

/// A way to it on which everything happens that may.
fn faulty(memory: &MemoryCluster, seed: u64) -> SharedCluster {
    let faults = Faults {
        delay: Duration::from_millis(50),
        late: Duration::from_secs(5),
        error: 15,
        lands: 50,
        twice: 20,
        few: 30,
        holds: 30,
        ..Faults::default()
    };
    FaultyCluster::new(memory, faults, seed).shared()
}

async fn push(cluster: SharedCluster, bytes: &[u8]) -> Result<Place, Error> {
    let mut upload = Upload::new(cluster, TOPIC, 1, archive(bytes)).await?;
    for some in bytes.chunks(100_000) {
        upload.put(some).await?;
    }
    upload.finish().await
}

#[derive(Default)]
struct Pieces(BTreeMap<u64, Bytes>);

impl Sink for Pieces {
    async fn put(&mut self, offset: u64, bytes: Bytes) -> io::Result<()> {
        assert!(self.0.insert(offset, bytes).is_none(), "each chunk comes once");
        Ok(())
    }
}

async fn read(cluster: &SharedCluster, archive: &Archive, place: &Place) -> Result<(Vec<u8>, Counts), Error> {
    let mut pieces = Pieces::default();
    let counts = fetch(cluster, TOPIC, archive, place, &mut pieces, &watch::Sender::default()).await?;
    Ok((pieces.0.into_values().flatten().collect(), counts))
}

#[test]
fn a_blob_comes_out_whole_whatever_its_size() {
    faulty::run("sizes", 1, async |seed| {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 10 * CHUNK + 7] {
            let (cluster, bytes) = (cluster(), noise(length, seed));
            let shared: SharedCluster = std::sync::Arc::new(cluster.clone());
            let place = push(shared.clone(), &bytes).await.expect("pushed");
            let (got, counts) = read(&shared, &archive(&bytes), &place).await.expect("read");
            assert!(got == bytes && counts == Counts::default(), "{length}");
        }
    });
}

#[test]
fn an_upload_that_is_not_what_was_announced_is_no_blob() {
    faulty::run("announced", 1, async |_| {
        let shared: SharedCluster = std::sync::Arc::new(cluster());
        let bytes = noise(1000, 1);
        let upload = async |announced: Archive, bytes: &[u8]| {
            let mut upload = Upload::new(shared.clone(), TOPIC, 0, announced).await?;
            upload.put(bytes).await?;
            upload.finish().await
        };
        let other = Archive { sha256: Digest([1; 32]), ..archive(&bytes) };
        for (announced, bytes) in
            [(other, &bytes[..]), (archive(&bytes), &bytes[..999]), (archive(&bytes[..999]), &bytes[..])]
        {
            assert!(matches!(upload(announced, bytes).await, Err(Error::Announced(_))));
        }
    });
}

/// Records of all kinds that others may write.
fn rubbish(rng: &mut Rng, bytes: &[u8]) -> Record {
    let name = archive(bytes);
    let sealed =
        |key: u8, archive: Archive, at: u64, bytes: &[u8]| chunk::Chunks::new(archive, &[key; 32]).seal(at, bytes);
    match rng.below(5) {
        0 => Record::new("other", "x"),
        1 => Record::new(name.sha256.0.to_vec(), noise(rng.below(300) as usize, rng.next())),
        // Another's key, in the right place.
        2 => sealed(1, name, 0, &bytes[..bytes.len().min(CHUNK)]),
        3 => sealed(1, Archive { size: u64::MAX, ..name }, u64::MAX / 2, &[7; 100]),
        _ => Record::new("", ""),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn rubbish_doubles_and_cuts_do_not_stop_a_reader(seed in any::<u64>(), length in 1usize..4 * CHUNK) {
        faulty::run("blob", seed, async |seed| {
            let mut rng = Rng(seed);
            let (memory, bytes) = (cluster(), noise(length, seed));
            let way = faulty(&memory, seed);
            let mut upload = Upload::new(way.clone(), TOPIC, 1, archive(&bytes)).await.expect("begun");
            let mut forged = 0;
            for some in bytes.chunks(90_000) {
                for _ in 0..rng.below(3) {
                    memory.append(TOPIC, 1, vec![rubbish(&mut rng, &bytes)]).expect("appended");
                    forged += 1;
                }
                upload.put(some).await.expect("put");
            }
            let place = upload.finish().await.expect("pushed");
            let (got, counts) = read(&way, &archive(&bytes), &place).await.expect("read");
            assert!(got == bytes);
            assert!(counts.rubbish <= forged);
            assert!(is_there(&(std::sync::Arc::new(memory) as SharedCluster), TOPIC, &place).await.expect("looked"));
        });
    }
}

#[test]
fn a_chunk_with_one_bit_altered_is_rubbish() {
    faulty::run("bit", 1, async |seed| {
        let (memory, bytes) = (cluster(), noise(2 * CHUNK, seed));
        let shared: SharedCluster = std::sync::Arc::new(memory.clone());
        let place = push(shared.clone(), &bytes).await.expect("pushed");
        let mut records = memory.everything(TOPIC, 1).expect("records");
        memory.create(TOPIC, 2);
        let mut value = records[1].value.to_vec();
        *value.last_mut().expect("bytes") ^= 1;
        records[1].value = value.into();
        memory.append(TOPIC, 1, records).expect("appended");
        let place = Place { topic: 2, ..place };
        let error = read(&shared, &archive(&bytes), &place).await.expect_err("altered");
        assert!(matches!(error, Error::Gone { .. }), "{error}");
    });
}

/// After a start of the whole cluster a leader shows nothing that its followers have not fetched from it again.
#[test]
fn what_the_broker_does_not_show_yet_is_waited_for() {
    faulty::run("held", 1, async |seed| {
        let (memory, bytes) = (cluster(), noise(3 * CHUNK, seed));
        let place = push(std::sync::Arc::new(memory.clone()), &bytes).await.expect("pushed");
        let way = FaultyCluster::new(&memory, Faults { holds: 95, ..Faults::default() }, seed).shared();
        let (got, _) = read(&way, &archive(&bytes), &place).await.expect("read");
        assert!(got == bytes);
    });
}

#[test]
fn what_was_deleted_or_lost_is_said_with_the_cure() {
    faulty::run("gone", 1, async |seed| {
        let bytes = noise(2 * CHUNK, seed);
        for what in ["retention", "tail", "recreated"] {
            let memory = cluster();
            let shared: SharedCluster = std::sync::Arc::new(memory.clone());
            memory.append(TOPIC, 1, vec![Record::new("a", "b")]).expect("appended");
            let place = push(shared.clone(), &bytes).await.expect("pushed");
            match what {
                "retention" => memory.truncate(TOPIC, 1, place.last).expect("cut"),
                "tail" => memory.lose_tail(TOPIC, 1, place.last).expect("cut"),
                _ => memory.create(TOPIC, 2),
            }
            let error = read(&shared, &archive(&bytes), &place).await.expect_err(what).to_string();
            assert!(error.contains("push it again"), "{what}: {error}");
            assert!(!is_there(&shared, TOPIC, &place).await.expect("looked"), "{what}");
            let place = push(shared.clone(), &bytes).await.expect("pushed again");
            assert!(read(&shared, &archive(&bytes), &place).await.is_ok(), "{what}");
        }
    });
}

/// Appends chunks of `bytes`, some of them again as a writer leaves them that was killed and went on, with rubbish between. Returns
/// where they lie.
async fn append(memory: &MemoryCluster, way: &SharedCluster, bytes: &[u8], rng: &mut Rng) -> Place {
    let appender = Appender::new(way, TOPIC, 1, archive(bytes), &[9; 32]);
    let stalled = watch::Sender::default();
    let chunks: Vec<Vec<u8>> = bytes.chunks(CHUNK).map(<[u8]>::to_vec).collect();
    let (mut at, mut first, mut last) = (0, i64::MAX, -1);
    while at < chunks.len() {
        if rng.below(3) == 0 {
            memory.append(TOPIC, 1, vec![rubbish(rng, bytes)]).expect("appended");
        }
        let some = &chunks[at..chunks.len().min(at + BATCH)];
        let offsets = appender.append((at * CHUNK) as u64, some, &stalled).await.expect("appended");
        first = first.min(offsets[0]);
        last = *offsets.last().expect("some");
        // What was on its way when it was killed may land behind what its successor sends first.
        at = if rng.below(4) == 0 { at + 1 } else { at + some.len() };
    }
    Place { topic: 1, partition: 1, first, last, key: crate::job::Hidden::new([9; 32]) }
}

/// Takes bytes that must come in their order.
struct InOrder(u64, Vec<u8>);

impl Sink for InOrder {
    async fn put(&mut self, offset: u64, bytes: Bytes) -> io::Result<()> {
        assert_eq!(offset, self.0 + self.1.len() as u64);
        self.1.extend_from_slice(&bytes);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_part_of_a_blob_comes_in_its_order_whatever_lies_between(
        seed in any::<u64>(),
        length in 1usize..8 * CHUNK,
        part in (0usize..8 * CHUNK, 0usize..8 * CHUNK),
    ) {
        faulty::run("range", seed, async |seed| {
            let mut rng = Rng(seed);
            let (memory, bytes) = (cluster(), noise(length, seed));
            let way = faulty(&memory, seed);
            let place = append(&memory, &way, &bytes, &mut rng).await;
            let (from, to) = (part.0.min(part.1).min(length), part.0.max(part.1).min(length));
            let mut sink = InOrder(from as u64, Vec::new());
            let progress = watch::Sender::default();
            let range = from as u64..to as u64;
            fetch_range(&way, TOPIC, &archive(&bytes), &place, range, &mut sink, &progress).await.expect("read");
            assert!(sink.1 == bytes[from..to]);
        });
    }
}

#[test]
fn a_part_whose_records_are_gone_is_no_part() {
    faulty::run("gone-part", 1, async |seed| {
        let (memory, bytes) = (cluster(), noise(4 * CHUNK, seed));
        let way: SharedCluster = std::sync::Arc::new(memory.clone());
        let appender = Appender::new(&way, TOPIC, 1, archive(&bytes), &[9; 32]);
        let chunks: Vec<Vec<u8>> = bytes.chunks(CHUNK).map(<[u8]>::to_vec).collect();
        // The third was never written.
        for at in [0, 1, 3] {
            let some = &chunks[at..=at];
            appender.append((at * CHUNK) as u64, some, &watch::Sender::default()).await.expect("appended");
        }
        let place = Place { topic: 1, partition: 1, first: 0, last: 2, key: crate::job::Hidden::new([9; 32]) };
        let read = async |range| {
            let mut sink = Nowhere;
            fetch_range(&way, TOPIC, &archive(&bytes), &place, range, &mut sink, &watch::Sender::default()).await
        };
        let whole = CHUNK as u64;
        assert!(read(0..2 * whole).await.is_ok() && read(5..5).await.is_ok());
        assert!(matches!(read(whole..3 * whole).await, Err(Error::Gone { .. })));
        memory.truncate(TOPIC, 1, 1).expect("cut");
        assert!(matches!(read(0..1).await, Err(Error::Gone { .. })));
    });
}
