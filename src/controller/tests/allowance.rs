//! How far stdio may run: the controller tells the agent about output as it is read, and waits for its word on stdin.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    api::{ExecEnd, ExecRequest},
    controller::{
        Execution,
        peer::{Sending, Writer},
        stdio::{Stdin, metered},
        testing::{FakeAgent, FakeProcess, Site, World, name, soon},
    },
    protocol::{
        allowance::{Budget, INITIAL, MOST},
        exec::{Channel, Event, Outcome, Steer},
    },
};

async fn started(world: &World, agent: &mut FakeAgent) -> (Execution, FakeProcess) {
    let mut request = ExecRequest::new(name("a"), ["cat"]);
    request.stdin = true;
    let serve = async {
        let mut process = agent.exec().await;
        process.tell(Event::Started { pid: 1 }).await;
        process
    };
    let (execution, process) = soon(async { tokio::join!(world.handle.exec(request), serve) }).await;
    (execution.expect("runs"), process)
}

#[tokio::test]
async fn the_agent_is_told_how_far_output_may_run_as_it_is_read_and_not_before() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let (mut execution, mut process) = started(&world, &mut agent).await;
    let (mut stdout, mut stderr) = (process.stdout.take().expect("open"), process.stderr.take().expect("open"));
    // As much as the stream in memory holds; nobody reads it.
    soon(stdout.write_all(&[1; 64 << 10])).await.expect("written");
    execution.control.signals().send(15).await;
    assert_eq!(process.steered().await, Steer::Signal(15), "nothing was allowed before");

    let mut bytes = vec![0; INITIAL as usize];
    let rest = async { stdout.write_all(&[1; 192 << 10]).await };
    let (read, written) = soon(async { tokio::join!(execution.stdout.read_exact(&mut bytes), rest) }).await;
    read.expect("read");
    written.expect("written");
    let told = process.steered().await;
    assert!(matches!(told, Steer::Allow { channel: Channel::InOut, up_to } if up_to > INITIAL), "{told:?}");
    let write = async { stderr.write_all(&vec![1; INITIAL as usize]).await };
    let (read, written) = soon(async { tokio::join!(execution.stderr.read_exact(&mut bytes), write) }).await;
    read.expect("read");
    written.expect("written");
    loop {
        match process.steered().await {
            // A second word on stdout may have been on its way.
            Steer::Allow { channel: Channel::InOut, .. } => {}
            told => {
                let right = matches!(told, Steer::Allow { channel: Channel::Err, up_to } if up_to > INITIAL);
                break assert!(right, "{told:?}");
            }
        }
    }

    drop((stdout, stderr));
    process.tell(Event::Exited(Outcome::Code(0))).await;
    assert_eq!(soon(execution.control.end()).await, ExecEnd::Exited { code: 0 });
}

#[tokio::test]
async fn stdin_waits_for_the_agents_word_and_for_nothing_after_the_end() {
    let site = Site::new();
    let world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let (execution, mut process) = started(&world, &mut agent).await;
    let Execution { mut stdin, mut control, .. } = execution;
    let feeding = tokio::spawn(async move {
        let mut sent = 0u64;
        while let Ok(some) = stdin.write(&[1; 10_000]).await {
            sent += some as u64;
        }
        sent
    });
    let mut bytes = vec![0; INITIAL as usize];
    soon(process.stdin.read_exact(&mut bytes)).await.expect("what needs no word");
    assert!(process.stdin.read_u8().now_or_never().is_none(), "not a byte more");
    for (up_to, more) in [(INITIAL + 5, 5), (INITIAL + 7, 2), (INITIAL, 0), (INITIAL + 100_000, 99_993)] {
        process.tell(Event::Allow { up_to }).await;
        soon(process.stdin.read_exact(&mut bytes[..more])).await.expect("what was allowed");
    }
    assert!(process.stdin.read_u8().now_or_never().is_none(), "not a byte more");
    process.tell(Event::Exited(Outcome::Code(0))).await;
    assert_eq!(soon(control.end()).await, ExecEnd::Exited { code: 0 });
    soon(process.stdin.read_exact(&mut bytes)).await.expect("the writer is not left waiting");
    drop(process.stdin);
    assert!(soon(feeding).await.expect("no panic") > INITIAL + 100_000, "and learns from the stream that it is over");
}

/// Takes everything.
struct Sink;

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Writer for Sink {
    fn reset(&mut self) {}
}

#[tokio::test]
async fn stdin_takes_exactly_what_is_allowed() {
    let (mut stdin, allow) = Stdin::new(Sending::new(Sink));
    let bytes = vec![0; 1 << 20];
    assert_eq!(stdin.write(&bytes).now_or_never().expect("ready").expect("written") as u64, INITIAL);
    assert!(stdin.write(&bytes).now_or_never().is_none());
    assert_eq!(stdin.write(&[]).now_or_never().expect("ready").expect("written"), 0);
    allow.up_to(INITIAL + 3);
    allow.up_to(INITIAL + 1);
    assert_eq!(stdin.write(&bytes).now_or_never().expect("ready").expect("written"), 3);
    {
        let mut waiting = Box::pin(stdin.write(&bytes));
        assert!((&mut waiting).now_or_never().is_none());
        drop(allow);
        assert_eq!(soon(waiting).await.expect("written"), bytes.len(), "nobody is left to allow anything");
    }
    soon(stdin.shutdown()).await.expect("ended");
}

#[tokio::test]
async fn an_output_that_is_read_to_its_end_gives_its_budget_back() {
    let budget = Budget::new(1 << 30);
    let length = 40 << 20;
    let (mut reader, limit) = metered(Box::new(tokio::io::repeat(7).take(length)), &budget);
    let mut bytes = vec![0; 100_000];
    let mut read = 0;
    while read < length {
        read += reader.read(&mut bytes).await.expect("read") as u64;
        assert!((read + 1..=read + MOST).contains(&*limit.borrow()));
    }
    assert_eq!(budget.left(), (1 << 30) - (MOST - INITIAL));
    assert_eq!(reader.read(&mut bytes).await.expect("read"), 0);
    assert_eq!(budget.left(), 1 << 30);
}
