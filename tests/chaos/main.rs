//! Jobs on a real three-node Apache Kafka while everything that they need is killed, paused and cut off. `make chaos` runs it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "tests")]

mod client;
mod plan;
mod proxy;
mod random;
#[path = "../it/rig.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod rig;
mod scenarios;
mod stage;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod tour;
mod writer;

use std::process::ExitCode;

use stage::Stage;

const USAGE: &str = "chaos: ignored; `make chaos` runs it, on a real Apache Kafka";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, otherwise: u64| words.get(i).map_or(otherwise, |word| word.parse().unwrap());
    match words.first().map(String::as_str) {
        Some("write") => writer::run(&words[1..]),
        Some("suite") => {
            let seed = number(1, uuid::Uuid::new_v4().as_u128() as u64 % 1_000_000);
            let minutes = number(2, 5);
            println!("chaos: SEED={seed} MINUTES={minutes}");
            let again = format!("make chaos SEED={seed} MINUTES={minutes}");
            scenario(&format!("chaos-{seed}"), &again, plan::AGENTS, move |stage| suite::run(stage, seed, minutes))
        }
        Some("agent") => {
            let (minutes, kills) = (number(1, 10), number(2, 100));
            let again = format!("make chaos-agent MINUTES={minutes} KILLS={kills}");
            scenario("chaos-agent", &again, 1, |stage| scenarios::agent(stage, 1, minutes, kills))
        }
        Some("big") => {
            let mebibytes = number(1, 10 << 10);
            scenario("chaos-big", &format!("make chaos-big MIB={mebibytes}"), 1, |stage| {
                scenarios::big(stage, mebibytes)
            })
        }
        Some("queue") => {
            let jobs = number(1, 1050);
            scenario("chaos-queue", &format!("make chaos-queue JOBS={jobs}"), plan::AGENTS, |stage| {
                scenarios::queue(stage, jobs as usize)
            })
        }
        Some("tour") => scenario("tour", "make tour", 1, tour::tour),
        Some("forged") => scenario("chaos-forged", "make chaos-forged", 1, |stage| scenarios::forged(stage, 1)),
        _ => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
    }
}

/// When we are told to end: ends what would live on, and removes what was written. All else dies with us.
fn end_on_signals(dir: std::path::PathBuf) {
    use tokio::signal::unix::{SignalKind, signal};
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = terminate.recv() => (),
                _ = tokio::signal::ctrl_c() => (),
            }
        });
        stage::end_strays(&dir);
        std::fs::remove_dir_all(&dir).ok();
        println!("chaos: ended by a signal");
        std::process::exit(130);
    });
}

/// Runs a scenario on a stage of so many agents; if anything was wrong, keeps the logs and says how to repeat it.
fn scenario(name: &str, again: &str, agents: usize, run: impl FnOnce(&Stage) -> bool) -> ExitCode {
    let stage = Stage::start("chaos", agents);
    end_on_signals(stage.rig.path(""));
    let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&stage))).unwrap_or(false);
    if !right {
        let folder = suite::kept(name);
        stage.keep_logs(&folder);
        println!("chaos: FAILED; the logs are in {}; again: {again}", folder.display());
    }
    drop(stage);
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
