//! What a controller does about its topics before it starts.

use std::str::FromStr;

use super::{Depth, Desired, Difference, Installation, Topic, apply, commands, look, plan};
use crate::kafka::{Error, KafkaCluster, Prefix};

/// What a controller does about its topics.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Manage {
    /// Makes those that are missing.
    #[default]
    Auto,
    /// Looks, and leaves making them to somebody else.
    PlanOnly,
    /// Does not even look.
    Off,
}

impl FromStr for Manage {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "plan-only" => Ok(Self::PlanOnly),
            "off" => Ok(Self::Off),
            _ => Err(format!("{s:?} is no way to manage topics; use auto, plan-only or off")),
        }
    }
}

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

/// Does about the topics what `manage` says: as [`ensure`], as [`check`], or nothing.
pub async fn prepare(cluster: &KafkaCluster, installation: &Installation, manage: Manage) -> Result<Report, Error> {
    match manage {
        Manage::Auto => create(cluster, installation).await,
        Manage::PlanOnly => find(cluster, installation).await,
        Manage::Off => Ok(Report::default()),
    }
}

/// Creates the missing topics with their settings and waits until they can be used; compares the others.
///
/// [`Error::Authorization`] if topics are missing and we may not create them: its text holds the commands for somebody
/// who may. [`Error::Config`] if a topic has another number of partitions.
pub async fn ensure(cluster: &KafkaCluster, prefix: &Prefix, partitions: i32) -> Result<Report, Error> {
    create(cluster, &usual(prefix, partitions)).await
}

/// As [`ensure`], but creates nothing: [`Error::Authorization`], with the commands, if a topic is missing.
pub async fn check(cluster: &KafkaCluster, prefix: &Prefix, partitions: i32) -> Result<Report, Error> {
    find(cluster, &usual(prefix, partitions)).await
}

fn usual(prefix: &Prefix, partitions: i32) -> Installation {
    Installation { prefix: prefix.clone(), partitions, ..Installation::default() }
}

async fn create(cluster: &KafkaCluster, installation: &Installation) -> Result<Report, Error> {
    let admin = cluster.admin();
    let (desired, differences, mut report) = compare(cluster, installation).await?;
    let missing: Vec<Difference> = differences.into_iter().filter(is_missing).collect();
    for applied in apply(&admin, &missing).await? {
        match (applied.difference.topic(), applied.result) {
            (Some(topic), Ok(())) => report.created.push(topic.to_owned()),
            (Some(topic), Err(Error::Authorization { .. })) => {
                let may_not = format!("{} may not create it (Create on the topic or the cluster)", admin.principal());
                return Err(refused(topic, &may_not, &desired, &admin.bootstrap()));
            }
            (_, result) => result?,
        }
    }
    Ok(report)
}

async fn find(cluster: &KafkaCluster, installation: &Installation) -> Result<Report, Error> {
    let (desired, differences, report) = compare(cluster, installation).await?;
    match differences.iter().find(|difference| is_missing(difference)).and_then(Difference::topic) {
        Some(topic) => {
            let may_not = "`topics-manage: plan-only` leaves creating it to others";
            Err(refused(topic, may_not, &desired, &cluster.admin().bootstrap()))
        }
        None => Ok(report),
    }
}

async fn compare(
    cluster: &KafkaCluster,
    installation: &Installation,
) -> Result<(Desired, Vec<Difference>, Report), Error> {
    let (desired, found) = look(&cluster.admin(), installation, Depth::Topics).await?;
    let differences = plan(&desired, &found);
    let mut report = Report { brokers: found.brokers, ..Report::default() };
    for difference in differences.iter().filter(|difference| !is_missing(difference)) {
        report.warnings.push(match difference {
            // Packets would go where nobody reads.
            Difference::Partitions { .. } => return Err(Error::Config(difference.to_string())),
            Difference::Setting { .. } => format!("{difference}; `rk topics apply` changes it"),
            _ => difference.to_string(),
        });
    }
    Ok((desired, differences, report))
}

fn is_missing(difference: &Difference) -> bool {
    matches!(difference, Difference::CreateTopic(_))
}

/// The error that a topic is missing; the commands, a line each, create all of them and leave alone what is there.
fn refused(topic: &str, why: &str, desired: &Desired, bootstrap: &str) -> Error {
    let command = |topic: &Topic| commands::create_topic(topic, bootstrap);
    let commands: Vec<String> = desired.topics.iter().map(command).collect();
    Error::Authorization {
        detail: format!("topic {topic} is missing and {why}; somebody who may runs:\n{}", commands.join("\n")),
    }
}
