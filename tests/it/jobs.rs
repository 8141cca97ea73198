//! Jobs: work that outlives whoever asked for it, and its output to the last byte.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    rig::{PATIENCE, Rig, Running, is_alive, noise, sha256, wait_gone, wait_number},
    support::{user, wait},
};

/// A script whose job writes its process id, and then a line every 50 ms until the file `stop` is there. It also ends when
/// the test's files are gone.
pub fn steady(rig: &Rig) -> String {
    let (dir, pid, stop) = (rig.path(""), rig.path("pid"), rig.path("stop"));
    format!(
        "echo $$ > {}; i=0; while [ -d {} ] && [ ! -e {} ]; do i=$((i + 1)); echo line $i; sleep 0.05; done; exit 7",
        pid.display(),
        dir.display(),
        stop.display()
    )
}

pub fn stop(rig: &Rig) {
    fs::write(rig.path("stop"), "").unwrap();
}

/// Submits a job and returns its id.
pub fn submit(rig: &Rig, options: &[&str], command: &[&str]) -> String {
    let args = [&["run", "--detach"], options, &["--"], command].concat();
    let id = rig.run(&args).ok().text();
    assert_eq!(id.len(), 17, "{id:?}");
    id.trim().to_owned()
}

pub fn shown(rig: &Rig, id: &str) -> Result<Value, String> {
    let ran = rig.run(&["jobs", "show", "-o", "json", id]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    serde_json::from_slice(&ran.stdout).map_err(|e| e.to_string())
}

/// Waits until a job is in this state.
pub fn wait_state(rig: &Rig, id: &str, state: &str) -> Value {
    wait::until(&format!("job {id} is {state}"), PATIENCE, || {
        let job = shown(rig, id)?;
        if job["state"] == state { Ok(job) } else { Err(job.to_string()) }
    })
}

pub fn start(mut command: Command) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(command)
}

/// What a follower has printed and how it ended.
pub fn end(mut running: Running) -> (i32, String, String) {
    let (mut out, mut err) = (running.0.stdout.take().unwrap(), running.0.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).unwrap();
        text
    });
    let writer = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    let code = running.code();
    (code, writer.join().unwrap(), reader.join().unwrap())
}

/// Panics unless `text` is the lines 1, 2, 3 … of [`steady`], each once; returns how many.
pub fn count_lines(text: &str) -> usize {
    for (i, line) in text.lines().enumerate() {
        assert_eq!(line, format!("line {}", i + 1), "{text}");
    }
    text.lines().count()
}

/// Waits until the log holds more than `lines` lines.
pub fn wait_lines(rig: &Rig, id: &str, lines: usize) {
    wait::until(&format!("more than {lines} lines of {id}"), PATIENCE, || {
        let ran = rig.run(&["logs", id]);
        let count = ran.text().lines().count();
        if ran.code == 0 && count > lines { Ok(()) } else { Err(format!("{count} lines: {}", ran.stderr)) }
    });
}

#[test]
fn a_job_s_output_and_exit_code_are_those_of_rk_run() {
    let rig = Rig::start("jobs");
    let _agent = rig.agent("a", &["role=build"]);
    let ran = rig.run(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).code(3);
    assert_eq!(ran.text(), "out\n");
    assert!(ran.stderr.lines().any(|line| line == "err") && ran.stderr.contains("rk: job "), "{}", ran.stderr);
    for code in [0, 1, 64, 124, 255] {
        rig.run(&["run", "-l", "role=build", "--", "sh", "-c", &format!("exit {code}")]).code(code);
    }
    rig.run(&["run", "--agent", "a", "--", "sh", "-c", "kill -KILL $$"]).code(137);
    rig.run(&["run", "--", "no-such-program"]).code(127);
    let ran = rig.run(&["run", "--timeout", "300ms", "--grace", "300ms", "--", "sleep", "60"]).code(124);
    assert!(ran.stderr.contains("timed out"), "{}", ran.stderr);
    assert_eq!(rig.run(&["run", "-q", "--", "sh", "-c", "exit 0"]).ok().stderr, "");
}

