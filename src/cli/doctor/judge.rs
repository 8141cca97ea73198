//! What is wrong, whose fault it is, and what to do next. Pure: figures and answers in, findings out.

use std::{collections::BTreeMap, time::Duration};

use super::report::{Finding, Hop, Verdict};
use crate::{
    certs::{Certificate, State},
    cli::failure,
    kafka::{Error, Hop as Step, examine::TopicView, topics::Topic},
};

/// The exit code of what is neither unreachable nor refused.
pub const BROKEN: u8 = 1;

/// A clock that is further off is worth a warning.
const CLOCK_WARN: i64 = 2_000;
/// A clock that is further off makes certificates, tokens and stamps fail.
const CLOCK_FAIL: i64 = 5 * 60 * 1000;

/// The settings of topics that are looked at.
pub const SETTINGS: [&str; 6] = [
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "min.insync.replicas",
    "retention.ms",
];

const ADMIN: &str = "who runs Kafka";

/// What an error of the Kafka layer means.
pub fn error(e: &Error) -> Finding {
    let code = match e {
        Error::Login { .. } | Error::Authorization { .. } | Error::Unreachable { hop: Step::Tls, .. } => {
            failure::REFUSED
        }
        Error::Config(_) => failure::USAGE,
        Error::Unreachable { .. } => failure::UNREACHABLE,
        _ => BROKEN,
    };
    let (detail, fault, next) = match e {
        Error::Unreachable { hop, detail, .. } => {
            let (fault, next) = unreachable(*hop, detail);
            (detail.clone(), fault, next)
        }
        Error::Login { detail, .. } => (
            detail.clone(),
            "the login that was given, or the broker's list of users",
            "compare --sasl-mechanism, --sasl-username and --sasl-password with what the broker knows",
        ),
        Error::Authorization { detail } => {
            (detail.clone(), ADMIN, "let somebody who may run that command, or `rk topics plan`")
        }
        Error::TopicMissing { .. } => {
            (e.to_string(), "who sets up the topics", "start the controller, which creates it, or see `rk topics plan`")
        }
        Error::TooLarge { .. } => (e.to_string(), ADMIN, "raise the topic's max.message.bytes"),
        Error::Config(_) => (e.to_string(), "the settings given here", "correct them; `rk doctor --help` lists them"),
        Error::Transient { code, .. } if code.starts_with("NOT_ENOUGH_REPLICAS") => {
            (e.to_string(), ADMIN, "bring the missing brokers back, or lower the topic's min.insync.replicas")
        }
        _ => (e.to_string(), ADMIN, "look at the log of the broker"),
    };
    // The cure is said once: the error's own, which knows more, unless it is only a question or goes on about the cause.
    match detail.split_once("; ") {
        Some((what, cure)) if cure.ends_with('?') || matches!(e, Error::TopicMissing { .. }) => {
            Finding::fail(code, what, fault, next)
        }
        Some((_, cure)) if cure.starts_with("it ") => Finding::fail(code, detail, fault, next),
        Some((what, cure)) => Finding::fail(code, what, fault, cure),
        None => Finding::fail(code, detail, fault, next),
    }
}

fn unreachable(hop: Step, detail: &str) -> (&'static str, &'static str) {
    let says = |part: &str| detail.contains(part);
    match hop {
        Step::Dns => ("the name that was given, or the name server", "look it up by hand, and correct --brokers"),
        Step::Tcp => (
            "the address, the network in between, or a broker that is down",
            "see whether the broker runs and listens there, and what a firewall lets through",
        ),
        Step::Handshake | Step::Request if says("silent") => (
            "what listens there: no broker, a frozen one, or another protocol than was expected",
            "see what listens on that port; use the port of the broker's TLS listener with TLS, and that of a plaintext one without",
        ),
        Step::Handshake => {
            ("the port that was given, or the TLS settings here", "use the port of the TLS listener, or turn TLS off")
        }
        Step::Tls if says("client certificate") => (
            "the client certificate given here, or the authorities that the broker trusts",
            "give --tls-cert and --tls-key, signed by an authority in the broker's trust store",
        ),
        Step::Tls if says("expired") || says("not valid yet") => {
            ("the broker's certificate, or a clock", "have it renewed, and compare this machine's clock")
        }
        Step::Tls if says("is not for") => {
            ("the address that was given, or the names in the broker's certificate", "connect by a name that it holds")
        }
        Step::Tls if says("authority") => {
            ("--tls-ca as given here, or the broker's certificate", "name the PEM file of the authority that signed it")
        }
        Step::Tls => ("the TLS settings of one of both sides", "see what the broker's log says of the handshake"),
        Step::Sasl => (
            "the login settings of one of both sides",
            "see whether this listener wants a login: --sasl-username, --sasl-password",
        ),
        Step::Request => (
            "the port that was given, or the broker",
            "see whether this port speaks Kafka's protocol, and the broker's log",
        ),
    }
}

