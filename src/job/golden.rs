//! The bytes of everything that is journalled, as the first version wrote them: to be read for ever. A new variant goes
//! to the end of its enum and gets a line; a line never changes.

use std::time::Duration;

use super::*;
use crate::{
    bundle::{Archive, Digest, Place, Used},
    id::AgentName,
};

fn agent() -> AgentName {
    "b7".parse().expect("name")
}

fn id() -> JobId {
    JobId::new(1_790_000_000_000, 0x1234_5678)
}

const ID: [u8; 10] = [0x68, 0x31, 0x14, 0x1b, 0x00, 0x00, 0x12, 0x34, 0x56, 0x78];

/// Every field is set.
fn full() -> Spec {
    Spec {
        name: Some("nightly".to_owned()),
        command: Command::Script { text: "make".to_owned(), interpreter: vec!["sh".to_owned()] },
        env: [("A".to_owned(), "b".to_owned())].into(),
        cwd: Some("src".to_owned()),
        target: Target::Selector("os=linux".parse().expect("selector")),
        timeout: Some(Duration::from_millis(1500)),
        priority: 9,
        retries: 2,
        stdin: Some(Stdin::Inline(b"in".to_vec())),
        secrets: [
            ("F".to_owned(), JobSecret { value: Hidden::new(b"f".to_vec()), route: SecretRoute::File }),
            ("V".to_owned(), JobSecret { value: Hidden::new(b"v".to_vec()), route: SecretRoute::Variable }),
        ]
        .into(),
        concurrency: Some("deploy".to_owned()),
        submitter: "ann".to_owned(),
        workspace: Workspace::Keep { quota: 300 },
        cancel: Cancel { signal: 2, grace: Duration::from_secs(3) },
        log_format: LogFormat::Open,
        spool_limit: 1 << 20,
        bundles: vec![Used { digest: Digest([3; 32]), name: "t".parse().expect("name") }],
        artifacts: vec!["out/**".to_owned()],
    }
}

fn full_bytes() -> Vec<u8> {
    [
        &b"\x01\x07nightly"[..],
        b"\x01\x04make\x01\x02sh",
        b"\x01\x01A\x01b",
        b"\x01\x03src",
        b"\x01\x08os=linux",
        // Seconds, then nanoseconds as a varint.
        &[1, 1, 0x80, 0xca, 0xb5, 0xee, 0x01],
        &[9, 2],
        b"\x01\x00\x02in",
        b"\x02\x01F\x01f\x01\x01V\x01v\x00",
        b"\x01\x06deploy",
        b"\x03ann",
        &[1, 0xac, 2],
        &[4, 3, 0],
        &[1],
        &[0x80, 0x80, 0x40],
        &[1],
        &[3; 32],
        b"\x01t",
        b"\x01\x06out/**",
    ]
    .concat()
}

fn least() -> Spec {
    Spec { spool_limit: 5, ..Spec::new("a", Target::Agent(agent()), ["x"]) }
}

const LEAST: &[u8] =
    b"\x00\x00\x01\x01x\x00\x00\x00\x02b7\x00\x05\x00\x00\x00\x00\x01a\x00\x1e\x0a\x00\x00\x05\x00\x00";

fn stored() -> Stored {
    let place = Place { topic: 300, partition: 1, first: 1, last: 300, key: Hidden::new([9; 32]) };
    let manifest = Archive { sha256: Digest([8; 32]), size: 300 };
    Stored { manifest, place, first: 1, files: 300, bytes: 7, left_out: 2 }
}

fn stored_bytes() -> Vec<u8> {
    [&[8; 32][..], &[0xac, 2, 0xac, 2, 1, 2, 0xd8, 4], &[9; 32], &[2, 0xac, 2, 7, 2]].concat()
}

