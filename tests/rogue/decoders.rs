//! Everything that decodes bytes which others may have written: millions of mutations of real inputs, from a seed. None panics, and
//! none allocates much more than it was given, whatever the bytes promise.
//!
//! `RK_MUTATIONS` of each kind (200,000), from `RK_SEED` (1).

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "tests")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use remoting_kafka::{
    bundle::Digest,
    bytelog::{
        Attempt, Body, Format, JobKey, JobSecret, Kind, Meta, Point, Positions, Run, Stream,
        record::{Opener, Sealer},
    },
    controller::{event, scheduler},
    frame,
    id::{AgentName, ExecId},
    job::{
        self, Hidden, JobId, Manifest, Spec, Target,
        manifest::{self, File},
    },
    journal::{
        Head,
        record::{Codec, Kind as EntryKind, Record as Entry, StateKey, decode_body},
        rule::Rule,
        snapshot::{End, decode_begin, decode_part},
    },
    kafka::Record,
    link::{
        Enrolment, SecretHash, TokenId,
        packet::{Datagrams, Header, Incarnation, Kind as PacketKind, put_datagram, source_connection_id},
    },
    protocol::{Open, call, exec, jobs},
};
use serde::{Serialize, de::DeserializeOwned};

/// What a decoder may allocate at once whatever it is given: what a frame's buffer begins with.
const BASE: usize = 8 << 10;
/// And for each byte that it is given: an empty string or an empty part of a snapshot takes one byte or four there, and a place in
/// a list that doubles here.
const FACTOR: usize = 64;

thread_local! {
    /// The largest allocation of this thread since it was last asked.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, watched.
struct Watched;

#[allow(unsafe_code, reason = "an allocator is unsafe; this one hands everything on")]
// SAFETY: every call is the system allocator's own, with the same arguments.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

fn note(size: usize) {
    // A thread that ends has no place to note anything, and decodes nothing.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes bytes in one of the ways in which lengths, counts and tags go wrong.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let long = at.saturating_add(1 + random.below(9)).min(bytes.len());
    match random.below(10) {
        0 | 1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
        2 => {
            let odd = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)];
            bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = odd);
        }
        // A number as large as can be written.
        3 => bytes[at..long].fill(0xff),
        4 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f])),
        5 => bytes.truncate(at),
        6 => drop(bytes.drain(at..long)),
        7 => {
            let piece = bytes[at..long].to_vec();
            drop(bytes.splice(at..at, piece.repeat(1 + random.below(40))));
        }
        8 => {
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => bytes.extend((0..random.below(40)).map(|_| random.next() as u8)),
    }
}

/// Says what was decoded when the decoder panicked.
struct Case<'a>(&'a str, u64, &'a [u8]);

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}: mutation {} is {:02x?}", self.0, self.1, self.2);
        }
    }
}

/// Gives mutations of `golden` to `decode`, with the number of the one that each came from.
fn hammer(what: &str, golden: &[Vec<u8>], mut decode: impl FnMut(usize, &[u8], &mut Random)) {
    let number = |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse::<u64>().unwrap());
    let (count, seed) = (number("RK_MUTATIONS", 200_000), number("RK_SEED", 1));
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut worst, mut longest) = (0, 0);
    for case in 0..count {
        let from = random.below(golden.len());
        let mut bytes = golden[from].clone();
        for _ in 0..random.below(4) {
            let other = &golden[random.below(golden.len())];
            mutate(&mut bytes, &mut random, other);
        }
        longest = longest.max(bytes.len());
        let told = Case(what, case, &bytes);
        LARGEST.set(0);
        decode(from, &bytes, &mut random);
        let largest = LARGEST.get();
        assert!(largest <= BASE + FACTOR * bytes.len(), "seed {seed}: {largest} bytes for {}", bytes.len());
        worst = worst.max(largest);
        drop(told);
    }
    println!(
        "{what}: {count} mutations of {} inputs up to {longest} bytes; {worst} bytes at once at most",
        golden.len()
    );
}

