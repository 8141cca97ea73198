//! Agents with a topic, a Kafka user and rights of their own.

use std::{fs, path::Path, process::Command};

use remoting_kafka::{
    kafka::{
        At, Cluster, Error, KafkaCluster, Record,
        config::{Config, Login, Mechanism, Pem, Roots, Sasl, Tls},
    },
    secret::Secret,
};

use crate::{
    rig::{PATIENCE, Rig, noise, run},
    support::{kafka::admin::agents_have_topics, process::Process, user, wait},
};

/// An installation whose controller gives agents what they need.
fn start(test: &str) -> Rig {
    let rig = Rig::prepare(test, 2);
    rig.launch_controller(controller(&rig));
    rig
}

fn controller(rig: &Rig) -> Command {
    let listen = format!("127.0.0.1:{}", rig.port);
    let mut command =
        rig.bare(&["controller", "run", "--listen", &listen, "--provision-kafka", "--layout", "per-agent"]);
    command.arg("--data").arg(rig.path("controller"));
    rig.kafka(command, user::ADMIN)
}

/// An agent that is told nothing but where the brokers are, whom to trust, and its file.
fn agent(rig: &Rig, name: &str, file: &Path) -> Command {
    let mut command = rig.bare(&["agent", "run", "--brokers", &rig.cluster.bootstrap()]);
    command.arg("--tls-ca").arg(rig.cluster.ca());
    command.arg("--credential").arg(format!("file:{}", file.display()));
    command.arg("--data").arg(rig.path(&format!("{name}.data")));
    command
}

/// A value under a credential.
fn value(file: &Path, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
    line.unwrap_or_else(|| panic!("no {key} under the credential")).to_owned()
}

/// The cluster with an agent's own login.
fn cluster(rig: &Rig, file: &Path) -> KafkaCluster {
    let login = Login { user: value(file, "sasl-username"), password: Secret::new(value(file, "sasl-password")) };
    let config = Config {
        brokers: rig.cluster.bootstrap().split(',').map(str::to_owned).collect(),
        tls: Some(Tls { roots: Roots::Pem(Pem::File(rig.cluster.ca())), client: None }),
        sasl: Some(Sasl::password(Mechanism::ScramSha512, login).unwrap()),
        ..Config::default()
    };
    KafkaCluster::new(config).unwrap()
}

fn as_admin(rig: &Rig) -> Config {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    user::ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())
}

fn allowed<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    match result {
        Ok(_) => true,
        Err(Error::Authorization { .. }) => false,
        Err(other) => panic!("neither allowed nor refused: {other}"),
    }
}

/// Whether it may read and write a topic.
async fn rights(cluster: &KafkaCluster, topic: &str) -> (bool, bool) {
    let mut reader = cluster.reader(topic, 0);
    let read = match reader.offset(At::Earliest).await {
        Ok(offset) => allowed(reader.fetch(offset, 1 << 20, std::time::Duration::ZERO).await),
        Err(error) => allowed::<()>(Err(error)),
    };
    // What is written has a key that is nobody's, and is passed over.
    let written = cluster.writer(topic, 0).produce(vec![Record::new("-nobody", "x")]).await;
    (read, allowed(written))
}

fn wait_refused(rig: &Rig, process: &mut Process, log: &str) {
    let status = wait::until("it ends", PATIENCE, || process.ended().ok_or_else(|| "it runs".to_owned()));
    assert_eq!(status.code(), Some(77), "{}", rig.log(log));
}

