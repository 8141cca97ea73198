//! `rk topics ls`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Compared, Session, render, render::Format};
use crate::{
    cli::{Failure, output},
    kafka::topics::{Difference, Topic, most_bytes},
};

/// One topic.
#[derive(Debug, Serialize)]
struct Row {
    topic: String,
    /// None: it is missing.
    partitions: Option<i32>,
    replicas: Option<i16>,
    /// None: nothing bounds it, or it is not known.
    most_bytes: Option<u64>,
    verdict: Vec<String>,
}

/// Prints the installation's topics: those that it needs, and others below its prefix.
pub async fn run(session: &Session) -> Result<u8, Failure> {
    let compared = session.compare().await?;
    let rows = rows(&compared);
    match session.format {
        Format::Json => output::print_json(&rows)?,
        Format::Jsonl => rows.iter().try_for_each(output::print_jsonl)?,
        Format::Name => {
            let there = rows.iter().filter(|row| row.partitions.is_some());
            output::print(&there.map(|row| format!("{}\n", row.topic)).collect::<String>())?;
        }
        Format::Table => {
            let cells: Vec<_> = rows.iter().map(cells).collect();
            output::print(&output::table(["TOPIC", "PARTITIONS", "REPLICAS", "AT MOST", "VERDICT"], &cells))?;
        }
        Format::KafkaCli | Format::Strimzi => {
            return Err(Failure::usage("`rk topics plan` prints commands and resources; ls takes table, json or name"));
        }
    }
    Ok(0)
}

fn rows(compared: &Compared) -> Vec<Row> {
    let Compared { desired, found, differences, warnings } = compared;
    let mut said: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for difference in differences.iter().chain(warnings) {
        if let Some(topic) = difference.topic() {
            said.entry(topic).or_default().push(short(difference));
        }
    }
    let wanted: BTreeMap<&str, &Topic> = desired.topics.iter().map(|topic| (topic.name.as_str(), topic)).collect();
    let others = found.topics.keys().map(String::as_str).filter(|name| !wanted.contains_key(name));
    let names = desired.topics.iter().map(|topic| topic.name.as_str()).chain(others);
    names
        .map(|name| {
            let there = found.topics.get(name);
            let settings = found.settings.get(name);
            let setting = |key: &str| settings.and_then(|settings| settings.get(key)).map(String::as_str);
            let mut verdict = said.remove(name).unwrap_or_default();
            if verdict.is_empty() && !wanted.contains_key(name) {
                verdict.push("not ours".to_owned());
            }
            Row {
                topic: name.to_owned(),
                partitions: there.map(|topic| topic.partitions),
                replicas: there.map(|topic| topic.replication),
                most_bytes: there.and_then(|topic| most_bytes(setting, topic.partitions, topic.replication)),
                verdict,
            }
        })
        .collect()
}

fn cells(row: &Row) -> [String; 5] {
    let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    [
        row.topic.clone(),
        or_none(row.partitions.map(|number| number.to_string())),
        or_none(row.replicas.map(|number| number.to_string())),
        or_none(row.most_bytes.map(render::size)),
        if row.verdict.is_empty() { "ok".to_owned() } else { row.verdict.join("; ") },
    ]
}

/// A difference in the few words that fit beside its topic.
fn short(difference: &Difference) -> String {
    match difference {
        Difference::CreateTopic(_) => "missing".to_owned(),
        Difference::Setting { key, found, wanted, .. } => format!("{key}={found}, wanted {wanted}"),
        Difference::Partitions { wanted, .. } => format!("wanted {wanted} partitions"),
        Difference::Replication { wanted, .. } => format!("wanted {wanted} replicas"),
        Difference::UnseenSettings { .. } => "settings not readable".to_owned(),
        Difference::Blocked { needed, in_sync, .. } => format!("blocked: {in_sync} in sync, {needed} needed"),
        Difference::Fragile { .. } => "fragile: all replicas must acknowledge".to_owned(),
        Difference::WideAcl { acl, .. } => format!("{} may {}", acl.principal, acl.operation),
        Difference::Orphan { agent, .. } => format!("orphan of {agent}"),
        other => other.to_string(),
    }
}
