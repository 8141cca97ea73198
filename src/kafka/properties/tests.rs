use super::*;

const SCRAM: &str = "\
bootstrap.servers=k1.example.org:9093, k2.example.org:9093
client.id=build
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\
    username=\"rk\" \\
    password=\"s3cret;\";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/kafka/ca.pem
ssl.endpoint.identification.algorithm=https
request.timeout.ms=20000
acks=all
";

fn refused(text: &str) -> String {
    Import::read(text).expect_err("refused").to_string()
}

#[test]
fn what_kafkas_tools_use_is_taken_over() {
    let import = Import::read(SCRAM).expect("readable");
    assert_eq!(import.unknown, ["acks"]);
    let mut config = Config::default();
    import.apply(&mut config);
    assert_eq!(config.brokers, ["k1.example.org:9093", "k2.example.org:9093"]);
    assert_eq!(config.client_id, "build");
    assert_eq!(config.request_timeout, Duration::from_secs(20));
    let tls = config.tls.expect("TLS");
    assert_eq!(tls.roots, Roots::Pem(Pem::File("/etc/kafka/ca.pem".into())));
    assert_eq!(tls.client, None);
    let password = Secret::new("s3cret;".to_owned());
    assert_eq!(config.sasl, Some(Sasl::ScramSha512(Login { user: "rk".to_owned(), password })));
}

#[test]
fn without_a_protocol_the_connection_stays_as_it_was() {
    let mut config = Config { tls: Some(Tls::default()), ..Config::default() };
    Import::read("client.id=x").expect("readable").apply(&mut config);
    assert_eq!(config.tls, Some(Tls::default()));
    Import::read("security.protocol=PLAINTEXT").expect("readable").apply(&mut config);
    assert_eq!(config.tls, None);
}

#[test]
fn certificates_may_stand_in_the_file() {
    let text = "security.protocol=SSL\n\
                ssl.truststore.certificates=-----BEGIN CERTIFICATE----- \\\n QUJD \\\n -----END CERTIFICATE-----\n\
                ssl.keystore.key=-----BEGIN PRIVATE KEY-----\\nQUJD\\n-----END PRIVATE KEY-----\n\
                ssl.keystore.certificate.chain=-----BEGIN CERTIFICATE-----\\nQUJD\\n-----END CERTIFICATE-----\n";
    let tls = Import::read(text).expect("readable").tls.expect("TLS");
    let pem = |label: &str| Pem::Text(Secret::new(format!("-----BEGIN {label}-----\nQUJD\n-----END {label}-----\n")));
    assert_eq!(tls.roots, Roots::Pem(pem("CERTIFICATE")));
    assert_eq!(tls.client, Some(ClientCertificate { chain: pem("CERTIFICATE"), key: pem("PRIVATE KEY") }));
}

#[test]
fn a_java_key_store_comes_with_the_command_that_converts_it() {
    let text = refused("security.protocol=SSL\nssl.truststore.location=/t.jks\nssl.truststore.password=x");
    assert!(text.contains("keytool -list -rfc -keystore /t.jks > ca.pem"), "{text}");
    let text = refused("security.protocol=SSL\nssl.keystore.location=/k.jks");
    assert!(text.contains("keytool -importkeystore -srckeystore /k.jks"), "{text}");
    assert!(text.contains("openssl pkcs12 -in store.p12 -nodes"), "{text}");
    let text = refused("security.protocol=SSL\nssl.keystore.type=PKCS12\nssl.keystore.location=/k.p12");
    assert!(text.contains("with `openssl pkcs12 -in /k.p12 -nodes") && !text.contains("keytool"), "{text}");
}

#[test]
fn the_check_of_names_cannot_be_switched_off() {
    let text = refused("security.protocol=SSL\nssl.endpoint.identification.algorithm=\n");
    assert!(text.contains("is not supported"), "{text}");
}

#[test]
fn what_cannot_work_is_refused_with_its_cure() {
    for (text, expected) in [
        ("security.protocol=TLS", "use PLAINTEXT, SSL"),
        ("security.protocol=SASL_SSL", "sasl.mechanism is missing"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI", "is not supported; use SCRAM-SHA-512"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN", "sasl.jaas.config is missing"),
        (
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=x.ScramLoginModule required;",
            "does not fit",
        ),
        (
            "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\nsasl.jaas.config=x.PlainLoginModule required;",
            "no username",
        ),
        ("security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER", "--sasl-token-command"),
        ("security.protocol=SSL\nssl.keystore.key=x", "go together"),
        ("security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location=/k\nssl.key.password=x", "openssl pkcs8"),
        ("request.timeout.ms=soon", "milliseconds"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text:?} gave {error}");
    }
}

#[test]
fn a_token_comes_from_a_file() {
    for url in ["file:/run/token", "file:///run/token"] {
        let text = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.token.endpoint.url={url}\n\
             sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;"
        );
        let sasl = Import::read(&text).expect("readable").sasl;
        assert_eq!(sasl, Some(Sasl::OauthBearer(TokenSource::File("/run/token".into()))));
    }
}
