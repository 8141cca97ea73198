//! Kafka's access rules as types: who may do what on which resource, with Kafka's numbers and words.
//!
//! Pure. What a rule allows is decided here once, the way that Kafka's own authorizer decides it.

use std::fmt;

use serde::Serialize;

/// An enumeration with Kafka's number and word for each value.
macro_rules! kafka_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $code:literal $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] $value,)*
        }

        impl $name {
            /// The number in Kafka's protocol.
            pub const fn code(self) -> i8 {
                match self { $(Self::$value => $code,)* }
            }

            /// The value with this number; none if a newer Kafka has added it.
            pub const fn of_code(code: i8) -> Option<Self> {
                match code { $($code => Some(Self::$value),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$value => $word,)* })
            }
        }
    };
}

kafka_enum! {
    /// A kind of resource.
    Resource {
        /// A topic.
        Topic = 2 "Topic",
        /// A group of consumers.
        Group = 3 "Group",
        /// The cluster itself; its name is `kafka-cluster`.
        Cluster = 4 "Cluster",
        /// A transactional id.
        TransactionalId = 5 "TransactionalId",
        /// A delegation token.
        DelegationToken = 6 "DelegationToken",
        /// A user, for delegation tokens.
        User = 7 "User",
    }
}

kafka_enum! {
    /// How a rule names resources.
    Pattern {
        /// The one of this name; `*` is every one.
        Literal = 3 "literal",
        /// All whose names start so.
        Prefixed = 4 "prefixed",
    }
}

kafka_enum! {
    /// What is done.
    Operation {
        /// Everything.
        All = 2 "All",
        /// Fetching.
        Read = 3 "Read",
        /// Producing.
        Write = 4 "Write",
        /// Making a topic.
        Create = 5 "Create",
        /// Deleting a topic, or records of it.
        Delete = 6 "Delete",
        /// Changing partitions; on the cluster also rules and users.
        Alter = 7 "Alter",
        /// Seeing that it is there, and its offsets.
        Describe = 8 "Describe",
        /// What brokers do among themselves.
        ClusterAction = 9 "ClusterAction",
        /// Reading settings.
        DescribeConfigs = 10 "DescribeConfigs",
        /// Changing settings.
        AlterConfigs = 11 "AlterConfigs",
        /// Producing idempotently, on old brokers.
        IdempotentWrite = 12 "IdempotentWrite",
        /// Making delegation tokens.
        CreateTokens = 13 "CreateTokens",
        /// Seeing delegation tokens.
        DescribeTokens = 14 "DescribeTokens",
        /// Taking part in a two-phase commit.
        TwoPhaseCommit = 15 "TwoPhaseCommit",
    }
}

kafka_enum! {
    /// What a rule says.
    Permission {
        /// No, whatever other rules say.
        Deny = 2 "Deny",
        /// Yes.
        Allow = 3 "Allow",
    }
}

/// Every host, in a rule.
pub const ANY_HOST: &str = "*";
/// Everybody, in a rule.
pub const EVERYBODY: &str = "User:*";
/// Every name, in a literal rule.
pub const ANY_NAME: &str = "*";

/// One access rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Acl {
    /// Whom it is about, with the type: `User:name`; `User:*` is everybody.
    pub principal: String,
    /// The kind of resource.
    pub resource: Resource,
    /// The resource's name, or its start.
    pub name: String,
    /// Which of the two.
    pub pattern: Pattern,
    /// What.
    pub operation: Operation,
    /// Yes or no.
    pub permission: Permission,
    /// The client's address; `*` is any.
    pub host: String,
}

impl Acl {
    /// Allows `principal` (`User:name`) an operation on one topic, from any host.
    pub fn on_topic(principal: &str, name: &str, operation: Operation) -> Self {
        Self {
            principal: principal.to_owned(),
            resource: Resource::Topic,
            name: name.to_owned(),
            pattern: Pattern::Literal,
            operation,
            permission: Permission::Allow,
            host: ANY_HOST.to_owned(),
        }
    }

    /// Allows `principal` an operation on all topics whose names start with `start`, from any host.
    pub fn on_topics_below(principal: &str, start: &str, operation: Operation) -> Self {
        Self { pattern: Pattern::Prefixed, ..Self::on_topic(principal, start, operation) }
    }

    /// Whether this rule allows all that `other`, which allows something, does.
    pub fn grants(&self, other: &Self) -> bool {
        self.permission == Permission::Allow
            && self.is_about(other)
            && implied_by(other.operation).contains(&self.operation)
    }

    /// Whether this rule forbids all that `other` allows.
    pub fn denies(&self, other: &Self) -> bool {
        self.permission == Permission::Deny
            && self.is_about(other)
            && [Operation::All, other.operation].contains(&self.operation)
    }