#[test]
fn packets_decode_or_not() {
    let run = Incarnation { starts: 7, random: 9 };
    let golden = [PacketKind::Up, PacketKind::Down, PacketKind::Notice, PacketKind::Probe].map(|kind| {
        let mut out = BytesMut::new();
        Header { kind, incarnation: run, epoch: 3 }.encode(&mut out);
        let long: Vec<u8> = [&[0xc0, 0, 0, 0, 1, 8][..], &[1; 8], &[8], &[2; 8], &[0; 300]].concat();
        put_datagram(&mut out, &long, (kind == PacketKind::Up).then_some([5; 16]));
        put_datagram(&mut out, &[0x41; 1300], None);
        put_datagram(&mut out, &[0x42; 30], None);
        out.to_vec()
    });
    hammer("packets", &golden, |_, bytes, _| {
        let mut value = Bytes::copy_from_slice(bytes);
        let Ok(header) = Header::decode(&mut value) else { return };
        let taken: usize = Datagrams::new(&header, value)
            .flatten()
            .map(|(datagram, _)| {
                black_box(source_connection_id(&datagram));
                datagram.len()
            })
            .sum();
        assert!(taken <= bytes.len());
    });
}

/// A kind of message: how it is read from a frame.
type Reader = fn(&[u8]);

fn read<T: DeserializeOwned>(mut bytes: &[u8]) {
    let message = frame::read::<T>(&mut bytes).now_or_never().expect("a slice never waits");
    black_box(message.is_ok());
}

