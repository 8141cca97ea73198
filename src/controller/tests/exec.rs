//! Executions through the handle: starts, ends, and who is to blame.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use crate::{
    api::{ExecEnd, ExecRequest, Fault, RefusalKind, exec::Terminal},
    controller::testing::{Site, name, soon},
    protocol::exec::{Event, Outcome, Refusal},
};

fn request() -> ExecRequest {
    ExecRequest::new(name("a"), ["cat"])
}

fn reason(end: &ExecEnd) -> Option<RefusalKind> {
    match end {
        ExecEnd::Refused { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn bytes_and_the_outcome_come_through() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let mut wanted = request();
    (wanted.stdin, wanted.cwd, wanted.timeout_ms) = (true, Some("/tmp".to_owned()), Some(1500));
    wanted.env.insert("K".to_owned(), "V".to_owned());
    let serve = tokio::spawn(async move {
        let mut process = agent.exec().await;
        assert_eq!(process.start.argv, ["cat"]);
        assert_eq!(process.start.env, [("K".to_owned(), "V".to_owned())]);
        assert_eq!(process.start.timeout, Some(Duration::from_millis(1500)));
        process.tell(Event::Started { pid: 42 }).await;
        let mut got = Vec::new();
        soon(process.stdin.read_to_end(&mut got)).await.expect("read");
        process.finish(&got, b"err", Event::Exited(Outcome::Code(7))).await;
        agent
    });
    let mut execution = soon(world.handle.exec(wanted)).await.expect("runs");
    assert_eq!((execution.pid, world.handle.status().executions), (42, 1));
    soon(execution.stdin.write_all(b"in\0\xff")).await.expect("written");
    soon(execution.stdin.shutdown()).await.expect("ended");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    soon(execution.stdout.read_to_end(&mut out)).await.expect("read");
    soon(execution.stderr.read_to_end(&mut err)).await.expect("read");
    assert_eq!((&out[..], &err[..]), (&b"in\0\xff"[..], &b"err"[..]));
    assert_eq!(soon(execution.control.end()).await, ExecEnd::Exited { code: 7 });
    assert_eq!(soon(execution.control.end()).await, ExecEnd::Exited { code: 7 }, "and again");
    drop(execution);
    assert_eq!(world.handle.status().executions, 0);
    drop(serve.await.expect("served"));
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_its_reason() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let end = world.handle.exec(request()).await.err().expect("unknown");
    assert_eq!(reason(&end), Some(RefusalKind::UnknownAgent));

    let mut agent = world.agent("a").await;
    for (argv, env) in [(vec![], "K"), (vec![""], "K"), (vec!["a\0b"], "K"), (vec!["a"], ""), (vec!["a"], "A=B")] {
        let mut request = ExecRequest::new(name("a"), argv);
        request.env.insert(env.to_owned(), "V".to_owned());
        let end = world.handle.exec(request).await.err().expect("invalid");
        assert_eq!(reason(&end), Some(RefusalKind::Invalid));
    }
    let terminal = Some(Terminal { kind: "vt".to_owned(), columns: 80, rows: 24 });
    let end = world.handle.exec(ExecRequest { terminal, ..request() }).await.err().expect("invalid");
    assert_eq!(reason(&end), Some(RefusalKind::Invalid));
    let table = [
        (Refusal::NotFound("no x".to_owned()), RefusalKind::NotFound),
        (Refusal::NotExecutable("x".to_owned()), RefusalKind::NotExecutable),
        (Refusal::Draining, RefusalKind::Draining),
        (Refusal::Failed("x".to_owned()), RefusalKind::AgentFailed),
    ];
    for (refusal, expected) in table {
        let serve = async {
            let mut process = agent.exec().await;
            process.tell(Event::Refused(refusal)).await;
        };
        let (end, ()) = soon(async { tokio::join!(world.handle.exec(request()), serve) }).await;
        assert_eq!(reason(&end.err().expect("refused")), Some(expected));
    }

    agent.end("gone");
    let before = Instant::now();
    let end = world.handle.exec(request()).await.err().expect("offline");
    assert_eq!((reason(&end), end.exit_code()), (Some(RefusalKind::Offline), 69));
    assert!(before.elapsed() < site.config.link.connect_timeout, "at once");
}

#[tokio::test]
async fn an_agent_that_does_not_answer_costs_the_connect_timeout_and_the_start_is_taken_back() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let serve = async { agent.exec().await };
    let (end, mut process) = soon(async { tokio::join!(world.handle.exec(request()), serve) }).await;
    let end = end.err().expect("no answer");
    assert!(matches!(end, ExecEnd::NoAnswer { fault: Fault::Agent, .. }), "{end:?}");
    process.given_up().await;
}

#[tokio::test]
async fn giving_an_execution_up_resets_its_streams_so_that_stdin_does_not_seem_complete() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let mut wanted = request();
    wanted.stdin = true;
    let serve = async {
        let mut process = agent.exec().await;
        process.tell(Event::Started { pid: 1 }).await;
        process
    };
    let (execution, mut process) = soon(async { tokio::join!(world.handle.exec(wanted), serve) }).await;
    let execution = execution.expect("runs");
    let signals = execution.control.signals();
    signals.send(15).await;
    assert_eq!(process.signal().await, 15);
    drop(execution);
    process.given_up().await;
    soon(process.stdin_reset.wait_for(|reset| *reset)).await.expect("reset");
}

#[tokio::test]
async fn a_session_that_ends_meanwhile_is_no_answer_and_says_why() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let serve = async {
        let mut process = agent.exec().await;
        process.tell(Event::Started { pid: 1 }).await;
        process
    };
    let (execution, process) = soon(async { tokio::join!(world.handle.exec(request()), serve) }).await;
    let mut execution = execution.expect("runs");
    agent.end("the machine is off");
    drop(process);
    match soon(execution.control.end()).await {
        ExecEnd::NoAnswer { fault: Fault::Agent, message } => {
            assert!(message.contains("the machine is off"), "{message}")
        }
        other => panic!("unexpected {other:?}"),
    }
}
