//! One way in which a cluster is not as it has to be, in words.

use std::fmt;

use super::Topic;
use crate::kafka::acl::Acl;

/// A difference between what an installation needs and what its cluster has, or something about it to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// A topic is missing.
    CreateTopic(Topic),
    /// A setting does not serve.
    Setting {
        /// The topic.
        topic: String,
        /// Kafka's name of the setting.
        key: &'static str,
        /// What it is.
        found: String,
        /// What it has to be, or at least.
        wanted: String,
    },
    /// A right is missing.
    AddAcl(Acl),
    /// A topic has another number of partitions. An agent's partition depends on it: nobody changes it.
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: i32,
        /// How many are asked for.
        wanted: i32,
    },
    /// A topic has too few replicas.
    Replication {
        /// The topic.
        topic: String,
        /// How many it has.
        found: i16,
        /// How many are wanted.
        wanted: i16,
    },
    /// A needed right is forbidden, which no other rule can mend.
    Denied {
        /// What is needed.
        needed: Acl,
        /// What forbids it.
        by: Acl,
    },
    /// A user has no login.
    AddUser(String),
    /// The settings of a topic may not be read by us.
    UnseenSettings {
        /// The topic.
        topic: String,
        /// Who we are.
        principal: String,
    },
    /// Access rules may not be read by us.
    UnseenAcls {
        /// Those that are needed.
        needed: Vec<Acl>,
        /// What is missing.
        detail: String,
    },
    /// Users may not be read by us.
    UnseenUsers {
        /// Those that are needed.
        needed: Vec<String>,
        /// What is missing.
        detail: String,
    },
    /// The cluster has too few brokers to lose one.
    FewBrokers(usize),
    /// More replicas must acknowledge a write than are in sync now: writes wait.
    Blocked {
        /// The topic.
        topic: String,
        /// How many must acknowledge.
        needed: i16,
        /// How many are in sync.
        in_sync: i16,
    },
    /// All replicas must acknowledge a write: one broker's death stops writes.
    Fragile {
        /// The topic.
        topic: String,
        /// How many there are.
        replication: i16,
    },
    /// An agent may do more with our topics than it needs.
    WideAcl {
        /// The rule.
        acl: Acl,
        /// A topic on which it allows too much.
        topic: String,
    },
    /// A topic down to an agent that is not known.
    Orphan {
        /// The topic.
        topic: String,
        /// The agent's name.
        agent: String,
    },
    /// The cluster knows no access rules.
    NoAuthorizer,
    /// The cluster keeps no users.
    NoUsers,
}

/// Who can make a difference go away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// [`apply`](super::apply), by making something new.
    Create,
    /// [`apply`](super::apply), by changing something.
    Change,
    /// Only somebody else.
    ByHand,
    /// Nobody has to: it is a warning, and no difference.
    Nobody,
}

impl Difference {
    /// Who can make it go away.
    pub fn mend(&self) -> Mend {
        match self {
            Self::CreateTopic(_) | Self::AddAcl(_) => Mend::Create,
            Self::Setting { .. } => Mend::Change,
            Self::Partitions { .. }
            | Self::Replication { .. }
            | Self::Denied { .. }
            | Self::AddUser(_)
            | Self::UnseenSettings { .. }
            | Self::UnseenAcls { .. }
            | Self::UnseenUsers { .. } => Mend::ByHand,
            Self::FewBrokers(_)
            | Self::Blocked { .. }
            | Self::Fragile { .. }
            | Self::WideAcl { .. }
            | Self::Orphan { .. }
            | Self::NoAuthorizer
            | Self::NoUsers => Mend::Nobody,
        }
    }

    /// Whether the cluster is not as it has to be, or may not be; else it is only a warning.
    pub fn counts(&self) -> bool {
        self.mend() != Mend::Nobody
    }

