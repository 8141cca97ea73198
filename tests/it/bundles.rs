//! Code that an agent does not have: it comes from Kafka when a command needs it, whole or not at all.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use nix::unistd::geteuid;
use remoting_kafka::{
    api::bundles::PushBundle,
    bundle::{Archive, Digest, Target},
    kafka::{At, Cluster, KafkaCluster, Prefix, Record, config::Mechanism},
};
use serde_json::Value;

use crate::{
    rig::{PATIENCE, Ran, Rig, Running, noise},
    support::{cluster::TestCluster, process::Process, user, wait},
};

/// A directory with a program `tool`, which says `says`, and so many bytes beside it.
fn files(rig: &Rig, name: &str, says: &str, bytes: usize) -> String {
    let dir = rig.path(name);
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/tool"), format!("#!/bin/sh\necho {says} \"$@\"\n")).unwrap();
    fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("data"), noise(bytes)).unwrap();
    dir.display().to_string()
}

/// Pushes, and returns what means it for ever.
fn push(rig: &Rig, path: &str) -> String {
    rig.run(&["bundle", "push", path]).ok().text().trim().to_owned()
}

fn exec(rig: &Rig, bundle: &str, command: &[&str]) -> Ran {
    rig.run(&[&["exec", "--no-stdin", "--bundle", bundle, "a", "--"], command].concat())
}

/// The agent `a` with more flags.
fn agent(rig: &Rig, credential: &Path, flags: &[&str]) -> Process {
    let mut command = rig.agent_command("a", credential);
    command.args(flags);
    let mut process = rig.process(command, "a.log");
    rig.wait_online("a", &mut process);
    process
}

/// The files in an agent's cache but for what is locked.
fn cached(rig: &Rig, agent: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(rig.path(&format!("{agent}.data/bundles"))).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    all.retain(|path| !path.to_string_lossy().ends_with("lock"));
    all.sort();
    all
}

fn cluster(rig: &Rig) -> KafkaCluster {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    KafkaCluster::new(user::ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())).unwrap()
}

async fn records(cluster: &KafkaCluster, topic: &str, partitions: i32) -> Vec<(i32, Record)> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        let mut reader = cluster.reader(topic, partition);
        let (mut next, end) = (reader.offset(At::Earliest).await.unwrap(), reader.offset(At::Latest).await.unwrap());
        while next < end {
            let fetched = reader.fetch(next, 4 << 20, Duration::from_secs(5)).await.unwrap();
            all.extend(fetched.records.into_iter().map(|(_, record)| (partition, record)));
            next = fetched.next_offset;
        }
    }
    all
}

