//! `make bench`: what the way through Kafka costs with us, beside what it costs without.
//!
//! `bench [embedded|kafka|kafka3]… [--quick] [--only=GROUP]`: one table, also as `target/bench.json`. Absolute figures say
//! something about the machine; the ratios to the floor say something about us. See `docs/benchmarks.md`.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "no part of the product")]

mod bundles;
mod crowd;
mod floor;
mod jobs;
mod place;
mod report;
mod rows;
mod services;
mod stage;
#[path = "../../tests/support/mod.rs"]
mod support;
mod traffic;
#[cfg(feature = "wasm")]
mod wasm;

use std::path::Path;

use floor::Floor;
use place::Place;
use report::{Report, Row};
use rows::Effort;
use stage::Stage;

// As many workers as `rk controller run` has on a machine with two cores.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    // Not on the main thread, which is none of the runtime's workers: each wake would be a switch of threads.
    tokio::spawn(run()).await.unwrap();
}

async fn run() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--bench").collect();
    match words[..] {
        ["floor-peer", bootstrap, ca] => return floor::peer(bootstrap, ca).await,
        ["signal-clock"] => return rows::signal_clock().await,
        ["line-clock", count] => return jobs::line_clock(count.parse().unwrap()).await,
        ["crowd", bootstrap, ca, data] => return crowd::be(bootstrap, ca, data).await,
        _ => (),
    }
    let effort = if words.contains(&"--quick") { Effort::QUICK } else { Effort::FULL };
    let only = words.iter().find_map(|word| word.strip_prefix("--only=")).map(str::to_owned);
    let mut places: Vec<&str> = words.into_iter().filter(|word| !word.starts_with("--")).collect();
    if places.is_empty() {
        places = vec!["embedded", "kafka", "kafka3"];
    }
    let mut rows: Vec<Row> = Vec::new();
    for name in places {
        let owned = name.to_owned();
        let place = tokio::task::spawn_blocking(move || Place::start(&owned)).await.unwrap();
        rows.extend(measure(&place, effort, only.as_deref()).await);
        tokio::task::spawn_blocking(move || drop(place)).await.unwrap();
    }
    println!("{}", report::table(&rows));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    report::write(&rows, &Path::new(&target).join("bench.json"));
}

async fn measure(place: &Place, effort: Effort, only: Option<&str>) -> Vec<Row> {
    let wanted = |group: &str| only.is_none_or(|only| only == group);
    let mut report = Report::new(place.name);
    let stage = Stage::open(place, "bench", 1).await;
    let mut floor = Floor::open(place).await;
    if wanted("start") {
        rows::start_to_online(&mut report, &stage, effort).await;
    }
    let agents = [stage.agent("a").await, stage.agent("b").await];
    let (a, b) = (&agents[0].0, &agents[1].0);
    if wanted("idle") {
        rows::idleness(&mut report, &stage, &agents, effort).await;
    }
    if wanted("calls") {
        rows::calls(&mut report, &stage, &mut floor, a, effort).await;
        rows::calls_per_second(&mut report, &stage, a, effort).await;
    }
    if wanted("streams") {
        rows::streams(&mut report, &stage, &mut floor, a, effort).await;
    }
    if wanted("bulk") {
        rows::under_bulk(&mut report, &stage, &mut floor, a, b, effort).await;
    }
    if wanted("copies") {
        services::copies(&mut report, &stage, a, effort).await;
    }
    if wanted("forwards") {
        services::forwards(&mut report, &stage, a, effort).await;
    }
    #[cfg(feature = "rmi")]
    if wanted("methods") {
        services::methods::measure(&mut report, &stage, effort).await;
    }
    drop(agents);
    if wanted("jobs") {
        jobs::measure(&mut report, &stage, &mut floor, effort).await;
    }
    if wanted("bundles") {
        bundles::measure(&mut report, &stage).await;
    }
    #[cfg(feature = "wasm")]
    if wanted("wasm") {
        wasm::measure(&mut report, &stage, effort).await;
    }
    stage.close().await;
    if wanted("crowd") && place.nodes == 1 {
        crowd::measure(&mut report, place, effort).await;
    }
    report.rows
}