fn message<T: Serialize + DeserializeOwned>(value: &T) -> (Vec<u8>, Reader) {
    let mut buffer = BytesMut::new();
    frame::encode(value, &mut buffer).unwrap();
    (buffer.to_vec(), read::<T>)
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn spec() -> Box<Spec> {
    let mut spec = Spec::new("tester", Target::Agent(name("b7")), ["sh", "-c", "echo $A"]);
    spec.env = [("A".to_owned(), "a value".to_owned()), ("B".to_owned(), String::new())].into();
    spec.cwd = Some("/tmp".to_owned());
    spec.timeout = Some(Duration::from_secs(300));
    Box::new(spec)
}

fn messages() -> Vec<(Vec<u8>, Reader)> {
    let (id, job) = (ExecId(7), JobId::new(1_790_000_000_000, 3));
    let start = exec::Start {
        id,
        argv: ["sh", "-c", "echo"].map(str::to_owned).to_vec(),
        env: vec![("A".to_owned(), "b".to_owned()); 3],
        cwd: Some("/tmp".to_owned()),
        timeout: Some(Duration::from_secs(5)),
        grace: Duration::from_secs(10),
        stdin: true,
        terminal: Some(exec::Terminal { kind: "xterm".to_owned(), size: exec::Size { columns: 80, rows: 24 } }),
        bundles: Vec::new(),
    };
    let mark = jobs::Mark { epoch: 2, offset: 10, head: [7; 32] };
    let stream = job::StreamEnd { length: 4, sha256: [8; 32] };
    let outcome = job::Outcome::Exited(1);
    let ended = jobs::Report::Ended { agent_ms: 5, outcome, stdout: stream, stderr: stream };
    let log = jobs::LogTicket { partition: 3, key: Hidden::new([9; 32]) };
    let cancel = job::Cancel { signal: 15, grace: Duration::from_secs(10) };
    vec![
        message(&Open::Call(call::Call::Echo)),
        message(&Open::Exec(start.clone())),
        message(&Open::ExecResumable(exec::StartResumable { start, patience: Duration::from_secs(60) })),
        message(&Open::ExecResume(exec::Resume { id, stdout: 300, stderr: 1, user: Some(1) })),
        message(&Open::Stdio(exec::Stdio { id, channel: exec::Channel::Err })),
        message(&Open::Jobs(jobs::Hello { mark, accept_rollback: true })),
        message(&exec::Steer::Acked { channel: exec::Channel::InOut, up_to: 1 << 40 }),
        message(&exec::Event::Refused(exec::Refusal::Failed("why not".to_owned()))),
        message(&exec::Event::Exited(exec::Outcome::Code(255))),
        message(&call::Answer::Failed("why not".to_owned())),
        message(&call::Condition { running: 2, uptime: 300 }),
        message(&jobs::Order::Start { job, attempt: 1, spec: spec(), log, bundles: Vec::new() }),
        message(&jobs::Order::Cancel { job, attempt: 1, cancel }),
        message(&jobs::Order::Mark(mark)),
        message(&jobs::Event::Report { job, attempt: 1, report: ended }),
        message(&jobs::Event::Trouble { job, attempt: 1, trouble: Some("disk".to_owned()) }),
    ]
}

#[test]
fn frames_decode_or_not() {
    let (golden, readers): (Vec<_>, Vec<_>) = messages().into_iter().unzip();
    hammer("frames", &golden, |from, bytes, random| {
        // Mostly with the length that the rest has, or nothing behind it would be looked at.
        let rest = bytes.get(4..).unwrap_or_default();
        let right = [&(rest.len() as u32).to_le_bytes()[..], rest].concat();
        LARGEST.set(0);
        let bytes = if random.below(4) == 0 { bytes } else { &right };
        readers[from](bytes);
        readers[random.below(readers.len())](bytes);
    });
}

/// A log's records: each part of one, with its length before it.
fn log_records() -> (Attempt, Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let job = JobKey::new("job").unwrap();
    let attempt = Attempt::new(job.clone(), 1, &JobSecret::new([7; 32]).attempt(&job, 1));
    let before = Positions([5, 0, 0]);
    let meta = |body| Meta { topic: 9, batch: Some(3), index: None, before, acked: Positions([1, 0, 0]), body };
    let run = |n: i64| Run { time: 1_790_000_000_000 + n, length: 5 };
    let point = |n: i64| Point { offset: n, before, time: n * 7 };
    let bodies = [
        (Body::Data((0..20).map(run).collect()), 100),
        (Body::End([3; 32]), 0),
        (Body::Index((0..20).map(point).collect()), 0),
    ];
    let (mut records, mut metas) = (Vec::new(), Vec::new());
    for (body, length) in bodies {
        for format in [Format::Sealed, Format::Open] {
            let sealer = Sealer::new(attempt.clone(), format, [5; 16]);
            let (stream, offset) = match body {
                Body::Index(_) => (Stream::System, 0),
                _ => (Stream::Stdout, 5),
            };
            let record = sealer.seal(stream, offset, vec![b'x'; length], &meta(body.clone()));
            if let Some((_, encoded)) = record.headers.iter().find(|(name, _)| name == "meta") {
                metas.push(URL_SAFE_NO_PAD.decode(encoded).unwrap());
            }
            let parts = record.headers.iter().flat_map(|(name, value)| [name.as_bytes(), &value[..]]);
            records.push(parts.chain([&record.value[..]]).flat_map(sized).collect());
        }
    }
    (attempt, records, metas)
}

fn sized(part: &[u8]) -> Vec<u8> {
    [&(part.len() as u16).to_le_bytes()[..], part].concat()
}

/// The parts again, however they were mutated.
fn parts(bytes: &[u8]) -> Vec<Bytes> {
    let (mut rest, mut parts) = (bytes, Vec::new());
    while let Some((length, behind)) = rest.split_first_chunk() {
        let (part, behind) = behind.split_at(behind.len().min(usize::from(u16::from_le_bytes(*length))));
        parts.push(Bytes::copy_from_slice(part));
        rest = behind;
    }
    parts
}

#[test]
fn records_of_logs_decode_or_not() {
    let (attempt, records, metas) = log_records();
    let mut opener = Opener::new(attempt.clone());
    let mut opened = 0u64;
    hammer("records of logs", &records, |_, bytes, _| {
        let mut parts = parts(bytes);
        let value = parts.pop().unwrap_or_default();
        let text = |part: &Bytes| String::from_utf8_lossy(part).into_owned();
        let headers = parts.chunks_exact(2).map(|pair| (text(&pair[0]), pair[1].clone())).collect();
        let record = Record { key: attempt.job().bytes().clone(), value, headers };
        LARGEST.set(0);
        opened += u64::from(opener.open(&record).is_ok());
    });
    assert!(opened > 0, "what was not changed is opened");
    hammer("metas of logs", &metas, |_, bytes, _| {
        for kind in [Kind::Data, Kind::End, Kind::Index] {
            black_box(Meta::decode(bytes, kind).is_some());
        }
    });
}

#[test]
fn records_of_the_journal_decode_or_not() {
    let codec = Codec::new(&StateKey::new([7; 32]), "rk.journal");
    let payload = [sized_payload(b"an event"), sized_payload(b""), sized_payload(&[9; 100])].concat();
    let kinds = [EntryKind::Claim, EntryKind::Event, EntryKind::SnapshotBegin, EntryKind::SnapshotPart];
    let entries = kinds.map(|kind| Entry {
        kind,
        epoch: 3,
        writer: 8,
        seq: 42,
        prev: Head([9; 32]),
        payload: payload.clone().into(),
    });
    let sealed: Vec<Vec<u8>> = entries.iter().map(|entry| codec.seal(entry, [1; 12]).to_vec()).collect();
    let mut forged = 0u64;
    hammer("sealed records of the journal", &sealed, |_, bytes, _| {
        let ours = sealed.iter().position(|sealed| sealed == bytes);
        assert_eq!(codec.open(bytes).ok().as_ref(), ours.map(|at| &entries[at]), "nobody forges a seal");
        forged += u64::from(ours.is_none());
    });
    assert!(forged > 0);
    // What is below the seal, as a later version of ourselves could have written it.
    let bodies: Vec<Vec<u8>> = entries
        .iter()
        .map(|entry| [&[1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 42][..], &entry.prev.0, &entry.payload].concat())
        .chain([payload.clone(), [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3].into()])
        .collect();
    hammer("bodies of the journal", &bodies, |_, bytes, _| {
        black_box((decode_begin(bytes), End::decode(bytes)));
        black_box(decode_part(Bytes::copy_from_slice(bytes)).is_some());
        if let Ok(entry) = decode_body(1, Bytes::copy_from_slice(bytes)) {
            let mut rule = Rule::before(&entry).unwrap_or_default();
            black_box(rule.judge(&entry, bytes));
        }
    });
}

fn sized_payload(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[..], payload].concat()
}