#[test]
fn what_was_pushed_is_found_by_its_name_its_digest_and_its_path() {
    let rig = Rig::start("bundle");
    let _agent = rig.agent("a", &[]);
    let dir = files(&rig, "tools", "one", 600_000);
    let ran = rig.run(&["bundle", "push", &dir]).ok();
    let reference = ran.text().trim().to_owned();
    assert!(reference.starts_with("tools@sha256:") && ran.line().contains("pushed"), "{ran:?}");
    assert!(rig.run(&["bundle", "push", &dir]).ok().line().contains("has it already"));
    let digest = reference.rsplit(':').next().unwrap();
    for bundle in ["tools", &reference, &digest[..10], &format!("sha256:{digest}"), &dir] {
        assert_eq!(exec(&rig, bundle, &["tool", "x"]).ok().text(), "one x\n", "{bundle}");
    }
    for resume in ["0s", "60s"] {
        let show = "echo $RK_BUNDLE $RK_BUNDLE_TOOLS; ls $RK_BUNDLE; touch $RK_BUNDLE/x 2>&- || true";
        let ran = rig.run(&["exec", "--resume", resume, "--bundle", "tools", "a", "--", "sh", "-c", show]).ok();
        let text = ran.text();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words[0] == words[1] && words[2..4] == ["bin", "data"], "{text}");
        let root = Path::new(words[0]);
        assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(fs::read(root.join("data")).unwrap(), noise(600_000));
    }
    // A program that lies in a bundle here lies in it there.
    assert_eq!(exec(&rig, &dir, &[&format!("{dir}/bin/tool"), "y"]).ok().text(), "one y\n");
    assert_eq!(rig.run(&["run", "-q", "--bundle", "tools", "--", "tool", "z"]).ok().text(), "one z\n");
    let tool = format!("{dir}/bin/tool");
    assert_eq!(rig.run(&["run", "-q", "--bundle", &dir, "--", &tool, "z"]).ok().text(), "one z\n");
    assert_eq!(cached(&rig, "a").len(), 1);

    // The name means the newest, the digest what it always meant.
    files(&rig, "tools", "two", 10);
    let second = push(&rig, &dir);
    assert_eq!(exec(&rig, "tools", &["tool"]).ok().text(), "two\n");
    assert_eq!(exec(&rig, &reference, &["tool"]).ok().text(), "one\n");
    let list: Value = serde_json::from_slice(&rig.run(&["bundle", "ls", "-o", "json"]).ok().stdout).unwrap();
    assert_eq!((list.as_array().unwrap().len(), &list[0]["newest"][0]), (2, &Value::from("tools")));
    rig.run(&["bundle", "rm", &second]).ok();
    assert_eq!(exec(&rig, "tools", &["tool"]).ok().text(), "one\n");
    let unknown = exec(&rig, "nothing", &["tool"]).code(64);
    assert!(unknown.line().contains("rk bundle push"), "{}", unknown.stderr);
    // What is known outlives the controller.
    rig.kill_controller();
    rig.start_controller();
    wait::until("the agent is back", PATIENCE, || {
        let ran = exec(&rig, "tools", &["tool"]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
}

#[test]
fn five_agents_fetch_it_from_kafka_and_not_from_the_controller() {
    let rig = Rig::start("bundle-five");
    let names = ["a1", "a2", "a3", "a4", "a5"];
    let mut agents: Vec<Process> =
        names.iter().map(|name| rig.start_agent(name, &rig.add(name, &["role=x"]))).collect();
    names.iter().zip(&mut agents).for_each(|(name, agent)| rig.wait_online(name, agent));
    let size = 6 << 20;
    push(&rig, &files(&rig, "big", "big", size));
    let ran = rig.run(&["exec", "-l", "role=x", "--bundle", "big", "--", "tool"]).ok();
    assert_eq!(ran.text().matches("big").count(), 5, "{}", ran.text());
    let prefix: Prefix = rig.prefix.parse().unwrap();
    rig.block_on(async {
        let cluster = cluster(&rig);
        let all = cluster.admin().topics_below(&prefix.start()).await.unwrap();
        let mut down = 0;
        for topic in all.iter().filter(|topic| topic.name.contains(".down")) {
            for (_, record) in
                records(&cluster, &topic.name, cluster.describe(&topic.name).await.unwrap().partitions).await
            {
                down += record.value.len();
            }
        }
        let blobs: usize =
            records(&cluster, &prefix.blobs(), 2).await.iter().map(|(_, record)| record.value.len()).sum();
        println!("{down} bytes went down to five agents, {blobs} lie in the blobs");
        assert!(down < 1 << 20, "{down} bytes went through the controller");
        assert!((size..size + (1 << 20)).contains(&blobs), "{blobs}");
    });
}

#[test]
fn rubbish_is_passed_over_and_what_is_gone_can_be_pushed_again() {
    let rig = Rig::start("bundle-rubbish");
    let _agent = rig.agent("a", &[]);
    let dir = files(&rig, "tools", "fine", 700_000);
    push(&rig, &dir);
    let topic = rig.prefix.parse::<Prefix>().unwrap().blobs();
    // The same archive lies there again with one bit altered in each record, in front of a second push.
    rig.block_on(async {
        let cluster = cluster(&rig);
        for (partition, mut record) in records(&cluster, &topic, 2).await {
            let mut value = record.value.to_vec();
            *value.last_mut().unwrap() ^= 1;
            record.value = value.into();
            cluster.writer(&topic, partition).produce(vec![record]).await.unwrap();
        }
    });
    assert_eq!(exec(&rig, "tools", &["tool"]).ok().text(), "fine\n");
    // An agent that does not have it, and records that are gone.
    let mut other = rig.agent("b", &[]);
    rig.block_on(async {
        let cluster = cluster(&rig);
        for partition in 0..2 {
            let end = cluster.reader(&topic, partition).offset(At::Latest).await.unwrap();
            if end > 0 {
                cluster.delete_records(&topic, partition, end).await.unwrap();
            }
        }
    });
    let on_b = || rig.run(&["exec", "--no-stdin", "--bundle", "tools", "b", "--", "tool"]);
    let refused = on_b().code(77);
    assert!(refused.line().contains("push it again"), "{}", refused.stderr);
    let job = rig.run(&["run", "-q", "--agent", "b", "--bundle", "tools", "--", "tool"]).code(126);
    assert!(job.stderr.contains("push it again"), "{}", job.stderr);
    assert!(rig.run(&["bundle", "push", &dir]).ok().line().contains("pushed"));
    assert_eq!(on_b().ok().text(), "fine\n");
    assert!(other.ended().is_none());
}

#[test]
fn an_archive_that_leaves_its_root_is_refused_and_nothing_of_it_is_installed() {
    let rig = Rig::start("bundle-traversal");
    let _agent = rig.agent("a", &[]);
    let path = b"../../../escaped";
    let mut bytes = b"rkbundle1\n\x01".to_vec();
    bytes.extend_from_slice(&(path.len() as u16).to_be_bytes());
    bytes.extend_from_slice(path);
    bytes.extend_from_slice(&1u64.to_be_bytes());
    bytes.extend_from_slice(b"x\xff");
    let archive = Archive { sha256: Digest::of(&bytes), size: bytes.len() as u64 };
    rig.block_on(async {
        let client = rig.client();
        let piece = futures_util::stream::iter([Ok(Bytes::from(bytes))]);
        client.upload(&archive, piece).await.unwrap();
        let variants = [(Target::any(), archive)].into();
        let bundle = PushBundle { name: "evil".parse().unwrap(), variants, signatures: Vec::new() };
        client.push_bundle(&bundle).await.unwrap();
    });
    let refused = exec(&rig, "evil", &["true"]).code(77);
    assert!(refused.line().contains("malformed"), "{}", refused.stderr);
    assert_eq!(cached(&rig, "a"), Vec::<PathBuf>::new());
    assert!(!rig.path("escaped").exists() && !rig.path("a.data/escaped").exists());
    // One whose bytes are others than was said is not taken at all.
    let refused = rig.block_on(async {
        let piece = futures_util::stream::iter([Ok(Bytes::from_static(b"other bytes"))]);
        rig.client().upload(&Archive { sha256: archive.sha256, size: 11 }, piece).await.unwrap_err()
    });
    assert!(refused.to_string().contains("announced"), "{refused}");
}

#[test]
fn what_nobody_vouches_for_and_what_is_too_large_is_refused_before_a_byte_comes() {
    let rig = Rig::start("bundle-refused");
    let credential = rig.add("a", &[]);
    let path = |name: &str| rig.path(name).display().to_string();
    let (key, other) = (path("key"), path("other"));
    rig.run(&["bundle", "keygen", &key]).ok();
    rig.run(&["bundle", "keygen", &other]).ok();
    let _agent = agent(&rig, &credential, &["--require-signed", &format!("{key}.pub"), "--bundle-cache", "1M"]);
    push(&rig, &files(&rig, "tools", "signed", 1000));
    push(&rig, &files(&rig, "large", "large", 2 << 20));
    rig.run(&["bundle", "sign", "large", "--key", &key]).ok();
    for (bundle, part) in [("tools", "--require-signed"), ("large", "--bundle-cache")] {
        let refused = exec(&rig, bundle, &["tool"]).code(77);
        assert!(refused.line().contains(part), "{}", refused.stderr);
        let job = rig.run(&["run", "-q", "--bundle", bundle, "--", "tool"]).code(126);
        assert!(job.stderr.contains(part), "{}", job.stderr);
    }
    rig.run(&["bundle", "sign", "tools", "--key", &other]).ok();
    exec(&rig, "tools", &["tool"]).code(77);
    assert_eq!(cached(&rig, "a"), Vec::<PathBuf>::new());
    rig.run(&["bundle", "sign", "tools", "--key", &key]).ok();
    assert_eq!(exec(&rig, "tools", &["tool"]).ok().text(), "signed\n");
}

#[test]
fn what_is_used_stays_also_under_the_next_agent_and_the_rest_makes_room() {
    let rig = Rig::start("bundle-room");
    let credential = rig.add("a", &[]);
    let flags = ["--bundle-cache", "2500K"];
    let agent_process = agent(&rig, &credential, &flags);
    for name in ["used", "second", "third", "fourth"] {
        push(&rig, &files(&rig, name, name, 1 << 20));
    }
    let started = rig.path("started");
    let script = format!("echo $RK_BUNDLE > {}; sleep 300", started.display());
    let mut command = rig.rk(&["exec", "--no-stdin", "--bundle", "used", "a", "--", "sh", "-c", &script]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let running = Running::start(command);
    let root = wait::until("it runs", PATIENCE, || {
        let text = fs::read_to_string(&started).map_err(|e| e.to_string())?;
        if text.ends_with('\n') { Ok(PathBuf::from(text.trim())) } else { Err(text) }
    });
    for name in ["second", "third"] {
        assert_eq!(exec(&rig, name, &["tool"]).ok().text(), format!("{name}\n"));
        assert_eq!(cached(&rig, "a").len(), 2, "{:?}", cached(&rig, "a"));
    }
    // kill -9: the command goes on under its keeper, and the next agent knows what it uses.
    drop(agent_process);
    let _agent = agent(&rig, &credential, &flags);
    wait::until("the next agent is there", PATIENCE, || {
        let ran = exec(&rig, "fourth", &["tool"]);
        if ran.text() == "fourth\n" { Ok(()) } else { Err(ran.stderr) }
    });
    assert!(root.join("bin/tool").is_file(), "{:?}", cached(&rig, "a"));
    assert_eq!(cached(&rig, "a").len(), 2, "{:?}", cached(&rig, "a"));
    running.signal("INT");
    wait::until("it is used no more", PATIENCE, || {
        exec(&rig, "second", &["tool"]);
        exec(&rig, "third", &["tool"]);
        if root.exists() { Err("it is there".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn an_agent_that_is_killed_while_it_fetches_leaves_nothing_half_installed() {
    let rig = Rig::start("bundle-killed");
    let credential = rig.add("a", &[]);
    let process = agent(&rig, &credential, &[]);
    push(&rig, &files(&rig, "big", "whole", 48 << 20));
    let id = rig.run(&["run", "--detach", "--bundle", "big", "--", "tool"]).ok().text();
    wait::until("it has begun", PATIENCE, || {
        if cached(&rig, "a").is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    drop(process);
    let _agent = agent(&rig, &credential, &[]);
    rig.run(&["jobs", "wait", id.trim()]).ok();
    assert_eq!(rig.run(&["logs", id.trim()]).ok().text(), "whole\n");
    let left = cached(&rig, "a");
    assert!(left.len() == 1 && !left[0].to_string_lossy().ends_with(".part"), "{left:?}");
}

#[test]
fn an_allow_list_means_the_machines_programs_and_another_user_can_read_bundles() {
    let rig = Rig::start("bundle-allow");
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    let credential = rig.add("a", &[]);
    let mut flags = vec!["--allow", "tool *", "--allow", "id -u*"];
    if geteuid().is_root() {
        flags.extend(["--run-as", "nobody"]);
    }
    let _agent = agent(&rig, &credential, &flags);
    let dir = files(&rig, "tools", "allowed", 10);
    fs::copy(rig.path("tools/bin/tool"), rig.path("tools/bin/id")).unwrap();
    push(&rig, &dir);
    assert_eq!(exec(&rig, "tools", &["tool", "x"]).ok().text(), "allowed x\n");
    assert_eq!(rig.run(&["run", "-q", "--bundle", "tools", "--", "tool"]).ok().text(), "allowed\n");
    // The machine's own stands first.
    let own = exec(&rig, "tools", &["id", "-un"]).ok().text();
    assert!(!own.contains("allowed"), "{own}");
    exec(&rig, "tools", &["sh", "-c", "tool"]).code(77);
    exec(&rig, &dir, &[&format!("{dir}/bin/tool")]).code(77);
}

#[test]
fn a_controller_may_want_signatures_too_and_who_is_limited_may_not_push() {
    let rig = Rig::prepare("bundle-signed", 2);
    let path = |name: &str| rig.path(name).display().to_string();
    let key = path("key");
    rig.run(&["bundle", "keygen", &key]).ok();
    let mut command = rig.controller_command("controller", rig.port);
    command.args(["--require-signed", &format!("{key}.pub")]);
    rig.launch_controller(command);
    let dir = files(&rig, "tools", "signed", 10);
    let refused = rig.run(&["bundle", "push", &dir]).code(77);
    assert!(refused.line().contains("--sign"), "{}", refused.stderr);
    rig.run(&["bundle", "push", "--sign", &key, &dir]).ok();
    let token = path("token");
    rig.run(&["access", "add", "ci", "--role", "operator", "--agent", "a", "--out", &token]).ok();
    let mut limited = rig.rk(&["bundle", "push", "--sign", &key, "--name", "other", &files(&rig, "more", "more", 10)]);
    limited.env("RK_API_TOKEN", format!("file:{token}"));
    let refused = crate::rig::run(limited, b"").code(77);
    assert!(refused.line().contains("limited to some agents"), "{}", refused.stderr);
    let _agent = rig.agent("a", &[]);
    // What is there may be used, also by its path.
    for bundle in ["tools", &dir] {
        let mut exec = rig.rk(&["exec", "--no-stdin", "--bundle", bundle, "a", "--", "tool"]);
        exec.env("RK_API_TOKEN", format!("file:{token}"));
        assert_eq!(crate::rig::run(exec, b"").ok().text(), "signed\n", "{bundle}");
    }
}

#[test]
fn a_cluster_that_goes_away_in_the_middle_costs_time_and_nothing_else() {
    let cluster: &'static TestCluster = Box::leak(Box::new(TestCluster::start()));
    let rig = Rig::on(cluster, "bundle-cut", 2);
    rig.start_controller();
    let _agent = rig.agent("a", &[]);
    push(&rig, &files(&rig, "big", "whole", 48 << 20));
    let id = rig.run(&["run", "--detach", "--bundle", "big", "--", "tool"]).ok().text();
    wait::until("it has begun", PATIENCE, || {
        if cached(&rig, "a").is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    cluster.kill_all();
    cluster.restart_all();
    rig.run(&["jobs", "wait", id.trim()]).ok();
    assert_eq!(rig.run(&["logs", id.trim()]).ok().text(), "whole\n");
    cluster.kill_all();
}
