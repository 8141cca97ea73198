//! Who may ask the controller for what, what an agent runs whatever it is asked for, and where both are watched.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
};

use crate::{
    rig::{PATIENCE, Ran, Rig, Running, run, wait_gone, wait_number},
    support::{ports, wait},
};

/// Runs `rk` with the token in `file`.
fn with(rig: &Rig, file: &str, args: &[&str]) -> Ran {
    let mut command = rig.rk(args);
    command.env("RK_API_TOKEN", format!("file:{}", rig.path(file).display()));
    run(command, &[])
}

/// What is answered to a GET of somebody who has no token.
fn get(port: u16, path: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes())
        .map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

#[test]
fn a_token_for_one_node_executes_there_and_nothing_else() {
    let rig = Rig::start("access");
    let _a = rig.agent("node-1", &[]);
    let _b = rig.agent("node-2", &[]);
    let file = rig.path("jenkins.token");
    let out = file.to_str().unwrap();
    let ran = rig.run(&["access", "add", "jenkins", "--role", "viewer", "--verb", "exec", "--out", out]).code(64);
    assert!(ran.line().contains("--role operator"), "{}", ran.stderr);
    let add = ["access", "add", "jenkins", "--role", "operator", "--verb", "exec", "--agent", "node-1", "--out", out];
    let ran = rig.run(&add).ok();
    assert!(ran.line().contains("exec on node-1"), "{}", ran.stderr);
    assert!(!fs::read_to_string(&file).unwrap().is_empty());

    assert_eq!(with(&rig, "jenkins.token", &["exec", "node-1", "--", "echo", "hi"]).ok().text(), "hi\n");
    let ran = with(&rig, "jenkins.token", &["exec", "node-2", "--", "echo", "hi"]).code(77);
    assert!(ran.line().contains("not for agent node-2"), "{}", ran.stderr);
    for other in [&["agents", "ls"][..], &["jobs", "ls"], &["agents", "rm", "node-2"], &["run", "--", "true"]] {
        let ran = with(&rig, "jenkins.token", other).code(77);
        assert!(ran.line().contains("does not allow"), "{other:?}: {}", ran.stderr);
    }
    let listed = rig.run(&["access", "ls"]).ok().text();
    assert!(listed.contains("jenkins") && listed.lines().all(|line| line.chars().count() <= 80), "{listed}");
    rig.run(&["access", "revoke", "jenkins"]).ok();
    let ran = with(&rig, "jenkins.token", &["exec", "node-1", "--", "true"]).code(77);
    assert!(ran.line().contains("revoked"), "{}", ran.stderr);

    wait::until("all of it is in the audit log", PATIENCE, || {
        let audit = fs::read_to_string(rig.path("controller/audit.log")).map_err(|e| e.to_string())?;
        let has = |parts: &[&str]| audit.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        let done = has(&["\"who\":\"jenkins\"", "node-1: echo hi", "\"status\":101"])
            && has(&["\"who\":\"jenkins\"", "node-2: echo hi", "\"status\":403"])
            && has(&["\"who\":\"root\"", "DELETE /v1/access/jenkins", "\"status\":200"])
            && has(&["\"who\":null", "\"status\":401"]);
        if done { Ok(()) } else { Err(audit) }
    });
}

