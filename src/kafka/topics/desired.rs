//! What an installation wants of its cluster, as one value.

use std::{collections::BTreeSet, time::Duration};

use super::{Topic, layout, rights};
use crate::{
    id::AgentName,
    kafka::{Prefix, acl::Acl},
};

/// An installation, as far as its cluster has to know it.
#[derive(Debug, Clone, Default)]
pub struct Installation {
    /// The prefix of its topics.
    pub prefix: Prefix,
    /// Partitions of each packet topic.
    pub partitions: i32,
    /// The agents of the `per-agent` layout; none if nobody says which there are. All others use the `shared` topics.
    pub per_agent: Option<BTreeSet<AgentName>>,
    /// Whether the controller tells other systems what happens.
    pub events: bool,
    /// Whom the agents of the `shared` layout log in as (`User:name`); without one their rights are not looked at.
    pub agents_as: Option<String>,
    /// Whom the controller logs in as; the same.
    pub controller_as: Option<String>,
    /// How long the archives of bundles are kept; 30 days unless told otherwise.
    pub blobs_retention: Option<Duration>,
    /// How long the artifacts of jobs are kept; 30 days unless told otherwise.
    pub artifacts_retention: Option<Duration>,
}

/// The topics, access rules and users that an installation needs.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The prefix of its topics.
    pub prefix: Prefix,
    /// The topics.
    pub topics: Vec<Topic>,
    /// The access rules; none if no principal is known.
    pub acls: Vec<Acl>,
    /// Whose rules must not be wider than `acls`: the agents' principals.
    pub narrow: BTreeSet<String>,
    /// The users, by their names: one for each agent of the `per-agent` layout.
    pub users: Vec<String>,
    /// Those agents; none if nobody says which there are.
    pub per_agent: Option<BTreeSet<AgentName>>,
}

impl Desired {
    /// What `installation` needs on a cluster of `brokers` brokers.
    pub fn new(installation: &Installation, brokers: usize) -> Self {
        let Installation {
            prefix,
            partitions,
            per_agent,
            events,
            agents_as,
            controller_as,
            blobs_retention,
            artifacts_retention,
        } = installation;
        let kept = layout::Kept {
            blobs: blobs_retention.unwrap_or(layout::BLOBS_KEPT),
            artifacts: artifacts_retention.unwrap_or(layout::ARTIFACTS_KEPT),
        };
        let agents = || per_agent.iter().flatten();
        let mut topics = layout::shared(prefix, *partitions, brokers, kept);
        topics.extend(events.then(|| layout::events(prefix, brokers)));
        topics.extend(agents().map(|agent| layout::of_agent(prefix, agent, brokers)));
        let mut acls = Vec::new();
        let mut narrow = BTreeSet::new();
        let mut users = Vec::new();
        if let Some(principal) = agents_as {
            acls.extend(rights::of_agents(prefix, principal));
            narrow.insert(principal.clone());
        }
        if agents_as.is_some() || controller_as.is_some() {
            for agent in agents() {
                let user = user_of_agent(agent);
                acls.extend(rights::of_agent(prefix, agent, &principal_of(&user)));
                narrow.insert(principal_of(&user));
                users.push(user);
            }
        }
        if let Some(principal) = controller_as {
            acls.extend(rights::of_controller(prefix, principal));
            narrow.remove(principal);
        }
        Self { prefix: prefix.clone(), topics, acls, narrow, users, per_agent: per_agent.clone() }
    }

    /// The most disk that the packets of all replicas take together, and the events, in bytes. Journal, logs,
    /// blobs and artifacts are not among them.
    pub fn most_bytes(&self) -> u64 {
        self.topics.iter().filter_map(Topic::most_bytes).sum()
    }
}

/// The Kafka user of an agent that has one of its own.
pub fn user_of_agent(agent: &AgentName) -> String {
    format!("rk-agent-{agent}")
}

/// Whose own user this is, as access rules name it.
pub fn agent_of_user(principal: &str) -> Option<AgentName> {
    principal.strip_prefix("User:rk-agent-")?.parse().ok()
}

/// A user as access rules name it: `User:name`. One that is written so already stays.
pub fn principal_of(user: &str) -> String {
    if user.starts_with("User:") { user.to_owned() } else { format!("User:{user}") }
}
