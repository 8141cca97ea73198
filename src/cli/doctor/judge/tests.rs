use super::*;
use crate::{
    certs::Validity,
    kafka::{
        examine::PartitionView,
        topics::{Desired, Installation},
    },
};

const MINUTE: i64 = 60_000;

fn plan(name: &str) -> Topic {
    let installation = Installation { partitions: 2, ..Installation::default() };
    Desired::new(&installation, 3).topics.into_iter().find(|topic| topic.name == name).expect("it is planned")
}

fn view(partitions: usize, in_sync: usize) -> TopicView {
    TopicView { partitions: vec![PartitionView { leader: Some(1), replicas: 3, in_sync }; partitions] }
}

fn settings(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let good = [
        ("cleanup.policy", "delete"),
        ("compression.type", "producer"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.insync.replicas", "2"),
        ("retention.ms", "-1"),
    ];
    pairs(&good).into_iter().chain(pairs(changed)).collect()
}

#[test]
fn each_setting_that_harms_is_named_with_the_command_that_mends_it() {
    let judge = |changed: &[(&str, &str)]| topic(&plan("rk.journal"), &view(1, 3), Some(&settings(changed)));
    assert_eq!(judge(&[]).verdict, Verdict::Ok);
    for (key, value, verdict) in [
        ("cleanup.policy", "compact", Verdict::Fail),
        ("cleanup.policy", "compact,delete", Verdict::Fail),
        ("compression.type", "zstd", Verdict::Fail),
        ("max.message.bytes", "1000", Verdict::Fail),
        ("min.insync.replicas", "4", Verdict::Fail),
        ("min.insync.replicas", "1", Verdict::Warn),
        ("message.timestamp.type", "CreateTime", Verdict::Warn),
        ("retention.ms", "1000", Verdict::Warn),
    ] {
        let finding = judge(&[(key, value)]);
        assert_eq!(finding.verdict, verdict, "{key}={value}: {finding:?}");
        assert!(finding.detail.contains(key) && finding.detail.contains(value), "{finding:?}");
        assert!(finding.next.as_ref().is_some_and(|next| next.contains("--entity-name rk.journal")), "{finding:?}");
    }
}

#[test]
fn a_failure_comes_before_a_warning_and_both_are_told() {
    let changed = settings(&[("retention.ms", "1000"), ("cleanup.policy", "compact")]);
    let finding = topic(&plan("rk.journal"), &view(1, 2), Some(&changed));
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(finding.detail.starts_with("cleanup.policy is compact") && finding.detail.contains("retention.ms"));
    assert!(finding.detail.contains("2 of 3 replicas"), "{finding:?}");
}

#[test]
fn another_number_of_partitions_and_a_missing_leader_are_failures() {
    assert_eq!(topic(&plan("rk.logs"), &view(3, 3), None).code, failure::USAGE);
    let mut found = view(2, 3);
    found.partitions[1].leader = None;
    assert!(topic(&plan("rk.logs"), &found, None).detail.contains("1 of 2 partitions"));
    assert!(topic(&plan("rk.logs"), &view(2, 3), None).detail.contains("may not see its settings"));
}

#[test]
fn a_clock_is_only_off_by_what_the_way_there_and_back_does_not_explain() {
    let at = |off: i64| clock(1_000_000_000, 1_000_000_000 + off, 1_000_000_100);
    for (off, verdict) in [
        (50, Verdict::Ok),
        (0, Verdict::Ok),
        (2_100, Verdict::Ok),
        (2_101, Verdict::Warn),
        (-2_001, Verdict::Warn),
        (5 * MINUTE + 100, Verdict::Warn),
        (10 * MINUTE, Verdict::Fail),
        (-10 * MINUTE, Verdict::Fail),
    ] {
        assert_eq!(at(off).verdict, verdict, "{off}");
    }
    assert!(at(10 * MINUTE).detail.contains("9m 59s ahead of"), "{:?}", at(10 * MINUTE));
    assert!(at(-10 * MINUTE).detail.contains("10m behind"), "{:?}", at(-10 * MINUTE));
}

#[test]
fn a_dead_way_does_not_matter_while_another_works_and_the_furthest_counts_if_none_does() {
    let fail = || Finding::fail(69, "a", "b", "c");
    let hop = |name, finding| Hop::known(name, "x", finding);
    let dead = vec![hop("dns", Finding::ok("")), hop("tcp", fail())];
    let good = vec![hop("dns", Finding::ok("")), hop("tcp", Finding::ok(""))];
    let late = vec![hop("dns", Finding::ok("")), hop("tcp", Finding::ok("")), hop("tls", fail())];
    let verdicts = |mut ways: Vec<Vec<Hop>>| {
        settle(&mut ways);
        ways.concat().iter().map(|hop| hop.finding.verdict).collect::<Vec<_>>()
    };
    use Verdict::{Fail, Ok, Warn};
    assert_eq!(verdicts(vec![dead.clone(), good]), [Ok, Warn, Ok, Ok]);
    assert_eq!(verdicts(vec![dead.clone(), late]), [Ok, Warn, Ok, Ok, Fail]);
    assert_eq!(verdicts(vec![dead]), [Ok, Fail]);
}

#[test]
fn an_error_says_whose_fault_it_is_and_which_code_it_ends_with() {
    let at = |hop, detail: &str| Error::Unreachable { hop, broker: "k:1".to_owned(), detail: detail.to_owned() };
    for (e, code, fault) in [
        (at(Step::Dns, "unknown; is the name right?"), 69, "name"),
        (at(Step::Tcp, "refused; is the broker up?"), 69, "broker that is down"),
        (at(Step::Handshake, "the port … stays silent"), 69, "what listens there"),
        (at(Step::Handshake, "the broker hung up"), 69, "port"),
        (at(Step::Tls, "the broker's certificate has expired; renew"), 77, "a clock"),
        (at(Step::Tls, "asked for a client certificate"), 77, "client certificate"),
        (at(Step::Sasl, "hung up"), 69, "login"),
        (Error::Login { broker: "k:1".to_owned(), detail: "no".to_owned() }, 77, "login"),
        (Error::Authorization { detail: "User:a needs Read; grant it".to_owned() }, 77, "runs Kafka"),
        (Error::TopicMissing { topic: "t".to_owned() }, 1, "topics"),
        (Error::Config("x".to_owned()), 64, "settings"),
    ] {
        let finding = error(&e);
        assert_eq!((finding.verdict, finding.code), (Verdict::Fail, code), "{e}");
        assert!(finding.fault.as_ref().is_some_and(|f| f.contains(fault)), "{finding:?}");
        assert!(finding.next.is_some_and(|next| !next.is_empty()), "{e}");
    }
}

#[test]
fn a_certificate_that_ends_soon_is_a_warning() {
    let leaf = |days| Certificate {
        subject: "k".to_owned(),
        issuer: "ca".to_owned(),
        names: vec![],
        authority: false,
        validity: Validity::days(0, days),
        fingerprint: String::new(),
    };
    assert_eq!(certificate(Some(&leaf(31)), 60).verdict, Verdict::Ok);
    assert_eq!(certificate(Some(&leaf(29)), 60).verdict, Verdict::Warn);
    assert_eq!(own_certificate("it", State::Ended(1)).map(|f| f.code), Some(failure::REFUSED));
    assert_eq!(quota(Duration::from_millis(3), "rk-agent-a").verdict, Verdict::Warn);
}
