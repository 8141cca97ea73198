//! Jobs: how fast they are taken, run and shown, through the same HTTP API that the command line uses.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use remoting_kafka::{
    api::{
        Client,
        client::{Followed, LogFollower},
        jobs::SubmitJob,
        logs::{LogItem, LogQuery, LogStream},
    },
    bytelog::{Acked, Attempt, Config, JobKey, JobSecret, Shipper, Stream},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    floor::Floor,
    report::{Report, median, percentile},
    rows::{Effort, nanoseconds, rate, sorted},
    stage::Stage,
};

/// What a log's shipper is given at once: what an agent reads of a spool.
const PIECE: usize = 256 << 10;
/// Jobs before the first that is timed: they open the connections that are kept, and warm the broker's compiler up.
const WARM_UP: usize = 100;
/// Clients that submit at once.
const CLIENTS: usize = 64;
/// Jobs that run at once on the agent: short ones wait for disks and Kafka more than for a processor.
const SLOTS: &str = "32";
/// How often the job whose lines are timed prints one.
const LINE_EVERY: Duration = Duration::from_millis(7);

/// All rows about jobs, on an agent of their own.
pub async fn measure(report: &mut Report, stage: &Stage, floor: &mut Floor, effort: Effort) {
    let (name, _process) = stage.agent_with("jobs", &["--slots", SLOTS]).await;
    let name = name.as_str();
    run_first_output(report, "run_first_output", stage, name, effort).await;
    log_follow(report, stage, name, effort).await;
    log_ship(report, stage, floor, effort).await;
    // Behind what that left in the partition, which is another job's.
    run_first_output(report, "run_first_output_full", stage, name, effort).await;
    job_starts(report, stage, name, effort).await;
    // Last: what it submits waits for ever.
    submits(report, stage, effort).await;
}

/// A log's shipper alone, beside rskafka that produces the same bytes.
async fn log_ship(report: &mut Report, stage: &Stage, floor: &mut Floor, effort: Effort) {
    let mut pairs = Vec::new();
    ship(stage, effort.stream / 4).await;
    floor.produce(effort.stream / 4).await;
    for _ in 0..effort.pairs {
        let base = floor.produce(effort.stream).await;
        pairs.push((ship(stage, effort.stream).await, base));
    }
    report.pairs("log_ship", "MiB/s", &pairs);
}

async fn ship(stage: &Stage, bytes: usize) -> f64 {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let job = JobKey::new(format!("bench-{number}")).unwrap();
    let attempt = Attempt::new(job.clone(), 1, &JobSecret::new([7; 32]).attempt(&job, 1));
    let (cluster, topic) = (stage.cluster.clone(), stage.prefix.logs());
    let mut shipper =
        Shipper::start(cluster, &topic, 0, attempt, Acked::default(), Config::default()).await.expect("starts");
    let piece = vec![7; PIECE];
    let start = Instant::now();
    for offset in (0..bytes).step_by(PIECE) {
        shipper.ship(Stream::Stdout, offset as u64, 0, &piece).await.expect("taken");
    }
    shipper.flush().await.expect("there");
    rate(bytes, start)
}

