//! Five hundred idle agents on the shared layout: what each costs, since all on a partition read all of it.

use std::{io::BufRead, process::Stdio, sync::Arc, time::Duration};

use remoting_kafka::{
    agent,
    kafka::{KafkaCluster, Prefix},
    link,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    place::{Place, again, config},
    report::Report,
    rows::{Effort, cpu_seconds},
    stage::Stage,
};

const AGENTS: usize = 500;
/// As many as 500 agents want: 16 on each.
const PARTITIONS: u32 = 32;

/// Starts the crowd in a process of its own and looks at it.
pub async fn measure(report: &mut Report, place: &Place, effort: Effort) {
    let stage = Stage::open(place, "crowd", PARTITIONS).await;
    let mut command = tokio::process::Command::from(again(&["crowd", &place.bootstrap.join(",")]));
    command.arg(&place.ca).arg(stage.path("crowd.data"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut crowd = command.spawn().unwrap();
    let mut stdin = crowd.stdin.take().unwrap();
    let mut lines = BufReader::new(crowd.stdout.take().unwrap()).lines();
    let mut members = vec![0_usize; PARTITIONS as usize];
    for i in 0..AGENTS {
        let name = format!("c{i}");
        let credential = std::fs::read_to_string(stage.add(&name).await).unwrap();
        members[stage.handle.agent(&name.parse().unwrap()).unwrap().partition as usize] += 1;
        stdin.write_all(format!("{}\n", credential.trim()).as_bytes()).await.unwrap();
    }
    drop(stdin);
    for i in 0..AGENTS {
        stage.wait_online(&format!("c{i}").parse().unwrap()).await;
    }
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("started"));
    let pid = crowd.id().unwrap();
    sleep(Duration::from_secs(5)).await;
    let before = stage.traffic_start().await;
    let (start, used) = (Instant::now(), cpu_seconds(pid));
    sleep(effort.idle).await;
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu_seconds(pid) - used);
    let received = stage.received_since(&before, &members).await;
    report.alone("crowd_agent_cpu", "% core", 100.0 * used / seconds / AGENTS as f64);
    report.alone("crowd_agent_received", "B/min", received as f64 * 60.0 / seconds / AGENTS as f64);
    crowd.kill().await.unwrap();
    stage.close().await;
}

/// The crowd: an agent for each credential on stdin.
pub async fn be(bootstrap: &str, ca: &str, data: &str) {
    let prefix: Prefix = "crowd".parse().unwrap();
    let cluster = Arc::new(KafkaCluster::new(config(bootstrap, ca.as_ref())).unwrap());
    let credentials = tokio::task::spawn_blocking(|| std::io::stdin().lock().lines().map(Result::unwrap).collect());
    let credentials: Vec<String> = credentials.await.unwrap();
    let mut agents = JoinSet::new();
    let mut stops = Vec::new();
    for credential in credentials {
        let link = link::Config { prefix: prefix.clone(), partitions: PARTITIONS, ..link::Config::default() };
        let config = agent::Config { link, data: data.into(), dumpable: true, ..agent::Config::default() };
        let (stop, stopped) = mpsc::channel(1);
        stops.push(stop);
        agents.spawn(agent::run(config, cluster.clone(), Arc::new(credential.parse().unwrap()), stopped));
        // A moment for each, as if they were machines that start by themselves.
        sleep(Duration::from_millis(10)).await;
    }
    println!("started");
    let ended = agents.join_next().await;
    panic!("an agent ended: {ended:?}");
}
