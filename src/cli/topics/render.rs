//! How differences look.

use std::{collections::BTreeSet, str::FromStr};

use serde_json::{Value, json};

use crate::kafka::topics::{Desired, Difference, Found, Mend};

/// The formats of `-o`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document for each difference, a line each.
    Jsonl,
    /// The names of topics, a line each.
    Name,
    /// Commands of Kafka's own tools.
    KafkaCli,
    /// Resources of Strimzi.
    Strimzi,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            "name" => Ok(Self::Name),
            "kafka-cli" => Ok(Self::KafkaCli),
            "strimzi" => Ok(Self::Strimzi),
            _ => Err(format!("{s:?} is no format; use table, json, jsonl, name, kafka-cli or strimzi")),
        }
    }
}

/// A line for each difference: who mends it, and what it is.
pub fn lines(differences: &[Difference]) -> String {
    differences.iter().map(|difference| format!("{:<8} {difference}\n", verb(difference.mend()))).collect()
}

fn verb(mend: Mend) -> &'static str {
    match mend {
        Mend::Create => "create",
        Mend::Change => "change",
        Mend::ByHand => "by hand",
        Mend::Nobody => "warning",
    }
}

/// A difference in JSON.
pub fn item(difference: &Difference) -> Value {
    let mut item = json!({
        "kind": difference.kind(),
        "mend": verb(difference.mend()).replace(' ', "_"),
        "text": difference.to_string(),
    });
    if let Some(topic) = difference.topic() {
        item["topic"] = json!(topic);
    }
    if let Difference::AddAcl(acl) | Difference::WideAcl { acl, .. } = difference {
        item["acl"] = json!(acl);
    }
    item
}

/// A whole comparison in JSON.
pub fn document(desired: &Desired, found: &Found, differences: &[Difference], warnings: &[Difference]) -> Value {
    let items = |list: &[Difference]| list.iter().map(item).collect::<Vec<_>>();
    json!({
        "prefix": desired.prefix.to_string(),
        "brokers": found.brokers,
        "most_bytes": desired.most_bytes(),
        "differences": items(differences),
        "warnings": items(warnings),
    })
}

/// The topics that differ, each once.
pub fn names(differences: &[Difference]) -> String {
    let names: BTreeSet<&str> = differences.iter().filter_map(Difference::topic).collect();
    names.iter().map(|name| format!("{name}\n")).collect()
}

/// A size for people: `1.3 GiB`, `320 MiB`.
pub fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    // Whole tenths, so that no float rounds.
    let tenths = bytes.saturating_mul(10) >> shift;
    match (tenths / 10, tenths % 10) {
        (whole, tenth) if tenth == 0 || whole >= 100 => format!("{whole} {unit}"),
        (whole, tenth) => format!("{whole}.{tenth} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::acl::{Acl, Operation};

    fn some() -> Vec<Difference> {
        vec![
            Difference::Setting {
                topic: "rk.logs".to_owned(),
                key: "retention.ms",
                found: "1".to_owned(),
                wanted: "604800000".to_owned(),
            },
            Difference::AddAcl(Acl::on_topic("User:a", "rk.logs", Operation::Write)),
            Difference::Partitions { topic: "rk.logs".to_owned(), found: 4, wanted: 8 },
        ]
    }

    #[test]
    fn each_difference_is_a_line_that_begins_with_who_mends_it() {
        let text = lines(&some());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "change   topic rk.logs has retention.ms=1, wanted is 604800000");
        assert_eq!(lines[1], "create   no rule says that User:a may Write on topic rk.logs");
        assert!(lines[2].starts_with("by hand  topic rk.logs has 4 partitions and 8 are wanted; "), "{text}");
        assert_eq!((lines.len(), names(&some())), (3, "rk.logs\n".to_owned()));
    }

    #[test]
    fn json_names_kind_topic_and_rule() {
        let items: Vec<Value> = some().iter().map(item).collect();
        assert_eq!((&items[0]["kind"], &items[0]["mend"]), (&json!("setting"), &json!("change")));
        assert_eq!(items[1]["acl"]["operation"], json!("Write"));
        assert_eq!((&items[2]["topic"], &items[2]["mend"]), (&json!("rk.logs"), &json!("by_hand")));
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in
            [(7, "7 B"), (320 << 20, "320 MiB"), (1 << 30, "1 GiB"), ((1 << 30) + (1 << 28), "1.2 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert!(size(u64::MAX).ends_with(" TiB"));
    }
}