#[test]
fn a_script_gets_its_input_its_variables_and_a_directory_of_its_own() {
    let rig = Rig::start("script");
    let _agent = rig.agent("a", &[]);
    fs::write(rig.path("s.sh"), "#!/bin/sh\nprintf '%s|' \"$A\" \"$RK\" \"$RK_JOB_NAME\" \"$RK_ATTEMPT\" \"$RK_AGENT_NAME\"\ntest \"$PWD\" = \"$RK_WORKSPACE\" || exit 9\ncat\n").unwrap();
    let input = noise(100_000);
    fs::write(rig.path("input"), &input).unwrap();
    let (script, stdin) = (rig.path("s.sh"), rig.path("input"));
    let args = ["run", "--name", "n", "-e", "A=b c", "--script", script.to_str().unwrap(), "--stdin"];
    let ran = rig.run(&[&args[..], &[stdin.to_str().unwrap()]].concat()).ok();
    let (head, rest) = ran.stdout.split_at(ran.stdout.len() - input.len());
    assert_eq!(String::from_utf8_lossy(head), "b c|1|n|1|a|");
    assert_eq!(sha256(rest), sha256(&input));
}

#[test]
fn who_comes_late_reads_the_whole_log_and_a_part_of_it_if_wanted() {
    let rig = Rig::start("late");
    let _agent = rig.agent("a", &[]);
    let blob = noise(3 << 20);
    fs::write(rig.path("blob"), &blob).unwrap();
    let id = submit(&rig, &[], &["cat", rig.path("blob").to_str().unwrap()]);
    wait_state(&rig, &id, "succeeded");
    for args in [&["logs", &id][..], &["logs", "-f", &id], &["logs", "--stdout", &id[..10]]] {
        assert_eq!(sha256(&rig.run(args).ok().stdout), sha256(&blob), "{args:?}");
    }
    let stdout = &shown(&rig, &id).unwrap()["stdout"];
    assert_eq!(stdout["length"], blob.len());
    assert_eq!(stdout["sha256"], sha256(&blob));

    let id = submit(&rig, &[], &["sh", "-c", "seq 1000; echo err >&2; exit 3"]);
    wait_state(&rig, &id, "failed");
    assert_eq!(rig.run(&["logs", "--stdout", "--tail", "3", &id]).ok().text(), "998\n999\n1000\n");
    let ran = rig.run(&["logs", "--stderr", &id]).ok();
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("", "err\n"));
    let text = rig.run(&["logs", "-f", "--stdout", "--timestamps", "--tail", "1", &id]).code(3).text();
    let (time, line) = text.split_once(' ').unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && line == "1000\n", "{text}");
    assert_eq!(rig.run(&["logs", "--since", "1h", "--stdout", &id]).ok().text().lines().count(), 1000);
    let text = rig.run(&["logs", "-o", "jsonl", "--stdout", &id]).ok().text();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    assert_eq!(lines.filter(|event| event["event"] == "stdout").count(), 1000);
    rig.run(&["logs", "zzzzzzzzzzzzzzzz"]).code(64);
}

#[test]
fn a_job_that_is_cancelled_ends_with_all_its_processes() {
    let rig = Rig::start("cancel");
    let _agent = rig.agent("a", &[]);
    let (child, ready) = (rig.path("child"), rig.path("ready"));
    let script = format!(
        "trap '' TERM; sleep 600 & echo $! > {}; echo $$ > {}; while :; do wait; done",
        child.display(),
        ready.display()
    );
    let id = submit(&rig, &["--grace", "300ms"], &["sh", "-c", &script]);
    let pids = [wait_number(&child), wait_number(&ready)];
    let follower = start(rig.rk(&["logs", "-f", &id]));
    rig.run(&["jobs", "cancel", "--wait", &id]).ok();
    pids.into_iter().for_each(wait_gone);
    let job = wait_state(&rig, &id, "cancelled");
    assert!(job["cancelled_by"].as_str().unwrap().contains('@'), "{job}");
    assert_eq!(end(follower).0, 130);
    rig.run(&["jobs", "wait", &id]).code(130);
    // Once more changes nothing.
    let ran = rig.run(&["jobs", "cancel", &id]).ok();
    assert!(ran.line().contains("has ended"), "{}", ran.stderr);
    rig.run(&["jobs", "cancel", "zzzzzzzzzzzzzzzz"]).code(64);
}

