//! An agent that comes back finds its jobs as they are, and what a shim costs meanwhile.

use remoting_kafka::agent::{
    adopt::{self, Decision},
    shim::{Order, Shim},
};

use super::rig::*;

#[tokio::test]
async fn the_next_agent_finds_each_attempt_as_it_is() {
    let rig = Rig::new();
    let (running, started) = rig.start("running", &script("sleep 1000")).await;
    rig.run("ended", &script("exit 5")).await;
    rig.claim("claimed", &script("echo never"));
    let found = adopt::scan(&rig.jobs()).expect("scan");
    let names: Vec<_> = found.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(names, ["claimed.1", "ended.1", "running.1"]);
    let decisions: Vec<_> = found.into_iter().map(|(_, decision)| decision.expect("decided")).collect();
    assert_eq!(decisions[0], Decision::Start { has_spec: true });
    assert!(matches!(&decisions[1], Decision::Report(_)));
    assert_eq!(decisions[2], Decision::Adopt(Some(started)));
    order(&running, Order::Kill).await;
    ended(&running).await;
}

#[tokio::test]
async fn connections_come_and_go_and_each_is_told_once_what_is_new() {
    let rig = Rig::new();
    let go = rig.path("go");
    let spec =
        script(&format!("echo one; while ! test -e {}; do sleep 0.01; done; echo two; sleep 1000", go.display()));
    let (attempt, _) = rig.start("a", &spec).await;
    for _ in 0..20 {
        // More than may be connected at once, and none says good-bye.
        let mut shim = Shim::connect(&attempt).await.expect("connected");
        report(&mut shim, |report| report.spooled.stdout == 4).await;
    }
    let mut first = Shim::connect(&attempt).await.expect("connected");
    let mut second = Shim::connect(&attempt).await.expect("connected");
    report(&mut first, |report| report.spooled.stdout == 4).await;
    report(&mut second, |report| report.spooled.stdout == 4).await;
    std::fs::write(&go, "").expect("go");
    for shim in [&mut first, &mut second] {
        report(shim, |report| report.spooled.stdout == 8).await;
    }
    first.order(Order::Kill).await.expect("ordered");
    for shim in [&mut first, &mut second] {
        soon(async { while shim.changed().await.is_some() {} }).await;
        // The end of the connection means that the record is there.
        assert!(matches!(decision(&attempt), Decision::Report(exit) if exit.stdout.length == 8));
    }
}

/// Far above what it takes without optimisation: that nobody adds a runtime or a parser. What users get is measured in the release
/// build, where this test is stricter. Without optimisation a third of it is pages that the loader relocates, which grow with the program.
const MOST_KIB: u64 = if cfg!(debug_assertions) { 3072 } else { 1024 };

#[tokio::test]
async fn a_shim_is_small() {
    let rig = Rig::new();
    // It has worked: both buffers were used.
    let (attempt, _) =
        rig.start("a", &script("head -c 3000000 /dev/zero; head -c 300000 /dev/zero >&2; sleep 1000")).await;
    let mut shim = Shim::connect(&attempt).await.expect("connected");
    report(&mut shim, |report| report.spooled.stdout == 3_000_000 && report.spooled.stderr == 300_000).await;
    let private = private_memory(shim_of(&attempt).expect("a shim"));
    println!("private memory of a shim: {private} KiB");
    assert!(private <= MOST_KIB, "{private} KiB");
    order(&attempt, Order::Kill).await;
    ended(&attempt).await;
}
