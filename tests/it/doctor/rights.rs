//! Each right that is missing is named, on Apache Kafka.

use std::process::Command;

use remoting_kafka::kafka::config::Mechanism;

use super::{examine, make_topics};
use crate::{
    rig::Rig,
    support::{
        kafka::admin::{Operation, Resource, Rule},
        user::{ADMIN, User},
    },
};

/// What each role needs: the topic, and whether it writes.
const AGENT: [(&str, bool); 7] = [
    ("down.control", false),
    ("up.control", true),
    ("down.bulk", false),
    ("up.bulk", true),
    ("logs", true),
    ("blobs", false),
    ("artifacts", true),
];
const CONTROLLER: [(&str, bool); 11] = [
    ("down.control", true),
    ("up.control", true),
    ("up.control", false),
    ("down.bulk", true),
    ("up.bulk", false),
    ("journal", true),
    ("journal", false),
    ("logs", false),
    ("blobs", true),
    ("blobs", false),
    ("artifacts", false),
];

fn doctor(rig: &Rig, user: User, agent: bool) -> Command {
    let mut command = rig.kafka(rig.rk(&["doctor"]), user);
    if agent {
        let credential = format!("rk1.a.{0}.{0}", "A".repeat(43));
        let file = crate::support::user::private(&rig.path("a.credential"), &credential);
        command.arg("--agent").arg("--credential").arg(format!("file:{}", file.display()));
    }
    command
}

#[test]
fn each_right_that_is_missing_on_a_topic_is_named() {
    let rig = Rig::prepare("rights", 2);
    let cluster = rig.cluster;
    let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
    make_topics(ADMIN.kafka(Mechanism::ScramSha512, brokers, &rig.cluster.ca()), &rig.prefix);
    for (role, needs) in [("agent", &AGENT[..]), ("controller", &CONTROLLER[..])] {
        for (missing, (topic, write)) in needs.iter().enumerate() {
            // Users outlive a test: their names are this one's alone.
            let name: &'static str = format!("{}-{role}-{missing}", rig.prefix).leak();
            let user = User { name, password: "some-secret" };
            cluster.admin().set_password(user.name, user.password).unwrap();
            let names: Vec<String> = needs.iter().map(|(name, _)| format!("{}.{name}", rig.prefix)).collect();
            let rules: Vec<Rule> = (0..needs.len())
                .filter(|other| *other != missing)
                .map(|other| Rule {
                    user: user.name,
                    resource: Resource::Topic,
                    name: &names[other],
                    prefix: false,
                    operation: if needs[other].1 { Operation::Write } else { Operation::Read },
                })
                .collect();
            cluster.allow(&rules);
            let right = if *write { "Write" } else { "Read" };
            let what = format!("{role} without {right} on {topic}");
            // A new user's password reaches the nodes one by one.
            let examined = crate::support::wait::until(&what, crate::rig::PATIENCE, || {
                let examined = examine(&what, doctor(&rig, user, role == "agent"));
                let known = !examined
                    .hops
                    .iter()
                    .any(|hop| hop["hop"] == "sasl" && hop["verdict"] != "ok" && hop["verdict"] != "skipped");
                if known { Ok(examined) } else { Err("the user is not known everywhere".to_owned()) }
            });
            let hop = if *write { "write" } else { "read" };
            examined.fails(77, hop, &[&names[missing], &format!("needs {right}"), "kafka-acls.sh"]);
        }
    }
}
