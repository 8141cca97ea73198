//! Selecting agents by their labels: `os=linux,zone!=a,gpu,!spot`.
//!
//! All requirements must hold. A key that an agent does not have differs from every value, so `zone!=a` also selects
//! agents without a zone.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Labels as agents have them.
pub type Labels = BTreeMap<String, String>;

/// The most requirements in one selector.
const MAX_REQUIREMENTS: usize = 64;
/// The longest key or value in bytes.
const MAX_WORD: usize = 253;

/// A conjunction of requirements on labels. The empty selector selects everybody. Written as its text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Requirement {
    Equals(String, String),
    Differs(String, String),
    Has(String),
    Lacks(String),
}

/// The text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector {part:?} {problem}; write it like os=linux,zone!=a,gpu,!spot")]
pub struct InvalidSelector {
    part: String,
    problem: &'static str,
}

/// The text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label {text:?} {problem}; write it like zone=a, with letters, digits, '.', '-', '_' and '/' in it")]
pub struct InvalidLabel {
    text: String,
    problem: &'static str,
}

impl Selector {
    /// Whether `labels` meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Equals(key, value) => labels.get(key) == Some(value),
            Requirement::Differs(key, value) => labels.get(key) != Some(value),
            Requirement::Has(key) => labels.contains_key(key),
            Requirement::Lacks(key) => !labels.contains_key(key),
        })
    }

    /// Whether everybody is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(s: &str) -> Result<Self, InvalidSelector> {
        if s.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts: Vec<&str> = s.split(',').map(str::trim).collect();
        if parts.len() > MAX_REQUIREMENTS {
            return Err(InvalidSelector { part: shortened(s), problem: "has more than 64 requirements" });
        }
        parts.into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for Selector {
    type Error = InvalidSelector;

    fn try_from(s: String) -> Result<Self, InvalidSelector> {
        s.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::Equals(key, value) => write!(f, "{key}={value}")?,
                Requirement::Differs(key, value) => write!(f, "{key}!={value}")?,
                Requirement::Has(key) => f.write_str(key)?,
                Requirement::Lacks(key) => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

/// Reads one label, `key=value`; the value may be empty.
pub fn label(text: &str) -> Result<(String, String), InvalidLabel> {
    let refuse = |problem| InvalidLabel { text: shortened(text), problem };
    let (key, value) = text.split_once('=').ok_or_else(|| refuse("has no '='"))?;
    if !is_key(key) {
        return Err(refuse("has a key that is empty, too long, or with a wrong character"));
    }
    if !is_value(value) {
        return Err(refuse("has a value that is too long, or with a wrong character"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Whether `labels` could have been read by [`label`].
pub fn check(labels: &Labels) -> Result<(), InvalidLabel> {
    labels.iter().try_for_each(|(key, value)| label(&format!("{key}={value}")).map(|_| ()))
}

fn requirement(part: &str) -> Result<Requirement, InvalidSelector> {
    let refuse = |problem| InvalidSelector { part: shortened(part), problem };
    let key = |key: &str| {
        let key = key.trim();
        if is_key(key) { Ok(key.to_owned()) } else { Err(refuse("has a malformed key")) }
    };
    let value = |value: &str| {
        let value = value.trim();
        if is_value(value) { Ok(value.to_owned()) } else { Err(refuse("has a malformed value")) }
    };
    if let Some((k, v)) = part.split_once("!=") {
        return Ok(Requirement::Differs(key(k)?, value(v)?));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::Equals(key(k)?, value(v)?));
    }
    match part.strip_prefix('!') {
        Some(k) => Ok(Requirement::Lacks(key(k)?)),
        None => Ok(Requirement::Has(key(part)?)),
    }
}

fn is_key(s: &str) -> bool {
    (1..=MAX_WORD).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'/'))
}

fn is_value(s: &str) -> bool {
    s.len() <= MAX_WORD && s.chars().all(|c| !c.is_control() && !matches!(c, ',' | '=' | '!'))
}

fn shortened(s: &str) -> String {
    s.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_requirement_must_hold_and_a_missing_key_differs_from_every_value() {
        let agent = labels(&[("os", "linux"), ("zone", "b"), ("gpu", "")]);
        let table = [
            ("", true),
            ("os=linux", true),
            ("os==linux", true),
            ("os=windows", false),
            ("zone!=a", true),
            ("zone!=b", false),
            ("rack!=1", true),
            ("rack=1", false),
            ("gpu", true),
            ("rack", false),
            ("!rack", true),
            ("!gpu", false),
            ("os=linux,zone!=a,gpu,!spot", true),
            ("os=linux, zone=a", false),
            ("gpu=", true),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<Selector>().expect(text).matches(&agent), expected, "{text}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused_with_an_example() {
        for bad in [",", "os=linux,", "=x", "!", "!=x", "a b", "os=a=b", &"x,".repeat(65)] {
            let message = bad.parse::<Selector>().expect_err(bad).to_string();
            assert!(message.contains("os=linux"), "{message}");
        }
    }

    #[test]
    fn a_selector_survives_its_text() {
        let text = "os=linux,zone!=a,gpu,!spot";
        let selector = text.parse::<Selector>().expect("good");
        assert_eq!(selector.to_string(), text);
        let bytes = postcard::to_stdvec(&selector).expect("postcard");
        assert_eq!(&bytes[1..], text.as_bytes());
        assert_eq!(postcard::from_bytes(&bytes), Ok(selector));
    }

    #[test]
    fn labels_are_read_and_bad_ones_refused() {
        assert_eq!(label("zone=a b"), Ok(("zone".to_owned(), "a b".to_owned())));
        assert_eq!(label("empty="), Ok(("empty".to_owned(), String::new())));
        for bad in ["zone", "=a", "a b=c", "a=b,c", "a=\n"] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert!(check(&labels(&[("a", "b=c")])).is_err());
    }
}
