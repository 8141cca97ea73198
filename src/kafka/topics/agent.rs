//! What one agent needs in Kafka, when it has a user of its own.

use super::{Topic, commands, desired::principal_of, layout, rights, user_of_agent};
use crate::{
    id::AgentName,
    kafka::{Prefix, acl::Acl},
    layout::Layout,
};

/// What one agent needs.
#[derive(Debug, Clone)]
pub struct AgentNeeds {
    /// The topic that only it reads, in the layout that has one.
    pub topic: Option<Topic>,
    /// The user as which it logs in.
    pub user: String,
    /// What that user may do, and nothing else.
    pub acls: Vec<Acl>,
}

impl AgentNeeds {
    /// What `agent` needs on a cluster of `brokers` brokers.
    pub fn new(prefix: &Prefix, agent: &AgentName, agents: Layout, brokers: usize) -> Self {
        let user = user_of_agent(agent);
        let principal = principal_of(&user);
        let (topic, acls) = match agents {
            Layout::Shared => (None, rights::of_agents(prefix, &principal)),
            Layout::PerAgent => {
                (Some(layout::of_agent(prefix, agent, brokers)), rights::of_agent(prefix, agent, &principal))
            }
        };
        Self { topic, user, acls }
    }

    /// The commands of Kafka's own tools that make it, one a line.
    pub fn commands(&self, bootstrap: &str) -> String {
        let topic = self.topic.iter().map(|topic| commands::create_topic(topic, bootstrap));
        let user = commands::add_user(&self.user, bootstrap);
        let acls = commands::add_acls(&self.acls.iter().collect::<Vec<_>>(), bootstrap);
        topic.chain([user]).chain(acls).map(|command| command + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_needs_a_topic_only_in_the_layout_that_has_one() {
        let (prefix, agent) = (Prefix::default(), "a".parse().expect("a name"));
        let shared = AgentNeeds::new(&prefix, &agent, Layout::Shared, 3);
        assert!(shared.topic.is_none() && shared.acls.iter().any(|acl| acl.name == "rk.down.control"));
        let own = AgentNeeds::new(&prefix, &agent, Layout::PerAgent, 3);
        assert_eq!(own.topic.as_ref().map(|topic| topic.name.as_str()), Some("rk.agent.a.down"));
        let commands = own.commands("k:1");
        let starts: Vec<_> = commands.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
        assert_eq!(starts[..3], ["kafka-topics.sh", "#", "kafka-acls.sh"], "{commands}");
        assert!(commands.contains("rk-agent-a") && !commands.contains("rk.down.control"), "{commands}");
    }
}
