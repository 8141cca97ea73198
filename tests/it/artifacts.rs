//! Files that jobs leave: stored whatever the job's end was, fetched as they were, and forgotten in time.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use remoting_kafka::kafka::{At, Cluster, KafkaCluster, Prefix, Record, config::Mechanism};
use serde_json::Value;

use crate::{
    jobs::{shown, submit, wait_state},
    rig::{PATIENCE, Rig, noise, sha256},
    support::{process::Process, user, wait},
};

fn cluster(rig: &Rig) -> KafkaCluster {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    KafkaCluster::new(user::ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())).unwrap()
}

fn topic(rig: &Rig) -> String {
    rig.prefix.parse::<Prefix>().unwrap().artifacts()
}

/// Where the records of the topic begin and end, of all partitions together.
fn ends(rig: &Rig) -> (i64, i64) {
    rig.block_on(async {
        let (cluster, mut sum) = (cluster(rig), (0, 0));
        for partition in 0..i32::try_from(rig.partitions).unwrap() {
            let mut reader = cluster.reader(&topic(rig), partition);
            sum.0 += reader.offset(At::Earliest).await.unwrap();
            sum.1 += reader.offset(At::Latest).await.unwrap();
        }
        sum
    })
}

/// Runs a script that leaves what `patterns` say, to its end. Returns its id.
fn leave(rig: &Rig, options: &[&str], patterns: &[&str], script: &str) -> String {
    let mut all = options.to_vec();
    patterns.iter().for_each(|pattern| all.extend(["--artifact", pattern]));
    let id = submit(rig, &all, &["sh", "-c", script]);
    rig.run(&["jobs", "wait", &id]);
    id
}

fn list(rig: &Rig, id: &str) -> Value {
    serde_json::from_slice(&rig.run(&["artifacts", "ls", "-o", "json", id]).ok().stdout).unwrap()
}

fn agent(rig: &Rig, flags: &[&str]) -> Process {
    let mut command = rig.agent_command("a", &rig.add("a", &[]));
    command.args(flags);
    let mut process = rig.process(command, "a.log");
    rig.wait_online("a", &mut process);
    process
}

fn controller(rig: &Rig, flags: &[&str]) {
    let mut command = rig.controller_command("controller", rig.port);
    command.args(flags);
    rig.launch_controller(command);
}