#[test]
fn events_of_the_controller_decode_or_not() {
    let (secret, labels) =
        (SecretHash::of(&[7; 32]), [("zone".to_owned(), "a".to_owned()), ("k".to_owned(), "v".to_owned())]);
    let token = event::Token {
        secret,
        uses: 3,
        used: 1,
        created_ms: 5,
        expires_ms: 300,
        labels: labels.clone().into(),
        name_prefix: "b".to_owned(),
        revoked: true,
    };
    let (id, enrolment, job) = (TokenId([9; 8]), Enrolment([8; 16]), JobId::new(1_790_000_000_000, 3));
    let submitted =
        job::Event::Submitted { at_ms: 7, spec: spec(), log_key: Hidden::new([3; 32]), retry_of: Some(job) };
    let golden: Vec<Vec<u8>> = [
        event::Event::AgentAdded { name: name("b7"), secret, labels: labels.into() },
        event::Event::AgentRemoved { name: name("b7") },
        event::Event::AgentRotated { name: name("b7"), secret, kept: Some((secret, 300)) },
        event::Event::TokenCreated { id, token },
        event::Event::TokenUsed { token: id, enrolment, name: name("b7"), secret },
        event::Event::Scheduler(scheduler::Event::AgentDrained { name: name("b7"), by: "me".to_owned() }),
        event::Event::Scheduler(scheduler::Event::Forgotten { ids: vec![job; 5] }),
        event::Event::Scheduler(scheduler::Event::Job { id: job, event: submitted }),
    ]
    .iter()
    .map(|event| event.encode().to_vec())
    .collect();
    let mut decoded = 0u64;
    hammer("events of the controller", &golden, |_, bytes, _| {
        if let Ok(event) = event::Event::decode(bytes) {
            decoded += 1;
            black_box(event);
        }
    });
    assert!(decoded > 0, "what was not changed is decoded");
}

#[test]
fn lists_of_artifacts_decode_or_not() {
    let file = |number: usize, size: u64| File {
        path: format!("out/{number:03}.xml"),
        size,
        sha256: Digest([7; 32]),
        offset: 0,
        mode: 0o644,
        modified_ns: -5,
    };
    let golden: Vec<Vec<u8>> = [0, 1, 3, 40]
        .map(|count| {
            let mut files: Vec<File> = (0..count).map(|number| file(number, 5)).collect();
            let order = manifest::lay_out(&mut files);
            let pack = manifest::pack(order.iter().map(|at| (files[*at].sha256, files[*at].size)));
            Manifest { files, pack, index: vec![1; count], last: 9, left_out: vec!["x: no".to_owned(); count] }.encode()
        })
        .into();
    let mut decoded = 0u64;
    hammer("lists of artifacts", &golden, |_, bytes, _| {
        if let Ok(list) = Manifest::decode(bytes) {
            decoded += 1;
            black_box(list);
        }
    });
    assert!(decoded > 0, "what was not changed is decoded");
}
