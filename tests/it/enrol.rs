//! How agents get in and stay out: join tokens, secrets that are rotated, and revocation.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    rig::{PATIENCE, Rig, run},
    support::{process::Process, user, wait},
};

/// Makes a join token and returns its file and its id.
fn token(rig: &Rig, file: &str, args: &[&str]) -> (PathBuf, String) {
    let path = rig.path(file);
    let mut all = vec!["tokens", "create", "-o", "json", "--out", path.to_str().unwrap()];
    all.extend(args);
    let created: Value = serde_json::from_slice(&rig.run(&all).ok().stdout).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    (path, created["info"]["id"].as_str().unwrap().to_owned())
}

/// How an agent with this token is started.
fn join(rig: &Rig, name: &str, token: &std::path::Path) -> Command {
    let source = format!("file:{}", token.display());
    let mut command = rig.bare(&["agent", "run", "--join", &source, "--name", name]);
    command.arg("--data").arg(rig.path(&format!("{name}.data")));
    rig.kafka(command, user::AGENT)
}

fn stored(rig: &Rig, name: &str) -> PathBuf {
    rig.path(&format!("{name}.data/agent/{name}/credential"))
}

/// Stops an agent, and waits until the controller knows it.
fn stop(rig: &Rig, name: &str, process: &mut Process) {
    process.signal("TERM");
    wait::until("the agent ends", PATIENCE, || process.ended().ok_or_else(|| "it runs".to_owned()));
    wait::until("it is offline", PATIENCE, || match rig.state(name)?.as_str() {
        "offline" => Ok(()),
        state => Err(state.to_owned()),
    });
}

/// Waits for an agent's end, which is a refusal, and returns the line that says why.
fn refused(rig: &Rig, process: &mut Process, log: &str) -> String {
    let status = wait::until("the agent ends", PATIENCE, || process.ended().ok_or_else(|| "it runs".to_owned()));
    let text = rig.log(log);
    assert_eq!(status.code(), Some(77), "{text}");
    text.lines().rfind(|line| line.starts_with("rk: ")).expect("a line").to_owned()
}

#[test]
fn a_token_with_two_uses_enrols_two_agents_which_need_it_once() {
    let rig = Rig::start("enrol");
    let args = ["--uses", "2", "--ttl", "1h", "--label", "role=web,zone=x", "--name-prefix", "w"];
    let (token, id) = token(&rig, "token", &args);
    let mut first = rig.process(join(&rig, "w1", &token), "w1.log");
    let mut second = rig.process(join(&rig, "w2", &token), "w2.log");
    rig.wait_online("w1", &mut first);
    rig.wait_online("w2", &mut second);
    assert_eq!(rig.run(&["agents", "ls", "-o", "name", "-l", "role=web,zone=x"]).ok().text(), "w1\nw2\n");
    rig.run(&["run", "--agent", "w1", "--", "true"]).ok();
    assert_eq!(fs::metadata(stored(&rig, "w1")).unwrap().permissions().mode() & 0o777, 0o600);
    let listed = rig.run(&["tokens", "ls"]).ok().text();
    assert!(listed.contains(&id) && listed.contains("exhausted") && listed.contains("0/2"), "{listed}");
    assert!(listed.lines().all(|line| line.chars().count() <= 80), "{listed}");

    let ran = run(join(&rig, "w3", &token), &[]).code(77);
    assert!(ran.stderr.contains(&format!("join token {id} has no uses left")), "{}", ran.stderr);
    rig.run(&["tokens", "revoke", &id]).ok();
    let ran = run(join(&rig, "w4", &token), &[]).code(77);
    assert!(ran.stderr.contains("was revoked"), "{}", ran.stderr);
    // The token is void, and nobody needs it any more; also after the controller's death.
    first.kill();
    rig.kill_controller();
    rig.start_controller();
    let mut first = rig.process(join(&rig, "w1", &token), "w1.log");
    rig.wait_online("w1", &mut first);
    rig.run(&["exec", "w1", "--", "true"]).ok();
}

