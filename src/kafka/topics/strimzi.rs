//! The same as resources of Strimzi (0.49 or newer), which runs Kafka in Kubernetes: what is wanted, whatever is there.
//! Pure.

use std::{collections::BTreeMap, fmt::Write};

use ring::digest;

use super::{Desired, Topic};
use crate::kafka::acl::Acl;

/// A document for each topic and each user; `cluster` is the name of the `Kafka` resource. Kubernetes' names are lower case
/// and take no `_`: a topic with another name gets one made from it, and a user with another name a comment, because
/// there the resource's name is the login.
pub fn strimzi(desired: &Desired, cluster: &str) -> String {
    let mut text = String::new();
    for topic in &desired.topics {
        self::topic(&mut text, topic, cluster).expect("a string takes it");
    }
    let mut users: BTreeMap<&str, Vec<&Acl>> = BTreeMap::new();
    for acl in &desired.acls {
        users.entry(&acl.principal).or_default().push(acl);
    }
    for (principal, acls) in users {
        user(&mut text, principal, &acls, cluster).expect("a string takes it");
    }
    text
}

fn topic(text: &mut String, topic: &Topic, cluster: &str) -> std::fmt::Result {
    let Topic { name, partitions, replication, settings } = topic;
    let resource = resource_name(name);
    head(text, "KafkaTopic", &resource, cluster)?;
    if resource != *name {
        writeln!(text, "  topicName: {name:?}")?;
    }
    writeln!(text, "  partitions: {partitions}\n  replicas: {replication}\n  config:")?;
    for (key, value) in settings {
        writeln!(text, "    {key}: {}", scalar(value))?;
    }
    Ok(())
}

fn user(text: &mut String, principal: &str, acls: &[&Acl], cluster: &str) -> std::fmt::Result {
    let login = principal.strip_prefix("User:").unwrap_or(principal);
    if !is_resource_name(login) {
        let names = "a KafkaUser has the name of its login, and Kubernetes does not take this one";
        return writeln!(text, "---\n# {login:?} is left out: {names}");
    }
    head(text, "KafkaUser", login, cluster)?;
    text.push_str("  authentication:\n    type: scram-sha-512\n  authorization:\n    type: simple\n    acls:\n");
    let mut resources: Vec<(&Acl, Vec<String>)> = Vec::new();
    for acl in acls {
        match resources.iter_mut().find(|(first, _)| first.name == acl.name && first.pattern == acl.pattern) {
            Some((_, operations)) => operations.push(acl.operation.to_string()),
            None => resources.push((acl, vec![acl.operation.to_string()])),
        }
    }
    for (acl, operations) in resources {
        writeln!(text, "      - resource:\n          type: topic\n          name: {:?}", acl.name)?;
        let pattern = if acl.pattern == crate::kafka::acl::Pattern::Prefixed { "prefix" } else { "literal" };
        writeln!(text, "          patternType: {pattern}\n        operations: [{}]", operations.join(", "))?;
    }
    Ok(())
}

fn head(text: &mut String, kind: &str, name: &str, cluster: &str) -> std::fmt::Result {
    writeln!(
        text,
        "---\napiVersion: kafka.strimzi.io/v1\nkind: {kind}\nmetadata:\n  name: {name:?}\n  labels:\n    \
         strimzi.io/cluster: {cluster:?}\nspec:"
    )
}

/// A name that Kubernetes takes: the topic's own, or one made from it that no other topic has.
fn resource_name(name: &str) -> String {
    if is_resource_name(name) {
        return name.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let hash: String = hash.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    // A part between dots ends with a letter or a digit too.
    let parts = name.split('.').map(|part| part.to_ascii_lowercase().replace('_', "-"));
    let parts: Vec<String> = parts.map(|part| part.trim_matches('-').to_owned()).collect();
    format!("{}-{hash}", parts.join("."))
}

/// Whether Kubernetes takes it: RFC 1123, parts between dots.
fn is_resource_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|part| {
            part.bytes().next().is_some_and(inner)
                && part.bytes().next_back().is_some_and(inner)
                && part.bytes().all(|b| inner(b) || b == b'-')
        })
}

/// Numbers and booleans as they are, all else quoted.
fn scalar(value: &str) -> String {
    if value.parse::<i64>().is_ok() || ["true", "false"].contains(&value) {
        value.to_owned()
    } else {
        format!("{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topics::Installation;

    fn desired(prefix: &str) -> Desired {
        let installation = Installation {
            prefix: prefix.parse().expect("a prefix"),
            partitions: 8,
            per_agent: Some(["a".parse().expect("a name")].into()),
            events: true,
            agents_as: Some("User:CN=agent".to_owned()),
            controller_as: Some("User:controller".to_owned()),
            blobs_retention: None,
            artifacts_retention: None,
        };
        Desired::new(&installation, 3)
    }

    #[test]
    fn each_topic_and_each_user_is_a_document() {
        let text = strimzi(&desired("rk"), "kafka-1");
        assert_eq!((text.matches("kind: KafkaTopic").count(), text.matches("kind: KafkaUser").count()), (10, 2));
        let first = "---\napiVersion: kafka.strimzi.io/v1\nkind: KafkaTopic\nmetadata:\n  name: \"rk.down.control\"\n  \
                     labels:\n    strimzi.io/cluster: \"kafka-1\"\nspec:\n  partitions: 8\n  replicas: 3\n  config:\n    \
                     cleanup.policy: \"delete\"\n";
        assert!(text.starts_with(first), "{text}");
        let user = "      - resource:\n          type: topic\n          name: \"rk.agent.a.down\"\n          \
                    patternType: literal\n        operations: [Read, Describe]\n";
        assert!(text.contains(user), "{text}");
        assert!(text.contains("patternType: prefix\n        operations: [Read, Write, Describe, Create, "), "{text}");
        assert!(text.contains("# \"CN=agent\" is left out"), "{text}");
    }

    #[test]
    fn names_that_kubernetes_does_not_take_are_made_so_and_stay_different() {
        let text = strimzi(&desired("CI_1"), "k");
        assert!(text.contains("topicName: \"CI_1.logs\""), "{text}");
        let names = ["CI_1.logs", "ci_1.logs", "ci-1.logs", "-_.x"].map(resource_name);
        assert_eq!(names[2], "ci-1.logs");
        assert!(names[..2].iter().all(|name| is_resource_name(name) && name.starts_with("ci-1.logs-")), "{names:?}");
        assert_ne!(names[0], names[1]);
    }
}
