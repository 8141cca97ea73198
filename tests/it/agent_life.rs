//! Agents that come and go by themselves, and what operators hang on to jobs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::{
    rig::{PATIENCE, Rig, wait_number},
    support::{process::Process, wait},
};

fn hook(dir: &Path, name: &str, script: &str) {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
}

/// The code that an agent ends with by itself.
fn ended(agent: &mut Process) -> Option<i32> {
    wait::until("the agent ends", PATIENCE, || agent.ended().ok_or("it runs".to_owned())).code()
}

#[test]
fn hooks_run_around_a_job_and_what_they_say_is_in_its_log() {
    let rig = Rig::start("hooks");
    let credential = rig.add("a", &[]);
    let hooks = rig.path("hooks");
    fs::create_dir(&hooks).unwrap();
    let trace = rig.path("trace");
    for name in ["agent-startup", "agent-shutdown", "pre-job", "post-job"] {
        hook(&hooks, name, &format!("echo {name} $RK_JOB_NAME >> {}; echo said by {name}", trace.display()));
    }
    hook(&hooks, "on-cancel", &format!("echo on-cancel >> {}", trace.display()));
    let mut command = rig.agent_command("a", &credential);
    command.args(["--hooks", hooks.to_str().unwrap()]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let ran = rig.run(&["run", "--name", "first", "--", "echo", "job"]).ok();
    assert_eq!(ran.text(), "job\n");
    assert!(ran.stderr.contains("said by pre-job") && ran.stderr.contains("said by post-job"), "{}", ran.stderr);
    let id =
        rig.run(&["run", "--detach", "--", "sh", "-c", &format!("echo $$ > {}; sleep 600", rig.path("pid").display())]);
    wait_number(&rig.path("pid"));
    rig.run(&["jobs", "cancel", id.ok().text().trim()]).ok();
    let all = rig.run(&["jobs", "ls", "-o", "name"]).ok().text();
    rig.run(&["jobs", "wait", all.lines().next().unwrap()]).code(130);
    hook(&hooks, "pre-job", "exit 9");
    let refused = rig.run(&["run", "--", "echo", "never"]).code(126);
    assert!(refused.stderr.contains("pre-job hook failed"), "{}", refused.stderr);
    agent.signal("TERM");
    assert_eq!(ended(&mut agent), Some(0));
    let lines = fs::read_to_string(trace).unwrap();
    let expected =
        "agent-startup\npre-job first\npost-job first\npre-job\non-cancel\npost-job\npost-job\nagent-shutdown\n";
    assert_eq!(lines, expected);
}

#[test]
fn a_work_directory_is_kept_if_it_is_small_enough_and_the_log_says_where() {
    let rig = Rig::start("keep");
    let _agent = rig.agent("a", &[]);
    let kept = rig.run(&["run", "--keep-workspace", "1MiB", "--", "sh", "-c", "echo here > file"]).ok();
    let place = kept.stderr.split("work directory kept: ").nth(1).expect("it says where").lines().next().unwrap();
    assert_eq!(fs::read_to_string(Path::new(place).join("file")).unwrap(), "here\n");
    let large =
        rig.run(&["run", "--keep-workspace", "64KiB", "--", "sh", "-c", "head -c 200000 /dev/zero > file"]).ok();
    assert!(large.stderr.contains("work directory removed"), "{}", large.stderr);
}

#[test]
fn a_one_shot_agent_ends_when_its_job_has_and_the_log_is_whole() {
    let rig = Rig::start("oneshot");
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.args(["--one-shot", "--slots", "4"]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let ids: Vec<String> = (0..2)
        .map(|n| {
            let ran = rig.run(&["run", "--detach", "--", "sh", "-c", &format!("sleep 0.3; echo job {n}")]).ok();
            ran.text().trim().to_owned()
        })
        .collect();
    assert_eq!(ended(&mut agent), Some(0));
    assert_eq!(rig.run(&["logs", &ids[0]]).ok().text(), "job 0\n");
    assert!(rig.run(&["jobs", "ls", "--state", "queued", "-o", "name"]).ok().text().contains(&ids[1]));
}

#[test]
fn an_agent_without_work_ends_when_it_was_told_to() {
    let rig = Rig::start("idle");
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.args(["--idle-exit", "2s"]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    assert_eq!(rig.run(&["run", "--", "sh", "-c", "sleep 3; echo done"]).ok().text(), "done\n");
    assert_eq!(ended(&mut agent), Some(0));
}

#[test]
fn an_agent_that_waits_for_its_jobs_ends_with_them() {
    let rig = Rig::start("waits");
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.arg("--wait-for-jobs");
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let ran = rig
        .run(&[
            "run",
            "--detach",
            "--",
            "sh",
            "-c",
            &format!("echo $$ > {}; sleep 1; echo whole", rig.path("pid").display()),
        ])
        .ok();
    wait_number(&rig.path("pid"));
    agent.signal("TERM");
    assert_eq!(ended(&mut agent), Some(0));
    let id = ran.text();
    rig.run(&["jobs", "wait", id.trim()]).ok();
    assert_eq!(rig.run(&["logs", id.trim()]).ok().text(), "whole\n");
}