fn golden() -> Vec<(Event, Vec<u8>)> {
    let ended = |outcome| Event::Ended {
        at_ms: 300,
        attempt: 1,
        agent_ms: 5,
        outcome,
        stdout: StreamEnd { length: 300, sha256: [1; 32] },
        stderr: StreamEnd { length: 0, sha256: [2; 32] },
    };
    let ends = [&[0xac, 2][..], &[1; 32], &[0], &[2; 32]].concat();
    let ended_bytes = |outcome: &[u8]| [&[1, 3, 0xac, 2, 1, 5], outcome, &ends].concat();
    let key = || Hidden::new([7; 32]);
    let not_started = Outcome::NotStarted { code: 127, message: "no".to_owned() };
    let lost = |reason| Event::Lost { at_ms: 1, attempt: 2, reason };
    let returned = |reason| Event::Returned { at_ms: 1, attempt: 2, reason };
    let (kill, by) = (Cancel { signal: 9, grace: Duration::ZERO }, || "op".to_owned());
    let place = LogPlace { partition: 7, first: 1, last: 300 };
    vec![
        (
            Event::Submitted { at_ms: 300, spec: Box::new(full()), log_key: key(), retry_of: Some(id()) },
            [&[1, 0, 0xac, 2], &full_bytes()[..], &[7; 32], &[1], &ID].concat(),
        ),
        (
            Event::Submitted { at_ms: 0, spec: Box::new(least()), log_key: key(), retry_of: None },
            [&[1, 0, 0], LEAST, &[7; 32], &[0]].concat(),
        ),
        (Event::Assigned { at_ms: 1, attempt: 2, agent: agent() }, vec![1, 1, 1, 2, 2, b'b', b'7']),
        (
            Event::Started { at_ms: 1, attempt: 2, agent_ms: 3, pid: 300, boot: 300 },
            vec![1, 2, 1, 2, 3, 0xac, 2, 0xac, 2],
        ),
        (ended(Outcome::Exited(255)), ended_bytes(&[0, 0xfe, 3])),
        (ended(Outcome::Signalled(9)), ended_bytes(&[1, 18])),
        (ended(Outcome::TimedOut), ended_bytes(&[2])),
        (ended(Outcome::Cancelled), ended_bytes(&[3])),
        (ended(not_started), ended_bytes(&[4, 0xfe, 1, 2, b'n', b'o'])),
        (lost(Loss::ShimGone), vec![1, 4, 1, 2, 0]),
        (lost(Loss::HostRebooted), vec![1, 4, 1, 2, 1]),
        (lost(Loss::NoTrace), vec![1, 4, 1, 2, 2]),
        (lost(Loss::Deadline), vec![1, 4, 1, 2, 3]),
        (lost(Loss::AgentRemoved), vec![1, 4, 1, 2, 4]),
        (Event::Retried { at_ms: 1, attempt: 2, reason: Loss::Deadline }, vec![1, 5, 1, 2, 3]),
        (returned(Returned::Draining), vec![1, 6, 1, 2, 0]),
        (returned(Returned::NoRoom), vec![1, 6, 1, 2, 1]),
        (returned(Returned::NeverTold), vec![1, 6, 1, 2, 2]),
        (returned(Returned::Unwanted), vec![1, 6, 1, 2, 3]),
        (Event::CancelRequested { at_ms: 1, by: by(), cancel: None }, vec![1, 7, 1, 2, b'o', b'p', 0]),
        (Event::CancelRequested { at_ms: 1, by: by(), cancel: Some(kill) }, vec![1, 7, 1, 2, b'o', b'p', 1, 18, 0, 0]),
        (Event::DeadlineSet { at_ms: 1, by: by(), deadline: None }, vec![1, 8, 1, 2, b'o', b'p', 0]),
        (
            Event::DeadlineSet { at_ms: 1, by: by(), deadline: Some(Duration::from_secs(60)) },
            vec![1, 8, 1, 2, b'o', b'p', 1, 60, 0],
        ),
        (Event::Logged { attempt: 2, place }, vec![1, 9, 2, 7, 2, 0xd8, 4]),
        (
            Event::Artifacts { at_ms: 1, attempt: 2, artifacts: Artifacts::Stored(stored()) },
            [&[1, 10, 1, 2, 0][..], &stored_bytes()].concat(),
        ),
        (
            Event::Artifacts { at_ms: 1, attempt: 2, artifacts: Artifacts::Missing { why: "no".to_owned() } },
            vec![1, 10, 1, 2, 1, 2, b'n', b'o'],
        ),
    ]
}

