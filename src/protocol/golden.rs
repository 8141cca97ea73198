//! The bytes of every message. Peers of other versions read them: a change here breaks running agents. New variants and
//! new messages go to the end of their enums, and get a line.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Open,
    call::{Answer, Call, Condition},
    exec::{Channel, Event, Outcome, Refusal, Start, Stdio, Steer},
    jobs::{self, Hello, LogTicket, Mark, Order, Report},
};
use crate::{
    id::ExecId,
    job::{self, Cancel, Hidden, JobId, LogPlace, Loss, Returned, Spec, StreamEnd, Target},
};

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, bytes: &[u8]) {
    assert_eq!(postcard::to_stdvec(message).expect("encode"), bytes, "{message:?}");
    assert_eq!(&postcard::from_bytes::<T>(bytes).expect("decode"), message);
}

#[test]
fn what_opens_a_stream_has_these_bytes() {
    same(&Open::Call(Call::Echo), &[0, 0]);
    same(&Open::Call(Call::Condition), &[0, 1]);
    let start = Start {
        id: ExecId(5),
        argv: vec!["sh".to_owned(), "-c".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        cwd: Some("/".to_owned()),
        timeout: Some(Duration::from_millis(1500)),
        grace: Duration::from_secs(2),
        stdin: true,
    };
    let bytes = [
        &[1, 5, 2, 2][..],
        b"sh",
        &[2],
        b"-c",
        &[1, 1],
        b"A",
        &[1],
        b"b",
        &[1, 1],
        b"/",
        // Seconds, then nanoseconds as a varint.
        &[1, 1, 0x80, 0xca, 0xb5, 0xee, 0x01],
        &[2, 0, 1],
    ];
    same(&Open::Exec(start), &bytes.concat());
    same(&Open::Stdio(Stdio { id: ExecId(300), channel: Channel::InOut }), &[2, 0xac, 2, 0]);
    same(&Open::Stdio(Stdio { id: ExecId(1), channel: Channel::Err }), &[2, 1, 1]);
}

#[test]
fn what_follows_has_these_bytes() {
    same(&Steer::Signal(15), &[0, 30]);
    same(&Steer::Allow { channel: Channel::InOut, up_to: 300 }, &[1, 0, 0xac, 2]);
    same(&Steer::Allow { channel: Channel::Err, up_to: 0 }, &[1, 1, 0]);
    same(&Event::Started { pid: 7 }, &[0, 7]);
    same(&Event::Refused(Refusal::NotFound("x".to_owned())), &[1, 0, 1, b'x']);
    same(&Event::Refused(Refusal::NotExecutable("x".to_owned())), &[1, 1, 1, b'x']);
    same(&Event::Refused(Refusal::Draining), &[1, 2]);
    same(&Event::Refused(Refusal::Failed("x".to_owned())), &[1, 3, 1, b'x']);
    same(&Event::Exited(Outcome::Code(255)), &[2, 0, 0xfe, 3]);
    same(&Event::Exited(Outcome::Signal(9)), &[2, 1, 18]);
    same(&Event::Exited(Outcome::TimedOut), &[2, 2]);
    same(&Event::Allow { up_to: 300 }, &[3, 0xac, 2]);
    let most = [3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    same(&Event::Allow { up_to: u64::MAX }, &most);
    same(&Answer::Ok, &[0]);
    same(&Answer::Failed("x".to_owned()), &[1, 1, b'x']);
    same(&Condition { running: 2, uptime: 300 }, &[2, 0xac, 2]);
}

/// An id's ten bytes, as they are.
const JOB: &[u8] = &[0, 0, 0, 0, 0, 0x40, 0, 0, 0, 2];

fn job() -> JobId {
    JobId::new(1, 2)
}

fn mark() -> Mark {
    Mark { epoch: 2, offset: 300, head: [7; 32] }
}

#[test]
fn orders_about_jobs_have_these_bytes() {
    let place = [&[2, 0xd8, 4][..], &[7; 32]].concat();
    same(&Open::Jobs(Hello { mark: mark(), accept_rollback: true }), &[&[3][..], &place, &[1]].concat());
    let cancel = Cancel { signal: 15, grace: Duration::from_millis(1500) };
    let bytes = [&[1][..], JOB, &[3, 30, 1, 0x80, 0xca, 0xb5, 0xee, 0x01]].concat();
    same(&Order::Cancel { job: job(), attempt: 3, cancel }, &bytes);
    same(&Order::Release { job: job(), attempt: 3 }, &[&[2][..], JOB, &[3]].concat());
    same(&Order::Mark(mark()), &[&[3][..], &place].concat());
    // The spec's own bytes are the journal's, which has its own test.
    let spec = Spec::new("me", Target::Agent("a1".parse().expect("name")), ["true"]);
    let inner = postcard::to_stdvec(&spec).expect("encode");
    let log = LogTicket { partition: 5, key: Hidden::new([9; 32]) };
    let bytes = [&[0][..], JOB, &[1], &inner, &[5], &[9; 32]].concat();
    same(&Order::Start { job: job(), attempt: 1, spec: Box::new(spec), log }, &bytes);
}

#[test]
fn what_agents_say_of_jobs_has_these_bytes() {
    let told = |report: Report, bytes: &[u8]| {
        same(&jobs::Event::Report { job: job(), attempt: 1, report }, &[&[0][..], JOB, &[1], bytes].concat());
    };
    told(Report::Claimed, &[0]);
    told(Report::Started { agent_ms: 300, pid: 7, boot: 300 }, &[1, 0xac, 2, 7, 0xac, 2]);
    let (stdout, stderr) = (StreamEnd { length: 300, sha256: [1; 32] }, StreamEnd { length: 0, sha256: [2; 32] });
    let ended = |outcome| Report::Ended { agent_ms: 4, outcome, stdout, stderr };
    let ends = [&[0xac, 2][..], &[1; 32], &[0], &[2; 32]].concat();
    for (outcome, bytes) in [
        (job::Outcome::Exited(-1), &[0, 1][..]),
        (job::Outcome::Signalled(9), &[1, 18]),
        (job::Outcome::TimedOut, &[2]),
        (job::Outcome::Cancelled, &[3]),
        (job::Outcome::NotStarted { code: 127, message: "x".to_owned() }, &[4, 0xfe, 1, 1, b'x']),
    ] {
        told(ended(outcome), &[&[2, 4][..], bytes, &ends].concat());
    }
    let losses = [Loss::ShimGone, Loss::HostRebooted, Loss::NoTrace, Loss::Deadline, Loss::AgentRemoved];
    for (number, loss) in (0..).zip(losses) {
        told(Report::Lost(loss), &[3, number]);
    }
    let reasons = [Returned::Draining, Returned::NoRoom, Returned::NeverTold, Returned::Unwanted];
    for (number, reason) in (0..).zip(reasons) {
        told(Report::Returned(reason), &[4, number]);
    }
    told(Report::Logged(LogPlace { partition: 1, first: -1, last: 300 }), &[5, 1, 1, 0xd8, 4]);
    same(&jobs::Event::Ready { slots: 300, draining: true }, &[1, 0xac, 2, 1]);
    same(&jobs::Event::Draining(false), &[2, 0]);
    let trouble = |trouble: Option<&str>| {
        let trouble = trouble.map(str::to_owned);
        jobs::Event::Trouble { job: job(), attempt: 1, trouble }
    };
    same(&trouble(None), &[&[3][..], JOB, &[1, 0]].concat());
    same(&trouble(Some("x")), &[&[3][..], JOB, &[1, 1, 1, b'x']].concat());
    same(&jobs::Event::RolledBack(mark()), &[&[4, 2, 0xd8, 4][..], &[7; 32]].concat());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        postcard::from_bytes::<Open>(&bytes).ok();
        postcard::from_bytes::<Steer>(&bytes).ok();
        postcard::from_bytes::<Event>(&bytes).ok();
        postcard::from_bytes::<Answer>(&bytes).ok();
        postcard::from_bytes::<Order>(&bytes).ok();
        postcard::from_bytes::<jobs::Event>(&bytes).ok();
    }
}
