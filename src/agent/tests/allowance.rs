//! How far stdio may run: the agent waits for the controller's word on output, and gives its own on stdin.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    sync::watch,
    time::timeout,
};

use super::super::{
    executor::Phase,
    pump::{self, Pumped},
    stream::SendHalf,
    testing::*,
};
use crate::protocol::{
    allowance::{Budget, INITIAL, MOST, Window},
    exec::{Channel, Event, Outcome},
};

/// Reads until nothing comes any more, and returns how much it was. On a paused clock.
async fn read_all_there_is(stream: &mut TestRecv) -> u64 {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    while let Ok(read) = timeout(Duration::from_secs(60), stream.read(&mut buffer)).await {
        total += read.expect("read") as u64;
    }
    total
}

#[tokio::test(start_paused = true)]
async fn an_output_runs_as_far_as_it_may_and_ends_when_nobody_reads() {
    let (send, _recv, mut far) = stream();
    let (mut process, pipe) = duplex(64 << 10);
    let (allow, allowed) = watch::channel(INITIAL);
    let (_exited, watching) = watch::channel(false);
    let mut send: Box<dyn SendHalf> = Box::new(send);
    let writing = tokio::spawn(async move { while process.write_all(&[b'x'; 4096]).await.is_ok() {} });
    let pumping = tokio::spawn(async move { pump::output(pipe, &mut send, allowed, watching).await });
    assert_eq!(read_all_there_is(&mut far.recv).await, INITIAL);
    allow.send_replace(INITIAL + 1000);
    assert_eq!(read_all_there_is(&mut far.recv).await, 1000);
    allow.send_replace(INITIAL);
    assert_eq!(read_all_there_is(&mut far.recv).await, 0, "a lower limit allows nothing and breaks nothing");
    drop(far.recv);
    assert!(matches!(soon(pumping).await.expect("no panic"), Pumped::Done));
    soon(writing).await.expect("the pipe was closed");
}

#[tokio::test(start_paused = true)]
async fn stdin_is_allowed_as_the_process_reads_it_and_the_budget_comes_back() {
    let (_send, recv, mut far) = stream();
    let (pipe, mut process) = duplex(1000);
    let (allow, mut allowed) = watch::channel(INITIAL);
    let budget = Budget::new(1 << 30);
    let window = Window::new(&budget);
    let pumping = tokio::spawn(pump::input(Box::new(recv), pipe, window, allow));
    // A sender that keeps to what it is told.
    let sender = tokio::spawn(async move {
        let (mut sent, total) = (0, 32 << 20);
        while sent < total {
            let up_to = *allowed.wait_for(|up_to| *up_to > sent).await.expect("a limit");
            assert!(up_to <= sent + MOST);
            let part = (up_to - sent).min(total - sent).min(1 << 20);
            far.send.write_all(&vec![1; part as usize]).await.expect("write");
            sent += part;
        }
        total
    });
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match soon(process.read(&mut buffer)).await.expect("read") {
            0 => break,
            some => read += some as u64,
        }
    }
    assert_eq!(read, soon(sender).await.expect("no panic"));
    assert!(matches!(soon(pumping).await.expect("no panic"), (Pumped::Done, None)));
    assert_eq!(budget.left(), 1 << 30);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allowed_while_the_process_does_not_read() {
    let (_send, recv, mut far) = stream();
    let (pipe, _process) = duplex(1000);
    let (allow, mut allowed) = watch::channel(INITIAL);
    let _pumping = tokio::spawn(pump::input(Box::new(recv), pipe, Window::new(&Budget::new(1 << 30)), allow));
    let stuck = far.send.write_all(&[1; INITIAL as usize]);
    assert!(timeout(Duration::from_secs(60), stuck).await.is_err(), "it fills the stream and the pipe");
    assert!(timeout(Duration::from_secs(60), allowed.changed()).await.is_err());
}

#[tokio::test]
async fn the_controller_is_told_how_far_stdin_may_run() {
    let mut run = run(&executor(), script("cat >/dev/null; echo done >&2")).await;
    run.started().await;
    soon(run.stdin.write_all(&vec![1; INITIAL as usize])).await.expect("write");
    // Announced when half is used up and when all is, or both at once.
    while run.control.allowed().await < INITIAL + INITIAL / 2 {}
    run.finish_quietly().await;
}

#[tokio::test]
async fn a_sender_that_waits_for_a_process_that_closed_its_stdin_is_let_through() {
    let mut run = run(&executor(), script("exec 0<&-; exec sleep 1000")).await;
    run.started().await;
    // It can be told only when something comes that cannot be written.
    soon(async { while run.stdin.write_all(&[b'x'; 4096]).await.is_ok() {} }).await;
    while run.control.allowed().await < u64::MAX {}
    run.control.signal(nix::sys::signal::Signal::SIGKILL).await;
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Signal(9)));
}

#[tokio::test]
async fn output_is_allowed_while_the_process_runs_and_when_it_is_asked_to_end() {
    let config = super::super::Config { grace: PATIENCE, ..Default::default() };
    let executor = executor_with(config);
    let part = (INITIAL + 50_000) as usize;
    let text =
        format!("trap 'head -c {part} /dev/zero; exit 3' TERM; head -c {part} /dev/zero; while :; do sleep 0.01; done");
    let mut run = run_on_allowance(&executor, script(&text)).await;
    run.started().await;
    let mut bytes = vec![0; part];
    soon(run.stdout.read_exact(&mut bytes[..INITIAL as usize])).await.expect("what needs no word");
    run.control.allow(Channel::InOut, part as u64).await;
    soon(run.stdout.read_exact(&mut bytes[INITIAL as usize..])).await.expect("what was allowed");
    executor.advance(Phase::Cancelling);
    run.control.allow(Channel::InOut, 2 * part as u64).await;
    soon(run.stdout.read_exact(&mut bytes)).await.expect("its last words");
    // Its end may need another word: it has used up what it had.
    run.control.allow(Channel::InOut, u64::MAX).await;
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(3)));
}

#[tokio::test]
async fn each_output_has_an_allowance_of_its_own() {
    let part = 2 * INITIAL;
    let text = format!("head -c {part} /dev/zero & head -c {part} /dev/zero >&2; wait");
    let mut run = run_on_allowance(&executor(), script(&text)).await;
    run.started().await;
    run.control.allow(Channel::Err, u64::MAX).await;
    let mut err = vec![0; part as usize];
    soon(run.stderr.read_exact(&mut err)).await.expect("stderr is not held up by stdout");
    run.control.allow(Channel::InOut, u64::MAX).await;
    let mut out = Vec::new();
    soon(run.stdout.read_to_end(&mut out)).await.expect("stdout");
    assert_eq!((out.len() as u64, run.control.event().await), (part, Event::Exited(Outcome::Code(0))));
}