#[test]
fn events_have_the_bytes_that_they_always_had() {
    for (event, bytes) in golden() {
        assert_eq!(event.encode(), bytes, "{event:?}");
        assert_eq!(Event::decode(&bytes), Ok(event));
    }
}

/// Jobs are part of snapshots.
#[test]
fn jobs_have_the_bytes_that_they_always_had() {
    let place = LogPlace { partition: 7, first: 1, last: 300 };
    let spec = Box::new(Spec { retries: 1, ..least() });
    let mut job =
        Job::open(&Event::Submitted { at_ms: 1, spec, log_key: Hidden::new([7; 32]), retry_of: None }).expect("first");
    for event in [
        Event::Assigned { at_ms: 2, attempt: 1, agent: agent() },
        Event::Started { at_ms: 9, attempt: 1, agent_ms: 3, pid: 5, boot: 6 },
        Event::Retried { at_ms: 4, attempt: 1, reason: Loss::ShimGone },
        Event::Assigned { at_ms: 5, attempt: 2, agent: agent() },
        Event::Logged { attempt: 2, place },
        Event::DeadlineSet { at_ms: 6, by: "op".to_owned(), deadline: None },
        Event::CancelRequested { at_ms: 7, by: "op".to_owned(), cancel: None },
        Event::Artifacts { at_ms: 8, attempt: 2, artifacts: Artifacts::Stored(stored()) },
        Event::Lost { at_ms: 8, attempt: 2, reason: Loss::NoTrace },
    ] {
        job.apply(&event).expect("true");
    }
    let mut spec = LEAST.to_vec();
    spec[13] = 1;
    let bytes = [
        &[1][..],
        &spec,
        &[7; 32],
        &[0],
        // Lost, no trace; attempt 2; one was repeated.
        &[8, 2, 2, 1],
        &[2, 1, 2, b'b', b'7', 2, 1, 3, 5, 6, 0, 1, 1, 4, 0, 0],
        &[2, 2, b'b', b'7', 5, 0, 1, 7, 2, 0xd8, 4, 1, 1, 8, 2],
        &[1, 8, 0],
        &stored_bytes(),
        &[0],
        &[1, 7, 2, b'o', b'p', 30, 10, 0],
        &[1, 2, b'o', b'p', 0],
        &[1, 8],
        &[0],
    ]
    .concat();
    assert_eq!(postcard::to_stdvec(&job).expect("encode"), bytes);
    assert_eq!(postcard::from_bytes::<Job>(&bytes).expect("decode"), job);
}

#[test]
fn every_state_has_the_bytes_that_it_always_had() {
    let table: [(State, &[u8]); 9] = [
        (State::Queued, &[0]),
        (State::Assigned, &[1]),
        (State::Running, &[2]),
        (State::Succeeded, &[3]),
        (State::Failed(1), &[4, 2]),
        (State::Signalled(9), &[5, 18]),
        (State::Cancelled, &[6]),
        (State::TimedOut, &[7]),
        (State::Lost(Loss::ShimGone), &[8, 0]),
    ];
    for (state, bytes) in table {
        assert_eq!(postcard::to_stdvec(&state).expect("encode"), bytes);
        assert_eq!(postcard::from_bytes(bytes), Ok(state));
    }
}

#[test]
fn an_event_of_a_newer_version_is_refused_with_the_cure() {
    for bytes in [&[][..], &[2, 0], &[1, 200], &[1, 8, 1, 2, b'o', b'p', 0, 0]] {
        let message = Event::decode(bytes).expect_err("unknown").to_string();
        assert!(message.contains("at least as new"), "{message}");
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        let _ = Event::decode(&bytes);
        let _ = Event::decode(&[&[1, 0, 1][..], &bytes].concat());
        let _ = postcard::from_bytes::<Job>(&bytes);
    }

    #[test]
    fn no_truncated_event_is_read(at in 0usize..200) {
        for (_, bytes) in golden().iter().filter(|(_, bytes)| at < bytes.len()) {
            proptest::prop_assert!(Event::decode(&bytes[..at]).is_err());
        }
    }
}
