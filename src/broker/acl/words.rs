//! The words of access control lists, with Kafka's numbers for them.

use serde::{Deserialize, Serialize};

/// The only name of a resource of type cluster.
pub(crate) const CLUSTER_NAME: &str = "kafka-cluster";

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($word:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[repr(i8)]
        pub(crate) enum $name {
            $($word = $number,)*
        }

        impl $name {
            /// All of them.
            #[cfg(test)]
            pub const EVERY: &[Self] = &[$(Self::$word,)*];

            /// The word with this number. None for `UNKNOWN`, `ANY` and what later versions of Kafka have.
            pub fn from_number(number: i8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$word),)*
                    _ => None,
                }
            }

            /// Kafka's number for it.
            pub fn number(self) -> i8 {
                self as i8
            }
        }
    };
}

words! {
    /// What a binding can be about.
    ResourceType {
        Topic = 2,
        Group = 3,
        Cluster = 4,
        TransactionalId = 5,
        DelegationToken = 6,
        User = 7,
    }
}

words! {
    /// How the name in a binding is meant.
    PatternType {
        Literal = 3,
        Prefixed = 4,
    }
}

words! {
    /// What a binding allows or denies.
    Operation {
        All = 2,
        Read = 3,
        Write = 4,
        Create = 5,
        Delete = 6,
        Alter = 7,
        Describe = 8,
        ClusterAction = 9,
        DescribeConfigs = 10,
        AlterConfigs = 11,
        IdempotentWrite = 12,
        CreateTokens = 13,
        DescribeTokens = 14,
        TwoPhaseCommit = 15,
    }
}

words! {
    /// Whether a binding allows or denies.
    Permission {
        Deny = 2,
        Allow = 3,
    }
}

impl Operation {
    /// The operations that, where they are allowed, allow this one too.
    pub fn implied_by(self) -> &'static [Self] {
        match self {
            Self::Describe => &[Self::Read, Self::Write, Self::Delete, Self::Alter],
            Self::DescribeConfigs => &[Self::AlterConfigs],
            _ => &[],
        }
    }

    /// What can be done with a resource of this kind, as far as clients are told.
    pub fn with(kind: ResourceType) -> &'static [Self] {
        match kind {
            ResourceType::Topic => &[
                Self::Read,
                Self::Write,
                Self::Create,
                Self::Delete,
                Self::Alter,
                Self::Describe,
                Self::DescribeConfigs,
                Self::AlterConfigs,
            ],
            ResourceType::Cluster => &[
                Self::Create,
                Self::Alter,
                Self::Describe,
                Self::ClusterAction,
                Self::DescribeConfigs,
                Self::AlterConfigs,
                Self::IdempotentWrite,
            ],
            _ => &[],
        }
    }
}
