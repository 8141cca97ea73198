//! The rows: what is measured, and beside which floor.

use std::{
    fs::{self, File},
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use remoting_kafka::{
    api::{ExecEnd, ExecRequest},
    controller::{Execution, Handle},
    id::AgentName,
    protocol::call::Call,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    floor::Floor,
    report::{Report, median, percentile},
    stage::Stage,
    support::process::Process,
};

const MIB: usize = 1 << 20;
/// The body of a call.
const BODY: usize = 100;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Alternated pairs, at least five.
    pub pairs: usize,
    /// Thousands of calls before the first pair.
    pub warm_up: usize,
    /// Calls in each.
    pub calls: usize,
    /// Bytes in each stream.
    pub stream: usize,
    /// Bytes of each file that is copied.
    pub copy: usize,
    /// Jobs in each round.
    pub jobs: usize,
    /// How long idleness is looked at.
    pub idle: Duration,
}

impl Effort {
    pub const FULL: Self = Self {
        pairs: 7,
        warm_up: 10,
        calls: 1000,
        stream: 384 * MIB,
        copy: 1024 * MIB,
        jobs: 400,
        idle: Duration::from_secs(60),
    };
    pub const QUICK: Self = Self {
        pairs: 5,
        warm_up: 3,
        calls: 200,
        stream: 64 * MIB,
        copy: 256 * MIB,
        jobs: 192,
        idle: Duration::from_secs(10),
    };
}

/// Calls one after the other beside ping-pong.
pub async fn calls(report: &mut Report, stage: &Stage, floor: &mut Floor, agent: &AgentName, effort: Effort) {
    // A broker on the Java machine takes some seconds of work until it is as fast as it gets.
    for _ in 0..effort.warm_up {
        time_calls(&stage.handle, agent, 1000).await;
        floor.calls(1000, BODY).await;
    }
    let (mut p50, mut p99) = (Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let base = sorted(floor.calls(effort.calls, BODY).await);
        let ours = sorted(time_calls(&stage.handle, agent, effort.calls).await);
        p50.push((percentile(&ours, 0.50), percentile(&base, 0.50)));
        p99.push((percentile(&ours, 0.99), percentile(&base, 0.99)));
    }
    report.pairs("call_p50", "ms", &p50);
    report.pairs("call_p99", "ms", &p99);
    let before = stage.traffic_start().await;
    time_calls(&stage.handle, agent, effort.calls).await;
    let traffic = stage.traffic_since(&before, |key| key == agent.as_str().as_bytes()).await;
    report.alone("call_records", "/call", traffic.records as f64 / effort.calls as f64);
    report.alone("call_bytes", "B/call", traffic.bytes as f64 / effort.calls as f64);
}

/// How many calls a second pass, 256 at a time.
pub async fn calls_per_second(report: &mut Report, stage: &Stage, agent: &AgentName, effort: Effort) {
    let mut rates = Vec::new();
    for _ in 0..effort.pairs {
        let start = Instant::now();
        let mut flying = JoinSet::new();
        for _ in 0..256 {
            let (handle, agent) = (stage.handle.clone(), agent.clone());
            flying.spawn(async move { time_calls(&handle, &agent, 100).await });
        }
        flying.join_all().await;
        rates.push(256.0 * 100.0 / start.elapsed().as_secs_f64());
    }
    report.alone("calls_per_second", "calls/s", median(rates));
}

