//! Makes the fixed topics exist and says how existing ones differ from what they have to be.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Topic, commands, plan};
use crate::kafka::{Error, KafkaCluster, Prefix, admin};

/// How long new topics may take until every partition has a leader.
const VISIBLE: Duration = Duration::from_secs(30);

/// How often we look.
const LOOK: Duration = Duration::from_millis(100);

/// Settings of existing topics that are compared. Others are the operator's choice.
const COMPARED: [&str; 6] = [
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.ms",
];

/// What [`ensure`] found and did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// How many brokers there are.
    pub brokers: usize,
    /// The topics that were missing.
    pub created: Vec<String>,
    /// What works, but not as it should: each with its cure.
    pub warnings: Vec<String>,
}

/// Creates the missing topics with their settings and waits until they can be used; compares the others.
///
/// [`Error::Authorization`] if topics are missing and we may not create them: its text holds the commands for somebody
/// who may. [`Error::Config`] if a topic has another number of partitions.
pub async fn ensure(cluster: &KafkaCluster, prefix: &Prefix, partitions: i32) -> Result<Report, Error> {
    let metadata = cluster.metadata();
    let brokers = cluster.check().await?;
    let wanted = plan(prefix, partitions, brokers);
    let names: Vec<&str> = wanted.iter().map(|topic| topic.name.as_str()).collect();
    let mut report = Report { brokers, ..Report::default() };
    if brokers < 3 {
        report.warnings.push(format!(
            "the cluster has {brokers} of the 3 brokers that it takes to lose one without losing anything"
        ));
    }
    let mut missing = Vec::new();
    let mut present = Vec::new();
    for (topic, found) in wanted.iter().zip(metadata.describe(&names).await?) {
        match found {
            Ok(found) => {
                check_partitions(topic, found.description.partitions)?;
                if found.description.replication < topic.replication {
                    report.warnings.push(format!(
                        "topic {} has {} replicas, {} are wanted; add them with kafka-reassign-partitions.sh",
                        topic.name, found.description.replication, topic.replication
                    ));
                }
                present.push(topic);
            }
            // Whom Kafka does not let see a topic it does not tell whether there is one. Creating it tells.
            Err(Error::TopicMissing { .. } | Error::Authorization { .. }) => missing.push(topic),
            Err(error) => return Err(error),
        }
    }
    if !missing.is_empty() {
        create(cluster, &wanted, &missing, &mut report).await?;
    }
    compare(cluster, &present, &mut report).await?;
    Ok(report)
}

fn check_partitions(topic: &Topic, found: i32) -> Result<(), Error> {
    if found == topic.partitions {
        return Ok(());
    }
    let Topic { name, partitions, .. } = topic;
    Err(Error::Config(format!(
        "topic {name} has {found} partitions and {partitions} are wanted; the number is fixed when the topics are \
         created, because an agent's partition depends on it: ask for {found} partitions, or delete the topics and let \
         them be created anew"
    )))
}

async fn create(
    cluster: &KafkaCluster,
    wanted: &[Topic],
    missing: &[&Topic],
    report: &mut Report,
) -> Result<(), Error> {
    let metadata = cluster.metadata();
    for (topic, created) in missing.iter().zip(admin::create_topics(metadata, missing).await?) {
        match created {
            Ok(()) => report.created.push(topic.name.clone()),
            Err(Error::Authorization { .. }) => {
                let dialer = &metadata.dialer;
                let bootstrap = dialer.bootstrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                return Err(Error::Authorization {
                    detail: format!(
                        "topic {} is missing and {} may not create it (Create on the topic or the cluster); somebody \
                         who may runs:\n{}",
                        topic.name,
                        dialer.principal(),
                        commands(wanted, &bootstrap).trim_end()
                    ),
                });
            }
            Err(error) => return Err(error),
        }
    }
    let deadline = Instant::now() + VISIBLE;
    loop {
        match admin::are_served(metadata, missing).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(Error::TopicMissing { .. } | Error::Transient { .. } | Error::Config(_)) => {
                for topic in missing {
                    metadata.forget(&topic.name, u64::MAX);
                }
                sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn compare(cluster: &KafkaCluster, present: &[&Topic], report: &mut Report) -> Result<(), Error> {
    if present.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = present.iter().map(|topic| topic.name.as_str()).collect();
    for (topic, found) in present.iter().zip(admin::topic_settings(cluster.metadata(), &names, &COMPARED).await?) {
        match found {
            Ok(found) => report.warnings.extend(differences(topic, &found)),
            Err(Error::Authorization { .. }) => report.warnings.push(format!(
                "the settings of topic {} could not be compared: {} may not read them (DescribeConfigs)",
                topic.name,
                cluster.metadata().dialer.principal()
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// One line per setting that is not as it has to be.
fn differences(topic: &Topic, found: &[(String, String)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in found {
        let Some(wanted) = topic.setting(key).filter(|_| COMPARED.contains(&key.as_str())) else { continue };
        if fits(key, wanted, value) {
            continue;
        }
        lines.push(format!(
            "topic {name} has {key}={value}, wanted is {wanted}; change it with `kafka-configs.sh --bootstrap-server … \
             --alter --entity-type topics --entity-name {name} --add-config {key}={wanted}`",
            name = topic.name
        ));
    }
    lines
}

/// Whether `value` serves as well as what is wanted.
fn fits(key: &str, wanted: &str, value: &str) -> bool {
    let at_least = |value: &str, wanted: &str| matches!((value.parse::<i64>(), wanted.parse::<i64>()), (Ok(value), Ok(wanted)) if value >= wanted);
    match key {
        "max.message.bytes" | "min.insync.replicas" => at_least(value, wanted),
        // −1 is for ever.
        "retention.ms" => value == "-1" || (wanted != "-1" && at_least(value, wanted)),
        _ => value == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn settings_that_serve_as_well_raise_no_warning() {
        let topics = plan(&Prefix::default(), 8, 3);
        let fine = found(&[
            ("cleanup.policy", "delete"),
            ("max.message.bytes", "8388608"),
            ("retention.ms", "86400000"),
            ("min.insync.replicas", "2"),
            ("flush.ms", "1"),
        ]);
        assert_eq!(differences(&topics[0], &fine), Vec::<String>::new());
    }

    #[test]
    fn each_setting_that_harms_comes_with_its_cure() {
        let topics = plan(&Prefix::default(), 8, 3);
        let lines = differences(&topics[0], &found(&[("compression.type", "zstd"), ("max.message.bytes", "1000")]));
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].ends_with("--entity-name rk.down.control --add-config compression.type=producer`"),
            "{lines:?}"
        );
        let journal = topics.iter().find(|topic| topic.name == "rk.journal").expect("it is planned");
        assert_eq!(differences(journal, &found(&[("retention.ms", "604800000")])).len(), 1);
    }

    #[test]
    fn another_number_of_partitions_is_an_error_that_says_both() {
        let topics = plan(&Prefix::default(), 8, 3);
        let text = check_partitions(&topics[0], 4).expect_err("refused").to_string();
        assert!(text.contains("has 4 partitions and 8 are wanted"), "{text}");
        assert!(check_partitions(&topics[0], 8).is_ok());
    }
}
