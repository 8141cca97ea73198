//! Executions through HTTP: framing, backpressure, and what becomes of a process whose client is gone.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    api::{
        Client, ExecEnd, ExecRequest, Fault, RefusalKind,
        access::{AddAccess, Role},
        client::{ExecReceiver, ExecSender},
        exec::{MAX_PAYLOAD, Resumable, STDIN_WINDOW},
        frames::ToClient,
    },
    controller::testing::{Api, FakeAgent, FakeProcess, Site, WINDOW, World, name, soon},
    id::ExecId,
    protocol::exec::{Event, Outcome, Refusal, Size, Steer},
    secret::Secret,
};

/// A controller with its API, an agent, and a process that was started through it.
struct Scene {
    _site: Site,
    world: World,
    api: Api,
    agent: FakeAgent,
}

impl Scene {
    async fn new() -> Self {
        let site = Site::new();
        let mut world = site.controller().await.expect("started");
        let agent = world.agent("a").await;
        let api = world.serve(&site).await;
        Self { _site: site, world, api, agent }
    }

    async fn run(&mut self) -> (ExecSender, ExecReceiver, FakeProcess) {
        let mut request = ExecRequest::new(name("a"), ["cat"]);
        request.stdin = true;
        let serve = async {
            let mut process = self.agent.exec().await;
            process.tell(Event::Started { pid: 42 }).await;
            process
        };
        let (opened, process) = soon(async { tokio::join!(self.api.client.exec(&request), serve) }).await;
        let (sender, mut receiver) = opened.expect("opened");
        assert_eq!(next(&mut receiver).await, Some(ToClient::Started(42)));
        (sender, receiver, process)
    }
}

async fn next(receiver: &mut ExecReceiver) -> Option<ToClient> {
    soon(receiver.next()).await.expect("a frame")
}

/// All frames: what came on stdout and stderr, and the end.
async fn drain(receiver: &mut ExecReceiver) -> (Vec<u8>, Vec<u8>, ExecEnd) {
    let (mut out, mut err, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match next(receiver).await.expect("an end first") {
            ToClient::Stdout(bytes) => out.extend_from_slice(&bytes),
            ToClient::Stderr(bytes) => err.extend_from_slice(&bytes),
            ToClient::Exit(end) => {
                assert_eq!(next(receiver).await, None, "nothing after the end");
                assert!(matches!(end, ExecEnd::NoAnswer { .. }) || ends.len() == 2, "{ends:?}");
                return (out, err, end);
            }
            other => ends.push(other),
        }
    }
}

#[tokio::test]
async fn stdin_reaches_the_process_and_output_and_exit_code_the_client() {
    let mut scene = Scene::new().await;
    let (sender, mut receiver, mut process) = scene.run().await;
    let blob = Bytes::from((0..5_000_000u32).map(|i| (i / 251) as u8).collect::<Vec<_>>());
    let feed = async {
        sender.stdin(Bytes::from_static(b"")).await.expect("nothing");
        for size in [1, 10, 100_000] {
            sender.stdin(blob.slice(..size)).await.expect("sent");
        }
        sender.stdin(blob.slice(..)).await.expect("sent");
        sender.stdin_end().await.expect("ended");
    };
    let cat = async {
        process.tell(Event::Allow { up_to: u64::MAX }).await;
        let mut out = process.stdout.take().expect("open");
        tokio::io::copy(&mut process.stdin, &mut out).await.expect("copied");
        drop(out);
        process.stderr.take().expect("open").write_all(b"done").await.expect("written");
        process.tell(Event::Exited(Outcome::Code(3))).await;
    };
    let ((), (), (out, err, end)) = soon(async { tokio::join!(feed, cat, drain(&mut receiver)) }).await;
    assert_eq!(out.len(), 100_011 + blob.len());
    assert!(out[100_011..] == blob[..] && out[..1] == blob[..1]);
    assert_eq!((&err[..], end), (&b"done"[..], ExecEnd::Exited { code: 3 }));
}

#[tokio::test]
async fn the_size_of_a_terminal_reaches_the_agent() {
    let mut scene = Scene::new().await;
    let (sender, _receiver, mut process) = scene.run().await;
    sender.size(300, 24).await.expect("sent");
    assert_eq!(process.steered().await, Steer::Resize(Size { columns: 300, rows: 24 }));
    process.finish(b"", b"", Event::Exited(Outcome::Code(0))).await;
}

