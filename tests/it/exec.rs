//! `rk exec`: a process's stdio is ours, and so is its exit code.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::rig::{Rig, noise, run, sha256};

#[test]
fn stdout_stderr_and_the_exit_code_come_back() {
    let rig = Rig::start("exec");
    let _agent = rig.agent("a", &[]);
    let ran = rig.run(&["exec", "a", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).code(3);
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    for code in [0, 1, 64, 124, 255] {
        rig.run(&["exec", "a", "--", "sh", "-c", &format!("exit {code}")]).code(code);
    }
    rig.run(&["exec", "a", "--", "sh", "-c", "kill -TERM $$"]).code(143);
    rig.run(&["exec", "a", "--", "sh", "-c", "kill -KILL $$"]).code(137);
    let ran = rig.run(&["exec", "a", "--", "no-such-program"]).code(127);
    assert!(ran.line().contains("no-such-program"), "{}", ran.stderr);
    rig.run(&["exec", "a", "--", "/etc/passwd"]).code(126);
    // A reader that goes away ends the command, and is no failure.
    let mut pipe = rig.rk(&["exec", "a", "--", "yes"]);
    let mut child = crate::rig::Running::start({
        pipe.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        pipe
    });
    drop(child.0.stdout.take());
    assert_eq!(child.code(), 0);
}

#[test]
fn bytes_pass_unchanged_both_ways_and_the_end_of_stdin_arrives() {
    let rig = Rig::start("bytes");
    let _agent = rig.agent("a", &[]);
    assert_eq!(run(rig.rk(&["exec", "a", "--", "wc", "-c"]), b"").ok().text().trim(), "0");
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert!(run(rig.rk(&["exec", "a", "--", "cat"]), &all).ok().stdout == all);
    let bytes = noise(24 << 20);
    let ran = run(rig.rk(&["exec", "a", "--", "cat"]), &bytes).ok();
    assert_eq!((ran.stdout.len(), sha256(&ran.stdout)), (bytes.len(), sha256(&bytes)));
    // A process that does not read its stdin to the end still gives its exit code.
    let ran = run(rig.rk(&["exec", "a", "--", "sh", "-c", "head -c 5; exit 4"]), &bytes).code(4);
    assert_eq!(ran.stdout, &bytes[..5]);
    // Without stdin it sees its end at once, whatever ours is.
    assert_eq!(run(rig.rk(&["exec", "--no-stdin", "a", "--", "wc", "-c"]), b"abc").ok().text().trim(), "0");
}

#[test]
fn a_blob_of_256_mib_passes_in_one_piece() {
    let rig = Rig::start("blob");
    let _agent = rig.agent("a", &[]);
    let blob = noise(256 << 20);
    let ran = run(rig.rk(&["exec", "a", "--", "sha256sum"]), &blob).ok();
    assert_eq!(ran.text().split_whitespace().next(), Some(sha256(&blob).as_str()));
}

#[test]
fn a_message_of_256_mib_passes_in_one_piece() {
    let rig = Rig::start("message");
    let _agent = rig.agent("a", &[]);
    let blob = bytes::Bytes::from(noise(256 << 20));
    let echoed = rig.block_on(rig.client().echo(&"a".parse().unwrap(), blob.clone())).unwrap();
    assert!(echoed == blob);
}

#[test]
fn environment_directory_and_timeout_are_those_asked_for() {
    let rig = Rig::start("env");
    let _agent = rig.agent("a", &["role=web"]);
    let mut command = rig.rk(&["exec", "--env", "A=b=c", "-e", "HERE", "--cwd", "/usr", "a", "--", "sh", "-c"]);
    command
        .args(["pwd; echo $A; echo $HERE; echo $RK; echo $RK_AGENT_NAME; echo $RK_AGENT_LABELS; env | grep -c RK_API"]);
    command.env("HERE", "x y");
    let ran = run(command, b"").code(1);
    let text = ran.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..5], ["/usr", "b=c", "x y", "1", "a"]);
    assert!(lines[5].contains("os=linux"), "{text}");
    assert_eq!(lines[6], "0", "the agent's own environment is not inherited");
    rig.run(&["exec", "--cwd", "/no/such/dir", "a", "--", "true"]).code(127);

    let start = Instant::now();
    let ran = rig.run(&["exec", "--timeout", "500ms", "--grace", "500ms", "a", "--", "sleep", "60"]).code(124);
    assert!(ran.line().contains("timed out after 500ms"), "{}", ran.stderr);
    assert!(start.elapsed() < Duration::from_secs(30));
    // One that does not care about SIGTERM is killed.
    rig.run(&[
        "exec",
        "--timeout",
        "300ms",
        "--grace",
        "300ms",
        "a",
        "--",
        "sh",
        "-c",
        "trap '' TERM; sleep 60; sleep 60",
    ])
    .code(124);
}

#[test]
fn scripts_learn_whose_exit_code_it_is() {
    let rig = Rig::start("status");
    let _agent = rig.agent("a", &[]);
    let status = |rest: &str| {
        let script = format!("\"$0\" exec --status-fd 3 {rest} 3>\"$1\" >/dev/null 2>&1");
        let mut command = rig.rk(&[]);
        let program = command.get_program().to_owned();
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(script).arg(program).arg(rig.path("status"));
        shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        let ran = run(shell, b"");
        let line: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(rig.path("status")).unwrap()).unwrap();
        assert_eq!(line["code"], ran.code);
        line["by"].as_str().unwrap().to_owned()
    };
    assert_eq!(status("a -- sh -c 'exit 69'"), "command");
    assert_eq!(status("a -- sh -c 'kill -9 $$'"), "command");
    assert_eq!(status("--timeout 100ms a -- sleep 60"), "rk");
    assert_eq!(status("nobody -- true"), "rk");
    let ran = rig.run(&["exec", "-o", "jsonl", "a", "--", "sh", "-c", "echo hi; printf '\\377' >&2; exit 2"]).code(2);
    let text = ran.text();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "started");
    assert!(events.iter().any(|event| event["event"] == "stdout" && event["text"] == "hi"), "{text}");
    assert!(events.iter().any(|event| event["event"] == "stderr" && event["base64"] == "/w=="), "{text}");
    assert_eq!((&events[events.len() - 1]["event"], &events[events.len() - 1]["code"]), (&"end".into(), &2.into()));
}