#[test]
fn whatever_a_job_s_end_is_its_files_are_there_as_they_were() {
    let rig = Rig::start("left");
    let _agent = rig.agent("a", &[]);
    let script = "mkdir -p out/deep; printf one > out/a; printf one > out/b; printf two > out/deep/c; : > out/empty;
                  printf no > other; chmod 751 out/a; touch -d @1000000000 out/a; ln -s a out/link; ";
    for (options, end, code) in
        [(&[][..], "true", 0), (&[], "exit 3", 3), (&[], "kill -9 $$", 137), (&["--timeout", "1s"], "sleep 100", 124)]
    {
        let id = leave(&rig, options, &["out/**"], &format!("{script}{end}"));
        assert_eq!(shown(&rig, &id).unwrap()["exit_code"], code, "{end}");
        let names = rig.run(&["artifacts", "ls", "-o", "name", &id]).ok();
        assert_eq!(names.text(), "out/a\nout/b\nout/deep/c\nout/empty\n", "{end}");
        assert!(names.stderr.contains("out/link: it is a link"), "{}", names.stderr);
        let to = rig.path(&format!("to-{code}"));
        let got = rig.run(&["artifacts", "get", &id, "--to", to.to_str().unwrap()]).ok();
        assert!(got.line().contains("4 files, 9 bytes"), "{}", got.stderr);
        for (path, content) in [("out/a", "one"), ("out/b", "one"), ("out/deep/c", "two"), ("out/empty", "")] {
            assert_eq!(fs::read_to_string(to.join(path)).unwrap(), content, "{path}");
        }
        let marks = fs::metadata(to.join("out/a")).unwrap();
        assert_eq!(marks.permissions().mode() & 0o777, 0o751);
        let modified = marks.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(modified.as_secs(), 1_000_000_000);
    }
    // One that is cancelled, and one that runs attached.
    let id = submit(&rig, &["--artifact", "x"], &["sh", "-c", "echo x > x; echo up; exec sleep 100"]);
    wait::until("it is up", PATIENCE, || {
        let log = rig.run(&["logs", &id]).text();
        if log == "up\n" { Ok(()) } else { Err(log) }
    });
    let pending = rig.run(&["artifacts", "get", &id]).code(75);
    assert!(pending.line().contains("rk jobs wait"), "{}", pending.stderr);
    rig.run(&["jobs", "cancel", &id]).ok();
    wait_state(&rig, &id, "cancelled");
    assert_eq!(rig.run(&["artifacts", "get", &id[..12], "x", "--to", "-"]).ok().text(), "x\n");
    let ran =
        rig.run(&["run", "-q", "--name", "named", "--artifact", "*.txt", "--", "sh", "-c", "echo hi > a.txt"]).ok();
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("", ""));
    // Nothing that was asked for, nothing that matches, nothing that is there.
    let none = submit(&rig, &[], &["true"]);
    rig.run(&["jobs", "wait", &none]).ok();
    assert!(rig.run(&["artifacts", "ls", &none]).code(64).line().contains("rk run --artifact"));
    let missed = leave(&rig, &[], &["nothing/*"], "true");
    assert_eq!(list(&rig, &missed)["state"], "missing");
    assert!(rig.run(&["artifacts", "get", &missed]).code(1).line().contains("matches nothing/*"));
    assert!(rig.run(&["logs", &missed]).ok().stderr.contains("no artifacts"));
    let refused = rig.run(&["run", "--artifact", "../x", "--", "true"]).code(64);
    assert!(refused.line().contains("out/*.xml"), "{}", refused.stderr);
    let two = leave(&rig, &[], &["*"], "echo 1 > a; echo 2 > b");
    assert!(rig.run(&["artifacts", "get", &two, "--to", "-"]).code(64).line().contains("stdout takes one"));
    assert!(rig.run(&["artifacts", "get", &two, "nope", "--to", "-"]).code(64).line().contains("no file that matches"));
    let described = rig.run(&["jobs", "show", &two]).ok().text();
    assert!(described.contains("artifacts     2 files, 4 bytes\n"), "{described}");
    // What is there of the same name must not lead elsewhere.
    let to = rig.path("linked");
    fs::create_dir_all(&to).unwrap();
    symlink(rig.path("outside"), to.join("out")).unwrap();
    fs::create_dir_all(rig.path("outside")).unwrap();
    let deep = leave(&rig, &[], &["out"], "mkdir out; echo x > out/x");
    let refused = rig.run(&["artifacts", "get", &deep, "--to", to.to_str().unwrap()]).code(1);
    assert!(refused.line().contains("is no directory"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(rig.path("outside")).unwrap().count(), 0);
    // The list is the same after the controller's death.
    let before = list(&rig, &two);
    rig.kill_controller();
    rig.start_controller();
    assert_eq!(list(&rig, &two), before);
}