#[tokio::test]
async fn what_is_not_started_ends_with_its_reason() {
    let mut scene = Scene::new().await;
    let request = ExecRequest::new(name("nobody"), ["true"]);
    let (_sender, mut receiver) = scene.api.client.exec(&request).await.expect("opened");
    match next(&mut receiver).await {
        Some(ToClient::Exit(ExecEnd::Refused { reason: RefusalKind::UnknownAgent, message })) => {
            assert!(message.contains("rk agents ls"), "{message}");
        }
        other => panic!("unexpected {other:?}"),
    }
    let request = ExecRequest::new(name("a"), ["nix"]);
    let serve = async {
        let mut process = scene.agent.exec().await;
        process.tell(Event::Refused(Refusal::NotFound("no nix".to_owned()))).await;
    };
    let (opened, ()) = soon(async { tokio::join!(scene.api.client.exec(&request), serve) }).await;
    let (_sender, mut receiver) = opened.expect("opened");
    let end = ExecEnd::Refused { reason: RefusalKind::NotFound, message: "no nix".to_owned() };
    assert_eq!(next(&mut receiver).await, Some(ToClient::Exit(end)));
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_the_process_and_memory_stays_bounded() {
    let mut scene = Scene::new().await;
    let (_sender, mut receiver, mut process) = scene.run().await;
    let mut out = process.stdout.take().expect("open");
    let chunk = vec![7; 64 << 10];
    let mut written = 0usize;
    // As much as goes: until no byte is taken for a while.
    while let Ok(taken) = tokio::time::timeout(Duration::from_millis(500), out.write(&chunk)).await {
        written += taken.expect("open");
        assert!(written < 64 << 20, "nothing slows the process");
    }
    // The sockets' buffers, one frame, and the stream's window; the sockets' share is the kernel's to choose.
    assert!(written > MAX_PAYLOAD + WINDOW, "{written}");
    drop(out);
    drop(process.stderr.take());
    let serve = process.tell(Event::Exited(Outcome::Code(0)));
    let ((), (got, _, end)) = soon(async { tokio::join!(serve, drain(&mut receiver)) }).await;
    assert_eq!((got.len(), end), (written, ExecEnd::Exited { code: 0 }));
}

#[tokio::test]
async fn a_signal_passes_stdin_that_the_process_does_not_read() {
    let mut scene = Scene::new().await;
    let (sender, mut receiver, mut process) = scene.run().await;
    let feeder = sender.clone();
    let feeding = tokio::spawn(async move { feeder.stdin(vec![1; 4 * STDIN_WINDOW as usize].into()).await });
    // It is stuck once its credit is used up; a signal is not, before and after.
    for signal in [2, 15] {
        sender.signal(signal).await.expect("sent");
        assert_eq!(process.signal().await, signal);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!feeding.is_finished());
    process.finish(b"", b"", Event::Exited(Outcome::Signal(15))).await;
    assert_eq!(drain(&mut receiver).await.2, ExecEnd::Signalled { signal: 15 });
    soon(feeding).await.expect("joined").expect_err("the process is gone");
}

#[tokio::test]
async fn a_process_that_closes_its_stdin_early_breaks_nothing() {
    let mut scene = Scene::new().await;
    let (sender, mut receiver, mut process) = scene.run().await;
    let (closed, _) = tokio::io::duplex(1);
    drop(std::mem::replace(&mut process.stdin, closed));
    let feed = async {
        sender.stdin(vec![1; 4 * STDIN_WINDOW as usize].into()).await.expect("taken and dropped");
        sender.stdin_end().await.expect("ended");
        process.finish(b"ok", b"", Event::Exited(Outcome::Code(0))).await;
    };
    let ((), (out, _, end)) = soon(async { tokio::join!(feed, drain(&mut receiver)) }).await;
    assert_eq!((&out[..], end), (&b"ok"[..], ExecEnd::Exited { code: 0 }));
}

#[tokio::test]
async fn a_client_that_is_gone_gives_the_process_up() {
    let mut scene = Scene::new().await;
    let (sender, receiver, mut process) = scene.run().await;
    sender.stdin(Bytes::from_static(b"half")).await.expect("sent");
    let mut half = [0; 4];
    soon(process.stdin.read_exact(&mut half)).await.expect("arrived");
    drop((sender, receiver));
    process.given_up().await;
    soon(process.stdin_reset.wait_for(|reset| *reset)).await.expect("not a clean end");
    soon(async {
        while scene.world.handle.status().executions > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_agent_hears_of_a_client_that_went_while_its_process_started() {
    let mut scene = Scene::new().await;
    let mut request = ExecRequest::new(name("a"), ["cat"]);
    request.resume = Some(Resumable { id: ExecId::random(), patience_ms: 300_000 });
    let opening = async { tokio::join!(scene.api.client.exec(&request), scene.agent.exec()) };
    let (opened, mut process) = soon(opening).await;
    drop(opened.expect("opened"));
    // The controller sees it before the process has started; if it is late, it says the same a little later.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    process.tell(Event::Started { pid: 42 }).await;
    loop {
        match process.steered().await {
            Steer::Disconnected | Steer::HangUp => break,
            Steer::Allow { .. } => (),
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[tokio::test]
async fn output_that_breaks_off_is_not_passed_over_in_silence() {
    let mut scene = Scene::new().await;
    let (_sender, mut receiver, process) = scene.run().await;
    scene.agent.end("the machine is off");
    drop(process);
    match drain(&mut receiver).await.2 {
        ExecEnd::NoAnswer { fault: Fault::Agent, message } => assert!(message.contains("machine is off"), "{message}"),
        other => panic!("unexpected {other:?}"),
    }
}

#[tokio::test]
async fn the_first_stop_drains_and_the_second_gives_up() {
    let mut scene = Scene::new().await;
    let (_sender, mut receiver, mut process) = scene.run().await;
    scene.api.shutdown.send(()).await.expect("asked");
    soon(async {
        loop {
            let request = ExecRequest::new(name("a"), ["true"]);
            match scene.world.handle.exec(request).await {
                Err(ExecEnd::Refused { reason: RefusalKind::Draining, .. }) => return,
                other => drop(other),
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!scene.api.served.is_finished(), "it waits for what runs");
    scene.api.shutdown.send(()).await.expect("asked");
    let end = drain(&mut receiver).await.2;
    assert!(matches!(end, ExecEnd::NoAnswer { fault: Fault::Controller, .. }), "{end:?}");
    process.given_up().await;
    soon(scene.api.served).await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn a_controller_that_runs_nothing_stops_at_once() {
    let scene = Scene::new().await;
    scene.api.shutdown.send(()).await.expect("asked");
    soon(scene.api.served).await.expect("joined").expect("stopped");
}

#[tokio::test]
async fn a_token_that_is_revoked_ends_the_process_that_runs_under_it() {
    let mut scene = Scene::new().await;
    let wish = AddAccess {
        name: name("ci"),
        role: Role::Operator,
        verbs: Default::default(),
        agents: Default::default(),
        selector: Default::default(),
        ttl_ms: None,
    };
    let token = scene.api.client.add_access(&wish).await.expect("made").token;
    let root = std::mem::replace(
        &mut scene.api.client,
        Client::new(&scene.api.address.to_string(), &Secret::new(token), None).expect("a client"),
    );
    let (_sender, mut receiver, mut process) = scene.run().await;
    let (_, mut unread, mut other) = scene.run().await;
    let blob = vec![7; 64 << 20];
    let mut stdout = other.stdout.take().expect("open");
    // Nobody reads it: the controller is stuck in a write when the token ends.
    let writing = tokio::spawn(async move { stdout.write_all(&blob).await });
    root.revoke_access(&name("ci")).await.expect("revoked");
    match next(&mut receiver).await {
        Some(ToClient::Exit(end @ ExecEnd::Refused { .. })) => {
            assert_eq!(end.exit_code(), 77);
            assert!(matches!(&end, ExecEnd::Refused { message, .. } if message.contains("ci was revoked")), "{end:?}");
        }
        other => panic!("unexpected {other:?}"),
    }
    process.given_up().await;
    other.given_up().await;
    assert!(soon(writing).await.expect("no panic").is_err());
    while let Ok(Some(ToClient::Stdout(_))) = soon(unread.next()).await {}
}
