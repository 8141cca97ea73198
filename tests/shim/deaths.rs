//! Whoever is killed.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use remoting_kafka::agent::{
    adopt::{self, Decision, Lost},
    shim::{Order, Shim, spec::Outcome},
};

use super::rig::*;

#[tokio::test]
async fn the_death_of_the_starter_and_of_its_group_costs_nothing() {
    let rig = Rig::new();
    let go = rig.path("go");
    let spec = script(&format!("echo one; while ! test -e {}; do sleep 0.01; done; echo two", go.display()));
    let attempt = rig.claim("a", &spec);
    // The starter leads a group, as an agent below a service manager does.
    let mut starter = Command::new("setsid")
        .args(["sh", "-c", "\"$0\" job-shim \"$1\" & wait; sleep 1000", env!("CARGO_BIN_EXE_rk")])
        .arg(attempt.dir())
        .stdout(Stdio::null())
        .spawn()
        .expect("a starter");
    let pid = until(|| match decision(&attempt) {
        Decision::Adopt(Some(started)) => Some(started.pid),
        _ => None,
    })
    .await;
    let shim = shim_of(&attempt).expect("a shim");
    nix::sys::signal::killpg(nix::unistd::Pid::from_raw(starter.id() as i32), Signal::SIGKILL).expect("kill");
    starter.wait().expect("wait");
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT, Signal::SIGPIPE, Signal::SIGUSR1] {
        kill(shim, signal);
    }
    std::fs::write(&go, "").expect("go");
    let exit = ended(&attempt).await;
    assert_eq!((&exit.outcome, text(&attempt, &exit)[0].as_str()), (&Outcome::Code(0), "one\ntwo\n"));
    gone(pid).await;
}

#[tokio::test]
async fn when_the_shim_is_killed_the_job_is_lost_and_none_of_it_runs_on() {
    let rig = Rig::new();
    let child = rig.path("child");
    let spec = script(&format!("echo spooled; sleep 1000 & echo $! > {}; wait", child.display()));
    let (attempt, started) = rig.start("a", &spec).await;
    let child = pid_in(child).await;
    let mut connection = Shim::connect(&attempt).await.expect("connected");
    report(&mut connection, |report| report.spooled.stdout == 8).await;
    kill(shim_of(&attempt).expect("a shim"), Signal::SIGKILL);
    assert_eq!(soon(async { while connection.changed().await.is_some() {} }).await, ());
    gone(started.pid).await;
    let decided = until(|| match decision(&attempt) {
        Decision::Adopt(_) => None,
        decided => Some(decided),
    })
    .await;
    assert_eq!(decided, Decision::Lost(Lost::ShimGone { processes_left: true }));
    assert!(soon(adopt::end(&started)).await);
    gone(child).await;
    assert_eq!(spooled(&attempt)[0], b"spooled\n");
    let again = soon(launcher().start(&attempt)).await;
    assert!(again.is_err(), "what may have run is not started again");
}

#[tokio::test]
async fn when_the_process_is_killed_its_signal_and_its_output_are_known() {
    let rig = Rig::new();
    let (attempt, started) = rig.start("a", &script("echo before; sleep 1000 & wait")).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    report(&mut shim, |report| report.spooled.stdout == 7).await;
    kill(started.pid, Signal::SIGKILL);
    let exit = ended(&attempt).await;
    assert_eq!((&exit.outcome, exit.cause), (&Outcome::Signal(9), None));
    assert_eq!(text(&attempt, &exit)[0], "before\n");
}

#[tokio::test]
async fn a_signal_without_a_name_is_reported_by_its_number() {
    let rig = Rig::new();
    let (_, exit) = rig.run("a", &script("kill -40 $$")).await;
    assert_eq!(exit.outcome, Outcome::Signal(40));
}

#[tokio::test]
async fn ending_what_another_boot_started_touches_nobody() {
    let rig = Rig::new();
    let (attempt, mut started) = rig.start("a", &script("sleep 1000")).await;
    started.boot = "another".to_owned();
    assert!(adopt::end(&started).await);
    assert!(is_alive(started.pid));
    order(&attempt, Order::Kill).await;
    ended(&attempt).await;
}
