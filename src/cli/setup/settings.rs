//! What is written into the files of the services: Kafka's settings for brokers and for clients. Pure.

use std::fmt::Write;

/// Where brokers serve clients.
const CLIENT_PORT: u16 = 9092;
/// Where they serve each other's quorum.
const QUORUM_PORT: u16 = 9093;
/// What a broker's settings have in common, secured or not.
const COMMON: &str = include_str!("broker.properties");

/// Who logs in at the brokers, and what for.
pub const USERS: [&str; 5] = ["admin", "broker", "controller", "agent", "ui"];

/// How one gets in at the brokers.
#[derive(Debug, Clone, Copy)]
pub enum Door<'a> {
    /// TLS and a password.
    Secured {
        /// The authority's certificate, as PEM.
        authority: &'a str,
        /// The password of the user in question.
        password: &'a str,
    },
    /// Neither, for those who try things out.
    Open,
}

/// A broker's own certificate, as PEM.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
}

/// The name of a broker, as the compose file has it.
pub fn broker(number: u16) -> String {
    format!("broker-{number}")
}

/// The bootstrap addresses of so many brokers.
pub fn bootstrap(brokers: u16) -> String {
    (1..=brokers).map(|number| format!("{}:{CLIENT_PORT}", broker(number))).collect::<Vec<_>>().join(",")
}

