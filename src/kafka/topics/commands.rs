//! The same in the words of Kafka's own tools, for those whose administrators make changes by hand.

use std::fmt::Write;

use super::{Difference, Mend, Topic};
use crate::kafka::acl::{ANY_HOST, Acl, Operation, Pattern, Permission, Resource};

/// The command that creates a topic, and leaves one alone that is there.
pub fn create_topic(topic: &Topic, bootstrap: &str) -> String {
    let Topic { name, partitions, replication, settings } = topic;
    let settings: String = settings.iter().map(|(key, value)| format!(" --config {key}={value}")).collect();
    format!(
        "kafka-topics.sh --bootstrap-server {bootstrap} --create --if-not-exists --topic {name} \
         --partitions {partitions} --replication-factor {replication}{settings}"
    )
}

/// The command that deletes a topic.
pub fn delete_topic(name: &str, bootstrap: &str) -> String {
    format!("kafka-topics.sh --bootstrap-server {bootstrap} --delete --if-exists --topic {name}")
}

/// The commands that do what `apply` would, one a line. What takes a decision of a person is a comment; warnings are left
/// out.
pub fn of_differences(differences: &[Difference], bootstrap: &str) -> String {
    let mut text = String::new();
    let mut line = |command: String| writeln!(text, "{command}").expect("a string takes it");
    let mut acls: Vec<&Acl> = Vec::new();
    let mut settings: Vec<(&str, Vec<String>)> = Vec::new();
    for difference in differences.iter().filter(|difference| difference.mend() != Mend::Nobody) {
        match difference {
            Difference::CreateTopic(topic) => line(create_topic(topic, bootstrap)),
            Difference::Setting { topic, key, wanted, .. } => {
                let setting = format!("{key}={wanted}");
                match settings.last_mut().filter(|(last, _)| last == topic) {
                    Some((_, list)) => list.push(setting),
                    None => settings.push((topic, vec![setting])),
                }
            }
            Difference::AddAcl(acl) => acls.push(acl),
            Difference::UnseenAcls { needed, .. } => acls.extend(needed),
            Difference::AddUser(user) => line(add_user(user, bootstrap)),
            Difference::UnseenUsers { needed, .. } => needed.iter().for_each(|user| line(add_user(user, bootstrap))),
            _ => line(format!("# {difference}")),
        }
    }
    for (topic, list) in settings {
        line(format!(
            "kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {topic} \
             --add-config {}",
            list.join(",")
        ));
    }
    add_acls(&acls, bootstrap).into_iter().for_each(line);
    text
}

/// The commands that add access rules: one for all operations of a principal on a resource.
pub fn add_acls(acls: &[&Acl], bootstrap: &str) -> Vec<String> {
    let mut groups: Vec<(&Acl, Vec<Operation>)> = Vec::new();
    for acl in acls {
        let same = |other: &Acl| Acl { operation: acl.operation, ..other.clone() } == **acl;
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, operations)) => operations.push(acl.operation),
            None => groups.push((acl, vec![acl.operation])),
        }
    }
    groups.iter().map(|(acl, operations)| add_acl(acl, operations, bootstrap)).collect()
}

fn add_acl(acl: &Acl, operations: &[Operation], bootstrap: &str) -> String {
    let who = if acl.permission == Permission::Allow { "allow" } else { "deny" };
    let mut command =
        format!("kafka-acls.sh --bootstrap-server {bootstrap} --add --{who}-principal {}", quoted(&acl.principal));
    if acl.host != ANY_HOST {
        command += &format!(" --{who}-host {}", quoted(&acl.host));
    }
    command.extend(operations.iter().map(|operation| format!(" --operation {operation}")));
    command += &match acl.resource {
        Resource::Topic => format!(" --topic {}", quoted(&acl.name)),
        Resource::Group => format!(" --group {}", quoted(&acl.name)),
        Resource::Cluster => " --cluster".to_owned(),
        Resource::TransactionalId => format!(" --transactional-id {}", quoted(&acl.name)),
        Resource::DelegationToken => format!(" --delegation-token {}", quoted(&acl.name)),
        Resource::User => format!(" --user-principal {}", quoted(&acl.name)),
    };
    if acl.pattern == Pattern::Prefixed {
        command += " --resource-pattern-type prefixed";
    }
    command
}