#[test]
fn many_small_files_and_a_large_one_come_back_whole_and_a_forged_chunk_is_passed_over() {
    let rig = Rig::prepare("much", 1);
    rig.start_controller();
    let _agent = rig.agent("a", &[]);
    let script = "mkdir d; i=0; while [ $i -lt 2000 ]; do head -c 1024 /dev/urandom > d/$i; i=$((i+1)); done; sha256sum d/* > sums";
    let begun = std::time::Instant::now();
    let id = leave(&rig, &[], &["d", "sums"], script);
    let (stored, to) = (begun.elapsed(), rig.path("small"));
    assert_eq!(list(&rig, &id)["files"].as_array().unwrap().len(), 2001);
    assert!(ends(&rig).1 < 20, "small files lie together");
    let begun = std::time::Instant::now();
    rig.run(&["artifacts", "get", &id, "--to", to.to_str().unwrap()]).ok();
    println!("2000 files of 1 KB: made and stored in {stored:?}, fetched in {:?}", begun.elapsed());
    for line in fs::read_to_string(to.join("sums")).unwrap().lines() {
        let (sum, path) = line.split_once("  ").unwrap();
        assert_eq!(sha256(&fs::read(to.join(path)).unwrap()), sum, "{path}");
    }
    // Somebody writes chunks under the names that are there, while a large file is stored.
    let big = noise(64 << 20);
    fs::write(rig.path("big"), &big).unwrap();
    let done = AtomicBool::new(false);
    let id = thread::scope(|scope| {
        scope.spawn(|| {
            rig.block_on(async {
                let cluster = cluster(&rig);
                let writer = cluster.writer(&topic(&rig), 0);
                let mut reader = cluster.reader(&topic(&rig), 0);
                let mut next = reader.offset(At::Latest).await.unwrap();
                while !done.load(Relaxed) {
                    let fetched = reader.fetch(next, 1 << 20, std::time::Duration::from_millis(50)).await.unwrap();
                    next = fetched.next_offset;
                    let forged = fetched.records.into_iter().take(1).map(|(_, record)| {
                        let mut value = record.value.to_vec();
                        *value.last_mut().unwrap() ^= 1;
                        Record::new(record.key, value)
                    });
                    let forged: Vec<Record> = forged.collect();
                    if !forged.is_empty() {
                        writer.produce(forged).await.unwrap();
                    }
                }
            });
        });
        let script = format!("cp {} big; echo small > z", rig.path("big").display());
        let begun = std::time::Instant::now();
        let id = leave(&rig, &[], &["*"], &script);
        println!("64 MiB: copied and stored in {:?}", begun.elapsed());
        done.store(true, Relaxed);
        id
    });
    let listed = list(&rig, &id);
    assert_eq!(listed["files"][0]["sha256"], sha256(&big), "{listed}");
    let begun = std::time::Instant::now();
    assert!(rig.run(&["artifacts", "get", &id, "big", "--to", "-"]).ok().stdout == big);
    println!("64 MiB: fetched in {:?}", begun.elapsed());
    // A small one behind it costs little of it.
    assert_eq!(rig.run(&["artifacts", "get", &id, "z", "--to", "-"]).ok().text(), "small\n");
    let records = ends(&rig).1;
    // Records that are gone are named.
    rig.block_on(async { cluster(&rig).delete_records(&topic(&rig), 0, records - 100).await.unwrap() });
    let gone = rig.run(&["artifacts", "get", &id, "big", "--to", "-"]).code(1);
    assert!(gone.stderr.contains("gone from topic") && gone.stderr.contains(&topic(&rig)), "{}", gone.stderr);
    rig.block_on(async { cluster(&rig).delete_records(&topic(&rig), 0, records).await.unwrap() });
    rig.kill_controller();
    rig.start_controller();
    let gone = rig.run(&["artifacts", "ls", &id]).code(1);
    assert!(gone.line().contains("gone from topic"), "{}", gone.stderr);
}

#[test]
fn an_agent_and_a_controller_that_are_killed_while_files_are_stored_cost_nothing() {
    let rig = Rig::prepare("killed", 1);
    rig.start_controller();
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let big = noise(192 << 20);
    fs::write(rig.path("big"), &big).unwrap();
    let script = format!("cp {} big", rig.path("big").display());
    let id = submit(&rig, &["--artifact", "big"], &["sh", "-c", &script]);
    // How far it is stands in its note: one that changes when some records are there knows of them.
    let note = rig.path(&format!("a.data/agent/a/jobs/{id}.1/storing"));
    let mut first = None;
    wait::until("a part of it is stored", PATIENCE, || {
        if ends(&rig).1 < 30 {
            return Err("only a little".to_owned());
        }
        let now = fs::read(&note).map_err(|e| e.to_string())?;
        if *first.get_or_insert_with(|| now.clone()) == now { Err("nothing yet".to_owned()) } else { Ok(()) }
    });
    agent.kill();
    rig.kill_controller();
    let (begun, chunks) = (ends(&rig).1, (192 << 20) / (255 << 10) + 1);
    assert!(begun < chunks, "it was not stored before the agent was killed");
    rig.start_controller();
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    rig.run(&["jobs", "wait", &id]).ok();
    assert!(rig.run(&["artifacts", "get", &id, "big", "--to", "-"]).ok().stdout == big);
    let written = ends(&rig).1;
    println!("{written} records for {chunks} chunks, {begun} of which were there before the kill");
    // The next one went on, and did not begin anew.
    assert!(written < begun + chunks - 15, "{written}");
    assert!(
        !rig.path("a.data/agent/a/work").read_dir().unwrap().any(|entry| entry.unwrap().path().join("big").exists())
    );
}