    /// Whether it is about a topic of this name.
    pub fn is_about_topic(&self, topic: &str) -> bool {
        self.resource == Resource::Topic && self.names(topic, Pattern::Literal)
    }

    /// Whether everybody and everything that `other` is about is also this rule's.
    fn is_about(&self, other: &Self) -> bool {
        (self.principal == other.principal || self.principal == EVERYBODY)
            && (self.host == other.host || self.host == ANY_HOST)
            && self.resource == other.resource
            && self.names(&other.name, other.pattern)
    }

    fn names(&self, name: &str, pattern: Pattern) -> bool {
        match self.pattern {
            Pattern::Prefixed => name.starts_with(&self.name) && !(pattern == Pattern::Literal && name == ANY_NAME),
            Pattern::Literal if self.name == ANY_NAME => true,
            Pattern::Literal => pattern == Pattern::Literal && name == self.name,
        }
    }
}

/// The operations of which one is enough: who may read, write, delete or alter may also see.
fn implied_by(operation: Operation) -> &'static [Operation] {
    use Operation::*;
    match operation {
        Describe => &[All, Describe, Read, Write, Delete, Alter],
        DescribeConfigs => &[All, DescribeConfigs, AlterConfigs],
        All => &[All],
        Read => &[All, Read],
        Write => &[All, Write],
        Create => &[All, Create],
        Delete => &[All, Delete],
        Alter => &[All, Alter],
        ClusterAction => &[All, ClusterAction],
        AlterConfigs => &[All, AlterConfigs],
        IdempotentWrite => &[All, IdempotentWrite],
        CreateTokens => &[All, CreateTokens],
        DescribeTokens => &[All, DescribeTokens],
        TwoPhaseCommit => &[All, TwoPhaseCommit],
    }
}

impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, name, operation, .. } = self;
        let may = if self.permission == Permission::Allow { "may" } else { "may not" };
        let kind = self.resource.to_string().to_lowercase();
        write!(f, "{principal} {may} {operation} on {kind} {name}")?;
        if self.pattern == Pattern::Prefixed {
            f.write_str("*")?;
        }
        if self.host != ANY_HOST {
            write!(f, " from {}", self.host)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "User:a";

    #[test]
    fn a_wider_rule_grants_a_narrower_one() {
        use Operation::*;
        let wanted = Acl::on_topic(USER, "rk.down.bulk", Read);
        let everybody = Acl { principal: EVERYBODY.to_owned(), ..wanted.clone() };
        let one_host = Acl { host: "10.0.0.1".to_owned(), ..wanted.clone() };
        let deny = Acl { permission: Permission::Deny, ..wanted.clone() };
        for (rule, grants) in [
            (wanted.clone(), true),
            (everybody, true),
            (Acl::on_topics_below(USER, "rk.down.", Read), true),
            (Acl::on_topic(USER, ANY_NAME, All), true),
            (Acl::on_topics_below(USER, "rk.up.", Read), false),
            (Acl::on_topic(USER, "rk.down", Read), false),
            (Acl::on_topic(USER, "rk.down.bulk", Describe), false),
            (Acl::on_topic("User:b", "rk.down.bulk", Read), false),
            (one_host, false),
            (deny, false),
        ] {
            assert_eq!(rule.grants(&wanted), grants, "{rule}");
        }
        let all = Acl::on_topics_below(USER, "rk.", Read);
        assert!(!wanted.grants(&all), "one topic is not all");
        assert!(Acl::on_topics_below(USER, "r", All).grants(&all));
    }

    #[test]
    fn who_may_read_may_see_and_who_may_not_see_may_still_read() {
        let see = Acl::on_topic(USER, "t", Operation::Describe);
        let read = Acl::on_topic(USER, "t", Operation::Read);
        let deny = |acl: &Acl| Acl { permission: Permission::Deny, ..acl.clone() };
        assert!(read.grants(&see) && !see.grants(&read));
        assert!(deny(&read).denies(&read) && !deny(&read).denies(&see) && !deny(&see).denies(&read));
        assert!(!read.denies(&read));
    }

    #[test]
    fn numbers_are_there_and_back_and_words_are_kafkas() {
        for code in 2..=15 {
            assert_eq!(Operation::of_code(code).map(Operation::code), Some(code));
        }
        assert_eq!((Resource::of_code(2), Pattern::of_code(4)), (Some(Resource::Topic), Some(Pattern::Prefixed)));
        assert_eq!((Operation::of_code(99), Permission::of_code(0)), (None, None));
        let text = Acl::on_topics_below(USER, "rk.", Operation::DescribeConfigs).to_string();
        assert_eq!(text, "User:a may DescribeConfigs on topic rk.*");
    }
}
