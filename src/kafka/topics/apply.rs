//! Makes what can be made.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Difference, Topic};
use crate::kafka::{Admin, Error, Offered, acl::Acl};

/// How long new topics may take until every partition has a leader.
const VISIBLE: Duration = Duration::from_secs(30);

/// How often we look.
const LOOK: Duration = Duration::from_millis(100);

/// What became of a difference.
#[derive(Debug)]
pub struct Applied<'a> {
    /// The difference.
    pub difference: &'a Difference,
    /// Whether it is gone.
    pub result: Result<(), Error>,
}

/// Makes the missing topics and rules, changes settings, and waits until new topics can be used. One result per
/// difference of those kinds; the others are left alone. Doing it twice does no harm.
///
/// An error is that of a cluster which could not be asked, or of new topics that nobody serves within 30 s.
pub async fn apply<'a>(admin: &Admin, differences: &'a [Difference]) -> Result<Vec<Applied<'a>>, Error> {
    let mut done = create_topics(admin, differences).await?;
    done.extend(change_settings(admin, differences).await?);
    done.extend(add_acls(admin, differences).await?);
    Ok(done)
}

async fn create_topics<'a>(admin: &Admin, differences: &'a [Difference]) -> Result<Vec<Applied<'a>>, Error> {
    let missing: Vec<(&Difference, &Topic)> = differences
        .iter()
        .filter_map(|difference| match difference {
            Difference::CreateTopic(topic) => Some((difference, topic)),
            _ => None,
        })
        .collect();
    let topics: Vec<&Topic> = missing.iter().map(|(_, topic)| *topic).collect();
    let results = admin.create_topics(&topics).await?;
    let made = topics.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(topic, _)| *topic);
    wait_until_served(admin, &made.collect::<Vec<_>>()).await?;
    let pairs = missing.into_iter().zip(results);
    Ok(pairs.map(|((difference, _), result)| Applied { difference, result }).collect())
}

async fn wait_until_served(admin: &Admin, topics: &[&Topic]) -> Result<(), Error> {
    if topics.is_empty() {
        return Ok(());
    }
    let deadline = Instant::now() + VISIBLE;
    loop {
        match admin.are_served(topics).await {
            Ok(()) => return Ok(()),
            // It was there before and is not as it has to be, or may not be seen by us: the next look says so.
            Err(Error::Authorization { .. }) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(Error::TopicMissing { .. } | Error::Transient { .. } | Error::Config(_)) => {
                admin.forget(topics);
                sleep(LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn change_settings<'a>(admin: &Admin, differences: &'a [Difference]) -> Result<Vec<Applied<'a>>, Error> {
    let mut changes: BTreeMap<&str, Vec<(&Difference, (&str, &str))>> = BTreeMap::new();
    for difference in differences {
        if let Difference::Setting { topic, key, wanted, .. } = difference {
            changes.entry(topic).or_default().push((difference, (key, wanted)));
        }
    }
    let settings: Vec<(&str, Vec<(&str, &str)>)> =
        changes.iter().map(|(topic, list)| (*topic, list.iter().map(|(_, setting)| *setting).collect())).collect();
    let asked: Vec<(&str, &[(&str, &str)])> = settings.iter().map(|(topic, list)| (*topic, &list[..])).collect();
    let results = admin.set_topic_settings(&asked).await?;
    let of = |(list, result): (Vec<(&'a Difference, _)>, Result<(), Error>)| {
        list.into_iter().map(move |(difference, _)| Applied { difference, result: result.clone() })
    };
    Ok(changes.into_values().zip(results).flat_map(of).collect())
}

async fn add_acls<'a>(admin: &Admin, differences: &'a [Difference]) -> Result<Vec<Applied<'a>>, Error> {
    let missing: Vec<(&Difference, &Acl)> = differences
        .iter()
        .filter_map(|difference| match difference {
            Difference::AddAcl(acl) => Some((difference, acl)),
            _ => None,
        })
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let acls: Vec<&Acl> = missing.iter().map(|(_, acl)| *acl).collect();
    let results = match admin.create_acls(&acls).await? {
        Offered::Present(results) => results,
        // The authorizer went away since we looked; the next look says so.
        Offered::Absent => acls.iter().map(|_| Ok(())).collect(),
    };
    let pairs = missing.into_iter().zip(results);
    Ok(pairs.map(|((difference, _), result)| Applied { difference, result }).collect())
}