/// From a submission until its client has the first byte of output.
async fn run_first_output(report: &mut Report, row: &'static str, stage: &Stage, agent: &str, effort: Effort) {
    let client = stage.client();
    let mut took = Vec::new();
    for round in 0..effort.jobs / 4 + WARM_UP {
        let start = Instant::now();
        let id = submit(&client, agent, &["echo", "1"]).await;
        let mut log = follow(&client, &id);
        next_output(&mut log).await.expect("a line");
        if round >= WARM_UP {
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        while next_output(&mut log).await.is_some() {}
    }
    report.alone(row, "ms", median(took));
}

/// From a line's print by a job until who follows its log has it.
async fn log_follow(report: &mut Report, stage: &Stage, agent: &str, effort: Effort) {
    let client = stage.client();
    let this = std::env::current_exe().unwrap();
    let count = effort.jobs * 5;
    let id = submit(&client, agent, &[this.to_str().unwrap(), "line-clock", &count.to_string()]).await;
    let mut log = follow(&client, &id);
    let (mut took, mut rest) = (Vec::with_capacity(count), String::new());
    while let Some(text) = next_output(&mut log).await {
        let now = nanoseconds();
        rest.push_str(&text);
        let lines = rest.rfind('\n').map_or(0, |at| at + 1);
        for line in rest.drain(..lines).collect::<String>().lines() {
            took.push(now.saturating_sub(line.parse::<u128>().unwrap()) as f64 / 1e6);
        }
    }
    assert_eq!(took.len(), count);
    let took = sorted(took);
    report.alone("log_follow_p50", "ms", percentile(&took, 0.50));
    report.alone("log_follow_p99", "ms", percentile(&took, 0.99));
}

/// The job that [`log_follow`] follows: prints the time, line by line.
pub async fn line_clock(count: usize) {
    for _ in 0..count {
        println!("{}", nanoseconds());
        tokio::time::sleep(LINE_EVERY).await;
    }
}

/// How many jobs a second run to their end on one agent, submissions included.
async fn job_starts(report: &mut Report, stage: &Stage, agent: &str, effort: Effort) {
    let mut rates = Vec::new();
    for _ in 0..effort.pairs {
        let start = Instant::now();
        let count = each_client(stage, agent, effort.jobs, |client, id| async move {
            loop {
                let job = client.wait_for_job(&id, Duration::from_secs(20)).await.expect("answered");
                if let Some(code) = job.exit_code {
                    assert_eq!(code, 0, "{job:?}");
                    break;
                }
            }
        });
        rates.push(count.await as f64 / start.elapsed().as_secs_f64());
    }
    report.alone("job_starts", "jobs/s", median(rates));
}

/// How many jobs a second are in the journal, for an agent that is not there.
async fn submits(report: &mut Report, stage: &Stage, effort: Effort) {
    stage.add("absent").await;
    let mut rates = Vec::new();
    for _ in 0..effort.pairs {
        let start = Instant::now();
        let count = each_client(stage, "absent", effort.jobs * 4, |_, _| async {}).await;
        rates.push(count as f64 / start.elapsed().as_secs_f64());
    }
    report.alone("submits_per_second", "jobs/s", median(rates));
}

/// Submits at least `count` short jobs, [`CLIENTS`] at a time, and does `then` after each. Returns how many they were.
async fn each_client<F: Future<Output = ()> + Send>(
    stage: &Stage,
    agent: &str,
    count: usize,
    then: impl Fn(Client, String) -> F + Copy + Send + 'static,
) -> usize {
    let each = count.div_ceil(CLIENTS);
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, agent) = (stage.client(), agent.to_owned());
        clients.spawn(async move {
            for _ in 0..each {
                let id = submit(&client, &agent, &["true"]).await;
                then(client.clone(), id).await;
            }
        });
    }
    clients.join_all().await;
    each * CLIENTS
}

async fn submit(client: &Client, agent: &str, argv: &[&str]) -> String {
    let job = serde_json::json!({ "argv": argv, "agent": agent, "submitter": "bench" });
    let job: SubmitJob = serde_json::from_value(job).unwrap();
    client.submit(&job).await.expect("submitted").id.to_string()
}

fn follow(client: &Client, id: &str) -> LogFollower {
    let query = LogQuery { follow: true, ..LogQuery::default() };
    LogFollower::new(client.clone(), id, query, Duration::from_secs(20))
}

/// What the job prints next; `None` after its end.
async fn next_output(log: &mut LogFollower) -> Option<String> {
    loop {
        match log.next().await.expect("followed")? {
            Followed::Item(LogItem::Chunk { stream: LogStream::Stdout, bytes, .. }) => {
                return Some(String::from_utf8(bytes.to_vec()).unwrap());
            }
            Followed::Item(LogItem::Gap { .. }) => panic!("a gap"),
            _ => {}
        }
    }
}
