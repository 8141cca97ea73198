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
mod stage;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod writer;

use std::process::ExitCode;

use stage::Stage;

const USAGE: &str = "chaos: ignored; `make chaos` runs it, on a real Apache Kafka";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("write") => writer::run(&words[1..]),
        Some("suite") => {
            let number = |i: usize, otherwise: u64| words.get(i).map_or(otherwise, |word| word.parse().unwrap());
            let seed = number(1, uuid::Uuid::new_v4().as_u128() as u64 % 1_000_000);
            let minutes = number(2, 5);
            println!("chaos: SEED={seed} MINUTES={minutes}");
            let again = format!("make chaos SEED={seed} MINUTES={minutes}");
            scenario(&format!("chaos-{seed}"), &again, plan::AGENTS, move |stage| suite::run(stage, seed, minutes))
        }
        _ => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
    }
}

/// Runs a scenario on a stage of so many agents; if anything was wrong, keeps the logs and says how to repeat it.
fn scenario(name: &str, again: &str, agents: usize, run: impl FnOnce(&Stage) -> bool) -> ExitCode {
    let stage = Stage::start("chaos", agents);
    let right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&stage))).unwrap_or(false);
    if !right {
        let folder = suite::kept(name);
        stage.keep_logs(&folder);
        println!("chaos: FAILED; the logs are in {}; again: {again}", folder.display());
    }
    drop(stage);
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
