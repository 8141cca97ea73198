//! Who needs which right in Kafka. Everything that a role asks of a cluster is covered by one of its rules, and nothing
//! else: reading is fetching, ListOffsets and Metadata; writing is producing and Metadata; no consumer groups, no
//! transactions.

use crate::{
    id::AgentName,
    kafka::{
        Prefix,
        acl::{
            Acl,
            Operation::{self, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write},
        },
    },
};

/// The rights of agents in the `shared` layout.
pub(super) fn of_agents(prefix: &Prefix, principal: &str) -> Vec<Acl> {
    let down = [prefix.down_control(), prefix.down_bulk(), prefix.blobs()];
    down.iter().flat_map(|topic| reading(principal, topic)).chain(up(prefix, principal)).collect()
}

/// The rights of one agent in the `per-agent` layout.
pub(super) fn of_agent(prefix: &Prefix, agent: &AgentName, principal: &str) -> Vec<Acl> {
    let down = [prefix.agent_down(agent), prefix.blobs()];
    down.iter().flat_map(|topic| reading(principal, topic)).chain(up(prefix, principal)).collect()
}

/// The rights of the controller, which makes the topics, reads and writes all of them and cuts the journal and the artifacts:
/// deleting records is Delete.
pub(super) fn of_controller(prefix: &Prefix, principal: &str) -> Vec<Acl> {
    let operations = [Read, Write, Describe, Create, Delete, DescribeConfigs, AlterConfigs];
    operations.map(|operation| Acl::on_topics_below(principal, &prefix.start(), operation)).into()
}

fn up(prefix: &Prefix, principal: &str) -> Vec<Acl> {
    let topics = [prefix.up_control(), prefix.up_bulk(), prefix.logs(), prefix.artifacts()];
    topics.iter().flat_map(|topic| on(principal, topic, [Write, Describe])).collect()
}

fn reading(principal: &str, topic: &str) -> [Acl; 2] {
    on(principal, topic, [Read, Describe])
}

fn on(principal: &str, topic: &str, operations: [Operation; 2]) -> [Acl; 2] {
    operations.map(|operation| Acl::on_topic(principal, topic, operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(acls: Vec<Acl>) -> Vec<String> {
        acls.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_agent_reads_what_comes_down_and_writes_what_goes_up() {
        assert_eq!(
            lines(of_agents(&Prefix::default(), "User:a")),
            [
                "User:a may Read on topic rk.down.control",
                "User:a may Describe on topic rk.down.control",
                "User:a may Read on topic rk.down.bulk",
                "User:a may Describe on topic rk.down.bulk",
                "User:a may Read on topic rk.blobs",
                "User:a may Describe on topic rk.blobs",
                "User:a may Write on topic rk.up.control",
                "User:a may Describe on topic rk.up.control",
                "User:a may Write on topic rk.up.bulk",
                "User:a may Describe on topic rk.up.bulk",
                "User:a may Write on topic rk.logs",
                "User:a may Describe on topic rk.logs",
                "User:a may Write on topic rk.artifacts",
                "User:a may Describe on topic rk.artifacts",
            ]
        );
    }

    #[test]
    fn an_agent_with_a_topic_of_its_own_reads_that_and_blobs() {
        let acls = of_agent(&Prefix::default(), &"a".parse().expect("a name"), "User:rk-agent-a");
        let read: Vec<_> = acls.iter().filter(|acl| acl.operation == Read).map(|acl| acl.name.as_str()).collect();
        assert_eq!(read, ["rk.agent.a.down", "rk.blobs"]);
        assert_eq!(acls.iter().filter(|acl| acl.operation == Write).count(), 4);
    }

    #[test]
    fn no_agent_has_to_do_with_journal_and_events() {
        let agent = "a".parse().expect("a name");
        let acls = [of_agents(&Prefix::default(), "User:a"), of_agent(&Prefix::default(), &agent, "User:a")].concat();
        for topic in ["rk.journal", "rk.events"] {
            assert!(!acls.iter().any(|acl| acl.is_about_topic(topic)), "{topic}");
        }
    }

    #[test]
    fn the_controller_may_everything_below_the_prefix_and_nothing_beside_it() {
        let acls = of_controller(&Prefix::default(), "User:c");
        assert_eq!(acls.len(), 7);
        let delete = Acl::on_topic("User:c", "rk.journal", Delete);
        assert!(acls.iter().any(|acl| acl.grants(&delete)));
        let events = Acl::on_topic("User:c", "rk.events", Write);
        assert!(acls.iter().any(|acl| acl.grants(&events)));
        let beside = Acl::on_topic("User:c", "rk2.journal", Read);
        assert!(!acls.iter().any(|acl| acl.grants(&beside)));
    }
}