    /// The topic that it is about, if it is about one.
    pub fn topic(&self) -> Option<&str> {
        match self {
            Self::CreateTopic(topic) => Some(&topic.name),
            Self::Setting { topic, .. }
            | Self::Partitions { topic, .. }
            | Self::Replication { topic, .. }
            | Self::UnseenSettings { topic, .. }
            | Self::Blocked { topic, .. }
            | Self::Fragile { topic, .. }
            | Self::WideAcl { topic, .. }
            | Self::Orphan { topic, .. } => Some(topic),
            Self::AddAcl(_)
            | Self::Denied { .. }
            | Self::AddUser(_)
            | Self::UnseenAcls { .. }
            | Self::UnseenUsers { .. }
            | Self::FewBrokers(_)
            | Self::NoAuthorizer
            | Self::NoUsers => None,
        }
    }

    /// Its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateTopic(_) => "create_topic",
            Self::Setting { .. } => "setting",
            Self::AddAcl(_) => "add_acl",
            Self::Partitions { .. } => "partitions",
            Self::Replication { .. } => "replication",
            Self::Denied { .. } => "denied",
            Self::AddUser(_) => "add_user",
            Self::UnseenSettings { .. } => "unseen_settings",
            Self::UnseenAcls { .. } => "unseen_acls",
            Self::UnseenUsers { .. } => "unseen_users",
            Self::FewBrokers(_) => "few_brokers",
            Self::Blocked { .. } => "blocked",
            Self::Fragile { .. } => "fragile",
            Self::WideAcl { .. } => "wide_acl",
            Self::Orphan { .. } => "orphan",
            Self::NoAuthorizer => "no_authorizer",
            Self::NoUsers => "no_users",
        }
    }
}

/// One line: what is, and where we do not mend it ourselves also what to do.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateTopic(Topic { name, partitions, replication, .. }) => {
                write!(f, "topic {name} is missing; partitions: {partitions}, replicas: {replication}")
            }
            Self::Setting { topic, key, found, wanted } => {
                write!(f, "topic {topic} has {key}={found}, wanted is {wanted}")
            }
            Self::AddAcl(acl) => write!(f, "no rule says that {acl}"),
            Self::Partitions { topic, found, wanted } => write!(
                f,
                "topic {topic} has {found} partitions and {wanted} are wanted; the number is fixed when the topics are \
                 created, because an agent's partition depends on it: ask for {found} partitions, or delete the topics \
                 and let them be created anew"
            ),
            Self::Replication { topic, found, wanted } => write!(
                f,
                "topic {topic} has {found} replicas, {wanted} are wanted; add them with kafka-reassign-partitions.sh"
            ),
            Self::Denied { needed, by } => {
                write!(f, "{needed}: that is needed, and a rule says that {by}; remove it with kafka-acls.sh --remove")
            }
            Self::AddUser(user) => {
                write!(f, "user {user} has no SCRAM login; make one with kafka-configs.sh, and a password of your own")
            }
            Self::UnseenSettings { topic, principal } => write!(
                f,
                "the settings of topic {topic} could not be compared: {principal} may not read them (DescribeConfigs)"
            ),
            Self::UnseenAcls { detail, .. } => write!(f, "the access rules could not be compared: {detail}"),
            Self::UnseenUsers { detail, .. } => write!(f, "the users could not be compared: {detail}"),
            Self::FewBrokers(brokers) => write!(
                f,
                "the cluster has {brokers} of the 3 brokers that it takes to lose one without losing anything"
            ),
            Self::Blocked { topic, needed, in_sync } => write!(
                f,
                "topic {topic} takes no writes now: min.insync.replicas is {needed}, and {in_sync} replicas are in sync; \
                 start the brokers that are down, or lower it"
            ),
            Self::Fragile { topic, replication } => write!(
                f,
                "one broker's death stops writes to topic {topic}: min.insync.replicas is {replication}, of \
                 {replication} replicas"
            ),
            Self::WideAcl { acl, topic } => {
                write!(
                    f,
                    "{acl}: on topic {topic} that is more than an agent needs; remove the rule if it is not meant"
                )
            }
            Self::Orphan { topic, agent } => write!(
                f,
                "topic {topic} belongs to agent {agent}, which is none of --per-agent; `rk topics delete --orphans` \
                 deletes it"
            ),
            Self::NoAuthorizer => {
                f.write_str("the cluster has no authorizer: whoever can log in may read and write everything")
            }
            Self::NoUsers => f.write_str("the cluster keeps no SCRAM users: logins are made where it is configured"),
        }
    }
}