#[test]
fn what_waits_for_kafka_says_so_outlives_the_agent_and_can_be_given_up() {
    let rig = Rig::prepare("waits", 1);
    rig.start_controller();
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    rig.block_on(async { cluster(&rig).admin().delete_topics(&[&topic(&rig)]).await.unwrap() });
    let submit = || submit(&rig, &["--artifact", "x"], &["sh", "-c", "echo x > x"]);
    let (kept, given_up) = (submit(), submit());
    let troubled = |id: &str| {
        wait::until(&format!("{id} says what it waits for"), PATIENCE, || {
            let job = shown(&rig, id)?;
            let trouble = job["trouble"].as_str().unwrap_or_default();
            if trouble.contains("its artifacts wait for Kafka") { Ok(()) } else { Err(job.to_string()) }
        });
    };
    troubled(&kept);
    troubled(&given_up);
    rig.run(&["jobs", "cancel", &given_up]).ok();
    // The process had ended before: that is the job's end, and its files are not there.
    wait_state(&rig, &given_up, "succeeded");
    let listed = list(&rig, &given_up);
    assert_eq!(listed["state"], "missing");
    assert!(listed["info"]["missing"].as_str().unwrap().contains("was cancelled while they were stored"), "{listed}");
    assert!(rig.run(&["logs", &given_up]).ok().stderr.contains("was cancelled while they were stored"));
    // What a cancel ended leaves its files, although each session says that cancel again.
    let cancelled =
        crate::jobs::submit(&rig, &["--artifact", "x"], &["sh", "-c", "echo x > x; echo up; exec sleep 100"]);
    wait::until("it is up", PATIENCE, || {
        let log = rig.run(&["logs", &cancelled]).text();
        if log == "up\n" { Ok(()) } else { Err(log) }
    });
    rig.run(&["jobs", "cancel", &cancelled]).ok();
    troubled(&cancelled);
    agent.kill();
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    troubled(&kept);
    troubled(&cancelled);
    wait::until("the topic is made anew", PATIENCE, || {
        let ran = crate::rig::run(rig.kafka(rig.bare(&["topics", "apply"]), user::ADMIN), &[]);
        if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
    });
    wait_state(&rig, &kept, "succeeded");
    wait_state(&rig, &cancelled, "cancelled");
    for id in [&kept, &cancelled] {
        assert_eq!(rig.run(&["artifacts", "get", id, "--to", "-"]).ok().text(), "x\n");
    }
}

#[test]
fn what_is_too_large_is_named_and_an_agent_may_take_none() {
    let rig = Rig::start("limit");
    let credential = rig.add("a", &[]);
    let with = |limit: &str| {
        let mut command = rig.agent_command("a", &credential);
        command.args(["--artifact-limit", limit]);
        let mut process = rig.process(command, "a.log");
        rig.wait_online("a", &mut process);
        process
    };
    let script = "echo x > a; head -c 2000000 /dev/zero > b";
    let process = with("1M");
    let id = leave(&rig, &[], &["*"], script);
    let why = list(&rig, &id)["info"]["missing"].as_str().unwrap().to_owned();
    assert!(why.starts_with("b (2000000 bytes) does not fit") && why.contains("--artifact-limit"), "{why}");
    assert!(rig.run(&["logs", &id]).ok().stderr.contains("b (2000000 bytes) does not fit"));
    assert_eq!(shown(&rig, &id).unwrap()["state"], "succeeded");
    assert_eq!(ends(&rig).1, 0, "nothing half is stored");
    drop(process);
    let _process = with("0");
    let id = leave(&rig, &[], &["*"], script);
    assert!(list(&rig, &id)["info"]["missing"].as_str().unwrap().contains("--artifact-limit 0"));
}

