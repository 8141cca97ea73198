//! The bytes of every message. Peers of other versions read them: a change here breaks running agents. New variants and
//! new messages go to the end of their enums, and get a line.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Open,
    call::{Answer, Call, Condition},
    exec::{Channel, Event, Outcome, Refusal, Resume, Start, StartResumable, Stdio, Steer},
};
use crate::id::ExecId;

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
    same(&Open::Exec(start.clone()), &bytes.concat());
    let resumable = [&[4][..], &bytes.concat()[1..], &[60, 0]].concat();
    same(&Open::ExecResumable(StartResumable { start, patience: Duration::from_secs(60) }), &resumable);
    same(&Open::ExecResume(Resume { id: ExecId(5), stdout: 300, stderr: 1 }), &[5, 5, 0xac, 2, 1]);
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
    same(&Event::Started { pid: 7 }, &[0, 7]);
    same(&Event::Resumed { pid: 7, stdin: 300 }, &[4, 7, 0xac, 2]);
    same(&Event::Taken { up_to: 300 }, &[5, 0xac, 2]);
    same(&Event::Refused(Refusal::Gone("x".to_owned())), &[1, 4, 1, b'x']);
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

proptest::proptest! {
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        postcard::from_bytes::<Open>(&bytes).ok();
        postcard::from_bytes::<Steer>(&bytes).ok();
        postcard::from_bytes::<Event>(&bytes).ok();
        postcard::from_bytes::<Answer>(&bytes).ok();
    }
}
