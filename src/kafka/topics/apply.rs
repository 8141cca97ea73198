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
    let mut by_topic: BTreeMap<&str, Vec<&'a Difference>> = BTreeMap::new();
    for difference in differences {
        if let Difference::Setting { topic, .. } = difference {
            by_topic.entry(topic).or_default().push(difference);
        }
    }
    let settings: Vec<Vec<(&str, &str)>> =
        by_topic.values().map(|list| list.iter().filter_map(setting).collect()).collect();
    let changes: Vec<(&str, &[(&str, &str)])> =
        by_topic.keys().zip(&settings).map(|(topic, settings)| (*topic, &settings[..])).collect();
    let results = admin.set_topic_settings(&changes).await?;
    let of = |(list, result): (Vec<&'a Difference>, Result<(), Error>)| {
        list.into_iter().map(move |difference| Applied { difference, result: result.clone() })
    };
    Ok(by_topic.into_values().zip(results).flat_map(of).collect())
}

fn setting<'a>(difference: &&'a Difference) -> Option<(&'a str, &'a str)> {
    match difference {
        Difference::Setting { key, wanted, .. } => Some((key, wanted)),
        _ => None,
    }
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
