//! The least that a program which is shipped must do. Nothing here needs a shell or any other program on the agent's machine: what
//! is executed there is the agent's own program, so that it also passes where there is nothing else, and on another
//! architecture. `make test-static` runs this with each program that it has built.

use std::fs;

use crate::rig::{Rig, noise, sha256};

/// The agent's program, as the agent sees it.
const ITSELF: &str = "/proc/self/exe";

#[test]
fn a_command_gives_its_output_and_its_exit_code() {
    let rig = Rig::start("smoke-exec");
    let _agent = rig.agent("a", &[]);
    let ran = rig.run(&["exec", "a", "--", ITSELF, "version"]).ok();
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), (concat!("rk ", env!("CARGO_PKG_VERSION"), "\n"), ""));
    // Neither its code nor what it says is ours.
    let ran = rig.run(&["exec", "a", "--", ITSELF, "no-such-command"]).code(64);
    assert!(ran.text().is_empty() && ran.line().contains("no-such-command"), "{ran:?}");
    rig.run(&["exec", "a", "--", "/no-such-program"]).code(127);
}

#[test]
fn a_job_runs_and_its_log_is_kept() {
    let rig = Rig::start("smoke-job");
    let _agent = rig.agent("a", &[]);
    let ran = rig.run(&["run", "--name", "smoke", "--", ITSELF, "version"]).ok();
    assert_eq!(ran.text(), concat!("rk ", env!("CARGO_PKG_VERSION"), "\n"));
    let id = rig.run(&["jobs", "ls", "-o", "name"]).ok();
    assert_eq!(rig.run(&["logs", id.text().trim()]).ok().text(), ran.text());
    let ran = rig.run(&["run", "--", ITSELF, "no-such-command"]).code(64);
    assert!(ran.stderr.contains("no-such-command"), "{}", ran.stderr);
}

#[test]
fn a_file_gets_there_and_back() {
    let rig = Rig::start("smoke-files");
    let _agent = rig.agent("a", &[]);
    let [here, there, back] = ["here", "there", "back"].map(|name| rig.path(name).to_str().unwrap().to_owned());
    let bytes = noise(1 << 20);
    fs::write(&here, &bytes).unwrap();
    rig.run(&["cp", &here, &format!("a:{there}")]).ok();
    rig.run(&["cp", &format!("a:{there}"), &back]).ok();
    assert_eq!(sha256(&fs::read(&back).unwrap()), sha256(&bytes));
}
