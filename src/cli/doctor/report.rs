//! What was found, hop by hop, and how it is shown. Pure.

use std::{fmt::Write as _, time::Duration};

use serde::{Serialize, Serializer};

/// How wide the report may be.
const WIDTH: usize = 80;
/// Where the lines below a hop begin.
const INDENT: usize = 6;
/// How wide the column of targets is at least; what is longer moves the rest of its line.
const TARGET: usize = 21;

/// The judgement on one hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
    /// Not tried, because of an earlier one.
    Skipped,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
            Self::Skipped => "skip",
        }
    }
}

/// A judgement with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The judgement.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// Whose it is to mend; only where something is to be mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The exit code if it is the first failure.
    #[serde(skip)]
    pub code: u8,
}

impl Finding {
    /// All is well.
    pub fn ok(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, detail: detail.into(), fault: None, next: None, code: 0 }
    }

    /// Not tried.
    pub fn skipped(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(detail) }
    }

    /// It works, but.
    pub fn warn(detail: impl Into<String>, fault: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, ..Self::fail(0, detail, fault, next) }
    }

    /// It does not work; `code` is the exit code.
    pub fn fail(code: u8, detail: impl Into<String>, fault: impl Into<String>, next: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, detail: detail.into(), fault: Some(fault.into()), next: Some(next.into()), code }
    }
}

/// One hop and what was found there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hop {
    /// What kind of hop, a word.
    pub hop: &'static str,
    /// Where: an address, a topic.
    pub target: String,
    /// How long it took; none if it was not tried.
    #[serde(rename = "ms", serialize_with = "milliseconds")]
    pub took: Option<Duration>,
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
}

fn milliseconds<S: Serializer>(took: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    let tenths = took.map(|took| (took.as_secs_f64() * 1e4).round() / 10.0);
    tenths.serialize(serializer)
}

impl Hop {
    /// A hop that was tried.
    pub fn new(hop: &'static str, target: impl Into<String>, took: Duration, finding: Finding) -> Self {
        Self { hop, target: target.into(), took: Some(took), finding }
    }

    /// A hop about which something is known without trying.
    pub fn known(hop: &'static str, target: impl Into<String>, finding: Finding) -> Self {
        Self { hop, target: target.into(), took: None, finding }
    }

    /// A hop that was not tried.
    pub fn skipped(hop: &'static str, target: impl Into<String>, why: impl Into<String>) -> Self {
        Self { hop, target: target.into(), took: None, finding: Finding::skipped(why) }
    }

    /// Whether it failed.
    pub fn failed(&self) -> bool {
        self.finding.verdict == Verdict::Fail
    }

    /// Its lines: at most 80 columns each, unless a single word is longer.
    pub fn lines(&self) -> String {
        let time = self.took.map(|took| format!("{:.1} ms", took.as_secs_f64() * 1e3)).unwrap_or_default();
        let Self { hop, target, finding, .. } = self;
        let mut text = format!("{:<INDENT$}{hop:<11} {target:<TARGET$} {time:>10}", finding.verdict.word());
        let room = WIDTH.saturating_sub(text.chars().count() + 2);
        // A failure's reason has lines of its own; else the line holds it if there is room.
        if finding.fault.is_none() && finding.detail.chars().count() <= room {
            write!(text, "  {}", finding.detail).expect("a string takes it");
            text = text.trim_end().to_owned() + "\n";
        } else {
            text.truncate(text.trim_end().len());
            text += "\n";
            text += &wrapped(&finding.detail, "");
        }
        for (label, words) in [("fault: ", &finding.fault), ("next: ", &finding.next)] {
            if let Some(words) = words {
                text += &wrapped(words, label);
            }
        }
        text
    }
}

/// `words` on indented lines, the first behind `label`.
fn wrapped(words: &str, label: &str) -> String {
    let mut text = String::new();
    let mut line = format!("{:INDENT$}{label}", "");
    let mut is_empty = true;
    for word in words.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text += &(std::mem::replace(&mut line, " ".repeat(INDENT + label.len())) + "\n");
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    text + &line + "\n"
}

/// The exit code: that of the first failure, 0 without one.
pub fn exit_code(hops: &[Hop]) -> u8 {
    hops.iter().find(|hop| hop.failed()).map_or(0, |hop| hop.finding.code)
}

/// One line about all of it.
pub fn summary(hops: &[Hop]) -> String {
    let count = |verdict| hops.iter().filter(|hop| hop.finding.verdict == verdict).count();
    let (failed, warned, skipped) = (count(Verdict::Fail), count(Verdict::Warn), count(Verdict::Skipped));
    match hops.iter().find(|hop| hop.failed()) {
        None if warned == 0 => "all is well".to_owned(),
        None => format!("it works; {warned} of {} hops want a look", hops.len()),
        Some(first) => format!(
            "{failed} of {} hops failed, the first is {} {}; {skipped} were skipped",
            hops.len(),
            first.hop,
            first.target
        )
        .replace(" ;", ";"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(finding: Finding) -> Hop {
        Hop::new("tls", "kafka-1.example:9093", Duration::from_micros(3140), finding)
    }

    #[test]
    fn lines_fit_eighty_columns_and_say_whose_fault_it_is() {
        let fail = Finding::fail(77, "word ".repeat(40), "the broker's operator", "do this and that ".repeat(12));
        let text = hop(fail).lines();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.starts_with("FAIL  tls         kafka-1.example:9093      3.1 ms\n      word"), "{text}");
        assert!(text.contains("\n      fault: the broker's operator\n      next: do this"), "{text}");
        assert_eq!(hop(Finding::ok("fine")).lines(), "ok    tls         kafka-1.example:9093      3.1 ms  fine\n");
    }

    #[test]
    fn the_first_failure_decides_the_exit_code_and_warnings_do_not() {
        let [ok, warn] = [Finding::ok(""), Finding::warn("a", "b", "c")].map(hop);
        let fail = |code| hop(Finding::fail(code, "a", "b", "c"));
        assert_eq!(exit_code(&[ok.clone(), warn.clone()]), 0);
        assert_eq!(exit_code(&[warn.clone(), fail(69), fail(77)]), 69);
        assert_eq!(summary(std::slice::from_ref(&ok)), "all is well");
        assert_eq!(summary(&[ok, warn]), "it works; 1 of 2 hops want a look");
        assert!(summary(&[fail(1)]).starts_with("1 of 1 hops failed, the first is tls kafka-1.example:9093;"));
    }

    #[test]
    fn json_has_one_flat_object_for_a_hop() {
        let json = serde_json::to_value(hop(Finding::fail(1, "a", "b", "c"))).expect("JSON");
        let expected = serde_json::json!({
            "hop": "tls", "target": "kafka-1.example:9093", "ms": 3.1, "verdict": "fail", "detail": "a", "fault": "b",
            "next": "c",
        });
        assert_eq!(json, expected);
    }
}
