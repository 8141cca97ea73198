//! A bundle that many agents need at once: what the controller sends for it, and how long it takes until all have it.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
};

use remoting_kafka::{
    api::{ExecEnd, ExecRequest},
    controller::Handle,
    id::AgentName,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{report::Report, stage::Stage};

/// Agents that need it.
const AGENTS: usize = 20;
/// Its size.
const BYTES: usize = 50_000_000;

/// Twenty agents, none of which has the bundle, beside one.
pub async fn measure(report: &mut Report, stage: &Stage) {
    let mut agents = Vec::with_capacity(AGENTS);
    for n in 0..AGENTS {
        agents.push(stage.agent(&format!("fan{n}")).await);
    }
    let names: Vec<AgentName> = agents.iter().map(|(name, _)| name.clone()).collect();
    // What starts first loads what all share.
    all_run(&stage.handle, &names[..1], &push(stage, "warm").await).await;
    let alone = push(stage, "alone").await;
    let alone = all_run(&stage.handle, &names[..1], &alone).await;
    let before = stage.marks(&[stage.prefix.blobs(), stage.prefix.down_control(), stage.prefix.down_bulk()]).await;
    let bundle = push(stage, "shared").await;
    let took = all_run(&stage.handle, &names, &bundle).await;
    let sent = stage.traffic_since(&before, |_| true).await.bytes;
    const MIB: f64 = (1 << 20) as f64;
    report.pairs("bundle_fanout", "MiB", &[(sent as f64 / MIB, BYTES as f64 / MIB)]);
    report.pairs("bundle_fanout_time", "s", &[(took, alone)]);
}

/// Pushes a program with much beside it, and returns what means it.
async fn push(stage: &Stage, name: &str) -> String {
    let dir = stage.path(name);
    fs::create_dir(&dir).unwrap();
    let mut noise = File::open("/dev/urandom").unwrap().take(BYTES as u64);
    io::copy(&mut noise, &mut File::create(dir.join("data")).unwrap()).unwrap();
    let tool = dir.join("tool");
    fs::write(&tool, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let push = stage.cli(&["bundle", "push", dir.to_str().unwrap()]);
    let output = tokio::process::Command::from(push).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs the bundle's program on all at once; the seconds until the last has ended.
async fn all_run(handle: &Handle, agents: &[AgentName], bundle: &str) -> f64 {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for agent in agents {
        let request = ExecRequest { bundles: vec![bundle.to_owned()], ..ExecRequest::new(agent.clone(), ["tool"]) };
        let handle = handle.clone();
        running.spawn(async move {
            let mut execution = handle.exec(request).await.unwrap_or_else(|end| panic!("{end:?}"));
            assert_eq!(execution.control.end().await, ExecEnd::Exited { code: 0 });
        });
    }
    running.join_all().await;
    start.elapsed().as_secs_f64()
}
