//! The bytes of every message. Peers of other versions read them: a change here breaks running agents. New variants and
//! new messages go to the end of their enums, and get a line.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Open,
    call::{Answer, Call, Condition},
    exec::{Attached, Channel, Event, Outcome, Refusal, Resume, Size, Start, StartResumable, Stdio, Steer, Terminal},
    jobs::{self, Hello, LogTicket, Mark, Order, Report},
    service, update,
};
use crate::{
    bundle::{
        Archive, Digest, Place, Target, Ticket, Used,
        sign::{PublicKey, Signature},
    },
    id::ExecId,
    job::{self, Cancel, Hidden, JobId, LogPlace, Loss, Returned, Spec, Stored, StreamEnd},
};

fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, bytes: &[u8]) {
    assert_eq!(postcard::to_stdvec(message).expect("encode"), bytes, "{message:?}");
    assert_eq!(&postcard::from_bytes::<T>(bytes).expect("decode"), message);
}

fn ticket() -> Ticket {
    let used = Used { digest: Digest([7; 32]), name: "t".parse().expect("name") };
    let archive = Archive { sha256: Digest([8; 32]), size: 300 };
    let place = Place { topic: 300, partition: 1, first: 1, last: 300, key: Hidden::new([9; 32]) };
    let key = PublicKey::try_from("A".repeat(43) + "=").expect("32 bytes of zero");
    let signature = Signature { key, signature: "s".to_owned() };
    Ticket { used, variants: [(Target::any(), (archive, place))].into(), signatures: vec![signature] }
}

fn ticket_bytes() -> Vec<u8> {
    [
        &[7; 32][..],
        b"\x01t",
        b"\x01\x03any",
        &[8; 32],
        &[0xac, 2],
        &[0xac, 2, 1, 2, 0xd8, 4],
        &[9; 32],
        b"\x01\x2cAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\x01s",
    ]
    .concat()
}

#[test]
fn an_order_to_change_the_program_has_these_bytes() {
    let order = update::Order {
        id: 300,
        ticket: ticket(),
        deadline: Duration::from_millis(1500),
        drain: Duration::from_secs(2),
        interrupt: true,
        downgrade: false,
    };
    let times = [1, 0x80, 0xca, 0xb5, 0xee, 1, 2, 0];
    same(&order, &[&[0xac, 2][..], &ticket_bytes(), &times, &[1, 0]].concat());
}

