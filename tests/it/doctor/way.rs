//! Broken ways to the cluster: names, ports, certificates, logins.

use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use remoting_kafka::{
    broker::{Config, ListenerConfig},
    certs::Validity,
};

use super::{Room, examine};
use crate::support::{certs::Authority, embedded::Embedded, ports, user::CONTROLLER};

const DAY: i64 = 86_400;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// The flags that get the controller's user into a broker of this suite.
fn flags(room: &Room, broker: &Embedded) -> Vec<String> {
    let password = room.private("password", CONTROLLER.password);
    let ca = broker.authority().ca().display().to_string();
    ["--sasl-username", CONTROLLER.name, "--sasl-password", &password, "--tls-ca", &ca].map(str::to_owned).to_vec()
}

/// What the doctor says of a broker, with flags that win over those that would do.
fn say(what: &str, broker: &Embedded, host: &str, other: &[(&str, &str)]) -> super::Examined {
    let room = Room::new();
    let mut flags = flags(&room, broker);
    for (flag, value) in other {
        match flags.iter().position(|known| known == flag) {
            Some(at) => flags[at + 1] = (*value).to_owned(),
            None => flags.extend([(*flag).to_owned(), (*value).to_owned()]),
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    examine(what, room.doctor(&format!("{host}:{}", broker.port()), &flags))
}

#[test]
fn a_certificate_of_another_authority_is_a_broken_tls_hop() {
    let broker = Embedded::start();
    let room = Room::new();
    let other = Authority::new(&room.0.path().join("other")).ca().display().to_string();
    say("wrong CA", &broker, "127.0.0.1", &[("--tls-ca", &other)]).fails(77, "tls", &["authority", "127.0.0.1:"]);
}

#[test]
fn certificates_that_are_not_good_now_or_for_that_name_are_broken_tls_hops() {
    let served = |hosts: &'static [&'static str], validity: Validity| {
        Embedded::start_with(move |authority, _| drop(authority.server_for("node", hosts, validity)), |_, _| {})
    };
    const HERE: &[&str] = &["localhost", "127.0.0.1"];
    let past = served(HERE, Validity { not_before: now() - 90 * DAY, not_after: now() - 3 * DAY });
    say("expired", &past, "127.0.0.1", &[]).fails(77, "tls", &["expired", "3 days ago"]);
    let future = served(HERE, Validity { not_before: now() + 5 * DAY, not_after: now() + 90 * DAY });
    say("not yet valid", &future, "127.0.0.1", &[]).fails(77, "tls", &["not valid yet", "clock"]);
    let other = served(&["kafka.example"], Validity::days(now(), 90));
    say("name mismatch", &other, "127.0.0.1", &[]).fails(77, "tls", &["127.0.0.1", "kafka.example"]);
    let short = served(HERE, Validity::days(now() - DAY - 3600, 20));
    say("ends soon", &short, "127.0.0.1", &[]).warns("tls", &["18 days left"]);
}

#[test]
fn a_client_certificate_that_is_missing_or_foreign_is_a_broken_tls_hop() {
    let broker = Embedded::start_with(
        |authority, _| drop(authority.client("controller")),
        |config: &mut Config, folder| {
            let [cert, key, ca] = ["node.crt", "node.key", "ca.pem"].map(|name| folder.join(name));
            config.listener = ListenerConfig::tls_from_pem(&cert, &key, Some(&ca)).unwrap();
            config.super_users.clear();
        },
    );
    let room = Room::new();
    let ca = broker.authority().ca().display().to_string();
    let address = format!("127.0.0.1:{}", broker.port());
    let missing = examine("client certificate missing", room.doctor(&address, &["--tls-ca", &ca]));
    missing.fails(77, "tls", &["client certificate", "--tls-cert"]);
    let foreign = Authority::new(&room.0.path().join("other")).client("controller").display().to_string();
    let flags = ["--tls-ca", &ca, "--tls-cert", &foreign, "--tls-key", &foreign];
    let foreign = examine("client certificate of another CA", room.doctor(&address, &flags));
    foreign.fails(77, "tls", &["client certificate", "authorit"]);
    let good = broker.folder().join("controller.pem").display().to_string();
    let flags = ["--tls-ca", &ca, "--tls-cert", &good, "--tls-key", &good];
    let good = examine("a good client certificate", room.doctor(&address, &flags));
    good.fails(1, "topic", &["rk.down.control"]);
}

#[test]
fn a_port_without_tls_or_with_it_is_told() {
    let plain = Embedded::start_with(|_, _| {}, |config, _| config.listener = ListenerConfig::plaintext());
    say("plaintext port", &plain, "127.0.0.1", &[]).fails(69, "tls", &["TLS"]);
    let room = Room::new();
    let encrypted = Embedded::start();
    let address = format!("127.0.0.1:{}", encrypted.port());
    let examined = examine("TLS port without TLS", room.doctor(&address, &[]));
    examined.fails(69, "protocol", &["TLS"]);
}

#[test]
fn a_wrong_mechanism_a_wrong_password_and_no_login_are_broken_sasl_hops() {
    let broker = Embedded::start();
    let room = Room::new();
    let token = room.private("token", "not-a-token");
    let ca = broker.authority().ca().display().to_string();
    let address = format!("127.0.0.1:{}", broker.port());
    let token = token.trim_start_matches("file:");
    let flags = ["--tls-ca", &ca, "--sasl-mechanism", "OAUTHBEARER", "--sasl-token-file", token];
    let mechanism = examine("wrong mechanism", room.doctor(&address, &flags));
    mechanism.fails(77, "sasl", &["OAUTHBEARER is not enabled", "SCRAM-SHA-512"]);
    let wrong = room.private("wrong", "not-it");
    let password = say("wrong password", &broker, "127.0.0.1", &[("--sasl-password", &wrong)]);
    password.fails(77, "sasl", &["controller", "password"]);
    let none = examine("no login", room.doctor(&address, &["--tls-ca", &ca]));
    none.fails(69, "sasl", &["--sasl-username"]);
}

#[test]
fn an_unknown_host_and_a_closed_port_are_told_apart() {
    let room = Room::new();
    let unknown = examine("unknown host", room.doctor("kafka.invalid:9093", &[]));
    unknown.fails(69, "dns", &["kafka.invalid:9093"]);
    let closed = examine("closed port", room.doctor(ports::DEAD, &[]));
    closed.fails(69, "tcp", &[ports::DEAD, "refused"]);
}

#[test]
fn a_port_that_accepts_and_stays_silent_is_named_as_such() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Read to the end, never answered.
            thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    let room = Room::new();
    let plain = examine("silent port", room.doctor(&address, &[]));
    plain.fails(69, "protocol", &[&address, "stays silent"]);
    let ca = Authority::new(&room.0.path().join("ca")).ca().display().to_string();
    let tls = examine("silent port, TLS", room.doctor(&address, &["--tls-ca", &ca]));
    tls.fails(69, "tls", &[&address, "stays silent"]);
}

#[test]
fn a_wrong_advertised_listener_is_named_and_a_dead_bootstrap_address_beside_a_good_one_is_a_warning() {
    let wrong = ports::free(Ipv4Addr::LOCALHOST.into());
    let broker = Embedded::start_with(|_, _| {}, move |config, _| config.advertised_port = Some(wrong));
    let room = Room::new();
    let flags = flags(&room, &broker);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let brokers = format!("{},127.0.0.1:{}", ports::DEAD, broker.port());
    let examined = examine("dead bootstrap address, wrong advertised listener", room.doctor(&brokers, &flags));
    examined.fails(69, "broker", &[&format!("127.0.0.1:{wrong}"), "advertised.listeners of broker 1"]);
    examined.warns("tcp", &[ports::DEAD]);
}
