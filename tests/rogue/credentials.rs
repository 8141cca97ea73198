//! What was valid once: secrets, join tokens and tokens of the API.

use std::{fs, path::Path, process::Command};

use crate::{
    rig::{PATIENCE, run},
    stage::{HONEST, Stage},
    support::{user, wait},
};

/// How an agent with a join token is started.
fn join(stage: &Stage, name: &str, token: &Path) -> Command {
    let source = format!("file:{}", token.display());
    let mut command = stage.rig.bare(&["agent", "run", "--join", &source, "--name", name]);
    command.arg("--data").arg(stage.rig.path(&format!("{name}.data")));
    stage.rig.kafka(command, user::AGENT)
}

/// Makes a join token; its file, and its id.
fn token(stage: &Stage, file: &str, args: &[&str]) -> (std::path::PathBuf, String) {
    let path = stage.rig.path(file);
    let all = [&["tokens", "create", "-o", "json", "--out", path.to_str().unwrap()], args].concat();
    let created: serde_json::Value = serde_json::from_slice(&stage.rig.run(&all).ok().stdout).unwrap();
    (path, created["info"]["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_secret_that_was_revoked_rotated_or_removed_opens_nothing() {
    let stage = Stage::start("secrets");
    let rig = &stage.rig;
    for name in ["revoked", "rotated", "overlap", "removed"] {
        rig.add(name, &[]);
    }
    let start = |name: &str| {
        let mut command = rig.agent_command(name, &rig.path(&format!("{name}.credential")));
        command.arg("--log").arg("error");
        stage.refused(command)
    };
    stage.attempt("void secrets", || {
        rig.run(&["agents", "revoke", "revoked"]).ok();
        rig.run(&["agents", "rotate", "rotated", "--overlap", "0s", "--out", rig.path("new").to_str().unwrap()]).ok();
        let new = rig.path("overlapping");
        rig.run(&["agents", "rotate", "overlap", "--overlap", "1s", "--out", new.to_str().unwrap()]).ok();
        rig.run(&["agents", "rm", "removed"]).ok();
        let forged = stage.dropped("forged");
        let line = start("revoked");
        assert!(line.contains("was revoked"), "{line}");
        let line = start("rotated");
        assert!(line.contains("does not know agent rotated with this secret"), "{line}");
        stage.wait_dropped("forged", forged, 1);
        // Let in until the old secret is over, and then sent away.
        let line = start("overlap");
        assert!(line.contains("does not know agent overlap with this secret"), "{line}");
        let line = start("removed");
        assert!(line.contains("removed"), "{line}");
        for name in ["revoked", "rotated", "overlap"] {
            rig.run(&["exec", name, "--", "true"]).code(69);
        }
    });
}

#[test]
fn a_join_token_that_was_used_up_has_expired_or_was_revoked_enrols_nobody() {
    let stage = Stage::start("tokens");
    let (used, _) = token(&stage, "used", &[]);
    let (expired, expired_id) = token(&stage, "expired", &["--ttl", "1ms"]);
    let (revoked, revoked_id) = token(&stage, "revoked", &["--uses", "5"]);
    let mut first = stage.rig.process(join(&stage, "first", &used), "first.log");
    stage.rig.wait_online("first", &mut first);
    stage.rig.run(&["tokens", "revoke", &revoked_id]).ok();
    stage.attempt("void join tokens", || {
        let line = stage.refused(join(&stage, "second", &used));
        assert!(line.contains("has no uses left"), "{line}");
        let line = stage.refused(join(&stage, "third", &expired));
        assert!(line.contains(&format!("join token {expired_id} has expired")), "{line}");
        let line = stage.refused(join(&stage, "fourth", &revoked));
        assert!(line.contains("was revoked"), "{line}");
        // One that is good takes no name that another has.
        let (good, _) = token(&stage, "good", &["--uses", "5"]);
        let line = stage.refused(join(&stage, HONEST, &good));
        assert!(line.contains("the name honest is taken"), "{line}");
    });
    assert_eq!(stage.rig.run(&["agents", "ls", "-o", "name"]).ok().text(), "first\nhonest\n");
}

#[test]
fn a_token_of_the_api_that_was_revoked_or_has_expired_is_good_for_nothing() {
    let stage = Stage::start("api");
    let rig = &stage.rig;
    let with = |file: &str, args: &[&str]| {
        let mut command = rig.rk(args);
        command.env("RK_API_TOKEN", format!("file:{}", rig.path(file).display()));
        run(command, &[])
    };
    for (name, ttl) in [("gone", "1h"), ("short", "1s")] {
        let out = rig.path(name);
        rig.run(&["access", "add", name, "--role", "admin", "--ttl", ttl, "--out", out.to_str().unwrap()]).ok();
    }
    with("gone", &["agents", "ls"]).ok();
    rig.run(&["access", "revoke", "gone"]).ok();
    user::private(&rig.path("guessed"), &"A".repeat(43));
    let before = stage.metric("rk_api_unauthorized_total");
    stage.attempt("void tokens of the API", || {
        wait::until("the short one is over", PATIENCE, || {
            let ran = with("short", &["agents", "ls"]);
            if ran.code == 0 { Err("it is good".to_owned()) } else { Ok(()) }
        });
        for file in ["gone", "short", "guessed"] {
            for args in [
                &["agents", "ls"][..],
                &["exec", HONEST, "--", "true"],
                &["agents", "rm", HONEST],
                &["run", "--", "true"],
            ] {
                let ran = with(file, args).code(77);
                let why = ["was revoked", "has expired", "not the controller's token"];
                assert!(why.iter().any(|why| ran.stderr.contains(why)), "{file} {args:?}: {}", ran.stderr);
            }
        }
    });
    let counted = stage.metric("rk_api_unauthorized_total") - before;
    println!("refused requests to the API: {counted}");
    assert!(counted >= 12, "{counted}");
    let audit = fs::read_to_string(rig.path("controller/audit.log")).unwrap();
    assert!(audit.lines().filter(|line| line.contains("\"status\":401")).count() >= 12, "{audit}");
}
