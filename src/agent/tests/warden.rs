//! An agent that is killed leaves no process.

use std::{
    io::BufRead,
    process::{Command, Stdio},
};

use super::super::{Config, testing::*, warden};

/// This test binary as another process: only that one ignored test.
fn program(test: &str) -> warden::Program {
    let args = ["--exact", test, "--ignored", "--nocapture", "--quiet"];
    warden::Program { path: std::env::current_exe().expect("a path"), args: args.into_iter().map(Into::into).collect() }
}

#[test]
#[ignore = "not a test: the warden's process of the tests below"]
fn warden_process() {
    warden::run().expect("a warden");
}

#[tokio::test]
#[ignore = "not a test: the agent's process of the tests below, which is killed"]
async fn agent_process() {
    let warden = Some(program("agent::tests::warden::warden_process"));
    let executor = executor_with(Config { warden, ..Config::default() });
    let mut run = run(&executor, script("trap '' HUP TERM; sleep 1000 & echo $$ $!; wait; sleep 1000")).await;
    run.started().await;
    // If nobody holds our stdin, this is no test that started us.
    let (mut stdin, mut stdout, mut nowhere) = (tokio::io::stdin(), tokio::io::stdout(), tokio::io::sink());
    tokio::select! {
        copied = tokio::io::copy(&mut run.stdout, &mut stdout) => copied,
        read = tokio::io::copy(&mut stdin, &mut nowhere) => read,
    }
    .expect("stdio");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_agent_is_killed_its_processes_go_with_their_children() {
    let program = program("agent::tests::warden::agent_process");
    let mut agent = Command::new(&program.path)
        .args(&program.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an agent");
    let stdout = std::io::BufReader::new(agent.stdout.take().expect("piped"));
    let pids = tokio::task::spawn_blocking(move || {
        let two_numbers = |line: &String| line.split(' ').filter(|word| word.parse::<u32>().is_ok()).count() == 2;
        stdout.lines().map_while(Result::ok).find(two_numbers)
    });
    let pids = soon(pids).await.expect("no panic");
    agent.kill().expect("kill");
    agent.wait().expect("wait");
    for pid in pids.expect("the agent's process prints two process ids").split(' ') {
        gone(pid).await;
    }
}

#[tokio::test]
async fn a_warden_that_does_not_start_hinders_nothing() {
    let warden = Some(warden::Program { path: "/no/such/warden".into(), args: vec![] });
    let executor = executor_with(Config { warden, ..Config::default() });
    let (event, out, _) = run(&executor, script("echo fine")).await.finish().await;
    assert_eq!(out, b"fine\n", "{event:?}");
}