#[test]
fn a_token_that_does_not_fit_ends_the_agent_with_77_and_says_which_and_why() {
    let rig = Rig::start("notenrolled");
    let (short, id) = token(&rig, "short", &["--ttl", "1ms"]);
    let ran = run(join(&rig, "a", &short), &[]).code(77);
    assert!(ran.stderr.contains(&format!("join token {id} has expired")), "{}", ran.stderr);
    let (good, _) = token(&rig, "good", &["--uses", "5", "--name-prefix", "b"]);
    let ran = run(join(&rig, "a", &good), &[]).code(77);
    assert!(ran.stderr.contains("begin with \"b\"") && ran.stderr.contains("--name"), "{}", ran.stderr);
    rig.add("b", &[]);
    let ran = run(join(&rig, "b", &good), &[]).code(77);
    assert!(ran.stderr.contains("the name b is taken"), "{}", ran.stderr);
    // One whose secret is another's, and one that nobody made.
    let text = fs::read_to_string(&good).unwrap();
    let parts: Vec<&str> = text.trim().split('.').collect();
    for (file, id) in [("forged", parts[1]), ("stranger", "0123456789abcdef")] {
        let path = rig.path(file);
        fs::write(&path, format!("rkt1.{id}.{}.{}\n", "A".repeat(43), parts[3])).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let ran = run(join(&rig, "b2", &path), &[]).code(77);
        assert!(ran.stderr.contains(&format!("does not know join token {id}")), "{}", ran.stderr);
    }
    let mut both = join(&rig, "b2", &good);
    both.args(["--credential", &format!("file:{}", rig.path("b.credential").display())]);
    run(both, &[]).code(64);
    assert_eq!(rig.run(&["tokens", "ls", "-o", "name"]).ok().text().lines().count(), 2);
}

#[test]
fn an_agent_whose_credential_was_lost_on_the_way_asks_again_without_a_use() {
    let rig = Rig::start("asksagain");
    let (token, _) = token(&rig, "token", &[]);
    let enrolment = rig.path("a.data/agent/a/enrolment");
    let mut agent = rig.process(join(&rig, "a", &token), "a.log");
    // It is drawn before it asks; what is left of the agent is as if it died before it stored the answer.
    let drawn = wait::until("it asks", PATIENCE, || fs::read(&enrolment).map_err(|e| e.to_string()));
    rig.wait_online("a", &mut agent);
    stop(&rig, "a", &mut agent);
    fs::remove_file(stored(&rig, "a")).unwrap();
    assert!(!enrolment.exists(), "it is not kept longer than it is needed");
    fs::write(&enrolment, drawn).unwrap();
    fs::set_permissions(&enrolment, fs::Permissions::from_mode(0o600)).unwrap();
    let mut agent = rig.process(join(&rig, "a", &token), "a.log");
    rig.wait_online("a", &mut agent);
    stop(&rig, "a", &mut agent);
    // Another one that wants the name has not drawn the same.
    fs::remove_file(stored(&rig, "a")).unwrap();
    let ran = run(join(&rig, "a", &token), &[]).code(77);
    assert!(ran.stderr.contains("no uses left"), "{}", ran.stderr);
}

