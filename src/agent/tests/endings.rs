//! How executions end, and that nothing is left of them.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;

use super::super::{
    executor::{Executor, Phase},
    testing::*,
};
use crate::protocol::{
    CANCELLED, Open,
    exec::{Channel, Event, Outcome, Stdio},
};

/// A shell and a grandchild that both ignore SIGHUP and SIGTERM, with their process ids on stdout.
const STUBBORN: &str = "trap '' HUP TERM; (trap '' HUP TERM; while :; do sleep 1000; done) & echo $$ $!; \
                        while :; do sleep 1000; done";

async fn stubborn(executor: &Executor) -> (Run, Vec<String>) {
    let mut start = script(STUBBORN);
    start.grace = Duration::from_millis(100);
    let mut run = run(executor, start).await;
    run.started().await;
    let pids = first_line(&mut run).await.split(' ').map(str::to_owned).collect();
    (run, pids)
}

async fn first_line(run: &mut Run) -> String {
    let mut text = String::new();
    soon(async {
        while !text.ends_with('\n') {
            text.push(run.stdout.read_u8().await.expect("stdout").into());
        }
    })
    .await;
    text.trim_end().to_owned()
}

async fn all_gone(pids: &[String]) {
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_signal_reaches_the_process_and_death_by_it_is_told() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut run = run(&executor(), script("echo ready; exec sleep 1000")).await;
        run.started().await;
        first_line(&mut run).await;
        run.control.signal(signal).await;
        assert_eq!(run.control.event().await, Event::Exited(Outcome::Signal(signal as i32)));
    }
    let mut run =
        run(&executor(), script("trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.01; done")).await;
    run.started().await;
    first_line(&mut run).await;
    run.control.signal(Signal::SIGINT).await;
    assert_eq!(first_line(&mut run).await, "got it");
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(9)));
}

#[tokio::test]
async fn a_signal_that_does_not_exist_is_ignored() {
    let mut run = run(&executor(), command(&["cat"])).await;
    run.started().await;
    for number in [0, -1, 9999, i32::MIN] {
        crate::frame::write(&mut run.control.far.send, &crate::protocol::exec::Steer::Signal(number))
            .await
            .expect("steer");
    }
    drop(run.stdin);
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Code(0)));
}

#[tokio::test]
async fn when_the_controller_leaves_the_process_gets_sighup_first() {
    let dir = tempfile::tempdir().expect("dir");
    let note = dir.path().join("note");
    let text = format!("trap 'echo hup >{}; exit' HUP; echo ready; while :; do sleep 0.01; done", note.display());
    let executor = executor();
    let mut start = script(&text);
    start.grace = PATIENCE;
    let mut run = run(&executor, start).await;
    let pid = run.started().await;
    first_line(&mut run).await;
    assert_eq!(run.control.leave().await, Some(CANCELLED));
    assert_eq!(line(&note).await, "hup");
    gone(&pid.to_string()).await;
    soon(executor.idle()).await;
}

#[tokio::test]
async fn when_the_controller_leaves_grandchildren_that_ignore_it_are_killed_after_the_grace() {
    let executor = executor();
    let (run, pids) = stubborn(&executor).await;
    run.control.leave().await;
    all_gone(&pids).await;
    assert_eq!(executor.running(), 0);
}

#[tokio::test]
async fn a_grandchild_that_outlives_the_process_is_killed_when_the_controller_leaves() {
    let executor = executor();
    // It writes for ever, so the execution goes on after the shell's end.
    let mut run = run(&executor, script("trap '' HUP; yes & echo $!; exit 0")).await;
    run.started().await;
    let pid = first_line(&mut run).await;
    run.control.leave().await;
    gone(&pid).await;
}

