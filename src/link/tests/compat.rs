//! Peers of other versions: what they say was recorded in `tests/fixtures/compat`, and is not made by what is tested.

use std::sync::Arc;

use super::pair::*;
use crate::{
    bundle::Digest,
    frame,
    link::{
        Credential, Held, Lane, LinkError, Session, address,
        caller::Caller,
        hello::{Hello, ToAgent},
        line::Line,
        port::Port,
    },
    secret::Secret,
};

/// The bytes of a file in hexadecimal.
pub fn recorded(text: &str) -> Vec<u8> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> = lines.flat_map(|line| line.trim().bytes()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

macro_rules! fixture {
    ($name:literal) => {
        recorded(include_str!(concat!("../../../tests/fixtures/compat/", $name, ".hex")))
    };
}

fn world() -> World {
    World::new(Arc::new(memory(1)), 1, 1)
}

/// The agent of the recordings, which is let in.
fn recorded_agent(world: &World) -> Arc<Credential> {
    let controller = world.identity.fingerprint();
    let credential = Credential { name: "old".parse().expect("name"), secret: Secret::new([7; 32]), controller };
    let entry = (credential.secret_hash(), false);
    world.people.0.lock().expect("lock").insert(credential.name.clone(), entry);
    Arc::new(credential)
}

/// Says these bytes first, and returns what the controller answers, byte by byte.
async fn greet(line: &Arc<Line>, port: &Port, hello: &[u8], answer: usize) -> (quinn::Connection, Vec<u8>) {
    let (connection, _) = line.dial(port, Lane::Control).await.expect("a connection");
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    send.write_all(hello).await.expect("said");
    let mut bytes = vec![0; answer];
    recv.read_exact(&mut bytes).await.expect("an answer");
    // The rest of the stream is for orders.
    tokio::spawn(async move {
        let _send = send;
        recv.read_to_end(1 << 20).await.ok();
    });
    (connection, bytes)
}

/// An agent that says what was recorded is let in: its session, its connection, what it was answered, and what must outlive them.
async fn let_in(hello: Vec<u8>, answer: usize) -> (Session, quinn::Connection, Vec<u8>, impl Sized) {
    let world = world();
    let (listener, mut sessions) = world.listen(1).await;
    let credential = recorded_agent(&world);
    let caller = Caller::Agent(credential.name.clone());
    let line = Line::new(world.cluster.clone(), world.config.clone(), caller.clone(), Held::from(credential), 1);
    let partition = address::partition(&caller, 1);
    let port = line.open(Lane::Control, partition).await.expect("a port");
    let (connection, answered) = greet(&line, &port, &hello, answer).await;
    let session = sessions.recv().await.expect("a session");
    (session, connection, answered, (world, listener, sessions, line, port))
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_the_first_version_is_let_in_and_serves_a_call() {
    let welcome = fixture!("welcome-0.1.0");
    let (session, connection, answered, _rest) = let_in(fixture!("hello-0.1.0"), welcome.len()).await;
    let text = env!("CARGO_PKG_VERSION");
    if text == "0.1.0" {
        assert_eq!(answered, welcome);
    }
    // Kind and epoch stay where they were.
    assert_eq!(answered[4..6], welcome[4..6]);
    let profile = session.profile();
    assert_eq!((profile.version.as_str(), profile.pid, &*profile.labels["os"]), ("0.1.0", 4242, "linux"));
    assert_eq!(profile.program, None);

    let agent = tokio::spawn(async move {
        let (mut send, mut recv) = connection.accept_bi().await.expect("a stream");
        let asked = recv.read_to_end(1 << 10).await.expect("a call");
        send.write_all(&fixture!("answer-ok")).await.expect("answered");
        send.finish().expect("open");
        (asked, connection)
    });
    // `protocol::golden` holds that a call has these bytes.
    let (mut send, mut recv) = session.open_stream(Lane::Control).await.expect("a stream");
    send.write_all(&fixture!("open-echo")).await.expect("asked");
    send.finish().expect("open");
    let answer = recv.read_to_end(1 << 10).await.expect("an answer");
    assert_eq!(answer, fixture!("answer-ok"));
    assert_eq!(agent.await.expect("no panic").0, fixture!("open-echo"));
}

#[tokio::test(start_paused = true)]
async fn what_a_later_agent_says_beyond_what_is_known_is_passed_over() {
    let (session, _connection, _, _rest) = let_in(fixture!("hello-later"), 6).await;
    assert_eq!(session.profile().program.as_ref().expect("told").digest, Some(Digest([9; 32])));
    assert_eq!(session.profile().pid, 4242);
    assert!(!session.is_closed());
}

#[test]
fn half_a_program_is_refused_and_never_panics() {
    let hello = fixture!("hello-later");
    for end in 4..hello.len() {
        let _ = Hello::read(&hello[4..end]);
    }
    let old = fixture!("hello-0.1.0");
    assert!(Hello::read(&old[4..]).is_ok());
    assert!(Hello::read(&old[4..old.len() - 1]).is_err());
    assert!(Hello::read(&hello[4..old.len() + 5]).is_err());
}

#[tokio::test(start_paused = true)]
async fn what_a_later_controller_says_beyond_what_is_known_is_passed_over() {
    let welcome: ToAgent = frame::read(&mut &fixture!("welcome-later")[..]).await.expect("a welcome");
    assert_eq!(welcome, ToAgent::Welcome { epoch: 3, version: "9.9.9".to_owned() });

    let world = world();
    let (_listener, mut sessions) = world.listen(1).await;
    let agent = tokio::spawn(live(world.dial(&world.admit("a"), 1).await));
    let session = sessions.recv().await.expect("a session");
    session.order_bytes(&fixture!("order-later")).await;
    // The next order is obeyed all the same.
    round_trip(&session, Lane::Bulk, 1, 1000).await.expect("the bulk lane");
    agent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_controller_of_another_protocol_is_told_from_one_that_is_silent_and_the_older_side_is_named() {
    for (protocols, part) in [(vec!["rk/2", "rk/3"], "upgrade the agent"), (vec!["other"], "upgrade the older side")] {
        let mut world = world();
        world.config.protocols = protocols;
        let (_listener, _sessions) = world.listen(1).await;
        let error = world.dial(&world.admit("a"), 1).await.connect().await.err().expect("no session");
        assert!(matches!(&error, LinkError::Version(_)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}
