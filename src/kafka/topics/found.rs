//! What a cluster has of an installation, gathered by asking it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Desired, Installation};
use crate::kafka::{Admin, Error, FoundTopic, Offered, acl::Acl};

/// What [`plan`](super::plan) compares with.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Who asked, as access rules name it.
    pub principal: String,
    /// How many brokers there are.
    pub brokers: usize,
    /// The topics below the prefix that we may see, by name.
    pub topics: BTreeMap<String, FoundTopic>,
    /// The settings of those topics that we may read.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Access rules on topics.
    pub acls: Seen<Vec<Acl>>,
    /// Those of the wanted users that have a login.
    pub users: Seen<BTreeSet<String>>,
}

/// What came of a question that may have no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Seen<T> {
    /// Nobody asked.
    #[default]
    Unasked,
    /// The answer.
    Known(T),
    /// The cluster has no such thing.
    Absent,
    /// We may not know: which right is missing.
    Refused(String),
}

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The installation's own topics: all that a controller needs to know before it starts.
    Topics,
    /// Also other topics below the prefix, access rules and users.
    Everything,
}

/// Looks at a cluster. Each of the few questions ends within 30 s. A right that is missing is part of the answer.
pub async fn look(admin: &Admin, installation: &Installation, depth: Depth) -> Result<(Desired, Found), Error> {
    let brokers = admin.brokers().await?;
    let desired = Desired::new(installation, brokers);
    let mut found = Found { principal: admin.principal().to_owned(), brokers, ..Found::default() };
    let names: Vec<&str> = desired.topics.iter().map(|topic| topic.name.as_str()).collect();
    let mut there = Vec::new();
    for topic in admin.find_topics(&names).await? {
        match topic {
            Ok(topic) => there.push(topic),
            // Whom Kafka does not let see a topic it does not tell whether there is one. Creating it tells.
            Err(Error::TopicMissing { .. } | Error::Authorization { .. }) => (),
            Err(error) => return Err(error),
        }
    }
    if depth == Depth::Everything {
        there.extend(admin.topics_below(&desired.prefix.start()).await?);
        look_at_rights(admin, &desired, &mut found).await?;
    }
    found.topics = there.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    found.settings = settings(admin, &desired, &found).await?;
    Ok((desired, found))
}

async fn settings(
    admin: &Admin,
    desired: &Desired,
    found: &Found,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    let keys: BTreeSet<&str> =
        desired.topics.iter().flat_map(|topic| topic.settings.iter().map(|(key, _)| *key)).collect();
    let names: Vec<&str> = found.topics.keys().map(String::as_str).collect();
    let keys: Vec<&str> = keys.into_iter().collect();
    let mut readable = BTreeMap::new();
    for (name, settings) in names.iter().zip(admin.topic_settings(&names, &keys).await?) {
        match settings {
            Ok(settings) => drop(readable.insert((*name).to_owned(), settings)),
            Err(Error::Authorization { .. } | Error::TopicMissing { .. }) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}

async fn look_at_rights(admin: &Admin, desired: &Desired, found: &mut Found) -> Result<(), Error> {
    if !desired.acls.is_empty() {
        found.acls = seen(admin.topic_acls(None).await)?;
    }
    if !desired.users.is_empty() {
        let names: Vec<&str> = desired.users.iter().map(String::as_str).collect();
        found.users = match seen(admin.scram_users(&names).await)? {
            Seen::Known(users) => Seen::Known(users.into_iter().map(|user| user.name).collect()),
            Seen::Absent => Seen::Absent,
            Seen::Refused(detail) => Seen::Refused(detail),
            Seen::Unasked => Seen::Unasked,
        };
    }
    Ok(())
}

fn seen<T>(answer: Result<Offered<T>, Error>) -> Result<Seen<T>, Error> {
    match answer {
        Ok(Offered::Present(value)) => Ok(Seen::Known(value)),
        Ok(Offered::Absent) => Ok(Seen::Absent),
        Err(Error::Authorization { detail }) => Ok(Seen::Refused(detail)),
        Err(error) => Err(error),
    }
}
