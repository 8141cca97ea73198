//! What other systems read in the topic of events.

use std::{collections::BTreeMap, fs, time::Duration};

use remoting_kafka::kafka::{At, Cluster, Error, KafkaCluster, Prefix, Record, config::Mechanism};
use serde_json::Value;

use crate::{
    jobs::{shown, submit},
    rig::{PATIENCE, Ran, Rig, run},
    support::{
        user::{self, ADMIN, AGENT, User},
        wait,
    },
};

/// An installation whose controller tells what happens.
fn start(test: &str) -> Rig {
    let rig = Rig::prepare(test, 2);
    launch(&rig);
    rig
}

fn launch(rig: &Rig) {
    let mut command = rig.controller_command("controller", rig.port);
    command.arg("--events");
    rig.launch_controller(command);
}

fn cluster(rig: &Rig, user: User) -> KafkaCluster {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    KafkaCluster::new(user.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())).unwrap()
}

fn topic(rig: &Rig) -> String {
    rig.prefix.parse::<Prefix>().unwrap().events()
}

/// All that is in the topic.
fn records(rig: &Rig) -> Vec<Record> {
    rig.block_on(async {
        let mut reader = cluster(rig, ADMIN).reader(&topic(rig), 0);
        let (mut next, end) = (reader.offset(At::Earliest).await.unwrap(), reader.offset(At::Latest).await.unwrap());
        let mut records = Vec::new();
        while next < end {
            let fetched = reader.fetch(next, 1 << 20, Duration::from_secs(1)).await.unwrap();
            next = fetched.next_offset;
            records.extend(fetched.records.into_iter().map(|(_, record)| record));
        }
        records
    })
}

fn events(rig: &Rig) -> Vec<Value> {
    let event = |record: &Record| {
        let event: Value = serde_json::from_slice(&record.value).unwrap();
        assert_eq!(record.key, event["subject"].as_str().unwrap());
        assert_eq!(record.headers[0].0, "content-type");
        for (attribute, value) in [("specversion", "1.0"), ("datacontenttype", "application/json")] {
            assert_eq!(event[attribute], value, "{event}");
        }
        assert_eq!(event["source"], format!("/rk/{}", rig.prefix));
        event
    };
    records(rig).iter().map(event).collect()
}

