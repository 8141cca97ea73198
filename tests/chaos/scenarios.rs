//! Single faults driven to their extreme, each a scenario of its own.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use remoting_kafka::kafka::{Cluster, KafkaCluster, Record, config::Mechanism};
use serde_json::Value;

use crate::{
    client::{self, Digesting},
    random::Random,
    stage::Stage,
    support::{user, wait},
    writer::{End, Writing},
};

const LIMIT: Duration = Duration::from_secs(1800);

/// One job of so many minutes with steady output, whose agent is killed so many times: same job, same process, every byte.
pub fn agent(stage: &Stage, seed: u64, minutes: u64, kills: u64) -> bool {
    let time = Duration::from_secs(60 * minutes);
    let writing = Writing { seed, lengths: [minutes * (6 << 20), minutes << 20], time, end: End::Code(7) };
    let id = client::submit(&stage.rig, &[], &command(stage, "job", &writing)).unwrap();
    let starts = stage.starts("job");
    let pid = wait::until("the job starts", Duration::from_secs(60), || {
        let text = fs::read_to_string(&starts).map_err(|e| e.to_string())?;
        text.split(' ').next().and_then(|pid| pid.parse::<u64>().ok()).ok_or(text)
    });
    let follower = Digesting::start(stage.rig.rk(&["logs", "-f", "-q", &id]));
    let mut random = Random::new(seed, "kills");
    let start = Instant::now();
    // All of them while the job runs.
    let step = time.mul_f64(0.95) / kills as u32;
    let mut done = 0;
    for kill in 0..kills {
        let due = step * kill as u32 + step.mul_f64(0.5 * random.fraction());
        thread::sleep(due.saturating_sub(start.elapsed()));
        if start.elapsed() < time {
            stage.kill_agent(0, Duration::ZERO);
            done += 1;
        }
    }
    let followed = follower.end(LIMIT);
    let job = show(stage, &id);
    let text = fs::read_to_string(&starts).unwrap();
    let read = client::read_log(&stage.rig, &id, LIMIT);
    let hashes = writing.hashes();
    println!("| kills of the agent | {done} |\n| starts of the job | {} |", text.lines().count());
    println!("| process id at the start, at the end | {pid}, {} |", job["pid"]);
    println!("| SHA-256 written | {hashes:?} |\n| read | {read:?} |\n| followed | {followed:?} |");
    let equal = |read: &Result<client::Digested, String>, code| {
        read.as_ref().is_ok_and(|read| read.code == code && read.hashes == hashes)
    };
    done == kills
        && text.lines().count() == 1
        && (job["pid"].is_null() || job["pid"] == pid)
        && job["state"] == "failed"
        && equal(&read, 0)
        && equal(&followed, 7)
}

/// `rk run` of so many MiB as fast as they go: every byte, and what memory it took.
pub fn big(stage: &Stage, mebibytes: u64) -> bool {
    let written = format!("yes | head -c {mebibytes}M");
    let expected = Digesting::start(sh(&written)).end(LIMIT).unwrap();
    let start = Instant::now();
    let read = Digesting::start(stage.rig.rk(&["run", "-q", "--", "sh", "-c", &written])).end(LIMIT);
    let took = start.elapsed();
    println!(
        "| MiB | {mebibytes} |\n| seconds | {:.1} |\n| SHA-256 written | {} |",
        took.as_secs_f64(),
        expected.hashes[0]
    );
    println!("| read | {read:?} |");
    println!("| agent's peak, MiB | {} |", peak(stage.agent_id(0)));
    println!("| controller's peak, MiB | {} |", peak(stage.controller_id()));
    read.is_ok_and(|read| read.code == 0 && read.hashes == expected.hashes)
}

/// The controller is killed with so many queued jobs and some running: how soon work goes on, and that nothing runs twice.
pub fn queue(stage: &Stage, jobs: usize) -> bool {
    let script = |number: usize| {
        let starts = stage.starts(&format!("queued-{number}"));
        ["sh".to_owned(), "-c".to_owned(), format!("echo $$ >> {}; sleep 3", starts.display())]
    };
    let next = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if number >= jobs {
                        return;
                    }
                    client::submit(&stage.rig, &[], &script(number)).unwrap();
                }
            });
        }
    });
    let count = |state: &str| list(stage).iter().filter(|job| job["state"] == state).count();
    let before = (count("running"), count("queued"));
    let started = || fs::read_dir(stage.rig.path("starts")).unwrap().count();
    let start = Instant::now();
    stage.kill_controller(Duration::ZERO);
    // What was already with an agent starts without the controller: a job that it had not is what counts.
    let ready = wait::until("the controller serves", Duration::from_secs(60), || {
        client::list(&stage.rig).map(|_| start.elapsed())
    });
    let had = started();
    let resumed = wait::until("a further job starts", Duration::from_secs(60), || {
        if started() > had { Ok(start.elapsed()) } else { Err(format!("{had}")) }
    });
    wait::until("all jobs have ended", LIMIT, || {
        thread::sleep(Duration::from_secs(1));
        let ended = list(stage).iter().filter(|job| client::is_terminal(job["state"].as_str().unwrap())).count();
        if ended == jobs { Ok(()) } else { Err(format!("{ended} of {jobs}")) }
    });
    let all = list(stage);
    let good = all.iter().filter(|job| job["state"] == "succeeded").count();
    let once = (0..jobs)
        .filter(|number| {
            let text = fs::read_to_string(stage.starts(&format!("queued-{number}"))).unwrap_or_default();
            text.lines().count() == 1
        })
        .count();
    println!("| running, queued at the kill | {before:?} |\n| the controller served again after | {ready:.2?} |");
    println!("| a further job started after | {resumed:.2?} |");
    println!("| succeeded, started once, of | {good}, {once}, {jobs} |");
    good == jobs && once == jobs && resumed < Duration::from_secs(5)
}

