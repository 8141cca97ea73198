//! `rk agents` and what becomes of agents that are removed, superseded or unknown.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::{
    rig::{PATIENCE, Rig},
    support::{kafka::admin::agents_have_topics, process::Process, wait},
};

/// Waits for an agent's end and returns its exit code and log.
fn end(rig: &Rig, name: &str, process: &mut Process) -> (i32, String) {
    let status = wait::until(&format!("{name} ends"), PATIENCE, || process.ended().ok_or_else(|| "it runs".to_owned()));
    (status.code().unwrap_or(-1), rig.log(&format!("{name}.log")))
}

#[test]
fn agents_are_added_listed_shown_and_removed() {
    let rig = Rig::start("agents");
    let ran = rig.run(&["agents", "ls"]).ok();
    assert_eq!(ran.text(), "");
    assert!(ran.line().contains("rk agents add"), "{}", ran.stderr);

    let ran = rig.run(&["agents", "add", "a", "--label", "role=web,zone=x"]).ok();
    let credential = ran.text();
    let lines = if agents_have_topics() { 2 } else { 1 };
    assert!(credential.starts_with("rk1.a.") && credential.ends_with('\n') && credential.lines().count() == lines);
    assert!(ran.stderr.contains("rk agent run --brokers"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("--prefix {}", rig.prefix)), "{}", ran.stderr);
    let ran = rig.run(&["agents", "add", "a"]).code(64);
    assert!(ran.line().contains('a'), "{}", ran.stderr);

    let file = rig.add("b", &["role=db"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut agent = rig.start_agent("b", &file);
    rig.wait_online("b", &mut agent);

    let text = rig.run(&["agents", "ls"]).ok().text();
    assert!(text.starts_with("NAME") && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(rig.run(&["agents", "ls", "-o", "name", "-l", "role=web"]).ok().text(), "a\n");
    assert_eq!(rig.run(&["agents", "ls", "-o", "name", "-l", "os=linux,role"]).ok().text(), "b\n");
    assert_eq!(rig.run(&["agents", "ls", "-o", "jsonl"]).ok().text().lines().count(), 2);
    let shown = rig.run(&["agents", "show", "b"]).ok().text();
    assert!(shown.contains("online") && shown.contains("role=db") && shown.contains("arch="), "{shown}");
    rig.run(&["agents", "show", "nobody"]).code(64);

    rig.run(&["agents", "rm", "a"]).ok();
    rig.run(&["agents", "rm", "a"]).code(64);
    assert_eq!(rig.run(&["agents", "ls", "-o", "name"]).ok().text(), "b\n");
    let status = rig.run(&["status"]).ok().text();
    assert!(status.contains("1 online, 0 silent, 0 offline") && status.contains("reachable"), "{status}");
}

#[test]
fn a_removed_agent_ends_with_77_and_its_credential_is_void() {
    let rig = Rig::start("removed");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    rig.run(&["agents", "rm", "a"]).ok();
    let (code, log) = end(&rig, "a", &mut agent);
    assert_eq!(code, 77, "{log}");
    assert!(log.lines().any(|line| line.starts_with("rk:") && line.contains("removed")), "{log}");

    let mut again = rig.start_agent("a", &credential);
    let (code, log) = end(&rig, "a", &mut again);
    assert_eq!(code, 77, "{log}");
}

#[test]
fn of_two_processes_with_one_name_the_newest_wins_and_the_older_exits_5() {
    let rig = Rig::start("superseded");
    let credential = rig.add("a", &[]);
    let mut old = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut old);
    let mut new = rig.process(rig.agent_command("a", &credential), "new.log");
    let (code, log) = end(&rig, "a", &mut old);
    assert_eq!(code, 5, "{log}");
    assert!(log.lines().any(|line| line.starts_with("rk: superseded")), "{log}");
    rig.wait_online("a", &mut new);
    rig.run(&["exec", "a", "--", "true"]).ok();
}

#[test]
fn an_agent_whose_files_are_lost_comes_back_with_its_credential() {
    let rig = Rig::start("wiped");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    agent.kill();
    fs::remove_dir_all(rig.path("a.data")).unwrap();
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    wait::until("it takes work", PATIENCE, || {
        let ran = rig.run(&["exec", "a", "--", "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
}