#[tokio::test]
async fn nonsense_on_the_control_stream_ends_the_process() {
    let executor = executor();
    let (mut run, pids) = stubborn(&executor).await;
    crate::frame::write(&mut run.control.far.send, &77u8).await.expect("write");
    run.control.served().await;
    assert_eq!(run.control.was_reset(), Some(CANCELLED));
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_timeout_ends_everything_and_is_told() {
    let mut start = script(STUBBORN);
    start.timeout = Some(Duration::from_millis(300));
    start.grace = Duration::from_millis(100);
    let mut run = run(&executor(), start).await;
    run.started().await;
    let pids: Vec<_> = first_line(&mut run).await.split(' ').map(str::to_owned).collect();
    assert_eq!(run.control.event().await, Event::Exited(Outcome::TimedOut));
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_timeout_lets_the_process_clean_up_and_hands_its_last_words_over() {
    let mut start = script("trap 'echo bye; exit 4' TERM; while :; do sleep 0.01; done");
    start.timeout = Some(Duration::from_millis(200));
    start.grace = PATIENCE;
    let (event, out, _) = run(&executor(), start).await.finish().await;
    assert_eq!((event, &out[..]), (Event::Exited(Outcome::TimedOut), &b"bye\n"[..]));
}

#[tokio::test]
async fn extreme_durations_are_harmless() {
    let mut start = script("exit 5");
    start.timeout = Some(Duration::MAX);
    start.grace = Duration::MAX;
    let (event, ..) = run_all(start).await;
    assert_eq!(event, Event::Exited(Outcome::Code(5)));
    let mut start = script("exec sleep 1000");
    start.timeout = Some(Duration::ZERO);
    start.grace = Duration::ZERO;
    let (event, ..) = run_all(start).await;
    assert_eq!(event, Event::Exited(Outcome::TimedOut));
}

#[tokio::test]
async fn a_stdin_that_breaks_is_no_end_of_input() {
    let dir = tempfile::tempdir().expect("dir");
    let note = dir.path().join("note");
    let executor = executor();
    let mut start = script(&format!("echo ready; trap '' HUP; cat >/dev/null; echo ended >{}", note.display()));
    start.grace = Duration::from_millis(200);
    let id = start.id;
    let mut control = open(&executor, &Open::Exec(start)).await;
    let (send, recv, mut far) = stream();
    let serving = {
        let executor = executor.clone();
        tokio::spawn(async move { executor.serve(send, BrokenAfter(recv)).await })
    };
    crate::frame::write(&mut far.send, &Open::Stdio(Stdio { id, channel: Channel::InOut })).await.expect("open");
    let _err = open(&executor, &Open::Stdio(Stdio { id, channel: Channel::Err })).await;
    assert!(matches!(control.event().await, Event::Started { .. }));
    let mut ready = [0; 6];
    soon(far.recv.read_exact(&mut ready)).await.expect("ready");
    drop(far.send);
    control.served().await;
    assert_eq!(control.was_reset(), Some(CANCELLED));
    assert!(!note.exists(), "it took a broken input for a whole one");
    soon(serving).await.expect("no panic");
}

#[tokio::test]
async fn a_cancelled_agent_ends_its_processes_and_tells_how() {
    let executor = executor();
    let mut run = run(&executor, script("echo ready; exec sleep 1000")).await;
    run.started().await;
    first_line(&mut run).await;
    executor.advance(Phase::Cancelling);
    assert_eq!(run.control.event().await, Event::Exited(Outcome::Signal(Signal::SIGTERM as i32)));
    drop((run.stdin, run.stdout, run.stderr));
    soon(executor.idle()).await;
}

#[tokio::test]
async fn killing_all_leaves_nothing() {
    let executor = executor();
    let (_run, pids) = stubborn(&executor).await;
    executor.kill_all();
    all_gone(&pids).await;
}

#[tokio::test]
async fn an_execution_that_is_dropped_leaves_nothing() {
    let executor = executor();
    let (mut run, pids) = stubborn(&executor).await;
    run.control.abort();
    all_gone(&pids).await;
}