fn command(stage: &Stage, name: &str, writing: &Writing) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    [program].into_iter().chain(writing.args(&stage.starts(name))).collect()
}

/// What `rk jobs ls` tells of a job.
pub fn show(stage: &Stage, id: &str) -> Value {
    list(stage).into_iter().find(|job| job["id"] == id).unwrap_or_default()
}

fn list(stage: &Stage) -> Vec<Value> {
    wait::until("the jobs are listed", Duration::from_secs(60), || client::list(&stage.rig))
}

fn sh(script: &str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    command
}

/// The most memory that a process ever had, in MiB.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Another agent, with the rights that agents have, writes under a job's id while the job runs: the job's own records with a
/// byte, their place or their attempt changed. They are refused and counted, and the log stays right.
pub fn forged(stage: &Stage, seed: u64) -> bool {
    let writing = Writing { seed, lengths: [8 << 20, 1 << 20], time: Duration::from_secs(20), end: End::Code(0) };
    let id = client::submit(&stage.rig, &[], &command(stage, "job", &writing)).unwrap();
    let follower = Digesting::start(stage.rig.rk(&["logs", "-f", "-q", &id]));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let written = runtime.block_on(async {
        let mut forgers = Vec::new();
        for partition in 0..i32::try_from(stage.rig.partitions).unwrap() {
            forgers.push(forge(stage, partition, Duration::from_secs(25)));
        }
        futures_util::future::join_all(forgers).await.into_iter().sum::<usize>()
    });
    let followed = follower.end(LIMIT);
    let read = client::read_log(&stage.rig, &id, LIMIT);
    let hashes = writing.hashes();
    let log = fs::read_to_string(stage.rig.path("controller.log")).unwrap();
    let counted: Vec<&str> = log.lines().filter_map(|line| line.split("forged=").nth(1)).collect();
    println!("| forged records | {written} |\n| counted, by each reader | {counted:?} |");
    println!("| SHA-256 written | {hashes:?} |\n| read | {read:?} |\n| followed | {followed:?} |");
    let equal = |read: Result<client::Digested, String>| read.is_ok_and(|read| read.code == 0 && read.hashes == hashes);
    written > 0 && counted.len() >= 2 && equal(read) && equal(followed)
}

/// Writes forgeries of all records of one partition of the logs for so long; how many.
async fn forge(stage: &Stage, partition: i32, time: Duration) -> usize {
    let ca = stage.kafka.authority().ca();
    let cluster =
        |user: user::User| KafkaCluster::new(user.kafka(Mechanism::ScramSha512, stage.kafka.bootstrap(), &ca)).unwrap();
    let topic = format!("{}.logs", stage.rig.prefix);
    let (reading, writing) = (cluster(user::CONTROLLER), cluster(user::AGENT));
    let (mut reader, writer) = (reading.reader(&topic, partition), writing.writer(&topic, partition));
    let (mut offset, mut written) = (0, BTreeSet::new());
    let start = Instant::now();
    while start.elapsed() < time {
        let Ok(fetched) = reader.fetch(offset, 1 << 20, Duration::from_millis(200)).await else { continue };
        offset = fetched.next_offset;
        for (at, record) in fetched.records {
            if written.contains(&at) || record.value.is_empty() {
                continue;
            }
            for variant in variants(&record) {
                written.insert(writer.produce(vec![variant]).await.unwrap());
            }
        }
    }
    written.len()
}

/// A record with a byte changed, at another place, and of another attempt.
fn variants(record: &Record) -> Vec<Record> {
    let mut value = record.value.to_vec();
    value[0] ^= 1;
    let with = |name: &str, text: &'static str| {
        let mut other = record.clone();
        other
            .headers
            .iter_mut()
            .filter(|(key, _)| key == name)
            .for_each(|(_, value)| *value = Bytes::from_static(text.as_bytes()));
        other
    };
    vec![Record { value: value.into(), ..record.clone() }, with("offset", "7"), with("attempt", "2")]
}