/// The types of the events about a subject.
fn about(events: &[Value], subject: &str) -> Vec<String> {
    let about = events.iter().filter(|event| event["subject"] == subject);
    about.map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// Waits until the last event about a subject is of this type.
fn wait_for(rig: &Rig, subject: &str, kind: &str) -> Vec<Value> {
    wait::until(&format!("{kind} of {subject} is told"), PATIENCE, || {
        let events = events(rig);
        let kinds = about(&events, subject);
        if kinds.last().is_some_and(|last| last == kind) { Ok(events) } else { Err(format!("{kinds:?}")) }
    })
}

/// Runs `rk` with the token in `file`.
fn with(rig: &Rig, file: &str, args: &[&str]) -> Ran {
    let mut command = rig.rk(args);
    command.env("RK_API_TOKEN", format!("file:{}", rig.path(file).display()));
    run(command, &[])
}

#[test]
fn the_lives_of_agents_and_jobs_and_who_asked_for_what_are_told_and_no_secret_is() {
    let rig = start("events");
    let agent = rig.agent("a", &["zone=b"]);
    wait_for(&rig, "agent/a", "rk.agent.online");

    user::private(&rig.path("key"), "hush-secret");
    fs::write(rig.path("script"), "echo hush-script; echo $HUSH_NAME\n").unwrap();
    fs::write(rig.path("input"), "hush-stdin").unwrap();
    let secret = format!("HUSH_NAME=file:{}", rig.path("key").display());
    let path = |name: &str| rig.path(name).to_str().unwrap().to_owned();
    let (script, input) = (path("script"), path("input"));
    let args = ["run", "-q", "--name", "nightly", "--secret", &secret, "-e", "HUSH_ENV=hush-env"];
    let what = ["--stdin", &input, "--script", &script];
    let ran = rig.run(&[&args[..], &what[..]].concat()).ok();
    assert!(ran.text().contains("hush-script"), "{}", ran.text());
    let id = submit(&rig, &[], &["sh", "-c", "exit 3", "hush-argument"]);
    let events = wait_for(&rig, &format!("job/{id}"), "rk.job.ended");
    let lives = ["queued", "assigned", "running", "ended"].map(|word| format!("rk.job.{word}"));
    assert_eq!(about(&events, &format!("job/{id}")), lives);
    let last = events.iter().rfind(|event| event["subject"] == format!("job/{id}")).unwrap();
    let job = shown(&rig, &id).unwrap();
    for key in ["id", "state", "agent", "number", "exit_code", "submitter", "attempt"] {
        assert_eq!(last["data"][key], job[key], "{key}");
    }
    let named = events.iter().find(|event| event["data"]["name"] == "nightly").unwrap();
    assert_eq!(about(&events, named["subject"].as_str().unwrap()), lives);

    let out = path("jenkins.token");
    rig.run(&["access", "add", "jenkins", "--role", "operator", "--verb", "exec", "--out", &out]).ok();
    with(&rig, "jenkins.token", &["exec", "a", "--", "echo", "hush-argument"]).ok();
    with(&rig, "jenkins.token", &["agents", "rm", "a"]).code(77);
    rig.run(&["access", "revoke", "jenkins"]).ok();
    with(&rig, "jenkins.token", &["exec", "a", "--", "echo", "hush-argument"]).code(77);
    agent.signal("TERM");
    wait_for(&rig, "agent/a", "rk.agent.offline");
    rig.run(&["agents", "rm", "a"]).ok();
    let events = wait_for(&rig, "agent/a", "rk.agent.removed");
    let agents = ["added", "online", "offline", "removed"].map(|word| format!("rk.agent.{word}"));
    let told: Vec<String> = about(&events, "agent/a").into_iter().filter(|kind| !kind.ends_with(".silent")).collect();
    assert_eq!(told, agents);
    let status = |subject: &str, kind: &str| {
        let is = |event: &&Value| event["subject"] == subject && event["type"] == kind;
        events.iter().filter(is).map(|event| event["data"]["status"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(status("access/jenkins", "rk.access.exec"), [101]);
    assert_eq!(status("access/jenkins", "rk.access.enrol"), [403]);
    assert_eq!(status("access", "rk.access.unauthorized"), [401]);
    assert_eq!(status("access/root", "rk.access.grant"), [201, 200]);

    let token = fs::read_to_string(&out).unwrap();
    let credential = fs::read_to_string(rig.path("a.credential")).unwrap();
    let secrets = ["hush", "HUSH", token.trim(), credential.split('.').nth(2).unwrap()];
    assert!(secrets.iter().all(|secret| secret.len() >= 4));
    for record in records(&rig) {
        let text = String::from_utf8(record.value.to_vec()).unwrap();
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
    }
    rig.block_on(async {
        let cluster = cluster(&rig, AGENT);
        let read = cluster.reader(&topic(&rig), 0).fetch(0, 1000, Duration::ZERO).await.unwrap_err();
        let written = cluster.writer(&topic(&rig), 0).produce(vec![Record::new("", "x")]).await.unwrap_err();
        for error in [read, written] {
            assert!(matches!(error, Error::Authorization { .. }), "an agent has nothing to do with it: {error}");
        }
    });
}

#[test]
fn a_controller_that_is_killed_leaves_no_gap_and_its_successor_no_second_event_of_one_id() {
    let rig = start("events-kill");
    rig.add("first", &[]);
    // Into an empty topic no history is written.
    wait_for(&rig, "agent/first", "rk.agent.added");
    for round in 0..3 {
        for number in 0..3 {
            rig.add(&format!("a{round}-{number}"), &[]);
        }
        // What it just did may not be in the topic yet.
        rig.kill_controller();
        launch(&rig);
    }
    rig.add("last", &[]);
    let events = wait_for(&rig, "agent/last", "rk.agent.added");
    for round in 0..3 {
        for number in 0..3 {
            let added = about(&events, &format!("agent/a{round}-{number}"));
            assert_eq!(added.first().map(String::as_str), Some("rk.agent.added"), "round {round}: {events:?}");
        }
    }
    let mut known: BTreeMap<String, Value> = BTreeMap::new();
    for event in events {
        let id = event["id"].as_str().unwrap().to_owned();
        let data = event["data"].clone();
        assert_eq!(known.entry(id.clone()).or_insert_with(|| data.clone()), &data, "{id}");
    }
    assert!(known.len() >= 11);
}
