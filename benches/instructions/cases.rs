//! The paths, each with inputs that never change.

use std::{hint::black_box, sync::Arc};

use bytes::{Bytes, BytesMut};
use remoting_kafka::{
    agent,
    api::AddAgent,
    bytelog::{
        Attempt, Body, Config, Event, Format, JobKey, JobSecret, Meta, Options, Positions, Reader, Run, Shipper,
        Stream,
        record::{Opener, Sealer},
        redact::{Redactor, Secrets},
    },
    controller,
    id::AgentName,
    journal::{
        Head,
        record::{Codec, Kind as EntryKind, Record as Entry, StateKey},
    },
    kafka::{self, Prefix, SharedCluster, memory::MemoryCluster},
    link::{
        Identity,
        packet::{Datagrams, Header, Incarnation, Kind, put_datagram},
    },
    protocol::call::Call,
    secret::Secret,
    selector::Labels,
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest::{SHA256, digest},
};

/// What is measured.
pub struct Case {
    pub name: &'static str,
    /// The cases whose rounds are taken off: the same bytes without us.
    pub floors: &'static [&'static str],
    /// How many rounds are some ten million instructions.
    pub rounds: u32,
    pub run: fn(u32),
}

/// What others do, to be taken off.
pub const FLOORS: &[Case] = &[
    Case { name: "copy", floors: &[], rounds: 4000, run: copy },
    Case { name: "seal", floors: &[], rounds: 1000, run: seal },
    Case { name: "open", floors: &[], rounds: 1000, run: open },
    Case { name: "hash", floors: &[], rounds: 200, run: hash },
];

/// What is ours.
pub const PATHS: &[Case] = &[
    Case { name: "packets_out", floors: &["copy"], rounds: 4000, run: packets_out },
    Case { name: "packets_in", floors: &[], rounds: 4000, run: packets_in },
    Case { name: "log_seal", floors: &["seal"], rounds: 1000, run: log_seal },
    Case { name: "log_open", floors: &["open"], rounds: 1000, run: log_open },
    Case { name: "log_ship", floors: &["seal"], rounds: 200, run: log_ship },
    Case { name: "log_read", floors: &["log_ship", "open", "hash"], rounds: 200, run: log_read },
    Case { name: "call", floors: &[], rounds: 300, run: call },
    Case { name: "redact", floors: &[], rounds: 200, run: redact },
    Case { name: "journal_seal", floors: &[], rounds: 1000, run: journal_seal },
    Case { name: "journal_open", floors: &[], rounds: 1000, run: journal_open },
];

/// A datagram of a full packet, and how many make a record.
const DATAGRAM: [u8; 1200] = [0x40; 1200];
const DATAGRAMS: usize = 16;
/// A record's worth of a job's output.
const OUTPUT: usize = 4096;

fn copy(rounds: u32) {
    for _ in 0..rounds {
        let mut value = Vec::with_capacity(DATAGRAMS * DATAGRAM.len());
        for _ in 0..DATAGRAMS {
            value.extend_from_slice(black_box(&DATAGRAM));
        }
        black_box(value);
    }
}

fn aead() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap())
}

fn sealed_by(key: &LessSafeKey, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([1; 12]), Aad::empty(), &mut bytes).unwrap();
    bytes
}

fn seal(rounds: u32) {
    let key = aead();
    for _ in 0..rounds {
        black_box(sealed_by(&key, black_box(&[b'x'; OUTPUT])));
    }
}

fn open(rounds: u32) {
    let key = aead();
    let sealed = sealed_by(&key, &[b'x'; OUTPUT]);
    for _ in 0..rounds {
        let mut bytes = black_box(&sealed).clone();
        key.open_in_place(Nonce::assume_unique_for_key([1; 12]), Aad::empty(), &mut bytes).unwrap();
        black_box(bytes);
    }
}

fn hash(rounds: u32) {
    for _ in 0..rounds {
        black_box(digest(&SHA256, black_box(&[b'x'; OUTPUT])));
    }
}

fn packet() -> Bytes {
    let header = Header { kind: Kind::Down, incarnation: Incarnation { starts: 1, random: 2 }, epoch: 3 };
    let mut value = BytesMut::new();
    header.encode(&mut value);
    for _ in 0..DATAGRAMS {
        put_datagram(&mut value, black_box(&DATAGRAM), None);
    }
    value.freeze()
}

fn packets_out(rounds: u32) {
    for _ in 0..rounds {
        black_box(packet());
    }
}

fn packets_in(rounds: u32) {
    let packet = packet();
    for _ in 0..rounds {
        let mut value = black_box(packet.clone());
        let header = Header::decode(&mut value).unwrap();
        assert_eq!(Datagrams::new(&header, value).filter(Result::is_ok).count(), DATAGRAMS);
    }
}

fn attempt() -> Attempt {
    let job = JobKey::new("d25w22qk9jy0e0pz").unwrap();
    let key = JobSecret::new([7; 32]).attempt(&job, 1);
    Attempt::new(job, 1, &key)
}

fn sealed(sealer: &Sealer, at: u64) -> kafka::Record {
    let run = Run { time: 1_790_000_000_000, length: OUTPUT as u32 };
    let before = Positions([at, 0, 0]);
    let meta = Meta { topic: 9, batch: Some(3), index: None, before, acked: before, body: Body::Data(vec![run]) };
    sealer.seal(Stream::Stdout, at, vec![b'x'; OUTPUT], &meta)
}