/// `node.properties` of one broker of so many. `door` is that of the user `broker`, as which they log in at each other.
pub fn node(number: u16, brokers: u16, door: Door<'_>, pair: Option<Pair<'_>>) -> String {
    let name = broker(number);
    let voters: Vec<String> = (1..=brokers).map(|n| format!("{n}@{}:{QUORUM_PORT}", broker(n))).collect();
    let (replication, in_sync) = (brokers.min(3), if brokers >= 3 { 2 } else { 1 });
    let mut text = COMMON.to_owned();
    let mut line = |key: &str, value: &str| writeln!(text, "{key}={value}").expect("a string takes it");
    line("node.id", &number.to_string());
    line("controller.quorum.voters", &voters.join(","));
    line("listeners", &format!("CLIENT://:{CLIENT_PORT},CONTROLLER://:{QUORUM_PORT}"));
    line("advertised.listeners", &format!("CLIENT://{name}:{CLIENT_PORT},CONTROLLER://{name}:{QUORUM_PORT}"));
    for key in ["default.replication.factor", "offsets.topic.replication.factor"] {
        line(key, &replication.to_string());
    }
    line("min.insync.replicas", &in_sync.to_string());
    let Door::Secured { authority, password } = door else {
        line("listener.security.protocol.map", "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT");
        return text;
    };
    line("listener.security.protocol.map", "CLIENT:SASL_SSL,CONTROLLER:SASL_SSL");
    line("ssl.truststore.type", "PEM");
    line("ssl.truststore.certificates", &in_line(authority));
    if let Some(Pair { certificate, key }) = pair {
        line("ssl.keystore.type", "PEM");
        line("ssl.keystore.certificate.chain", &in_line(certificate));
        line("ssl.keystore.key", &in_line(key));
    }
    // The quorum has to work before there is a log that could hold SCRAM's users.
    let plain = format!("{} user_broker=\"{password}\";", login("plain.PlainLoginModule", "broker", password));
    line("sasl.mechanism.controller.protocol", "PLAIN");
    line("listener.name.controller.sasl.enabled.mechanisms", "PLAIN");
    line("listener.name.controller.plain.sasl.jaas.config", &plain);
    line("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-512");
    line("listener.name.client.sasl.enabled.mechanisms", "SCRAM-SHA-512");
    let scram = login("scram.ScramLoginModule", "broker", password);
    line("listener.name.client.scram-sha-512.sasl.jaas.config", &format!("{scram};"));
    line("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
    line("allow.everyone.if.no.acl.found", "false");
    line("super.users", "User:admin;User:broker");
    text
}

/// A user as `kafka-storage format --add-scram` takes it.
pub fn scram(user: &str, password: &str) -> String {
    format!("SCRAM-SHA-512=[name={user},password={password}]\n")
}

/// `kafka.properties`: how this user gets in at the brokers, for `--command-config` and Kafka's own tools.
pub fn client(user: &str, brokers: u16, door: Door<'_>) -> String {
    pairs(user, brokers, door).into_iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

/// `application.yml` of AKHQ, a web page that shows what is in Kafka.
pub fn ui(user: &str, brokers: u16, door: Door<'_>) -> String {
    let mut text = "akhq:\n  connections:\n    rk:\n      properties:\n".to_owned();
    for (key, value) in pairs(user, brokers, door) {
        // JSON's strings are YAML's.
        let value = serde_json::Value::String(value);
        writeln!(text, "        {key}: {value}").expect("a string takes it");
    }
    text
}

fn pairs(user: &str, brokers: u16, door: Door<'_>) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("bootstrap.servers", bootstrap(brokers))];
    match door {
        Door::Open => pairs.push(("security.protocol", "PLAINTEXT".to_owned())),
        Door::Secured { authority, password } => pairs.extend([
            ("security.protocol", "SASL_SSL".to_owned()),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.certificates", in_line(authority)),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.jaas.config", format!("{};", login("scram.ScramLoginModule", user, password))),
        ]),
    }
    pairs
}

fn login(module: &str, user: &str, password: &str) -> String {
    format!("org.apache.kafka.common.security.{module} required username=\"{user}\" password=\"{password}\"")
}

/// PEM in one line: Kafka takes any white space between its parts.
fn in_line(pem: &str) -> String {
    pem.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOOR: Door<'_> =
        Door::Secured { authority: "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n", password: "pw" };
    const PAIR: Pair<'_> = Pair { certificate: "cert\n", key: "key\n" };

    fn value<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    }

    #[test]
    fn each_key_of_a_broker_stands_once_and_names_the_others() {
        for (door, pair) in [(DOOR, Some(PAIR)), (Door::Open, None)] {
            let text = node(2, 3, door, pair);
            let mut keys: Vec<&str> = text
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(|line| line.split_once('=').expect("a key").0)
                .collect();
            let all = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), all, "{text}");
            assert_eq!(value(&text, "controller.quorum.voters"), ["1@broker-1:9093,2@broker-2:9093,3@broker-3:9093"]);
            let advertised = "CLIENT://broker-2:9092,CONTROLLER://broker-2:9093";
            assert_eq!(value(&text, "advertised.listeners"), [advertised]);
            assert_eq!(
                (value(&text, "default.replication.factor"), value(&text, "min.insync.replicas")),
                (vec!["3"], vec!["2"])
            );
        }
    }

    #[test]
    fn secured_brokers_let_nobody_in_who_has_no_right_and_open_ones_ask_for_nothing() {
        let text = node(1, 3, DOOR, Some(PAIR));
        assert_eq!(value(&text, "listener.security.protocol.map"), ["CLIENT:SASL_SSL,CONTROLLER:SASL_SSL"]);
        assert_eq!(value(&text, "allow.everyone.if.no.acl.found"), ["false"]);
        assert_eq!(value(&text, "ssl.keystore.key"), ["key"]);
        let text = node(1, 1, Door::Open, None);
        assert!(!text.contains("sasl") && !text.contains("authorizer") && !text.contains("ssl."), "{text}");
        assert_eq!(
            (value(&text, "default.replication.factor"), value(&text, "min.insync.replicas")),
            (vec!["1"], vec!["1"])
        );
    }

    #[test]
    fn a_client_gets_all_that_it_needs_in_one_file() {
        let text = client("agent", 2, DOOR);
        assert_eq!(value(&text, "bootstrap.servers"), ["broker-1:9092,broker-2:9092"]);
        let pem = "-----BEGIN CERTIFICATE----- QUJD -----END CERTIFICATE-----";
        assert_eq!(value(&text, "ssl.truststore.certificates"), [pem]);
        let imported = crate::kafka::properties::Import::read(&text).expect("our own import takes it");
        assert!(imported.unknown.is_empty(), "{:?}", imported.unknown);
        assert_eq!(client("agent", 1, Door::Open), "bootstrap.servers=broker-1:9092\nsecurity.protocol=PLAINTEXT\n");
        assert!(ui("ui", 1, DOOR).contains("        sasl.jaas.config: \"org.apache"), "quoted");
    }
}