#[test]
fn what_is_old_or_more_than_is_kept_is_forgotten_and_its_room_given_back() {
    let rig = Rig::prepare("forgotten", 1);
    controller(&rig, &["--artifacts-keep", "1"]);
    let _agent = agent(&rig, &[]);
    let one = |name: &str| leave(&rig, &["--name", name], &["*"], "head -c 300000 /dev/urandom > x");
    let (first, other, second) = (one("nightly"), one("other"), one("nightly"));
    wait::until("the first is forgotten", PATIENCE, || {
        let state = list(&rig, &first)["state"].clone();
        if state == "forgotten" { Ok(()) } else { Err(state.to_string()) }
    });
    let told = rig.run(&["artifacts", "get", &first]).code(1);
    assert!(told.line().contains("1 file, 300000 bytes; forgotten"), "{}", told.stderr);
    assert_eq!((&list(&rig, &other)["state"], &list(&rig, &second)["state"]), (&"stored".into(), &"stored".into()));
    wait::until("its room is given back", PATIENCE, || {
        let ends = ends(&rig);
        if ends.0 > 0 { Ok(()) } else { Err(format!("{ends:?}")) }
    });
    // What is kept stays whole.
    for id in [&other, &second] {
        assert_eq!(rig.run(&["artifacts", "get", id, "--to", "-"]).ok().stdout.len(), 300_000);
    }
    // Age, by a controller that comes later: what was forgotten stays so.
    rig.kill_controller();
    controller(&rig, &["--artifacts-age", "1s"]);
    wait::until("all is forgotten and gone", PATIENCE, || {
        let states = [&first, &other, &second].map(|id| list(&rig, id)["state"].to_string());
        let ends = ends(&rig);
        if states.iter().all(|state| state == "\"forgotten\"") && ends.0 == ends.1 {
            Ok(())
        } else {
            Err(format!("{states:?} {ends:?}"))
        }
    });
}

#[test]
fn artifacts_are_fetched_by_http_by_those_who_may_see_the_job() {
    let rig = Rig::start("left-http");
    let _agent = rig.agent("a", &[]);
    let id = leave(&rig, &[], &["d/x y"], "mkdir d; printf content > 'd/x y'");
    let get = |token: &str, path: &str| {
        let (token, address) = (token.to_owned(), format!("127.0.0.1:{}", rig.port));
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    };
    let token = fs::read_to_string(rig.path("controller/api.token")).unwrap();
    let path = format!("/v1/jobs/{id}/artifacts/d/x%20y");
    let answer = get(token.trim(), &path);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\ncontent"), "{answer}");
    assert!(answer.contains(&format!("x-rk-sha256: {}", sha256(b"content"))), "{answer}");
    assert!(get(token.trim(), &format!("/v1/jobs/{id}/artifacts/none")).contains("left no file"));
    // Who may work with other agents alone sees nothing of it.
    let file = rig.path("other.token");
    rig.run(&["access", "add", "other", "--role", "viewer", "--agent", "b", "--out", file.to_str().unwrap()]).ok();
    let other = fs::read_to_string(&file).unwrap();
    for path in [path, format!("/v1/jobs/{id}/artifacts"), format!("/v1/jobs/{id}/pack?from=0&to=1")] {
        assert!(get(other.trim(), &path).starts_with("HTTP/1.1 403"), "{path}");
        assert!(get("wrong", &path).starts_with("HTTP/1.1 401"), "{path}");
    }
}

#[test]
fn files_of_another_user_are_read_with_that_user_s_rights() {
    let rig = Rig::start("left-as");
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    // Only root runs jobs as somebody else. Others' own rights are the job's.
    let root = nix::unistd::geteuid().is_root();
    let _agent = agent(&rig, if root { &["--run-as", "nobody"] } else { &[] });
    let secret = rig.path("secret");
    fs::write(&secret, "hunter2").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let script = format!("id -un > who; ln -s {} link; : > closed; chmod 0 closed", secret.display());
    let id = leave(&rig, &[], &["*"], &script);
    let who = rig.run(&["artifacts", "get", &id, "who", "--to", "-"]).ok().text();
    assert_eq!(who == "nobody\n", root, "{who}");
    let listed = list(&rig, &id);
    assert_eq!(listed["files"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["left_out"].as_array().unwrap().len(), 2, "{listed}");
}
