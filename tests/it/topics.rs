//! Topics and rights: what a cluster lacks is told, made, and then no longer told.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use remoting_kafka::{
    kafka::{
        Admin, At, Cluster, Error, KafkaCluster, Prefix, Record, ScramMechanism,
        acl::{Acl, Operation},
        config::Mechanism,
        topics::Topic,
    },
    secret::Secret,
};
use serde_json::Value;

use crate::{
    rig::{PATIENCE, Ran, Rig, run},
    support::{
        kafka,
        user::{ADMIN, STRANGER, User},
        wait,
    },
};

/// `rk topics` as a user of the cluster.
fn topics(rig: &Rig, user: User, args: &[&str]) -> Ran {
    run(rig.kafka(rig.bare(&[&["topics"], args].concat()), user), &[])
}

/// Plans until it ends with `code`: a broker may hear of a change later than the one that made it.
fn plan(rig: &Rig, args: &[&str], code: i32) -> Ran {
    wait::until(&format!("rk topics plan {args:?} ends with {code}"), PATIENCE, || {
        let ran = topics(rig, ADMIN, &[&["plan"], args].concat());
        if ran.code == code { Ok(ran) } else { Err(format!("{}: {}{}", ran.code, ran.text(), ran.stderr)) }
    })
}

fn cluster(rig: &Rig, user: User) -> KafkaCluster {
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    KafkaCluster::new(user.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca())).unwrap()
}

fn admin(rig: &Rig) -> Admin {
    cluster(rig, ADMIN).admin()
}

fn names(rig: &Rig) -> Vec<String> {
    let all = format!("{}.", rig.prefix);
    let there = rig.block_on(async { admin(rig).topics_below(&all).await.unwrap() });
    there.into_iter().map(|topic| topic.name[all.len()..].to_owned()).collect()
}

#[test]
fn what_is_missing_is_planned_made_and_then_no_longer_planned() {
    let rig = Rig::prepare("plan", 2);
    let planned = plan(&rig, &[], 2);
    assert_eq!(planned.text().lines().filter(|line| line.starts_with("create   topic ")).count(), 8);
    assert_eq!(planned.text().lines().count(), 8, "{}", planned.text());
    assert!(planned.stderr.contains("of disk at most"), "{}", planned.stderr);
    let commands = plan(&rig, &["-o", "kafka-cli"], 2).text();
    assert_eq!(commands.matches("--create --if-not-exists --topic ").count(), 8, "{commands}");
    let resources = plan(&rig, &["-o", "strimzi"], 2).text();
    assert_eq!(resources.matches("kind: KafkaTopic\n").count(), 8, "{resources}");
    let document: Value = serde_json::from_slice(&plan(&rig, &["-o", "json"], 2).stdout).unwrap();
    assert_eq!(document["differences"].as_array().unwrap().len(), 8);

    let applied = topics(&rig, ADMIN, &["apply"]).ok();
    assert_eq!(applied.text().matches("created  topic ").count(), 8, "{}", applied.text());
    assert_eq!(plan(&rig, &[], 0).text(), "");
    assert_eq!(topics(&rig, ADMIN, &["apply"]).ok().text(), "", "the second time there is nothing to do");
}

#[test]
fn a_setting_that_was_changed_is_seen_and_mended() {
    let rig = Rig::prepare("setting", 2);
    topics(&rig, ADMIN, &["apply"]).ok();
    let logs = format!("{}.logs", rig.prefix);
    let changes: [(&str, &str); 2] = [("retention.ms", "1000"), ("flush.ms", "5000")];
    let set = rig.block_on(async { admin(&rig).set_topic_settings(&[(&logs, &changes)]).await.unwrap() });
    assert!(set[0].is_ok(), "{set:?}");
    let planned = plan(&rig, &[], 2);
    assert_eq!(planned.text(), format!("change   topic {logs} has retention.ms=1000, wanted is 604800000\n"));
    let commands = plan(&rig, &["-o", "kafka-cli"], 2).text();
    assert!(commands.ends_with(&format!("--entity-name {logs} --add-config retention.ms=604800000\n")), "{commands}");
    wait::until("the list tells it too", PATIENCE, || {
        let listed = topics(&rig, ADMIN, &["ls"]).ok().text();
        if listed.contains("retention.ms=1000") { Ok(()) } else { Err(listed) }
    });
    let applied = topics(&rig, ADMIN, &["apply"]).ok();
    assert_eq!(applied.text(), format!("changed  topic {logs}: retention.ms=604800000\n"));
    plan(&rig, &[], 0);
    let settings = rig.block_on(async { admin(&rig).topic_settings(&[&logs], &["flush.ms"]).await.unwrap() });
    assert_eq!(settings[0].as_ref().unwrap()["flush.ms"], "5000", "what is not ours stays");
}