#[test]
fn an_agent_takes_a_new_secret_in_band_and_the_old_one_is_void() {
    let rig = Rig::start("rotate");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let ran = rig.run(&["agents", "rotate", "a", "--overlap", "0s"]).ok();
    assert_eq!(ran.text(), "", "nobody needs to see it");
    assert!(ran.line().contains("agent a took the new secret; the old one is void"), "{}", ran.stderr);
    // Both lanes work with what it has now.
    assert_eq!(rig.run(&["exec", "a", "--", "echo", "here"]).ok().text(), "here\n");
    stop(&rig, "a", &mut agent);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let text = fs::read_to_string(stored(&rig, "a")).unwrap();
    assert!(text.starts_with("rk1.a.") && !text.contains(fs::read_to_string(&credential).unwrap().trim()));
    stop(&rig, "a", &mut agent);
    // What it was started with is of no use where it did not take the new one.
    let mut elsewhere = rig.bare(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
    elsewhere.arg("--data").arg(rig.path("elsewhere"));
    let mut old = rig.process(rig.kafka(elsewhere, user::AGENT), "old.log");
    assert!(refused(&rig, &mut old, "old.log").contains("does not know agent a with this secret"));
}

#[test]
fn an_agent_that_is_offline_is_let_in_by_both_secrets_until_the_old_one_is_over() {
    let rig = Rig::start("overlap");
    let credential = rig.add("a", &[]);
    let new = rig.path("new");
    let args = ["agents", "rotate", "a", "--overlap", "15s", "--out", new.to_str().unwrap()];
    let ran = rig.run(&args).ok();
    assert!(ran.line().contains("agent a is offline: give it the new credential"), "{}", ran.stderr);
    assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    // Its session ends with its secret, and it is not let in again.
    assert!(refused(&rig, &mut agent, "a.log").contains("does not know agent a with this secret"));
    let mut agent = rig.start_agent("a", &new);
    rig.wait_online("a", &mut agent);
    let ran = rig.run(&["agents", "rotate", "a"]).ok();
    assert!(ran.line().contains("the old one is valid for 1h"), "{}", ran.stderr);
}

#[test]
fn a_revoked_agent_ends_within_5_s_with_77_and_a_new_secret_lets_it_in() {
    let rig = Rig::start("revoke");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let before = Instant::now();
    let ran = rig.run(&["agents", "revoke", "a"]).ok();
    assert!(ran.line().contains("its session is ended"), "{}", ran.stderr);
    let status = wait::until("the agent ends", Duration::from_secs(5), || agent.ended().ok_or("it runs".to_owned()));
    eprintln!("a revoked agent was gone after {:?}", before.elapsed());
    assert_eq!(status.code(), Some(77));
    assert!(rig.log("a.log").contains("agent a was revoked; `rk agents rotate a`"), "{}", rig.log("a.log"));
    assert_eq!(rig.state("a").as_deref(), Ok("revoked"));
    rig.run(&["exec", "a", "--", "true"]).code(69);
    let mut again = rig.start_agent("a", &credential);
    assert!(refused(&rig, &mut again, "a.log").contains("was revoked"));

    let ran = rig.run(&["agents", "rotate", "a"]).ok();
    let new = rig.path("new");
    fs::write(&new, ran.stdout).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    let mut agent = rig.start_agent("a", &new);
    rig.wait_online("a", &mut agent);
    rig.run(&["agents", "revoke", "a"]).ok();
    rig.run(&["agents", "rm", "a"]).ok();
    rig.run(&["agents", "rotate", "a"]).code(64);
    rig.run(&["agents", "revoke", "a"]).code(64);
}

#[test]
fn an_agent_that_was_told_of_the_next_key_accepts_it_and_the_journal_stays_readable() {
    let rig = Rig::start("nextkey");
    let told = rig.add("told", &[]);
    let away = rig.add("away", &[]);
    let mut agent = rig.start_agent("told", &told);
    rig.wait_online("told", &mut agent);
    let key = |verb: &str| {
        let mut command = rig.bare(&["controller", "key", verb]);
        command.arg("--data").arg(rig.path("controller"));
        run(command, &[]).ok()
    };
    let next = key("next").text().trim().to_owned();
    wait::until("the agent keeps the next key", PATIENCE, || {
        let text = fs::read_to_string(stored(&rig, "told")).map_err(|e| e.to_string())?;
        if text.contains(&format!("next {next}")) { Ok(()) } else { Err(text) }
    });
    key("promote");
    rig.kill_controller();
    rig.start_controller();
    assert_eq!(rig.run(&["status", "-o", "name"]).ok().text().trim(), next);
    rig.wait_online("told", &mut agent);
    rig.run(&["exec", "told", "--", "true"]).ok();
    wait::until("the agent accepts the new key alone", PATIENCE, || {
        let text = fs::read_to_string(stored(&rig, "told")).map_err(|e| e.to_string())?;
        let alone = text.lines().next().is_some_and(|line| line.ends_with(&next)) && !text.contains("next ");
        if alone { Ok(()) } else { Err(text) }
    });
    // It is started with the credential that names the old key, and has the newer one.
    stop(&rig, "told", &mut agent);
    let mut agent = rig.start_agent("told", &told);
    rig.wait_online("told", &mut agent);
    let mut agent = rig.start_agent("away", &away);
    assert!(refused(&rig, &mut agent, "away.log").contains("rk agents rotate"));
    let new = rig.path("new");
    rig.run(&["agents", "rotate", "away", "--out", new.to_str().unwrap()]).ok();
    let mut agent = rig.start_agent("away", &new);
    rig.wait_online("away", &mut agent);
}