#[test]
fn what_opens_a_stream_has_these_bytes() {
    same(&Open::Call(Call::Echo), &[0, 0]);
    same(&Open::Call(Call::Condition), &[0, 1]);
    same(&Open::Call(Call::TakeCredential), &[0, 2]);
    same(&Open::Call(Call::PinNext), &[0, 3]);
    same(&Open::Call(Call::Update), &[0, 4]);
    same(&Open::Call(Call::UpdateState), &[0, 5]);
    let start = Start {
        id: ExecId(5),
        argv: vec!["sh".to_owned(), "-c".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        cwd: Some("/".to_owned()),
        timeout: Some(Duration::from_millis(1500)),
        grace: Duration::from_secs(2),
        stdin: true,
        terminal: None,
        bundles: Vec::new(),
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
        &[2, 0, 1, 0],
        &[0],
    ];
    same(&Open::Exec(start.clone()), &bytes.concat());
    let with = Start { bundles: vec![ticket()], ..start.clone() };
    let whole = bytes.concat();
    same(&Open::Exec(with), &[&whole[..whole.len() - 1], &[1], &ticket_bytes()].concat());
    let resumable = [&[4][..], &bytes.concat()[1..], &[60, 0]].concat();
    let terminal = Terminal { kind: "vt".to_owned(), size: Size { columns: 300, rows: 24 } };
    let with = [&bytes.concat()[..bytes.concat().len() - 2], &[1, 2, b'v', b't', 0xac, 2, 24, 0]].concat();
    same(&Open::Exec(Start { terminal: Some(terminal), ..start.clone() }), &with);
    same(&Open::ExecResumable(StartResumable { start, patience: Duration::from_secs(60) }), &resumable);
    let service = service::Start {
        service: "s".to_owned(),
        caller: "me".to_owned(),
        deadline: Some(Duration::from_secs(3)),
        about: "add".to_owned(),
    };
    same(&Open::Service(service), &[&[6, 1][..], b"s", &[2], b"me", &[1, 3, 0, 3], b"add"].concat());
    same(&service::Outcome::Done, &[0]);
    same(&service::Outcome::Failed("x".to_owned()), &[1, 1, b'x']);
    same(&service::Outcome::Refused(service::Refusal::Invalid, "x".to_owned()), &[2, 5, 1, b'x']);
    same(&service::Outcome::TimedOut, &[3]);
    same(&service::Outcome::NoAnswer("x".to_owned()), &[4, 1, b'x']);
    same(&Open::ExecResume(Resume { id: ExecId(5), stdout: 300, stderr: 1, user: None }), &[5, 5, 0xac, 2, 1, 0]);
    same(&Open::ExecResume(Resume { id: ExecId(5), stdout: 0, stderr: 0, user: Some(2) }), &[5, 5, 0, 0, 1, 2]);
    same(&Open::Stdio(Stdio { id: ExecId(300), channel: Channel::InOut }), &[2, 0xac, 2, 0]);
    same(&Open::Stdio(Stdio { id: ExecId(1), channel: Channel::Err }), &[2, 1, 1]);
}

#[test]
fn what_follows_has_these_bytes() {
    same(&Steer::Signal(15), &[0, 30]);
    same(&Steer::Allow { channel: Channel::InOut, up_to: 300 }, &[1, 0, 0xac, 2]);
    same(&Steer::Allow { channel: Channel::Err, up_to: 0 }, &[1, 1, 0]);
    same(&Steer::Acked { channel: Channel::Err, up_to: 1 }, &[2, 1, 1]);
    same(&Steer::HangUp, &[3]);
    same(&Steer::Disconnected, &[4]);
    same(&Steer::Detached, &[5]);
    same(&Steer::Resize(Size { columns: 300, rows: 24 }), &[6, 0xac, 2, 24]);
    same(&Event::Started { pid: 7 }, &[0, 7]);
    same(&Event::Resumed { pid: 7, stdin: 300 }, &[4, 7, 0xac, 2]);
    same(&Event::Taken { up_to: 300 }, &[5, 0xac, 2]);
    let patience = Duration::from_secs(60);
    let attached = Attached { pid: 7, stdin: 1, stdout: 300, stderr: 0, user: 1, patience, terminal: true };
    same(&Event::Attached(attached), &[6, 7, 1, 0xac, 2, 0, 1, 60, 0, 1]);
    same(&Event::Preparing { done: 1, of: 300 }, &[7, 1, 0xac, 2]);
    same(&Event::Refused(Refusal::Gone("x".to_owned())), &[1, 4, 1, b'x']);
    same(&Event::Refused(Refusal::Denied("x".to_owned())), &[1, 5, 1, b'x']);
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

#[test]
fn what_is_said_of_jobs_has_these_bytes() {
    let id = JobId::new(1_790_000_000_000, 0x1234_5678);
    const ID: [u8; 10] = [0x68, 0x31, 0x14, 0x1b, 0x00, 0x00, 0x12, 0x34, 0x56, 0x78];
    let mark = Mark { epoch: 2, offset: -1, head: [7; 32] };
    let mark_bytes = [&[2, 1][..], &[7; 32]].concat();
    let hello = Open::Jobs(Hello { mark, accept_rollback: true });
    same(&hello, &[&[3][..], &mark_bytes, &[1]].concat());
    let spec = Box::new(Spec::new("a", job::Target::Agent("b7".parse().expect("name")), ["x"]));
    let spec_bytes = postcard::to_stdvec(&spec).expect("fixed by the job's own test");
    let log = LogTicket { partition: 3, key: Hidden::new([9; 32]) };
    let start = Order::Start { job: id, attempt: 1, spec, log, bundles: vec![ticket()] };
    same(&start, &[&[0][..], &ID, &[1], &spec_bytes, &[3], &[9; 32], &[1], &ticket_bytes()].concat());
    let cancel = Cancel { signal: 15, grace: Duration::from_secs(10) };
    same(&Order::Cancel { job: id, attempt: 1, cancel }, &[&[1][..], &ID, &[1, 30, 10, 0]].concat());
    same(&Order::Release { job: id, attempt: 300 }, &[&[2][..], &ID, &[0xac, 2]].concat());
    same(&Order::Mark(mark), &[&[3][..], &mark_bytes].concat());
    let report = |report| jobs::Event::Report { job: id, attempt: 1, report };
    let bytes = |rest: &[u8]| [&[0][..], &ID, &[1], rest].concat();
    same(&report(Report::Claimed), &bytes(&[0]));
    same(&report(Report::Started { agent_ms: 5, pid: 7, boot: 3 }), &bytes(&[1, 5, 7, 3]));
    let stream = StreamEnd { length: 4, sha256: [8; 32] };
    let ended = Report::Ended { agent_ms: 5, outcome: job::Outcome::Exited(1), stdout: stream, stderr: stream };
    let stream_bytes = [&[4][..], &[8; 32]].concat();
    same(&report(ended), &bytes(&[&[2, 5, 0, 2][..], &stream_bytes, &stream_bytes].concat()));
    same(&report(Report::Lost(Loss::HostRebooted)), &bytes(&[3, 1]));
    same(&report(Report::Returned(Returned::NoRoom)), &bytes(&[4, 1]));
    let place = LogPlace { partition: 3, first: 1, last: 2 };
    same(&report(Report::Logged(place)), &bytes(&[5, 3, 2, 4]));
    let place = Place { topic: 300, partition: 1, first: 1, last: 300, key: Hidden::new([9; 32]) };
    let manifest = Archive { sha256: Digest([8; 32]), size: 300 };
    let stored = Stored { manifest, place, first: 1, files: 300, bytes: 7, left_out: 2 };
    let stored_bytes = [&[8; 32][..], &[0xac, 2, 0xac, 2, 1, 2, 0xd8, 4], &[9; 32], &[2, 0xac, 2, 7, 2]].concat();
    same(&report(Report::Stored(stored)), &bytes(&[&[6][..], &stored_bytes].concat()));
    same(&report(Report::NotStored("x".to_owned())), &bytes(&[7, 1, b'x']));
    same(&jobs::Event::Ready { slots: 2, draining: false }, &[1, 2, 0]);
    same(&jobs::Event::Draining(true), &[2, 1]);
    let trouble = jobs::Event::Trouble { job: id, attempt: 1, trouble: Some("x".to_owned()) };
    same(&trouble, &[&[3][..], &ID, &[1, 1, 1, b'x']].concat());
    same(&jobs::Event::RolledBack(mark), &[&[4][..], &mark_bytes].concat());
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