#[test]
fn jobs_are_listed_waited_for_and_repeated() {
    let rig = Rig::start("list");
    let ran = rig.run(&["jobs", "ls"]).ok();
    assert!(ran.text().is_empty() && ran.line().contains("rk run"), "{}", ran.stderr);
    let _agent = rig.agent("a", &[]);
    let count = rig.path("count");
    let script = format!("echo x >> {}; exit $(wc -l < {})", count.display(), count.display());
    let id = submit(&rig, &["--name", "counts"], &["sh", "-c", &script]);
    rig.run(&["jobs", "wait", &id]).code(1);
    let text = rig.run(&["jobs", "ls"]).ok().text();
    assert!(text.starts_with("ID") && text.contains("counts") && text.contains("failed 1"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(rig.run(&["jobs", "ls", "--state", "live", "-o", "name"]).ok().text(), "");
    let again = rig.run(&["jobs", "retry", &id]).ok().text();
    assert_ne!(again.trim(), id);
    rig.run(&["jobs", "wait", again.trim()]).code(2);
    assert_eq!(shown(&rig, again.trim()).unwrap()["retry_of"], id);
    rig.run(&["jobs", "retry", "--follow", &id]).code(3);
    rig.run(&["jobs", "wait", &id, again.trim()]).code(1);
    assert_eq!(rig.run(&["jobs", "ls", "-n", "2", "-o", "name"]).ok().text().lines().count(), 2);
    let status = rig.run(&["status"]).ok().text();
    assert!(status.contains("0 queued, 0 assigned, 0 running, 3 ended"), "{status}");
}

#[test]
fn a_secret_reaches_the_job_and_never_its_log() {
    let rig = Rig::start("secret");
    let _agent = rig.agent("a", &[]);
    let value = "correct-horse-battery-staple";
    let file = user::private(&rig.path("token"), &format!("{value}\n"));
    let (token, key) = (format!("TOKEN=file:{}", file.display()), format!("KEY=file:{}", file.display()));
    let script = "printf '%s' \"$TOKEN\" | sha256sum; sha256sum < \"$KEY\"; echo \"[$TOKEN]\"; cat \"$KEY\"; \
        printf '%s' \"$TOKEN\" | base64; printf '%s' \"$TOKEN\" | { head -c 7; sleep 0.3; cat; }";
    let args = ["run", "--secret", &token, "--secret-file", &key, "--", "sh", "-c", script];
    let ran = rig.run(&args).ok();
    let text = ran.text();
    assert!(text.contains(&sha256(value.as_bytes())), "{text}");
    assert!(text.contains(&sha256(format!("{value}\n").as_bytes())), "{text}");
    assert!(!text.contains(value) && !text.contains(&STANDARD.encode(value)), "{text}");
    assert!(text.contains("[***]"), "{text}");
    let id = ran.stderr.lines().find_map(|line| line.strip_prefix("rk: job ")).unwrap().to_owned();
    let job = rig.run(&["jobs", "show", "-o", "json", &id]).ok().text();
    assert!(!job.contains(value), "{job}");
    // Others may read it: refused with the command that mends it.
    fs::write(rig.path("open"), value).unwrap();
    fs::set_permissions(rig.path("open"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = format!("TOKEN=file:{}", rig.path("open").display());
    let ran = rig.run(&["run", "--secret", &open, "--", "true"]).code(77);
    assert!(ran.line().contains("chmod 600"), "{}", ran.stderr);
}

#[test]
fn a_job_without_an_agent_waits_and_says_why() {
    let rig = Rig::start("waits");
    let id = submit(&rig, &["-l", "role=gpu"], &["echo", "hi"]);
    let job = wait_state(&rig, &id, "queued");
    assert!(!job["waiting"].as_str().unwrap().is_empty(), "{job}");
    assert!(rig.run(&["jobs", "show", &id]).ok().text().contains("waits: "));
    let follower = start(rig.rk(&["logs", "-f", &id]));
    let _agent = rig.agent("g", &["role=gpu"]);
    let (code, out, _) = end(follower);
    assert_eq!((code, out.as_str()), (0, "hi\n"));
}

#[test]
fn a_drained_agent_keeps_its_jobs_and_gets_no_new_ones() {
    let rig = Rig::start("drain");
    let _agent = rig.agent("a", &[]);
    let id = submit(&rig, &[], &["sh", "-c", &steady(&rig)]);
    wait_number(&rig.path("pid"));
    let ran = rig.run(&["agents", "drain", "a"]).ok();
    assert!(ran.line().contains("rk agents resume a"), "{}", ran.stderr);
    let text = rig.run(&["agents", "ls"]).ok().text();
    assert!(text.contains("online,drained"), "{text}");
    let next = submit(&rig, &[], &["true"]);
    stop(&rig);
    rig.run(&["jobs", "wait", &id]).code(7);
    assert_eq!(shown(&rig, &next).unwrap()["state"], "queued");
    rig.run(&["agents", "resume", "a"]).ok();
    rig.run(&["jobs", "wait", &next]).ok();
}

#[test]
fn of_jobs_with_one_concurrency_key_one_runs_at_a_time() {
    let rig = Rig::start("key");
    let _agent = rig.agent("a", &[]);
    let lock = rig.path("lock");
    let script = format!("mkdir {0} || exit 1; sleep 0.3; rmdir {0}", lock.display());
    let ids: Vec<String> = (0..4).map(|_| submit(&rig, &["--concurrency", "k"], &["sh", "-c", &script])).collect();
    let mut args = vec!["jobs", "wait"];
    args.extend(ids.iter().map(String::as_str));
    rig.run(&args).ok();
}

#[test]
fn a_controller_that_is_killed_costs_a_follower_no_byte_and_the_job_nothing() {
    let rig = Rig::start("jobkill");
    let _agent = rig.agent("a", &[]);
    let follower = start(rig.rk(&["run", "--", "sh", "-c", &steady(&rig)]));
    let pid = wait_number(&rig.path("pid"));
    let id = rig.run(&["jobs", "ls", "-o", "name"]).ok().text().trim().to_owned();
    for _ in 0..3 {
        wait_lines(&rig, &id, 10);
        rig.kill_controller();
        rig.start_controller();
        let before = rig.run(&["logs", &id]).ok().text().lines().count();
        wait_lines(&rig, &id, before);
        assert!(is_alive(pid));
    }
    stop(&rig);
    let (code, out, err) = end(follower);
    assert_eq!(code, 7, "{err}");
    assert!(count_lines(&out) > 10);
    assert!(!err.contains("gap"), "{err}");
    assert_eq!(rig.run(&["logs", &id]).ok().text(), out);
}

#[test]
fn a_job_that_was_submitted_while_the_controller_was_away_runs_once() {
    let rig = Rig::start("away");
    let _agent = rig.agent("a", &[]);
    rig.kill_controller();
    let count = rig.path("count");
    let script = format!("echo x >> {}", count.display());
    let follower = start(rig.rk(&["run", "--", "sh", "-c", &script]));
    rig.start_controller();
    let (code, _, err) = end(follower);
    assert_eq!(code, 0, "{err}");
    assert_eq!(fs::read_to_string(count).unwrap(), "x\n");
}

#[test]
fn an_agent_that_is_killed_finds_its_job_going_on_with_the_same_process() {
    let rig = Rig::start("adopt");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let id = submit(&rig, &[], &["sh", "-c", &steady(&rig)]);
    let pid = wait_number(&rig.path("pid"));
    let follower = start(rig.rk(&["logs", "-f", &id]));
    for _ in 0..3 {
        wait_lines(&rig, &id, 10);
        agent.kill();
        assert!(is_alive(pid));
        agent = rig.start_agent("a", &credential);
        rig.wait_online("a", &mut agent);
        let before = rig.run(&["logs", &id]).ok().text().lines().count();
        wait_lines(&rig, &id, before);
        assert_eq!(wait_state(&rig, &id, "running")["pid"], pid);
    }
    stop(&rig);
    let (code, out, err) = end(follower);
    assert_eq!(code, 7, "{err}");
    assert!(count_lines(&out) > 10);
    assert_eq!(wait_number(&rig.path("pid")), pid, "it was started once");
    wait_state(&rig, &id, "failed");
    assert_no_files(&rig.path("a.data"), &id);
}

/// What an ended job leaves on the agent goes when the controller knows its end.
fn assert_no_files(data: &Path, id: &str) {
    fn find(dir: &Path, id: &str) -> Option<String> {
        fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains(id) {
                return Some(path.display().to_string());
            }
            path.is_dir().then(|| find(&path, id)).flatten()
        })
    }
    wait::until("the job's files are gone", PATIENCE, || find(data, id).map_or(Ok(()), Err));
}

#[test]
fn a_job_goes_on_when_its_cli_is_killed() {
    let rig = Rig::start("clikill");
    let _agent = rig.agent("a", &[]);
    let mut follower = start(rig.rk(&["run", "--", "sh", "-c", &steady(&rig)]));
    let pid = wait_number(&rig.path("pid"));
    follower.signal("KILL");
    follower.wait();
    let id = rig.run(&["jobs", "ls", "-o", "name"]).ok().text().trim().to_owned();
    let before = rig.run(&["logs", &id]).ok().text().lines().count();
    wait_lines(&rig, &id, before);
    assert!(is_alive(pid));
    stop(&rig);
    let ran = rig.run(&["logs", "-f", &id]).code(7);
    assert!(count_lines(&ran.text()) > before);
}
