//! `rk cp` and `rk fs`: files and directories there and back.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use crate::{
    rig::{Rig, Running, noise, run, sha256},
    support::wait,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Each path below `dir` with its kind, permissions, time, and its content's sum.
fn listing(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(dir).unwrap().display().to_string();
        let mode = found.permissions().mode() & 0o777;
        let time = found.modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        all.push(if found.is_symlink() {
            format!("{name} -> {}", fs::read_link(&path).unwrap().display())
        } else if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            format!("{name}/ {mode:o} {time}")
        } else {
            format!("{name} {mode:o} {time} {}", sha256(&fs::read(&path).unwrap()))
        });
    }
    all.sort();
    all
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_directory_goes_there_and_comes_back_the_same() {
    let rig = Rig::start("cp-tree");
    let _agent = rig.agent("a", &[]);
    let here = rig.path("here");
    fs::create_dir_all(here.join("sub/empty")).unwrap();
    fs::write(here.join("large"), noise(5 << 20)).unwrap();
    fs::write(here.join("sub/none"), b"").unwrap();
    fs::write(here.join("sub/name with\nodd bytes"), b"x").unwrap();
    fs::set_permissions(here.join("sub/none"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(here.join("large"), fs::Permissions::from_mode(0o755)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    fs::File::options().write(true).open(here.join("large")).unwrap().set_modified(old).unwrap();
    symlink("../large", here.join("sub/link")).unwrap();
    fs::set_permissions(here.join("sub/empty"), fs::Permissions::from_mode(0o500)).unwrap();
    let (there, back) = (rig.path("there"), rig.path("back"));

    let ran = rig.run(&["cp", &text(&here), &format!("a:{}", text(&there))]).code(64);
    assert!(ran.line().contains("-r"), "{}", ran.stderr);
    rig.run(&["cp", "-r", &text(&here), &format!("a:{}", text(&there))]).ok();
    assert_eq!(listing(&there), listing(&here));
    rig.run(&["cp", "-r", &format!("a:{}", text(&there)), &text(&back)]).ok();
    assert_eq!(listing(&back), listing(&here));
    // Into a directory that is there, under its own name.
    rig.run(&["cp", "-r", &text(&here), &format!("a:{}", text(&back))]).ok();
    assert_eq!(listing(&back.join("here")), listing(&here));
    assert!(!listing(&there).iter().any(|line| line.contains(".rk-")), "nothing half is left");
}

#[test]
fn pipes_and_looks_at_files() {
    let rig = Rig::start("cp-pipe");
    let _agent = rig.agent("a", &[]);
    let (blob, file) = (noise(3 << 20), rig.path("file"));
    let there = format!("a:{}", text(&file));
    run(rig.rk(&["cp", "-", &there]), &blob).ok();
    assert!(fs::read(&file).unwrap() == blob);
    assert!(rig.run(&["cp", &there, "-"]).ok().stdout == blob);
    assert!(rig.run(&["fs", "cat", &there]).ok().stdout == blob);

    fs::write(&file, "1\n2\n3\n4\n").unwrap();
    assert_eq!(rig.run(&["fs", "tail", "-n", "2", &there]).ok().text(), "3\n4\n");
    let mut command = rig.rk(&["fs", "tail", "-n", "1", "-f", &there]);
    let out = rig.path("followed");
    command.stdout(fs::File::create(&out).unwrap()).stderr(Stdio::inherit()).stdin(Stdio::null());
    let mut tail = Running::start(command);
    let shows = |expected: &'static str| {
        wait::until("the tail shows it", PATIENCE, || {
            let seen = fs::read_to_string(&out).unwrap();
            if seen == expected { Ok(()) } else { Err(seen) }
        });
    };
    shows("4\n");
    fs::File::options().append(true).open(&file).unwrap().write_all(b"5\n").unwrap();
    shows("4\n5\n");
    tail.signal("INT");
    assert_eq!(tail.code(), 130);

    let ran = rig.run(&["fs", "stat", "-o", "json", &there]).ok();
    let stat: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&stat["kind"], &stat["size"], &stat["name"]), (&"file".into(), &10.into(), &"file".into()));
    let ran = rig.run(&["fs", "ls", "-o", "name", &format!("a:{}", text(&rig.path(".")))]).ok();
    assert!(ran.text().lines().any(|line| line == "file"), "{}", ran.text());
    let ran = rig.run(&["fs", "cat", "a:/no/such"]).code(1);
    assert!(ran.line().contains("/no/such"), "{}", ran.stderr);
    rig.run(&["fs", "cat", "b:/etc/passwd"]).code(64);
    let ran = rig.run(&["cp", "x", "y"]).code(64);
    assert!(ran.line().contains("AGENT:PATH"), "{}", ran.stderr);
}

