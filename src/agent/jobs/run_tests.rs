use std::{collections::BTreeMap, fs};

use super::*;
use crate::{
    agent::{
        artifacts,
        environment::Environment,
        jobs::{Hooks, Jobs, Settings},
        policy::Policy,
        shim::{
            Launcher, record,
            spec::{Exit, Outcome as ShimOutcome, Total},
        },
        wasm::Modules,
    },
    job::{Hidden, JobId, LogFormat, Workspace},
    kafka::{Prefix, memory::MemoryCluster},
};

fn key() -> Key {
    (JobId::new(1, 2), 1)
}

fn settings(dir: &std::path::Path) -> Settings {
    let bundles = bundles::Settings {
        data: dir.to_owned(),
        limit: 1 << 20,
        keys: None,
        topic: Prefix::default().blobs(),
        run_as: None,
    };
    let name = "a1".parse().expect("name");
    Settings {
        jobs: dir.join("jobs"),
        work: dir.join("work"),
        mark: dir.join("mark"),
        topic: Prefix::default().logs(),
        artifacts: artifacts::Settings { topic: Prefix::default().artifacts(), limit: 1 << 20 },
        slots: 1,
        launcher: Launcher::ourselves(),
        bundles: Bundles::new(bundles, std::sync::Arc::new(MemoryCluster::new())).expect("cache"),
        environment: Environment::of_agent([], &name, &BTreeMap::new()),
        hooks: Hooks::default(),
        policy: Policy::default(),
        run_as: None,
        modules: Modules { runner: None, data: dir.to_owned() },
    }
}

/// How the attempt stands, and what stands in its way.
fn stands(jobs: &Jobs) -> (Option<Report>, bool) {
    let state = jobs.0.lock();
    let entry = state.attempts.get(&key()).expect("it is there");
    (entry.report.clone(), entry.trouble.is_some())
}

#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_not_given_back_because_a_file_cannot_be_read() {
    let dir = tempfile::tempdir().expect("dir");
    let settings = settings(dir.path());
    let attempt = Attempt::take(&settings.jobs, &id(key())).expect("claimed");
    // It ended, and the ticket is no ticket.
    let exit = Exit {
        outcome: ShimOutcome::Code(3),
        cause: None,
        time: 7,
        usage: Default::default(),
        stdout: Total { length: 0, sha256: [0; 32] },
        stderr: Total { length: 0, sha256: [0; 32] },
        killed_leftovers: false,
    };
    record::write(&attempt.exit(), &exit).expect("written");
    let ticket = attempt.dir().join("ticket");
    crate::private_file::replace(&ticket, b"x").expect("written");
    let cluster = MemoryCluster::new();
    cluster.create(&settings.topic, 1);
    let jobs = Jobs::new(settings, Arc::new(cluster)).expect("jobs");
    while stands(&jobs) != (Some(Report::Claimed), true) {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(attempt.dir().exists(), "it was not given back");
    // Somebody mends it.
    let mended = Ticket {
        partition: 0,
        key: Hidden::new([7; 32]),
        format: LogFormat::Sealed,
        workspace: Workspace::Remove,
        name: None,
        bundles: Vec::new(),
    };
    Files(&attempt).put_ticket(&mended).expect("written");
    loop {
        if let (Some(Report::Ended { outcome, .. }), false) = stands(&jobs) {
            assert_eq!(outcome, Outcome::Exited(3));
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_certainly_did_not_run_is_given_back_whatever_its_files_are() {
    let dir = tempfile::tempdir().expect("dir");
    let settings = settings(dir.path());
    let attempt = Attempt::take(&settings.jobs, &id(key())).expect("claimed");
    fs::write(attempt.dir().join("ticket"), "open to others").expect("written");
    let jobs = Jobs::new(settings, Arc::new(MemoryCluster::new())).expect("jobs");
    while stands(&jobs).0 != Some(Report::Returned(Returned::NoRoom)) {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!attempt.dir().exists());
}