/// A comment: it needs a password that only its reader should know.
pub fn add_user(user: &str, bootstrap: &str) -> String {
    format!(
        "# kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type users --entity-name {} \
         --add-config 'SCRAM-SHA-512=[iterations=8192,password=…]'",
        quoted(user)
    )
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:/".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topics::{Desired, Installation};

    #[test]
    fn a_command_carries_every_setting() {
        let prefix = "ci".parse().expect("a prefix");
        let desired = Desired::new(&Installation { prefix, partitions: 4, ..Installation::default() }, 3);
        assert_eq!(
            create_topic(&desired.topics[0], "k1:9092"),
            "kafka-topics.sh --bootstrap-server k1:9092 --create --if-not-exists --topic ci.down.control \
             --partitions 4 --replication-factor 3 --config cleanup.policy=delete --config compression.type=producer \
             --config message.timestamp.type=LogAppendTime --config max.message.bytes=1048576 \
             --config unclean.leader.election.enable=false --config retention.ms=900000 \
             --config retention.bytes=268435456 --config segment.ms=300000 --config segment.bytes=67108864 \
             --config min.insync.replicas=1"
        );
    }

    #[test]
    fn settings_of_a_topic_and_operations_on_a_resource_are_one_command_each() {
        let setting = |topic: &str, key, wanted: &str| Difference::Setting {
            topic: topic.to_owned(),
            key,
            found: "x".to_owned(),
            wanted: wanted.to_owned(),
        };
        let acl = |name, operation| Difference::AddAcl(Acl::on_topic("User:CN=a b", name, operation));
        let all = Acl { host: "10.0.0.1".to_owned(), ..Acl::on_topics_below("User:c", "rk.", Operation::All) };
        let text = of_differences(
            &[
                setting("rk.logs", "retention.ms", "1"),
                setting("rk.logs", "min.insync.replicas", "2"),
                setting("rk.journal", "retention.ms", "-1"),
                Difference::Partitions { topic: "rk.logs".to_owned(), found: 1, wanted: 8 },
                acl("rk.logs", Operation::Write),
                acl("rk.up.bulk", Operation::Write),
                acl("rk.logs", Operation::Describe),
                Difference::AddAcl(all),
                Difference::FewBrokers(1),
            ],
            "k:1",
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("# topic rk.logs has 1 partitions and 8 are wanted"), "{text}");
        assert_eq!(
            lines[1..],
            [
                "kafka-configs.sh --bootstrap-server k:1 --alter --entity-type topics --entity-name rk.logs \
                 --add-config retention.ms=1,min.insync.replicas=2",
                "kafka-configs.sh --bootstrap-server k:1 --alter --entity-type topics --entity-name rk.journal \
                 --add-config retention.ms=-1",
                "kafka-acls.sh --bootstrap-server k:1 --add --allow-principal 'User:CN=a b' --operation Write \
                 --operation Describe --topic rk.logs",
                "kafka-acls.sh --bootstrap-server k:1 --add --allow-principal 'User:CN=a b' --operation Write --topic \
                 rk.up.bulk",
                "kafka-acls.sh --bootstrap-server k:1 --add --allow-principal User:c --allow-host 10.0.0.1 --operation \
                 All --topic rk. --resource-pattern-type prefixed",
            ]
        );
    }

    #[test]
    fn words_come_through_a_shell_as_they_are() {
        for (word, shell) in [("User:a-b", "User:a-b"), ("it's", r"'it'\''s'"), ("$(x)", "'$(x)'"), ("", "''")] {
            assert_eq!(quoted(word), shell);
        }
    }
}