#[test]
fn a_copy_survives_its_agent_and_goes_on_after_its_command_line_was_killed() {
    let rig = Rig::start("cp-cut");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    // Larger than what can be on its way, so that the kill is in its middle.
    let (blob, source, target) = (noise(200 << 20), rig.path("source"), rig.path("target"));
    fs::write(&source, &blob).unwrap();
    let there = format!("a:{}", text(&target));
    let partial = || {
        let name = fs::read_dir(rig.path(".")).unwrap().map(|entry| entry.unwrap().path());
        name.into_iter().find(|path| text(path).contains("/.target.rk-"))
    };
    let begun = |least: u64| {
        wait::until("the copy is on its way", PATIENCE, || match partial().and_then(|path| fs::metadata(path).ok()) {
            Some(found) if found.len() >= least => Ok(()),
            found => Err(format!("{:?}", found.map(|found| found.len()))),
        });
    };
    // The command line is killed; what is there stays, and the next goes on behind it.
    let mut copy = Running::start(rig.rk(&["cp", &text(&source), &there]));
    begun(4 << 20);
    copy.signal("KILL");
    copy.wait();
    let ran = rig.run(&["cp", "-o", "json", &text(&source), &there]);
    // The program of the killed command may still hold the file: it is told, and the next one goes on.
    let ran = if ran.code == 0 {
        ran
    } else {
        assert!(ran.stderr.contains("somebody else"), "{}", ran.stderr);
        let mut last = ran;
        wait::until("the file is free", PATIENCE, || {
            last = rig.run(&["cp", "-o", "json", &text(&source), &there]);
            if last.code == 0 { Ok(()) } else { Err(last.stderr.clone()) }
        });
        last
    };
    let copied: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(copied["bytes"].as_u64().unwrap() < blob.len() as u64, "it went on: {copied}");
    assert_eq!(sha256(&fs::read(&target).unwrap()), sha256(&blob));

    // The agent is killed: the copy goes on by itself.
    fs::remove_file(&target).unwrap();
    fs::write(&source, &blob[1..]).unwrap();
    let mut command = rig.rk(&["cp", &text(&source), &there]);
    command.stderr(fs::File::create(rig.path("cp.err")).unwrap());
    let mut copy = Running::start(command);
    begun(4 << 20);
    drop(agent);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    assert_eq!(copy.code(), 0, "{}", fs::read_to_string(rig.path("cp.err")).unwrap());
    assert_eq!(sha256(&fs::read(&target).unwrap()), sha256(&blob[1..]));
}

#[test]
fn files_stay_below_what_the_operator_gives() {
    let rig = Rig::start("cp-roots");
    let (given, hidden) = (rig.path("given"), rig.path("hidden"));
    fs::create_dir_all(&given).unwrap();
    fs::create_dir_all(&hidden).unwrap();
    fs::write(hidden.join("secret"), b"secret").unwrap();
    fs::write(given.join("open"), b"open").unwrap();
    symlink(&hidden, given.join("out")).unwrap();
    symlink("../hidden/secret", given.join("file")).unwrap();
    let credential = rig.add("a", &[]);
    let mut command: Command = rig.agent_command("a", &credential);
    command.args(["--no-exec", "--files"]).arg(&given);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let path = |rest: &str| format!("a:{}/{rest}", text(&given));
    assert_eq!(rig.run(&["fs", "cat", &path("open")]).ok().text(), "open");
    run(rig.rk(&["cp", "-", &path("new")]), b"new").ok();
    assert_eq!(fs::read(given.join("new")).unwrap(), b"new");
    for wrong in ["out/secret", "file", "../hidden/secret", "out/../../hidden/secret"] {
        let ran = rig.run(&["fs", "cat", &path(wrong)]);
        assert!(ran.code != 0 && ran.stdout.is_empty(), "{wrong}: {}", ran.stderr);
    }
    for wrong in ["out/x", "../x", "file"] {
        let ran = run(rig.rk(&["cp", "-", &path(wrong)]), b"x");
        assert!(ran.code != 0 || wrong == "file", "{wrong}");
    }
    assert_eq!(fs::read(hidden.join("secret")).unwrap(), b"secret");
    assert!(!hidden.join("x").exists() && !rig.path("x").exists());
    rig.run(&["fs", "ls", &format!("a:{}", text(&hidden))]).code(77);
    rig.run(&["exec", "a", "--", "true"]).code(77);
    rig.run(&["exec", "a", "--", "rk:files"]).ok();
}