#[test]
fn another_number_of_partitions_is_told_and_not_changed() {
    let mut rig = Rig::prepare("partitions", 2);
    topics(&rig, ADMIN, &["apply"]).ok();
    rig.partitions = 3;
    let planned = plan(&rig, &[], 2);
    assert_eq!(planned.text().matches("has 2 partitions and 3 are wanted").count(), 7, "{}", planned.text());
    let applied = topics(&rig, ADMIN, &["apply"]).code(1);
    assert_eq!(applied.text().matches("by hand  topic ").count(), 7, "{}", applied.text());
    let down = format!("{}.down.bulk", rig.prefix);
    let found = rig.block_on(async { admin(&rig).find_topics(&[&down]).await.unwrap() });
    assert_eq!(found[0].as_ref().unwrap().partitions, 2);
    rig.partitions = 2;
    plan(&rig, &[], 0);
}

#[test]
fn only_topics_of_our_making_are_deleted_and_only_when_told_so() {
    let rig = Rig::prepare("delete", 1);
    topics(&rig, ADMIN, &["apply", "--per-agent", "a,b"]).ok();
    let mine = Topic { name: format!("{}.mine", rig.prefix), partitions: 1, replication: 1, settings: Vec::new() };
    rig.block_on(async { admin(&rig).create_topics(&[&mine]).await.unwrap() })[0].as_ref().unwrap();
    wait::until("all topics are seen", PATIENCE, || {
        let names = names(&rig);
        if names.len() == 11 { Ok(()) } else { Err(format!("{names:?}")) }
    });
    let planned = plan(&rig, &["--per-agent", "a"], 0);
    assert!(planned.stderr.contains("agent.b.down belongs to agent b"), "{}", planned.stderr);
    let listed = topics(&rig, ADMIN, &["ls", "--per-agent", "a"]).ok().text();
    assert!(listed.contains("orphan of b") && listed.contains("not ours"), "{listed}");

    let unsaid = topics(&rig, ADMIN, &["delete", "--orphans", "--yes"]).code(64);
    assert!(unsaid.line().contains("--per-agent"), "{}", unsaid.stderr);
    let refused = topics(&rig, ADMIN, &["delete", "--orphans", "--per-agent", "a"]).code(64);
    assert_eq!(refused.text(), format!("delete   topic {}.agent.b.down\n", rig.prefix));
    assert_eq!(names(&rig).len(), 11);
    topics(&rig, ADMIN, &["delete", "--orphans", "--yes", "--per-agent", "a"]).ok();
    let left = |expected: &[&str]| {
        wait::until("the topics are gone", PATIENCE, || {
            let names = names(&rig);
            if names == expected { Ok(()) } else { Err(format!("{names:?}")) }
        });
    };
    left(&[
        "agent.a.down",
        "artifacts",
        "blobs",
        "down.bulk",
        "down.control",
        "journal",
        "logs",
        "mine",
        "up.bulk",
        "up.control",
    ]);
    topics(&rig, ADMIN, &["delete", "--yes"]).ok();
    left(&["mine"]);
    let nothing = topics(&rig, ADMIN, &["delete", "--yes"]).ok();
    assert!(nothing.line().contains("nothing to delete"), "{}", nothing.stderr);
}

#[test]
fn a_controller_that_may_only_plan_starts_when_somebody_else_has_made_the_topics() {
    let rig = Rig::prepare("plan-only", 1);
    let start = || {
        let mut command = rig.controller_command("controller", rig.port);
        command.args(["--topics-manage", "plan-only"]);
        command
    };
    let refused = run(start(), &[]).code(77);
    assert!(refused.stderr.contains("down.control is missing and `topics-manage: plan-only`"), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("kafka-topics.sh --bootstrap-server ").count(), 8, "{}", refused.stderr);
    assert_eq!(names(&rig), Vec::<String>::new());
    topics(&rig, ADMIN, &["apply"]).ok();
    let _controller = rig.process(start(), "controller.log");
    rig.wait_for_controller();
}