/// A remote process's stdout as the controller receives it, and as a shell behind `rk exec` does.
pub async fn streams(report: &mut Report, stage: &Stage, floor: &mut Floor, agent: &AgentName, effort: Effort) {
    let file = stage.path("stream");
    fs::write(&file, vec![7; effort.stream]).unwrap();
    let file = file.to_str().unwrap();
    let (mut direct, mut cli) = (Vec::new(), Vec::new());
    receive(&stage.handle, agent, file, effort.stream).await;
    floor.stream(effort.stream / 4).await;
    for _ in 0..effort.pairs {
        let base = floor.stream(effort.stream).await;
        direct.push((receive(&stage.handle, agent, file, effort.stream).await, base));
        let mut command = tokio::process::Command::from(stage.cli(&["exec", agent.as_str(), "--", "cat", file]));
        command.stdin(Stdio::null()).stdout(File::create("/dev/null").unwrap());
        let start = Instant::now();
        assert!(command.status().await.unwrap().success());
        cli.push((rate(effort.stream, start), base));
    }
    report.pairs("exec_stream", "MiB/s", &direct);
    report.pairs("exec_cli_stream", "MiB/s", &cli);
}

/// Calls to an agent with four saturated streams, and to its neighbour on the same partition, beside the same calls
/// when nothing else runs, and beside ping-pong under the same bulk, which is what the broker allows then; and how long a signal takes to reach a process there.
pub async fn under_bulk(
    report: &mut Report,
    stage: &Stage,
    floor: &mut Floor,
    agent: &AgentName,
    neighbour: &AgentName,
    effort: Effort,
) {
    let (mut own, mut beside, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.pairs {
        let quiet = p99(&stage.handle, agent, effort).await;
        let load = Load::start(&stage.handle, agent).await;
        let loaded = p99(&stage.handle, agent, effort).await;
        own.push((loaded, quiet));
        beside.push((p99(&stage.handle, neighbour, effort).await, quiet));
        raw.push((loaded, percentile(&sorted(floor.calls(effort.calls, BODY).await), 0.99)));
        load.stop(&stage.handle, agent).await;
    }
    report.pairs("call_p99_under_bulk", "ms", &own);
    report.pairs("call_p99_beside_bulk", "ms", &beside);
    report.pairs("call_p99_raw_bulk", "ms", &raw);

    let load = Load::start(&stage.handle, agent).await;
    let mut took = Vec::new();
    for _ in 0..20 {
        took.push(cancel(&stage.handle, agent).await);
    }
    load.stop(&stage.handle, agent).await;
    report.alone("cancel_under_bulk", "ms", sorted(took).pop().unwrap());
}

/// From the start of an agent's process until it can be worked with.
pub async fn start_to_online(report: &mut Report, stage: &Stage, effort: Effort) {
    let name: AgentName = "starter".parse().unwrap();
    let credential = stage.add(name.as_str()).await;
    let mut took = Vec::new();
    for _ in 0..effort.pairs {
        let start = Instant::now();
        let mut process = stage.start_agent(name.as_str(), &credential, &[]);
        stage.wait_online(&name).await;
        took.push(start.elapsed().as_secs_f64() * 1e3);
        process.signal("TERM");
        while process.ended().is_none() || stage.handle.session(&name).is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    }
    report.alone("start_to_online", "ms", median(took));
}

/// What agents that do nothing cost: memory, processor, records.
pub async fn idleness(report: &mut Report, stage: &Stage, agents: &[(AgentName, Process)], effort: Effort) {
    let names: Vec<&AgentName> = agents.iter().map(|(name, _)| name).collect();
    // What the rows before left behind is acknowledged and forgotten.
    sleep(Duration::from_secs(2)).await;
    let before = stage.traffic_start().await;
    let ticks: f64 = agents.iter().map(|(_, process)| cpu_seconds(process.id())).sum();
    let start = Instant::now();
    sleep(effort.idle).await;
    let seconds = start.elapsed().as_secs_f64();
    let used = agents.iter().map(|(_, process)| cpu_seconds(process.id())).sum::<f64>() - ticks;
    let traffic = stage.traffic_since(&before, |key| names.iter().any(|name| name.as_str().as_bytes() == key)).await;
    let count = agents.len() as f64;
    let largest = agents.iter().map(|(_, process)| pss_mib(process.id())).fold(0.0, f64::max);
    report.alone("agent_rss", "MiB", largest);
    report.alone("agent_cpu", "% core", 100.0 * used / seconds / count);
    report.alone("idle_records", "/min", traffic.records as f64 * 60.0 / seconds / count);
    report.alone("idle_bytes", "B/min", traffic.bytes as f64 * 60.0 / seconds / count);
}

/// Four processes whose output the controller receives as fast as it comes.
struct Load(JoinSet<()>);

impl Load {
    /// Returns when all four flow.
    async fn start(handle: &Handle, agent: &AgentName) -> Self {
        let mut load = JoinSet::new();
        let (flows, mut flowing) = mpsc::channel(4);
        for _ in 0..4 {
            let mut execution = run(handle, agent, &["cat", "/dev/zero"]).await;
            let flows = flows.clone();
            load.spawn(async move {
                let mut buffer = vec![0; MIB];
                let mut got = 0;
                loop {
                    let n = execution.stdout.read(&mut buffer).await.unwrap();
                    assert_ne!(n, 0, "{} ended after {got} bytes", execution.pid);
                    if (got..got + n).contains(&(4 * MIB)) {
                        flows.send(()).await.ok();
                    }
                    got += n;
                    // Held as a whole: a dropped control gives the process up.
                    let _ = &execution.control;
                }
            });
        }
        for _ in 0..4 {
            flowing.recv().await.unwrap();
        }
        Self(load)
    }

    /// Hangs up, and waits until the agent says that nothing runs.
    async fn stop(mut self, handle: &Handle, agent: &AgentName) {
        self.0.shutdown().await;
        while handle.condition(agent).await.expect("answered").running > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Starts an execution.
pub async fn run(handle: &Handle, agent: &AgentName, argv: &[&str]) -> Execution {
    let request = ExecRequest::new(agent.clone(), argv.iter().copied());
    handle.exec(request).await.unwrap_or_else(|end| panic!("{argv:?}: {end:?}"))
}

/// Calls one after the other, in ms.
async fn time_calls(handle: &Handle, agent: &AgentName, count: usize) -> Vec<f64> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        handle.call(agent, Call::Echo, Bytes::from_static(&[7; BODY])).await.expect("answered");
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    took
}

async fn p99(handle: &Handle, agent: &AgentName, effort: Effort) -> f64 {
    percentile(&sorted(time_calls(handle, agent, effort.calls).await), 0.99)
}

/// MiB/s of a process's stdout.
async fn receive(handle: &Handle, agent: &AgentName, file: &str, bytes: usize) -> f64 {
    let start = Instant::now();
    let mut execution = run(handle, agent, &["cat", file]).await;
    let (mut buffer, mut got) = (vec![0; MIB], 0);
    loop {
        match execution.stdout.read(&mut buffer).await.unwrap() {
            0 => break,
            n => got += n,
        }
    }
    assert_eq!(got, bytes);
    let rate = rate(bytes, start);
    assert_eq!(execution.control.end().await, ExecEnd::Exited { code: 0 });
    rate
}

/// From the controller's signal until the process has it, in ms.
async fn cancel(handle: &Handle, agent: &AgentName) -> f64 {
    let this = std::env::current_exe().unwrap();
    let mut execution = run(handle, agent, &[this.to_str().unwrap(), "signal-clock"]).await;
    let mut lines = BufReader::new(&mut execution.stdout).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("ready"));
    let sent = nanoseconds();
    execution.control.signals().send(2).await;
    let at: u128 = lines.next_line().await.unwrap().expect("a time").parse().unwrap();
    at.saturating_sub(sent) as f64 / 1e6
}

/// The process that [`cancel`] signals: says when SIGINT came.
pub async fn signal_clock() {
    let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
    println!("ready");
    interrupts.recv().await;
    println!("{}", nanoseconds());
}

/// Since 1970.
pub fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// MiB/s since `start`.
pub fn rate(bytes: usize, start: Instant) -> f64 {
    bytes as f64 / start.elapsed().as_secs_f64() / MIB as f64
}

pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Processor time that a process has used, in ticks of 10 ms.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// What a process adds to the memory in use: pages that it shares count in proportion.
fn pss_mib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
