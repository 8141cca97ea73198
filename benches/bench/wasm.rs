//! Modules: what one costs to start, beside a program.

use std::fs;

use remoting_kafka::{api::ExecEnd, controller::Handle, id::AgentName};
use tokio::{io::AsyncReadExt, time::Instant};

use crate::{
    report::{Report, median},
    rows::{self, Effort},
    stage::Stage,
};

/// Executions in each half of a pair.
const EACH: usize = 40;

/// A module that prints a line, beside `true`, on an agent of their own.
pub async fn measure(report: &mut Report, stage: &Stage, effort: Effort) {
    let dir = stage.path("modules");
    fs::create_dir(&dir).unwrap();
    let module = dir.join("hello.wasm");
    fs::write(&module, wat::parse_str(include_str!("../../src/agent/wasm/tests/hello.wat")).unwrap()).unwrap();
    let (agent, _process) = stage.agent_with("wasm", &["--work", dir.to_str().unwrap()]).await;
    let module = module.to_str().unwrap();
    let mut pairs = Vec::new();
    // The first is not counted.
    for round in 0..=effort.pairs {
        let base = start(&stage.handle, &agent, "true", "").await;
        let ours = start(&stage.handle, &agent, module, "hello\n").await;
        if round > 0 {
            pairs.push((ours, base));
        }
    }
    report.pairs("wasm_start", "ms", &pairs);
}

/// The median of some, in ms from the request until the end is known.
async fn start(handle: &Handle, agent: &AgentName, program: &str, prints: &str) -> f64 {
    let mut took = Vec::with_capacity(EACH);
    for _ in 0..EACH {
        let start = Instant::now();
        let mut execution = rows::run(handle, agent, &[program]).await;
        let mut text = String::new();
        execution.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(execution.control.end().await, ExecEnd::Exited { code: 0 });
        took.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(text, prints);
    }
    median(took)
}
