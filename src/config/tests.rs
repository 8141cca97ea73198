use super::*;

fn settings(flags: &[(&'static str, &str)], environment: Environment, file: &str) -> Settings {
    let flags = flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect();
    let file = File::parse(Path::new("rk.yaml"), file).expect("parsed");
    Settings { role: Role::Agent, flags, environment, file: Some(file), pass: Pass::default() }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let s = settings(
        &[("prefix", "flag")],
        Environment::of([("RK_PREFIX", "env"), ("RK_PARTITIONS", "4")]),
        "prefix: file\npartitions: 3\nconnect-timeout: 2s\nagent: {connect-timeout: 3s}\n",
    );
    assert_eq!(s.parse::<String>(&keys::PREFIX).expect("text"), Some("flag".to_owned()));
    assert_eq!(s.number::<u32>(&keys::PARTITIONS).expect("number"), Some(4));
    assert_eq!(s.duration(&keys::CONNECT_TIMEOUT).expect("duration"), Some(Duration::from_secs(3)));
    assert_eq!(s.duration(&keys::REQUEST_TIMEOUT).expect("none"), None);
}

#[test]
fn a_refusal_names_where_the_value_stands_and_what_would_do() {
    let s = settings(
        &[("partitions", "many")],
        Environment::of([("RK_CONNECT_TIMEOUT", "soon")]),
        "sasl-password: hunter2\nexit-with: 1\n".split_once("exit").expect("part").0,
    );
    let e = s.number::<u32>(&keys::PARTITIONS).expect_err("no number").to_string();
    assert!(e.starts_with("--partitions: \"many\""), "{e}");
    let e = s.duration(&keys::CONNECT_TIMEOUT).expect_err("no duration").to_string();
    assert!(e.starts_with("RK_CONNECT_TIMEOUT: ") && e.contains("10s"), "{e}");
    let e = s.secret(&keys::SASL_PASSWORD).expect_err("no source").to_string();
    assert!(e.starts_with("rk.yaml: sasl-password: ") && e.contains("file:PATH") && !e.contains("hunter2"), "{e}");
    let e = s.missing(&keys::BROKERS, "no brokers are given").to_string();
    assert_eq!(e, "no brokers are given; give it with --brokers, RK_BROKERS, or brokers: in the configuration file");
}

#[test]
fn lists_come_with_commas_or_as_lists() {
    let s = settings(&[("brokers", "a:1, b:2,")], Environment::default(), "label: {a: 1, b: two}\n");
    assert_eq!(s.list(&keys::BROKERS), ["a:1", "b:2"]);
    assert_eq!(s.list(&keys::LABEL), ["a=1", "b=two"]);
}

#[test]
fn super_users_are_names_of_users_who_log_in() {
    let folder = tempfile::tempdir().expect("folder");
    let users = folder.path().join("users");
    crate::private_file::create(&users, b"admin:secret\n").expect("users");
    let users = users.to_str().expect("text");
    let environment = || Environment::of([("RK_DATA", "/var/lib/rk")]);
    let broker = |flags: &[(&'static str, &str)]| settings(flags, environment(), "").broker();
    let named = broker(&[("super-users", "admin, root"), ("users", users)]).expect("broker");
    assert_eq!(named.super_users, ["admin".to_owned(), "root".to_owned()].into());
    assert!(broker(&[("users", users)]).expect("broker").super_users.is_empty());
    assert!(broker(&[("super-users", "ANONYMOUS")]).is_ok());
    for (names, users, expected) in [
        ("User:admin", Some(users), "without User:"),
        ("admin", None, "give the users with --users"),
        (",", Some(users), "names nobody"),
    ] {
        let mut flags = vec![("super-users", names)];
        flags.extend(users.map(|users| ("users", users)));
        let e = broker(&flags).expect_err("refused").to_string();
        assert!(e.starts_with("--super-users: ") && e.contains(expected), "{e}");
    }
}

#[test]
fn switches_are_on_off_or_refused() {
    for (text, on) in [("true", Some(true)), ("off", Some(false)), ("maybe", None)] {
        let s = settings(&[("accept-rollback", text)], Environment::default(), "");
        assert_eq!(s.switch(&keys::ACCEPT_ROLLBACK).ok(), on, "{text}");
    }
    assert!(!settings(&[], Environment::default(), "").switch(&keys::ACCEPT_ROLLBACK).expect("off"));
}

#[test]
fn a_config_file_that_is_named_and_missing_is_an_error() {
    let flags = Given::from([("config", vec!["/nonexistent/rk.yaml".to_owned()])]);
    let e = Settings::gather(Role::Client, flags, Environment::default()).expect_err("missing");
    assert_eq!(e.to_string(), "--config: there is no file /nonexistent/rk.yaml");
}

#[cfg(feature = "agent")]
#[test]
fn programs_must_be_signed_where_commands_are_limited_unless_somebody_says_otherwise() {
    use crate::agent::update::Policy::{Any, No, Signed};
    for (flags, policy) in [
        (&[][..], Any),
        (&[("allow", "git *")], Signed),
        (&[("no-exec", "true")], Signed),
        (&[("run-as", "nobody")], Signed),
        (&[("allow", "git *"), ("updates", "any")], Any),
        (&[("updates", "no")], No),
    ] {
        let found = settings(flags, Environment::default(), "").updates("/bin/rk".into()).expect("settings");
        assert_eq!((found.policy, found.trial), (policy, false), "{flags:?}");
    }
    let odd = settings(&[("updates", "yes")], Environment::default(), "").updates("/bin/rk".into()).expect_err("odd");
    assert!(odd.to_string().contains("any, signed and no"), "{odd}");
    let trial = Environment::of([("RK_UPDATE_TRIAL", "1")]);
    assert!(settings(&[], trial, "").updates("/bin/rk".into()).expect("settings").trial);
}

#[cfg(all(feature = "agent", feature = "controller", feature = "broker"))]
#[test]
fn the_defaults_that_help_tells_are_those_of_the_code() {
    // What is no value, or stands in another layer.
    let others = [
        "layout",
        "blobs-retention",
        "artifacts-retention",
        "listen",
        "health-addr",
        "identity",
        "lost-after",
        "name",
        "wasm-fuel",
        "updates",
        "slots",
        "work",
        "advertise",
        "users",
        "super-users",
        "security-protocol",
        "tls-ca",
        "sasl-mechanism",
        "api",
        "api-token",
        "api-ca",
        "jar",
        "java",
        "output",
        "data",
        "config",
    ];
    let told = |role, flags: Given| {
        let environment = Environment::of([("RK_DATA", "/var/lib/rk"), ("RK_BROKERS", "k:9092")]);
        let settings = Settings { role, flags, environment, file: None, pass: Pass::default() };
        let kafka = settings.kafka("rk".to_owned()).map(|config| format!("{config:?}")).unwrap_or_default();
        let topics = settings.topics_of_controller().map(|topics| format!("{topics:?}")).unwrap_or_default();
        let mode = format!("{:?}", settings.topics_manage().expect("a mode"));
        let own = match role {
            Role::Agent => format!("{:?}", settings.agent().expect("settings")),
            Role::Broker => format!("{:?}", settings.broker().expect("settings")),
            _ => {
                let controller = settings.controller().expect("settings");
                let (limits, jobs) = (controller.limits, controller.jobs);
                format!("{:?} {limits:?} {jobs:?} {:?}", controller.link, controller.wait_for_kafka)
            }
        };
        [own, kafka, topics, mode]
    };
    let mut compared = 0;
    for role in [Role::Controller, Role::Agent, Role::Broker] {
        for key in keys::of_role(role) {
            let Some(default) = key.meaning_and_default().1 else { continue };
            if others.contains(&key.name) {
                continue;
            }
            let given = [(key.name, vec![default.to_owned()])].into();
            assert_eq!(told(role, given), told(role, Given::default()), "{}", key.name);
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}