/// A broker's certificate that was accepted.
pub fn certificate(leaf: Option<&Certificate>, now: i64) -> Finding {
    let Some(leaf) = leaf else { return Finding::ok("") };
    match leaf.validity.state(now) {
        State::Good(days) => Finding::ok(format!("{}, {days} days left", leaf.subject)),
        state => Finding::warn(
            format!("the certificate of {} is {state} ({})", leaf.subject, leaf.validity),
            ADMIN,
            "have it renewed; with an authority of `rk certs`: `rk certs broker NAME --renew`",
        ),
    }
}

/// What a certificate that was refused says of itself, for the detail of the failure.
pub fn refused_certificate(mut finding: Finding, leaf: Option<&Certificate>, now: i64) -> Finding {
    if let Some(leaf) = leaf {
        let state = leaf.validity.state(now);
        let names = if leaf.names.is_empty() { leaf.subject.clone() } else { leaf.names.join(", ") };
        finding.detail += &format!(" (for {names}; signed by {}; {}: {state})", leaf.issuer, leaf.validity);
    }
    finding
}

/// A certificate of our own.
pub fn own_certificate(what: &str, state: State) -> Option<Finding> {
    let renew = "have it renewed; with an authority of `rk certs`: `rk certs client NAME --renew`";
    let detail = format!("{what} is {state}");
    match state {
        State::Good(_) => None,
        State::Ending(_) => Some(Finding::warn(detail, "the files given here", renew)),
        State::NotYet(_) | State::Ended(_) => {
            Some(Finding::fail(failure::REFUSED, detail, "the files given here", renew))
        }
    }
}

/// What the several ways to start from amount to: a dead one does not matter while another works. If none does, those
/// on which we came furthest have failed; that the others stop earlier is a warning beside them.
pub fn settle(ways: &mut [Vec<Hop>]) {
    let reached = |way: &Vec<Hop>| way.iter().position(Hop::failed).unwrap_or(usize::MAX);
    let furthest = ways.iter().map(reached).max().unwrap_or_default();
    for way in ways.iter_mut().filter(|way| reached(way) < furthest) {
        for hop in way.iter_mut().filter(|hop| hop.failed()) {
            hop.finding.verdict = Verdict::Warn;
        }
    }
}

/// The broker's clock against ours: its stamp on a record, and ours before it was sent and after it was acknowledged,
/// in milliseconds since 1970.
pub fn clock(before: i64, stamped: i64, after: i64) -> Finding {
    // The truth lies somewhere between before and after: only what is outside is known to be off.
    let off = if stamped < before { stamped - before } else { (stamped - after).max(0) };
    let way = if off < 0 { "behind" } else { "ahead of" };
    let amount = match off.unsigned_abs() {
        ms @ ..10_000 => format!("{:.1} s", ms as f64 / 1e3),
        ms => humantime::format_duration(Duration::from_secs(ms / 1000)).to_string(),
    };
    let detail = format!("the broker's clock is {amount} {way} this machine's");
    let (fault, next) =
        ("this machine's clock, or the broker's", "let both follow a time server: compare `date -u` on both machines");
    match off.saturating_abs() {
        0 => Finding::ok("the broker's clock and this machine's agree"),
        off if off <= CLOCK_WARN => Finding::ok(detail),
        off if off <= CLOCK_FAIL => Finding::warn(detail, fault, next),
        _ => Finding::fail(BROKEN, detail, fault, next),
    }
}

/// The longest time for which an answer asked us to hold still.
pub fn quota(throttled: Duration, client_id: &str) -> Finding {
    if throttled.is_zero() {
        return Finding::ok("no answer was held back");
    }
    Finding::warn(
        format!("a quota is in force: the broker held us back for {} ms", throttled.as_millis()),
        ADMIN,
        format!(
            "raise producer_byte_rate, consumer_byte_rate or request_percentage of this user or of client.id \
             {client_id} (kafka-configs.sh --entity-type users|clients --describe)"
        ),
    )
}

