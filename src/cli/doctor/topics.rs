//! The topics that the role needs, as the cluster describes them.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Case, judge,
    report::{Finding, Hop},
    role::Need,
    way::{Cluster, timed},
};
use crate::kafka::{
    Error,
    examine::TopicView,
    topics::{Desired, Installation, Topic},
};

/// A topic that the role needs, and how it is. `None`: this user may not see it, or nobody would say.
pub struct Looked {
    pub wanted: Topic,
    pub need: Need,
    pub view: Option<TopicView>,
    /// It certainly does not exist.
    pub missing: bool,
}

/// What was found.
pub struct Found {
    pub hops: Vec<Hop>,
    pub topics: Vec<Looked>,
}

/// Looks the role's topics up and judges their settings.
pub async fn look(case: &Case, cluster: &Cluster) -> Found {
    let partitions = i32::try_from(case.link.partitions).unwrap_or(i32::MAX);
    let own = case.agent_with_a_topic();
    let installation = Installation {
        prefix: case.link.prefix.clone(),
        partitions,
        per_agent: own.map(|agent| [agent.clone()].into()),
        blobs_retention: case.blobs_retention,
        artifacts_retention: case.artifacts_retention,
        ..Installation::default()
    };
    let needed: Vec<(Topic, Need)> = Desired::new(&installation, cluster.view.brokers.len())
        .topics
        .into_iter()
        .filter_map(|topic| Some((case.role.need(&case.link.prefix, own, &topic)?, topic)))
        .map(|(need, topic)| (topic, need))
        .collect();
    let names: Vec<&str> = needed.iter().map(|(topic, _)| topic.name.as_str()).collect();
    let (took, described) = timed(cluster.visit.cluster(&names)).await;
    let described = match described {
        Ok(view) => view.topics,
        Err(e) => {
            let hops = vec![Hop::new("topic", "all", took, judge::error(&e))];
            let topics = needed.into_iter().map(|(wanted, need)| Looked { wanted, need, view: None, missing: false });
            return Found { hops, topics: topics.collect() };
        }
    };
    let there: Vec<&str> =
        names.iter().copied().filter(|name| described.get(*name).is_some_and(Result::is_ok)).collect();
    let settings = match there.is_empty() {
        true => BTreeMap::new(),
        false => cluster.visit.settings(&there, &judge::SETTINGS).await.unwrap_or_default(),
    };
    let mut found = Found { hops: Vec::new(), topics: Vec::new() };
    for (wanted, need) in needed {
        let described = described.get(&wanted.name);
        let settings = settings.get(&wanted.name).and_then(|settings| settings.as_ref().ok());
        found.hops.push(hop(&wanted, described, settings, took));
        let missing = matches!(described, Some(Err(Error::TopicMissing { .. })));
        let view = described.and_then(|described| described.as_ref().ok()).cloned();
        found.topics.push(Looked { wanted, need, view, missing });
    }
    found
}

fn hop(
    wanted: &Topic,
    described: Option<&Result<TopicView, Error>>,
    settings: Option<&BTreeMap<String, String>>,
    took: Duration,
) -> Hop {
    let name = wanted.name.clone();
    match described {
        Some(Ok(view)) => Hop::new("topic", name, took, judge::topic(wanted, view, settings)),
        // Which right is missing, trying tells.
        Some(Err(Error::Authorization { .. })) => {
            Hop::skipped("topic", name, "Kafka does not let this user see it, or it is missing")
        }
        Some(Err(e)) => Hop::new("topic", name, took, judge::error(e)),
        None => Hop::new("topic", name, took, Finding::skipped("the broker said nothing of it")),
    }
}
