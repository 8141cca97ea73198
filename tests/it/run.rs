//! `rk run` and `rk logs` against a controller that breaks where it hurts.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
};

use bytes::Bytes;
use remoting_kafka::api::{
    jobs::JobInfo,
    logs::{Digest, LogItem, LogStream},
};

use crate::{
    fake::{Answer, Fake, Then, dir},
    rig::{Running, run},
};

const ID: &str = "0123456789abcdef";

fn job(state: &str, code: Option<u8>) -> JobInfo {
    serde_json::from_value(serde_json::json!({
        "id": ID, "name": null, "state": state, "number": null, "reason": null, "exit_code": code,
        "unreachable": false, "waiting": null, "trouble": null, "agent": "a", "target": "any agent",
        "command": "make", "submitter": "ada@build", "priority": 5, "concurrency": null, "submitted_ms": 1,
        "started_ms": null, "ended_ms": null, "cancelled_by": null, "retry_of": null, "attempt": 1,
        "stdout": null, "stderr": null, "pid": null,
    }))
    .unwrap()
}

fn chunk(stream: LogStream, offset: u64, bytes: &'static [u8]) -> LogItem {
    LogItem::Chunk { stream, offset, time_ms: 0, bytes: Bytes::from_static(bytes) }
}

fn out(offset: u64, bytes: &'static [u8]) -> LogItem {
    chunk(LogStream::Stdout, offset, bytes)
}

#[test]
fn a_job_s_output_and_exit_code_are_ours_although_the_answer_breaks() {
    let dir = dir();
    let answers = vec![
        Answer { items: vec![LogItem::Attempt(1), out(0, b"on\xff")], then: Then::Break },
        Answer {
            items: vec![
                LogItem::Attempt(1),
                out(0, b"on\xffe\n"),
                chunk(LogStream::Stderr, 0, b"err\n"),
                chunk(LogStream::System, 0, b"kept in /x\n"),
            ],
            then: Then::Done,
        },
    ];
    let fake = Fake::start(job("failed", Some(3)), answers).deaf(1);
    let ran = run(fake.rk(dir.path(), &["run", "--name", "n", "--", "make"]), b"").code(3);
    assert_eq!(ran.stdout, b"on\xffe\n");
    for line in ["rk: controller away, trying again", "rk: job ", "err", "rk: kept in /x"] {
        assert!(ran.stderr.lines().any(|said| said.starts_with(line)), "{line:?}: {}", ran.stderr);
    }
    let submitted = fake.requests("POST /v1/jobs ");
    assert_eq!(submitted.len(), 2);
    assert_eq!(submitted[0], submitted[1], "the same job twice");
    assert!(submitted[0].contains(r#""name":"n""#) && submitted[0].contains(r#""argv":["make"]"#), "{}", submitted[0]);
}

#[test]
fn a_detached_job_is_its_id_on_stdout_and_nothing_else() {
    let dir = dir();
    let fake = Fake::start(job("queued", None), vec![]);
    let ran = run(fake.rk(dir.path(), &["run", "--detach", "--", "make"]), b"").ok();
    let id = ran.text();
    assert_eq!((id.len(), ran.stderr.as_str()), (17, ""));
    assert!(fake.requests("POST /v1/jobs ")[0].contains(id.trim()));
    let ran = run(fake.rk(dir.path(), &["run", "--detach", "-o", "json", "--", "make"]), b"").ok();
    let job: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&job["state"], &job["command"]), (&"queued".into(), &"make".into()));
}