fn log_seal(rounds: u32) {
    let sealer = Sealer::new(attempt(), Format::Sealed, [5; 16]);
    for round in 0..rounds {
        black_box(sealed(&sealer, u64::from(round) * OUTPUT as u64));
    }
}

fn log_open(rounds: u32) {
    let record = sealed(&Sealer::new(attempt(), Format::Sealed, [5; 16]), 0);
    let mut opener = Opener::new(attempt());
    for _ in 0..rounds {
        black_box(opener.open(black_box(&record)).unwrap());
    }
}

/// Calls from a controller to an agent in one process: both sides' links without Kafka's client.
fn call(rounds: u32) {
    block_on(async {
        let (memory, prefix) = (MemoryCluster::new(), Prefix::default());
        memory.create(&prefix.journal(), 1);
        for topic in [prefix.up_control(), prefix.down_control(), prefix.up_bulk(), prefix.down_bulk()] {
            memory.create(&topic, 8);
        }
        let (cluster, identity): (SharedCluster, _) = (Arc::new(memory), Arc::new(Identity::generate()));
        let dir = tempfile::tempdir().unwrap();
        let config = controller::Config { data: dir.path().join("controller"), ..controller::Config::default() };
        let controller = controller::start(&config, cluster.clone(), &identity).await.unwrap();
        let (handle, name) = (controller.handle(), "a".parse::<AgentName>().unwrap());
        let request = AddAgent { name: name.clone(), labels: Labels::new(), layout: None };
        let credential = Arc::new(handle.add_agent(request).await.unwrap().credential.parse().unwrap());
        let config = agent::Config { data: dir.path().join("agent"), ..agent::Config::default() };
        let (_stops, stopped) = tokio::sync::mpsc::channel(1);
        let agent = tokio::spawn(agent::run(config, cluster, credential, stopped));
        while handle.session(&name).is_err() {
            assert!(!agent.is_finished(), "the agent ended");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        for _ in 0..rounds {
            black_box(handle.call(&name, Call::Echo, Bytes::from_static(&[b'x'; 100])).await.unwrap());
        }
        agent.abort();
    });
}

const TOPIC: &str = "rk.logs";

/// A runtime in which nothing waits for the time of day.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// Ships so many pieces of output, each waited for: a record each.
async fn ship(rounds: u32) -> SharedCluster {
    let memory = MemoryCluster::new();
    memory.create(TOPIC, 1);
    let cluster: SharedCluster = Arc::new(memory);
    let config = Config::default();
    let started = Shipper::start(cluster.clone(), TOPIC, 0, attempt(), Default::default(), config).await;
    let mut shipper = started.unwrap();
    for round in 0..rounds {
        let at = u64::from(round) * OUTPUT as u64;
        shipper.ship(Stream::Stdout, at, 1_790_000_000_000 + i64::from(round), &[b'x'; OUTPUT]).await.unwrap();
        shipper.flush().await.unwrap();
    }
    cluster
}

fn log_ship(rounds: u32) {
    block_on(ship(rounds));
}

/// Ships and reads, so that it is the reading that differs from [`log_ship`].
fn log_read(rounds: u32) {
    block_on(async {
        let cluster = ship(rounds).await;
        let mut reader = Reader::open(cluster, TOPIC, 0, attempt(), Options::default()).await.unwrap();
        let mut left = u64::from(rounds) * OUTPUT as u64;
        while left > 0 {
            if let Some(Event::Chunk { bytes, .. }) = reader.next().await.unwrap() {
                left -= bytes.len() as u64;
            }
        }
    });
}

fn redact(rounds: u32) {
    let values = ["correct horse battery staple", "hunter2hunter2", "a\nsecret of\nthree lines"];
    let secrets: Vec<_> = values.iter().map(|value| Secret::new(value.as_bytes().to_vec())).collect();
    let secrets = Secrets::new(&secrets).unwrap();
    let line = b"warning: 17 crates of 240 were built with hunter2 and other words, which is not yet a secret\n";
    let output: Vec<u8> = line.iter().copied().cycle().take(OUTPUT).collect();
    let (mut redactor, mut out) = (Redactor::new(&secrets), Vec::new());
    for _ in 0..rounds {
        out.clear();
        redactor.push(black_box(&output), &mut out);
        black_box(&out);
    }
}

fn entry() -> Entry {
    let prev = Head::default();
    Entry { kind: EntryKind::Event, epoch: 2, writer: 9, seq: 3, prev, payload: Bytes::from_static(&[b'x'; 200]) }
}

fn codec() -> Codec {
    Codec::new(&StateKey::new([7; 32]), "rk.journal")
}

fn journal_seal(rounds: u32) {
    let (codec, entry) = (codec(), entry());
    for _ in 0..rounds {
        black_box(codec.seal(black_box(&entry), [1; 12]));
    }
}

fn journal_open(rounds: u32) {
    let codec = codec();
    let sealed = codec.seal(&entry(), [1; 12]);
    for _ in 0..rounds {
        black_box(codec.open(black_box(&sealed)).unwrap());
    }
}