/// A command of the token in `file` that has not ended yet.
fn started(rig: &Rig, file: &str, args: &[&str]) -> Running {
    let mut command = rig.rk(args);
    command.env("RK_API_TOKEN", format!("file:{}", rig.path(file).display()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

/// Waits until it has ended with 77, and returns the one line that it said.
fn refused(mut running: Running) -> String {
    let code = running.code();
    let mut said = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((code, said.lines().count()), (77, 1), "{said}");
    said
}

#[test]
fn what_runs_under_a_token_ends_with_it_and_its_jobs_go_on() {
    let rig = Rig::start("access-ends");
    let _agent = rig.agent("a", &[]);
    let add = |name: &str, more: &[&str]| {
        let file = rig.path(&format!("{name}.token"));
        let mut args = vec!["access", "add", name, "--role", "operator", "--out", file.to_str().unwrap()];
        args.extend(more);
        rig.run(&args).ok();
    };
    let numbers = ["kept", "bare", "brief"].map(|name| rig.path(&format!("{name}.pid")));
    let script = |number: &Path| format!("echo $$ >{}; exec sleep 600", number.display());
    let [kept, bare, brief] = [0, 1, 2].map(|at| script(&numbers[at]));

    add("ci", &[]);
    let job = ["run", "--detach", "--agent", "a", "--", "sh", "-c", "echo ready; sleep 600"];
    let job = with(&rig, "ci.token", &job).ok().text().trim().to_owned();
    let kept = started(&rig, "ci.token", &["exec", "a", "--", "sh", "-c", &kept]);
    let bare = started(&rig, "ci.token", &["exec", "--resume", "0s", "a", "--", "sh", "-c", &bare]);
    let waiting = started(&rig, "ci.token", &["jobs", "wait", &job]);
    let mut following = started(&rig, "ci.token", &["logs", "-f", &job]);
    let mut line = String::new();
    BufReader::new(following.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pids = [&numbers[0], &numbers[1]].map(|number| wait_number(number));
    rig.run(&["access", "revoke", "ci"]).ok();
    for exec in [kept, bare] {
        let said = refused(exec);
        assert!(said.contains("the token of ci was revoked, and what ran with it is ended"), "{said}");
    }
    for asking in [waiting, following] {
        let said = refused(asking);
        assert!(said.contains("revoked") && said.contains("rk access add"), "{said}");
    }
    pids.into_iter().for_each(wait_gone);
    let shown = rig.run(&["jobs", "show", &job]).ok().text();
    assert!(shown.contains("running"), "{shown}");
    rig.run(&["jobs", "cancel", &job]).ok();

    add("brief", &["--ttl", "15s"]);
    let exec = started(&rig, "brief.token", &["exec", "a", "--", "sh", "-c", &brief]);
    let pid = wait_number(&numbers[2]);
    let said = refused(exec);
    assert!(said.contains("the token of brief has expired, and what ran with it is ended"), "{said}");
    wait_gone(pid);
}

#[test]
fn an_agent_runs_only_what_its_operator_allows() {
    let rig = Rig::start("policy");
    let credential = rig.add("careful", &[]);
    let mut command = rig.agent_command("careful", &credential);
    command.args(["--allow", "echo *", "--allow", "/bin/true"]);
    let mut agent = rig.process(command, "careful.log");
    rig.wait_online("careful", &mut agent);
    assert_eq!(rig.run(&["exec", "careful", "--", "echo", "a", "b"]).ok().text(), "a b\n");
    assert_eq!(rig.run(&["exec", "--resume", "1m", "careful", "--", "echo", "c"]).ok().text(), "c\n");
    for refused in [
        &["exec", "careful", "--", "sh", "-c", "echo x"][..],
        &["exec", "--resume", "1m", "careful", "--", "id"],
        &["exec", "-e", "PATH=/tmp", "careful", "--", "echo", "x"],
    ] {
        let ran = rig.run(refused).code(77);
        assert!(ran.line().contains("--allow"), "{refused:?}: {}", ran.stderr);
    }
    assert_eq!(rig.run(&["run", "-q", "--agent", "careful", "--", "echo", "d"]).ok().text(), "d\n");
    let ran = rig.run(&["run", "--agent", "careful", "--", "id"]).code(126);
    assert!(ran.stderr.contains("--allow"), "{}", ran.stderr);

    let credential = rig.add("idle", &[]);
    let mut command = rig.agent_command("idle", &credential);
    command.arg("--no-exec");
    let mut agent = rig.process(command, "idle.log");
    rig.wait_online("idle", &mut agent);
    let ran = rig.run(&["exec", "idle", "--", "true"]).code(77);
    assert!(ran.line().contains("--no-exec"), "{}", ran.stderr);
}

#[test]
fn a_controller_and_an_agent_show_how_they_are() {
    let rig = Rig::prepare("watched", 2);
    let [ours, theirs] = [(); 2].map(|()| ports::free([127, 0, 0, 1].into()));
    let mut command = rig.controller_command("controller", rig.port);
    command.args(["--health-addr", &format!("127.0.0.1:{ours}")]);
    let _controller = rig.process(command, "controller.log");
    rig.wait_for_controller();
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.args(["--health-addr", &format!("127.0.0.1:{theirs}")]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    for port in [ours, theirs, rig.port] {
        assert!(get(port, "/health/live").unwrap().starts_with("HTTP/1.1 200"));
        wait::until("it is ready", PATIENCE, || {
            let text = get(port, "/health/ready")?;
            if text.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(text) }
        });
    }
    let metrics = get(ours, "/metrics").unwrap();
    assert!(metrics.contains("rk_ready 1") && metrics.contains("rk_agents{state=\"online\"} 1"), "{metrics}");
    assert!(metrics.contains("rk_packets_dropped_total{reason=\"forged\"} 0"), "{metrics}");
    assert!(get(theirs, "/metrics").unwrap().contains("rk_agent_sessions_total 1"));
    assert!(get(rig.port, "/metrics").unwrap().starts_with("HTTP/1.1 401"), "numbers of the API take a token");
    rig.run(&["agents", "rm", "a"]).ok();
    wait::until("the agent ends", PATIENCE, || agent.ended().map(|_| ()).ok_or_else(|| "it runs".to_owned()));
}