/// A login of the test's own.
fn login(rig: &Rig, name: &'static str) -> User {
    let user = User { name, password: "of-the-test-alone" };
    let password = Secret::new(user.password.to_owned());
    let set = async { admin(rig).set_scram_user(name, ScramMechanism::Sha512, &password).await.unwrap() };
    rig.block_on(set).present().expect("the cluster keeps users");
    user
}

#[test]
fn the_planned_rights_are_enough_for_controller_and_agent() {
    let rig = Rig::prepare("enough", 1);
    let principals = ["--controller-as", "planned-controller", "--agents-as", "User:planned-agent"];
    let planned = plan(&rig, &principals, 2).text();
    assert_eq!(planned.matches("no rule says that User:planned-agent may ").count(), 14, "{planned}");
    topics(&rig, ADMIN, &[&["apply"], &principals[..]].concat()).ok();
    plan(&rig, &principals, 0);

    let (controller, agent) = (login(&rig, "planned-controller"), login(&rig, "planned-agent"));
    let listen = format!("127.0.0.1:{}", rig.port);
    let mut command = rig.bare(&["controller", "run", "--listen", &listen]);
    command.arg("--data").arg(rig.path("controller"));
    let _controller = rig.process(rig.kafka(command, controller), "controller.log");
    rig.wait_for_controller();
    let credential = rig.add("a", &[]);
    let mut command = rig.bare(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
    command.arg("--data").arg(rig.path("a.data"));
    let mut running = rig.process(rig.kafka(command, agent), "a.log");
    rig.wait_online("a", &mut running);
    assert_eq!(rig.run(&["exec", "a", "--", "echo", "there"]).ok().text(), "there\n");
    assert_eq!(rig.run(&["run", "--", "echo", "done"]).ok().text(), "done\n");
    // A single broker is worth a warning of its own.
    let warned = rig.log("controller.log").lines().any(|line| line.contains("WARN") && !line.contains("3 brokers"));
    assert!(!warned, "{}", rig.log("controller.log"));
}

#[test]
fn an_agent_with_a_topic_of_its_own_reads_nothing_else() {
    let rig = Rig::prepare("own", 1);
    let args = ["--controller-as", "planned-controller", "--per-agent", "mine,other"];
    let left = topics(&rig, ADMIN, &[&["apply"], &args[..]].concat()).code(1);
    assert!(left.text().contains("by hand  user rk-agent-mine has no SCRAM login"), "{}", left.text());
    let user = login(&rig, "rk-agent-mine");
    login(&rig, "rk-agent-other");
    topics(&rig, ADMIN, &[&["apply"], &args[..]].concat()).ok();
    plan(&rig, &args, 0);

    let prefix: Prefix = rig.prefix.parse().unwrap();
    let agent = |name: &str| prefix.agent_down(&name.parse().unwrap());
    rig.block_on(async {
        let cluster = cluster(&rig, user);
        for topic in [agent("other"), prefix.down_control(), prefix.down_bulk(), prefix.up_bulk(), prefix.journal()] {
            let error = cluster.reader(&topic, 0).fetch(0, 1000, Duration::ZERO).await.unwrap_err();
            assert!(matches!(error, Error::Authorization { .. }), "{topic}: {error}");
        }
        for topic in [agent("mine"), agent("other"), prefix.down_control(), prefix.journal()] {
            let error = cluster.writer(&topic, 0).produce(vec![Record::new("", "x")]).await.unwrap_err();
            assert!(matches!(error, Error::Authorization { .. }), "{topic}: {error}");
        }
        for lane in [0, 1] {
            assert_eq!(cluster.reader(&agent("mine"), lane).offset(At::Latest).await.unwrap(), 0);
            let mut reader = cluster.reader(&agent("mine"), lane);
            assert!(reader.fetch(0, 1000, Duration::ZERO).await.unwrap().records.is_empty());
        }
        for topic in [prefix.up_control(), prefix.up_bulk(), prefix.logs(), prefix.artifacts()] {
            cluster.writer(&topic, 0).produce(vec![Record::new("mine", "x")]).await.unwrap();
        }
    });

    let wide = Acl::on_topic("User:rk-agent-mine", &agent("other"), Operation::Read);
    let admin = admin(&rig);
    rig.block_on(async { admin.create_acls(&[&wide]).await.unwrap() }).present().unwrap()[0].as_ref().unwrap();
    wait::until("the rule is told to be too wide", PATIENCE, || {
        let ran = topics(&rig, ADMIN, &[&["plan"], &args[..]].concat());
        if ran.stderr.contains("more than an agent needs") { Ok(()) } else { Err(ran.stderr) }
    });
    let removed = rig.block_on(async { admin.delete_acls(&[&wide]).await.unwrap() });
    assert_eq!(removed.present(), Some(vec![wide]));
    rig.block_on(async { admin.delete_scram_user("rk-agent-mine", ScramMechanism::Sha512).await.unwrap() });
    let planned = plan(&rig, &args, 2);
    assert!(planned.text().starts_with("by hand  user rk-agent-mine has no SCRAM login"), "{}", planned.text());
}

#[test]
fn who_has_no_rights_gets_the_commands_for_somebody_who_has() {
    let rig = Rig::prepare("no-rights", 1);
    let args = ["--controller-as", "planned-controller", "--agents-as", "planned-agent"];
    let planned = topics(&rig, STRANGER, &[&["plan"], &args[..]].concat()).code(2);
    assert!(planned.text().contains("User:stranger needs Describe on the cluster"), "{}", planned.text());
    let commands = topics(&rig, STRANGER, &[&["plan", "-o", "kafka-cli"], &args[..]].concat()).code(2).text();
    assert_eq!(commands.matches("kafka-topics.sh ").count(), 8, "{commands}");
    assert_eq!(commands.matches("kafka-acls.sh ").count(), 8, "one for each principal and resource: {commands}");
    let refused = topics(&rig, STRANGER, &[&["apply"], &args[..]].concat()).code(77);
    assert!(refused.stderr.contains("User:stranger lacks the rights for 8 of it"), "{}", refused.stderr);
    assert_eq!(refused.stderr.matches("--create --if-not-exists --topic ").count(), 8, "{}", refused.stderr);
    topics(&rig, ADMIN, &["apply"]).ok();
    let hidden = topics(&rig, STRANGER, &["delete", "--yes"]).ok();
    assert!(hidden.line().contains("nothing to delete"), "what one may not see is not there: {}", hidden.stderr);
}

/// Scripts that are named as Kafka's own, and log in as the administrator.
fn kafka_tools(rig: &Rig) -> PathBuf {
    let folder = rig.path("bin");
    fs::create_dir(&folder).unwrap();
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
    for (name, class) in kafka::ADMIN_TOOLS {
        let tool = kafka::tool(class);
        let words: Vec<String> = [tool.get_program()].into_iter().chain(tool.get_args()).map(quoted).collect();
        let properties = rig.cluster.properties(ADMIN);
        let script =
            format!("#!/bin/sh\nexec {} \"$@\" --command-config '{}'\n", words.join(" "), properties.display());
        let path = folder.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    folder
}

#[test]
#[ignore = "needs Java and Apache Kafka: make test-kafka"]
fn the_printed_commands_do_the_same_with_kafkas_own_tools() {
    let rig = Rig::prepare("by-hand", 1);
    topics(&rig, ADMIN, &["apply"]).ok();
    let (logs, journal) = (format!("{}.logs", rig.prefix), format!("{}.journal", rig.prefix));
    rig.block_on(async {
        admin(&rig)
            .set_topic_settings(&[(&journal, &[("retention.ms", "1000"), ("cleanup.policy", "compact")])])
            .await?;
        admin(&rig).delete_topics(&[&logs]).await
    })
    .unwrap();
    let args = ["--controller-as", "hand-controller", "--agents-as", "CN=hand's agent,O=\"x\""];
    // One topic, one topic's settings, the controller's rule, and one for each topic of an agent.
    let commands = wait::until("all of it is planned", PATIENCE, || {
        let commands = plan(&rig, &[&args[..], &["-o", "kafka-cli"]].concat(), 2).text();
        if commands.lines().count() == 1 + 1 + 1 + 7 { Ok(commands) } else { Err(commands) }
    });
    let script = rig.path("commands.sh");
    fs::write(&script, &commands).unwrap();
    let mut shell = Command::new("sh");
    let usual = std::env::var("PATH").unwrap();
    shell.arg("-e").arg(&script).env("PATH", format!("{}:{usual}", kafka_tools(&rig).display()));
    run(shell, &[]).ok();
    plan(&rig, &args, 0);
}