fn wait_login_gone(rig: &Rig, file: &Path) {
    wait::until("its login is gone", PATIENCE, || match rig.block_on(cluster(rig, file).check()) {
        Err(Error::Login { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_revoked_agent_that_is_rotated_gets_a_login_that_is_good_again() {
    let rig = start("own-again");
    // Users are the cluster's: no other test has an agent of this name.
    let file = rig.path("anew.credential");
    rig.run(&["agents", "add", "anew", "--out", file.to_str().unwrap()]).ok();
    let mut process: Process = rig.process(agent(&rig, "anew", &file), "anew.log");
    rig.wait_online("anew", &mut process);
    rig.run(&["agents", "revoke", "anew"]).ok();
    wait_refused(&rig, &mut process, "anew.log");
    wait_login_gone(&rig, &file);
    let again = rig.path("again.credential");
    rig.run(&["agents", "rotate", "anew", "--out", again.to_str().unwrap()]).ok();
    assert_eq!(value(&again, "sasl-username"), value(&file, "sasl-username"));
    assert_ne!(value(&again, "sasl-password"), value(&file, "sasl-password"));
    let mut process: Process = rig.process(agent(&rig, "anew", &again), "again.log");
    rig.wait_online("anew", &mut process);
    assert_eq!(rig.run(&["exec", "anew", "--", "echo", "back"]).ok().text(), "back\n");
}

#[test]
fn what_an_agent_left_goes_also_if_the_controller_dies_before_it_is_cleared_away() {
    let rig = start("own-left");
    let files = ["gone", "barred", "stays"].map(|name| {
        let file = rig.path(&format!("{name}.credential"));
        rig.run(&["agents", "add", name, "--out", file.to_str().unwrap()]).ok();
        file
    });
    // What has a name like that and was never an agent here is somebody else's.
    let foreign = format!("{}.agent.foreign.down", rig.prefix);
    rig.cluster.admin().create_topic(&foreign, 2, 1).unwrap();
    rig.run(&["agents", "revoke", "barred"]).ok();
    rig.run(&["agents", "rm", "gone"]).ok();
    rig.kill_controller();
    rig.block_on(cluster(&rig, &files[0]).check()).expect("nothing was taken away yet");
    rig.launch_controller(controller(&rig));
    for file in &files[..2] {
        wait_login_gone(&rig, file);
    }
    let admin = || KafkaCluster::new(as_admin(&rig)).unwrap().admin();
    let names = || -> Vec<String> {
        let topics = rig.block_on(admin().topics_below(&format!("{}.agent.", rig.prefix))).unwrap();
        topics.into_iter().map(|topic| topic.name).collect()
    };
    let left = ["barred", "foreign", "stays"].map(|name| format!("{}.agent.{name}.down", rig.prefix));
    wait::until("its topic is gone, and no other", PATIENCE, || {
        let names = names();
        if names == left { Ok(()) } else { Err(format!("{names:?}")) }
    });
    for (name, rules) in [("gone", false), ("barred", false), ("stays", true)] {
        let found = rig.block_on(admin().topic_acls(Some(&format!("User:rk-agent-{name}")))).unwrap();
        assert_eq!(!found.present().expect("rules are kept").is_empty(), rules, "{name}");
    }
    rig.block_on(cluster(&rig, &files[2]).check()).expect("who is an agent keeps what it has");
}

#[test]
fn one_file_starts_an_agent_and_lets_it_reach_its_own_topic_alone() {
    let rig = start("own");
    let file = rig.path("solo.credential");
    let out = file.to_str().unwrap();
    rig.run(&["agents", "add", "solo", "--out", out]).ok();
    let other = rig.path("other.credential");
    rig.run(&["agents", "add", "other", "--out", other.to_str().unwrap()]).ok();
    let mut process: Process = rig.process(agent(&rig, "solo", &file), "solo.log");
    rig.wait_online("solo", &mut process);
    let shown = rig.run(&["agents", "show", "solo"]).ok().text();
    assert!(shown.contains("per-agent"), "{shown}");

    let bytes = noise(4 << 20);
    assert!(run(rig.rk(&["exec", "solo", "--", "cat"]), &bytes).ok().stdout == bytes, "other bytes came back");
    assert_eq!(rig.run(&["run", "-q", "--agent", "solo", "--", "echo", "a job"]).ok().text(), "a job\n");

    let prefix = &rig.prefix;
    let (read, write) = ((true, false), (false, true));
    let tried = [
        (format!("{prefix}.agent.solo.down"), read),
        (format!("{prefix}.agent.other.down"), (false, false)),
        (format!("{prefix}.down.control"), (false, false)),
        (format!("{prefix}.down.bulk"), (false, false)),
        (format!("{prefix}.up.control"), write),
        (format!("{prefix}.up.bulk"), write),
        (format!("{prefix}.journal"), (false, false)),
        (format!("{prefix}.logs"), write),
    ];
    let solo = cluster(&rig, &file);
    for (topic, expected) in &tried {
        let found = rig.block_on(rights(&solo, topic));
        println!("{topic}: may read {}, may write {}", found.0, found.1);
        assert_eq!(found, *expected, "{topic}");
    }

    rig.run(&["agents", "rm", "solo"]).ok();
    wait_refused(&rig, &mut process, "solo.log");
    wait_login_gone(&rig, &file);
    let again = run(agent(&rig, "solo", &file), &[]).code(77);
    assert!(again.stderr.contains("rk-agent-solo"), "{}", again.stderr);
}

#[test]
fn a_controller_that_may_not_make_users_says_what_is_to_be_run() {
    let rig = Rig::prepare("own-not", 2);
    let mut command = rig.controller_command("controller", rig.port);
    command.arg("--provision-kafka");
    if !agents_have_topics() {
        command.args(["--layout", "per-agent"]);
    }
    rig.launch_controller(command);
    let ran = rig.run(&["agents", "add", "solo"]).ok();
    assert!(ran.text().contains("layout: per-agent") && !ran.text().contains("sasl"), "{}", ran.text());
    for part in ["kafka-acls.sh", "rk-agent-solo", "Alter"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}
