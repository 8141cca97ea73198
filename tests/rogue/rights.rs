//! What Kafka itself keeps apart: what an agent's login may do with each topic of an installation, tried one by one, in both
//! layouts.

use std::{fmt::Write as _, time::Duration};

use remoting_kafka::{
    kafka::{
        Admin, At, Cluster, Error, KafkaCluster, Record, ScramMechanism,
        topics::{self, Desired, Installation},
    },
    secret::Secret,
};

use crate::{
    rig::PATIENCE,
    stage::{HONEST, Stage},
    support::{
        user::{ADMIN, AGENT, User},
        wait,
    },
};

/// What can be tried on a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Try {
    Describe,
    Read,
    Write,
    DeleteRecords,
    DeleteTopic,
}

const ALL: [Try; 5] = [Try::Describe, Try::Read, Try::Write, Try::DeleteRecords, Try::DeleteTopic];

/// Whether it was allowed. Any error but a refusal is a failure of the test.
async fn attempt(cluster: &KafkaCluster, topic: &str, what: Try) -> bool {
    let result = match what {
        Try::Describe => cluster.reader(topic, 0).offset(At::Latest).await.map(|_| ()),
        Try::Read => match cluster.reader(topic, 0).fetch(0, 1000, Duration::ZERO).await {
            Err(Error::OffsetOutOfRange { .. }) => Ok(()),
            other => other.map(|_| ()),
        },
        Try::Write => cluster.writer(topic, 0).produce(vec![Record::new("rogue", "x")]).await.map(|_| ()),
        Try::DeleteRecords => cluster.delete_records(topic, 0, 1).await,
        Try::DeleteTopic => cluster.admin().delete_topics(&[topic]).await.and_then(|mut one| one.remove(0)),
    };
    match result {
        Ok(()) => true,
        Err(Error::Authorization { .. } | Error::TopicMissing { .. }) => false,
        Err(error) => panic!("{what:?} on {topic}: {error}"),
    }
}

/// Tries everything on every topic, prints what came of it, and holds it against what is `allowed`.
fn try_all(stage: &Stage, user: User, topics: &[String], allowed: impl Fn(&str) -> &'static [Try]) {
    let cluster = stage.cluster(user);
    let mut table = String::new();
    for topic in topics {
        write!(table, "| {} |", topic.strip_prefix(&stage.rig.prefix).unwrap()).unwrap();
        for what in ALL {
            let was = stage.block_on(attempt(&cluster, topic, what));
            write!(table, " {what:?} {} |", if was { "allowed" } else { "refused" }).unwrap();
            assert_eq!(was, allowed(topic).contains(&what), "{what:?} on {topic} as {}\n{table}", user.name);
        }
        table.push('\n');
    }
    println!("{}:\n{table}", user.name);
}

#[test]
fn an_agents_login_of_the_shared_layout_reads_what_comes_down_and_writes_what_goes_up_and_nothing_else() {
    let stage = Stage::start("rights");
    let (logs, before) = (stage.prefix.logs(), stage.rig.run(&["agents", "ls"]).ok().text());
    stage.attempt("another agent's login", || {
        try_all(&stage, AGENT, &stage.topics(), |topic| {
            if topic.contains(".down.") {
                &[Try::Describe, Try::Read]
            } else if topic.contains(".up.") || topic == logs {
                &[Try::Describe, Try::Write]
            } else {
                &[]
            }
        });
    });
    assert_eq!(stage.rig.run(&["agents", "ls"]).ok().text().lines().count(), before.lines().count());
}

#[test]
fn an_agents_login_of_the_per_agent_layout_is_refused_on_every_other_agents_topic() {
    let stage = Stage::start("own-rights");
    let names = ["rogue", "other"].map(|name| name.parse().unwrap());
    let desired = Desired::new(
        &Installation {
            prefix: stage.prefix.clone(),
            partitions: stage.rig.partitions as i32,
            per_agent: Some(names.iter().cloned().collect()),
            events: false,
            agents_as: None,
            controller_as: Some("User:controller".to_owned()),
            blobs_retention: None,
            artifacts_retention: None,
        },
        1,
    );
    let user = User { name: "rk-agent-rogue", password: "of-the-test-alone" };
    let principal = topics::principal_of(&topics::user_of_agent(&names[0]));
    let acls: Vec<_> = desired.acls.iter().filter(|acl| acl.principal == principal).collect();
    let own: Vec<_> = desired.topics.iter().filter(|topic| topic.name.contains(".agent.")).collect();
    let password = Secret::new(user.password.to_owned());
    let admin: Admin = stage.cluster(ADMIN).admin();
    stage.block_on(async {
        admin.create_topics(&own).await.unwrap().into_iter().for_each(|made| made.unwrap());
        admin.create_acls(&acls).await.unwrap().present().unwrap().into_iter().for_each(|made| made.unwrap());
        admin.set_scram_user(user.name, ScramMechanism::Sha512, &password).await.unwrap().present().unwrap();
        admin.are_served(&own).await.unwrap();
    });
    let down = stage.prefix.agent_down(&names[0]);
    wait::until("the login and its rights are everywhere", PATIENCE, || {
        let offset = stage.block_on(stage.cluster(user).reader(&down, 0).offset(At::Latest));
        let up = stage.block_on(stage.cluster(user).reader(&stage.prefix.logs(), 0).offset(At::Latest));
        offset.and(up).map_err(|error| error.to_string())
    });
    let all: Vec<String> = desired.topics.iter().map(|topic| topic.name.clone()).collect();
    stage.attempt("a login of the per-agent layout", || {
        try_all(&stage, user, &all, |topic| {
            if topic == down || topic == stage.prefix.blobs() {
                &[Try::Describe, Try::Read]
            } else if topic.contains(".up.") || topic == stage.prefix.logs() || topic == stage.prefix.artifacts() {
                &[Try::Describe, Try::Write]
            } else {
                &[]
            }
        });
    });
    assert!(stage.rig.state(HONEST).is_ok());
    stage.block_on(async {
        admin.delete_acls(&acls).await.unwrap();
        admin.delete_scram_user(user.name, ScramMechanism::Sha512).await.unwrap();
    });
}