#[test]
fn a_secret_on_the_command_line_is_refused_with_the_cure() {
    let dir = dir();
    let fake = Fake::start(job("queued", None), vec![]);
    let ran = run(fake.rk(dir.path(), &["run", "--secret", "TOKEN=hunter2", "--", "make"]), b"").code(64);
    assert!(ran.line().contains("TOKEN=file:PATH") && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    assert!(fake.requests("POST").is_empty());
}

/// Starts `rk run` of a job that runs until it is cancelled, and waits until its output is being read.
fn start(fake: &Fake, mut command: Command) -> Running {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    fake.wait_for("GET /v1/jobs/");
    let mut first = [0; 3];
    running.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    running
}

fn endless() -> Fake {
    let items = vec![LogItem::Attempt(1), out(0, b"hi\n")];
    Fake::start(job("running", None), vec![Answer { items, then: Then::Hold }])
}

fn stderr(running: &mut Running) -> String {
    let mut text = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn without_a_terminal_an_interrupt_leaves_the_job_alone() {
    for signal in ["INT", "TERM"] {
        let (dir, fake) = (dir(), endless());
        let mut running = start(&fake, fake.rk(dir.path(), &["run", "--", "make"]));
        running.signal(signal);
        assert_eq!(running.code(), 130);
        let said = stderr(&mut running);
        assert!(said.contains("goes on; `rk logs -f "), "{said}");
        assert!(fake.requests("POST /v1/jobs/").is_empty(), "nothing is cancelled");
    }
}

#[test]
fn an_interrupt_cancels_the_job_of_who_wants_that() {
    let (dir, fake) = (dir(), endless());
    let mut running = start(&fake, fake.rk(dir.path(), &["run", "--cancel-on-interrupt", "--", "make"]));
    running.signal("TERM");
    assert_eq!(running.code(), 130);
    let said = stderr(&mut running);
    assert!(said.contains("was cancelled") && !said.contains("goes on"), "{said}");
    assert_eq!(fake.requests("POST /v1/jobs/").len(), 1);
}

/// `rk run` on a terminal of its own.
fn on_a_terminal(fake: &Fake, dir: &std::path::Path) -> Command {
    let rk = fake.rk(dir, &[]);
    let mut command = Command::new("script");
    command.args(["-qec", "exec \"$RK_PROGRAM\" run -- make", "/dev/null"]);
    command.env_clear().envs(rk.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("RK_PROGRAM", rk.get_program()).env("SHELL", "/bin/sh");
    command
}

#[test]
fn on_a_terminal_an_interrupt_asks_once_whether_to_cancel() {
    for (answer, cancels) in [("y\r", 1), ("\r", 0), ("\x03", 0)] {
        let (dir, fake) = (dir(), endless());
        let mut command = on_a_terminal(&fake, dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut running = Running::start(command);
        let (mut keys, mut screen) = (running.0.stdin.take().unwrap(), running.0.stdout.take().unwrap());
        let mut seen = String::new();
        read_until(&mut screen, &mut seen, "hi\r\n");
        keys.write_all(b"\x03").unwrap();
        read_until(&mut screen, &mut seen, "[y/N] (the job goes on otherwise) ");
        keys.write_all(answer.as_bytes()).unwrap();
        assert_eq!(running.code(), 130, "{seen}");
        assert_eq!(fake.requests("POST /v1/jobs/").len(), cancels, "{answer:?}");
        screen.read_to_string(&mut seen).unwrap();
        assert!(seen.contains(if cancels == 1 { "was cancelled" } else { "goes on; `rk logs -f " }), "{seen}");
    }
}

fn read_until(screen: &mut impl Read, seen: &mut String, text: &str) {
    let mut byte = [0];
    while !seen.contains(text) {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
}

#[test]
fn a_log_names_its_gaps_and_a_changed_one_is_no_success() {
    let dir = dir();
    let gap = LogItem::Gap { stream: LogStream::Stdout, from: 2, to: 9, cause: "retention".to_owned() };
    let end = |verdict| LogItem::End { stream: LogStream::Stdout, total: 11, verdict };
    let items = |verdict| vec![LogItem::Attempt(2), out(0, b"a\n"), gap.clone(), out(9, b"b\n"), end(verdict)];
    let answers = [Digest::Unknown, Digest::Wrong, Digest::Wrong];
    let answers = answers.map(|verdict| Answer { items: items(verdict), then: Then::Done }).into();
    let fake = Fake::start(job("succeeded", Some(0)), answers);
    let ran = run(fake.rk(dir.path(), &["logs", "--tail", "5", "--timestamps", "0123"]), b"").ok();
    assert_eq!(ran.text(), "1970-01-01T00:00:00.000Z a\n1970-01-01T00:00:00.000Z b\n");
    assert_eq!(ran.stderr, "rk: attempt 2\nrk: gap: stdout bytes 2..9 lost: retention\n");
    assert!(fake.requests(&format!("GET /v1/jobs/{ID}/log?"))[0].contains("tail=5"));
    let ran = run(fake.rk(dir.path(), &["logs", "-q", "0123"]), b"").code(1);
    assert!(ran.stderr.contains("rk: stdout is not what the job wrote"), "{}", ran.stderr);
    let ran = run(fake.rk(dir.path(), &["logs", "-f", "-o", "jsonl", "0123"]), b"").code(1);
    let text = ran.text();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["attempt", "stdout", "gap", "stdout", "stream_end", "end"]);
    assert_eq!(events[5]["job"]["state"], "succeeded");
}

#[test]
fn who_has_read_enough_of_a_log_ends_it_without_an_error() {
    let dir = dir();
    let items: Vec<LogItem> = (0..64).map(|i| out(i << 18, &[b'x'; 1 << 18])).collect();
    let fake = Fake::start(job("running", None), vec![Answer { items, then: Then::Hold }]);
    let mut command = fake.rk(dir.path(), &["logs", "-f", "0123"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let mut first = [0; 10];
    let mut stdout = running.0.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    assert_eq!(running.code(), 0);
    assert_eq!(stderr(&mut running), "");
}

#[test]
fn jobs_are_waited_for_shown_and_cancelled() {
    let dir = dir();
    let fake = Fake::start(job("failed", Some(3)), vec![]);
    let rk = |args: &[&str]| run(fake.rk(dir.path(), args), b"");
    assert_eq!(rk(&["jobs", "wait", "0123"]).code(3).text(), format!("{ID}  failed\n"));
    rk(&["jobs", "wait", "0123", "0124"]).code(1);
    assert!(rk(&["jobs", "show", "0123"]).ok().text().contains("any agent"));
    assert_eq!(rk(&["jobs", "show", "-o", "name", "0123"]).ok().text(), format!("{ID}\n"));
    let ran = rk(&["jobs", "cancel", "--signal", "INT", "--grace", "5s", "0123"]).ok();
    assert!(ran.line().contains("has ended: cancelled"), "{}", ran.stderr);
    assert!(fake.requests("POST /v1/jobs/0123/cancel")[0].contains(r#""signal":2,"grace_ms":5000"#));
    let fake = Fake::start(job("running", None), vec![]);
    let ran = run(fake.rk(dir.path(), &["jobs", "wait", "--timeout", "200ms", "0123"]), b"").code(124);
    assert!(ran.line().contains("rk logs -f"), "{}", ran.stderr);
}

#[test]
fn a_controller_that_stays_away_is_given_up_with_the_job_s_id() {
    let dir = dir();
    let items = vec![LogItem::Attempt(1), out(0, b"the last words")];
    let fake = Fake::start(job("running", None), vec![Answer { items, then: Then::Break }]).deaf(1000);
    let ran = run(fake.rk(dir.path(), &["run", "--patience", "300ms", "--", "make"]), b"").code(69);
    assert!(ran.stderr.contains("may have been taken: `rk jobs show "), "{}", ran.stderr);
    // It answers, but no more of the log.
    let ran = run(fake.rk(dir.path(), &["logs", "-f", "--patience", "300ms", "0123"]), b"").code(69);
    assert_eq!(ran.text(), "the last words");
    assert!(ran.stderr.contains("rk: controller away, trying again"), "{}", ran.stderr);
}
