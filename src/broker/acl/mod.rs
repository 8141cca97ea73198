//! Who may do what: Kafka's access control lists, and the decision that its `StandardAuthorizer` makes of them.
//!
//! Pure: bindings and a question in, a verdict out. A binding that denies wins over all that allow; who is not named by
//! any binding is denied; super users are asked nothing. What is found does not depend on how many bindings there are:
//! only the patterns that can match a name are looked at.

mod filter;
mod words;

pub(crate) use filter::{Filter, PatternFilter};
pub(crate) use words::{CLUSTER_NAME, Operation, PatternType, Permission, ResourceType};

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Stands for every name, every host, and after `User:` for every user.
pub(crate) const WILDCARD: &str = "*";
const EVERYBODY: &str = "User:*";

/// The resources that a binding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Pattern {
    pub resource: ResourceType,
    pub pattern: PatternType,
    /// A whole name, or how names start; a literal `*` is every name.
    pub name: String,
}

/// Who is allowed or denied what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `User:name`, or `User:*`.
    pub principal: String,
    /// An address, or `*`.
    pub host: String,
    pub operation: Operation,
    pub permission: Permission,
}

/// One line of an access control list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Binding {
    #[serde(flatten)]
    pub pattern: Pattern,
    #[serde(flatten)]
    pub entry: Entry,
}

/// All bindings, by the resources that they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bindings(BTreeMap<Pattern, BTreeSet<Entry>>);

/// What somebody wants to do something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resource<'a> {
    pub kind: ResourceType,
    pub name: &'a str,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asker<'a> {
    /// `User:name`.
    pub principal: &'a str,
    /// The address that they connect from.
    pub host: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Denied,
}

impl Bindings {
    /// Adds a binding; one that is there already stays as it is.
    pub fn insert(&mut self, binding: Binding) {
        self.0.entry(binding.pattern).or_default().insert(binding.entry);
    }

    /// Removes a binding, if it is there.
    pub fn remove(&mut self, binding: &Binding) {
        if let Some(entries) = self.0.get_mut(&binding.pattern) {
            entries.remove(&binding.entry);
            if entries.is_empty() {
                self.0.remove(&binding.pattern);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// Every binding, those about the same resources next to each other.
    pub fn iter(&self) -> impl Iterator<Item = Binding> {
        self.0.iter().flat_map(|(pattern, entries)| {
            entries.iter().map(|entry| Binding { pattern: pattern.clone(), entry: entry.clone() })
        })
    }

    /// The bindings that a filter finds.
    pub fn matching(&self, filter: &Filter) -> Vec<Binding> {
        self.iter().filter(|binding| filter.matches(binding)).collect()
    }

    /// The entries about one name: literal, for every name, and those of each prefix of it.
    fn about(&self, resource: Resource<'_>) -> impl Iterator<Item = &Entry> {
        let literal =
            |name: &str| Pattern { resource: resource.kind, pattern: PatternType::Literal, name: name.to_owned() };
        let named = self.0.get(&literal(resource.name));
        let every = if resource.name == WILDCARD { None } else { self.0.get(&literal(WILDCARD)) };
        named.into_iter().chain(every).chain(self.prefixes(resource)).flatten()
    }

    /// The entries of all prefixes of a name, the longest prefix first.
    ///
    /// Prefixes of a name sort before it, with others in between: from one of those the search goes on at what it has in
    /// common with the name, so it takes a step for each length of common beginning and not for each binding.
    fn prefixes(&self, resource: Resource<'_>) -> impl Iterator<Item = &BTreeSet<Entry>> {
        let pattern = move |name: &str| Pattern {
            resource: resource.kind,
            pattern: PatternType::Prefixed,
            name: name.to_owned(),
        };
        let lowest = pattern("");
        let mut from = Some(resource.name);
        std::iter::from_fn(move || {
            while let Some(start) = from {
                let (found, entries) = self.0.range(&lowest..=&pattern(start)).next_back()?;
                if resource.name.starts_with(&found.name) {
                    from = shorter(&resource.name[..found.name.len()]);
                    return Some(entries);
                }
                from = Some(common(resource.name, &found.name));
            }
            None
        })
    }
}

impl FromIterator<Binding> for Bindings {
    fn from_iter<I: IntoIterator<Item = Binding>>(bindings: I) -> Self {
        let mut all = Self::default();
        bindings.into_iter().for_each(|binding| all.insert(binding));
        all
    }
}

/// The text without its last character.
fn shorter(text: &str) -> Option<&str> {
    text.char_indices().next_back().map(|(at, _)| &text[..at])
}

/// How `name` starts as far as `other` starts the same.
fn common<'a>(name: &'a str, other: &str) -> &'a str {
    let same = name.chars().zip(other.chars()).take_while(|(a, b)| a == b);
    &name[..same.map(|(c, _)| c.len_utf8()).sum()]
}

impl Entry {
    fn is_for(&self, asker: Asker<'_>) -> bool {
        (self.principal == asker.principal || self.principal == EVERYBODY)
            && (self.host == asker.host || self.host == WILDCARD)
    }

    /// Whether the entry speaks of the operation. Only what is allowed implies more: who may read may describe, but who
    /// must not read may still describe.
    fn covers(&self, operation: Operation) -> bool {
        if self.operation == Operation::All || self.operation == operation {
            return true;
        }
        self.permission == Permission::Allow && operation.implied_by().contains(&self.operation)
    }
}

/// Whether somebody may do this.
pub(crate) fn decide(
    bindings: &Bindings,
    super_users: &BTreeSet<String>,
    asker: Asker<'_>,
    operation: Operation,
    resource: Resource<'_>,
) -> Verdict {
    if super_users.contains(asker.principal) {
        return Verdict::Allowed;
    }
    let mut verdict = Verdict::Denied;
    for entry in bindings.about(resource).filter(|entry| entry.is_for(asker) && entry.covers(operation)) {
        match entry.permission {
            Permission::Deny => return Verdict::Denied,
            Permission::Allow => verdict = Verdict::Allowed,
        }
    }
    verdict
}

/// Whether somebody may do this with at least one resource of the kind, existing or not.
pub(crate) fn decide_any(
    bindings: &Bindings,
    super_users: &BTreeSet<String>,
    asker: Asker<'_>,
    operation: Operation,
    kind: ResourceType,
) -> Verdict {
    if super_users.contains(asker.principal) {
        return Verdict::Allowed;
    }
    let with = |permission| {
        bindings.0.iter().filter(move |(pattern, entries)| {
            let speaks = |e: &Entry| e.permission == permission && e.is_for(asker) && e.covers(operation);
            pattern.resource == kind && entries.iter().any(speaks)
        })
    };
    let denied: Vec<&Pattern> = with(Permission::Deny).map(|(pattern, _)| pattern).collect();
    let open = |(allowed, _): (&Pattern, _)| !denied.iter().any(|denied| denied.swallows(allowed));
    if with(Permission::Allow).any(open) { Verdict::Allowed } else { Verdict::Denied }
}

impl Pattern {
    /// Whether every resource that `other` is about is among this pattern's.
    fn swallows(&self, other: &Pattern) -> bool {
        match self.pattern {
            PatternType::Literal if self.name == WILDCARD => true,
            PatternType::Literal => other.pattern == PatternType::Literal && other.name == self.name,
            PatternType::Prefixed if other.pattern == PatternType::Literal && other.name == WILDCARD => {
                self.name.is_empty()
            }
            PatternType::Prefixed => other.name.starts_with(&self.name),
        }
    }
}

#[cfg(test)]
mod tests;