/// A topic as it is against how it should be. Without `settings` those could not be read.
pub fn topic(wanted: &Topic, found: &TopicView, settings: Option<&BTreeMap<String, String>>) -> Finding {
    let partitions = found.partitions.len();
    let replicas = found.partitions.iter().map(|p| p.replicas).min().unwrap_or(0);
    let in_sync = found.partitions.iter().map(|p| p.in_sync).min().unwrap_or(0);
    let leaderless = found.partitions.iter().filter(|p| p.leader.is_none()).count();
    let mut findings = Vec::new();
    if leaderless > 0 {
        findings.push(Finding::fail(
            BROKEN,
            format!("{leaderless} of {partitions} partitions have no leader"),
            ADMIN,
            "bring the brokers back that hold their replicas",
        ));
    }
    if i32::try_from(partitions) != Ok(wanted.partitions) {
        findings.push(Finding::fail(
            failure::USAGE,
            format!("it has {partitions} partitions, and --partitions says {}", wanted.partitions),
            "the settings given here, or who made the topic",
            format!("give --partitions {partitions} everywhere, or have the topics made anew"),
        ));
    }
    if replicas < usize::try_from(wanted.replication).unwrap_or(0) {
        findings.push(Finding::warn(
            format!("it has {replicas} of {} replicas that this cluster can keep", wanted.replication),
            ADMIN,
            "add replicas with kafka-reassign-partitions.sh",
        ));
    }
    if in_sync < replicas {
        let detail = format!("{in_sync} of {replicas} replicas are in sync");
        findings.push(Finding::warn(detail, ADMIN, "bring the missing brokers back"));
    }
    for (key, value) in settings.into_iter().flatten() {
        findings.extend(setting(wanted, in_sync, key, value));
    }
    worst(findings).unwrap_or_else(|| {
        let blind = if settings.is_none() { "; this user may not see its settings" } else { "" };
        Finding::ok(format!("partitions {partitions}, replicas {replicas}{blind}"))
    })
}

fn setting(topic: &Topic, in_sync: usize, key: &str, value: &str) -> Option<Finding> {
    let wanted = topic.setting(key)?;
    let alter = |wanted: &str| {
        format!(
            "`kafka-configs.sh --bootstrap-server … --alter --entity-type topics --entity-name {} --add-config \
             {key}={wanted}`",
            topic.name
        )
    };
    let fail = |why: &str| Some(Finding::fail(BROKEN, format!("{key} is {value}: {why}"), ADMIN, alter(wanted)));
    let warn = |why: &str| Some(Finding::warn(format!("{key} is {value}: {why}"), ADMIN, alter(wanted)));
    let (number, least) = (value.parse::<i64>().unwrap_or(i64::MAX), wanted.parse::<i64>().unwrap_or(0));
    match key {
        "cleanup.policy" if value != wanted => fail("compaction would remove records that are needed"),
        "compression.type" if value != wanted => {
            fail("the broker compresses anew, and readers expect what was written")
        }
        "max.message.bytes" if number < least => fail(&format!("batches of up to {least} bytes are written")),
        "min.insync.replicas" if number > i64::try_from(in_sync).unwrap_or(i64::MAX) => Some(Finding::fail(
            BROKEN,
            format!("{key} is {value}, and {in_sync} replicas are in sync: nothing can be written"),
            ADMIN,
            format!("bring the missing brokers back, or {}", alter(wanted)),
        )),
        "min.insync.replicas" if number < least => warn("a record could be lost with one broker"),
        "message.timestamp.type" if value != wanted => warn("the age of records goes by the clocks of those who write"),
        "retention.ms" if number != -1 && (least == -1 || number < least) => warn(&format!("{wanted} is wanted")),
        _ => None,
    }
}

/// The worst of several findings, with what the others say.
fn worst(mut findings: Vec<Finding>) -> Option<Finding> {
    let worst = findings.iter().position(|f| f.verdict == Verdict::Fail).unwrap_or(0);
    if findings.is_empty() {
        return None;
    }
    let mut first = findings.remove(worst);
    for other in findings {
        first.detail += &format!("; also, {}", other.detail);
    }
    Some(first)
}

#[cfg(test)]
mod tests;
