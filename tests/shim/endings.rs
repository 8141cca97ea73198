//! How a process ends: by itself, by time, by order, and with those that it left behind.

use std::time::Duration;

use nix::sys::signal::Signal;
use remoting_kafka::agent::shim::{
    Order, Shim,
    spec::{Background, Cause, Outcome},
};

use super::rig::*;

#[tokio::test]
async fn a_timeout_ends_it_with_the_signal_and_says_so() {
    let rig = Rig::new();
    let mut spec = script("echo before; sleep 1000");
    spec.timeout = Some(Duration::from_millis(300));
    let (attempt, exit) = rig.run("a", &spec).await;
    assert_eq!((&exit.outcome, exit.cause), (&Outcome::Signal(15), Some(Cause::TimedOut)));
    assert_eq!(text(&attempt, &exit)[0], "before\n");
}

#[tokio::test]
async fn who_ignores_the_signal_is_killed_after_the_grace() {
    let rig = Rig::new();
    let mut spec = script("trap '' TERM; echo ready; sleep 1000 & wait; wait; sleep 1000");
    spec.timeout = Some(Duration::from_millis(300));
    spec.grace = Duration::from_millis(300);
    let (_, exit) = rig.run("a", &spec).await;
    assert_eq!((&exit.outcome, exit.cause), (&Outcome::Signal(9), Some(Cause::TimedOut)));
}

#[tokio::test]
async fn a_cancelled_process_may_finish_what_it_does() {
    let rig = Rig::new();
    let spec = script("trap 'echo cleaning; exit 7' INT; echo ready; while :; do sleep 0.01; done");
    let (attempt, _) = rig.start("a", &spec).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    report(&mut shim, |report| report.spooled.stdout == 6).await;
    shim.order(Order::Cancel { signal: 2, grace: PATIENCE }).await.expect("ordered");
    report(&mut shim, |report| report.cause == Some(Cause::Cancelled)).await;
    let exit = ended(&attempt).await;
    assert_eq!((&exit.outcome, exit.cause), (&Outcome::Code(7), Some(Cause::Cancelled)));
    assert_eq!(text(&attempt, &exit)[0], "ready\ncleaning\n");
}

#[tokio::test]
async fn a_stopped_process_is_woken_to_be_cancelled() {
    let rig = Rig::new();
    let (attempt, started) = rig.start("a", &script("kill -STOP $$; sleep 1000")).await;
    let stat = format!("/proc/{}/stat", started.pid);
    until(|| std::fs::read_to_string(&stat).ok()?.contains(") T ").then_some(())).await;
    order(&attempt, Order::Cancel { signal: 15, grace: PATIENCE }).await;
    assert_eq!(ended(&attempt).await.outcome, Outcome::Signal(15));
}

#[tokio::test]
async fn a_signal_that_is_passed_on_is_no_cause() {
    let rig = Rig::new();
    let (attempt, _) = rig.start("a", &script("trap 'exit 3' USR1; echo ready; while :; do sleep 0.01; done")).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    report(&mut shim, |report| report.spooled.stdout == 6).await;
    shim.order(Order::Signal(Signal::SIGUSR1 as i32)).await.expect("ordered");
    let exit = ended(&attempt).await;
    assert_eq!((&exit.outcome, exit.cause), (&Outcome::Code(3), None));
}

#[tokio::test]
async fn a_child_that_holds_the_output_is_killed_also_in_a_session_of_its_own() {
    let rig = Rig::new();
    let pid = rig.path("pid");
    let inner = format!("echo $$ > {}; echo from-the-child; exec sleep 1000", pid.display());
    // The shell waits for the line, so that the child has left before its parent ends.
    let spec = script(&format!("setsid sh -c '{inner}' & while ! test -s {}; do sleep 0.01; done", pid.display()));
    let (attempt, exit) = rig.run("a", &spec).await;
    assert_eq!((&exit.outcome, exit.killed_leftovers), (&Outcome::Code(0), true));
    assert_eq!(text(&attempt, &exit)[0], "from-the-child\n");
    gone(pid_in(pid).await).await;
}

#[tokio::test]
async fn a_child_that_may_stay_stays_without_its_output() {
    let rig = Rig::new();
    let pid = rig.path("pid");
    let mut spec = script(&format!("sleep 1000 & echo $! > {}; echo bye", pid.display()));
    spec.background = Background::Leave;
    let (attempt, exit) = rig.run("a", &spec).await;
    assert_eq!((&exit.outcome, exit.killed_leftovers), (&Outcome::Code(0), false));
    assert_eq!(text(&attempt, &exit)[0], "bye\n");
    let pid = pid_in(pid).await;
    assert!(is_alive(pid));
    kill(pid, Signal::SIGKILL);
}

#[tokio::test]
async fn usage_is_that_of_the_process_and_its_children() {
    let rig = Rig::new();
    let (_, exit) = rig.run("a", &script("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")).await;
    assert!(exit.usage.user + exit.usage.system > Duration::from_millis(10), "{:?}", exit.usage);
    assert!(exit.usage.max_rss > 100, "{:?}", exit.usage);
}
