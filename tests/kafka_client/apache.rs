//! On Apache Kafka: what only it has (rights, quotas, tokens, client certificates, several nodes), and all the rest
//! once more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use remoting_kafka::kafka::{
    At, Cluster, Config, Error, Hop, KafkaCluster, Prefix, Record,
    config::{ClientCertificate, Mechanism, Pem, Roots, Sasl, Tls, TokenSource},
    properties::Import,
    topics,
};
use tokio::task::spawn_blocking;

use crate::{
    Door, append, doors, journal, logs, read,
    support::{
        kafka::{
            self,
            admin::{Operation, Resource, Rule},
        },
        user::{ADMIN, AGENT, CONTROLLER, STRANGER},
    },
};

async fn start(nodes: usize) -> (kafka::Cluster, Door) {
    let cluster = spawn_blocking(move || kafka::Cluster::start(nodes)).await.unwrap();
    let door = Door { brokers: cluster.bootstrap(), ca: cluster.authority().ca() };
    (cluster, door)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java: make test-kafka"]
async fn one_node_does_what_the_embedded_broker_does_and_more() {
    let (apache, door) = start(1).await;
    let cluster = door.cluster(ADMIN);
    doors::every_password_mechanism_opens(&door).await;
    doors::a_wrong_password_is_named(&door).await;
    doors::a_wrong_authority_is_named(&door, &apache.folder().join("other")).await;
    doors::no_tls_at_a_tls_port_is_named(&door).await;
    logs::records_come_back_as_they_went(&cluster, "one").await;
    logs::many_batches_at_once_all_arrive_once(&cluster, "many").await;
    journal::a_journal_is_cut_at_a_snapshot_and_goes_on(&cluster, "cut").await;
    logs::topics_are_made_once_and_compared_then(&cluster, 1).await;
    tokens_open(&apache, &door).await;
    client_certificates_open(&apache).await;
    properties_open(&apache, &door).await;
    missing_rights_are_named(&apache, &door).await;
    quotas_slow_down_and_double_nothing(&apache, &door).await;
    a_node_that_is_killed_and_comes_back_is_found_again(&apache, &door).await;
}

async fn tokens_open(apache: &kafka::Cluster, door: &Door) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(r#"{{"sub":"admin","iat":{now},"exp":{}}}"#, now + 600);
    let token = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims));
    let file = apache.folder().join("token");
    std::fs::write(&file, &token).unwrap();
    let open = |source| {
        let sasl = Some(Sasl::OauthBearer(source));
        KafkaCluster::new(Config { sasl, ..door.config(ADMIN, Mechanism::ScramSha512) }).unwrap()
    };
    assert_eq!(open(TokenSource::File(file)).check().await.unwrap(), 1);
    assert_eq!(open(TokenSource::Command(vec!["echo".to_owned(), token])).check().await.unwrap(), 1);
    let error = open(TokenSource::Command(vec!["echo".to_owned(), "nonsense".to_owned()])).check().await.unwrap_err();
    assert!(matches!(error, Error::Login { .. }), "{error}");
    println!("{error}");
}

async fn client_certificates_open(apache: &kafka::Cluster) {
    let pem = apache.authority().client("admin");
    let open = |client: Option<ClientCertificate>| {
        let roots = Roots::Pem(Pem::File(apache.authority().ca()));
        let tls = Some(Tls { roots, client });
        KafkaCluster::new(Config { brokers: apache.bootstrap_mutual(), tls, ..Config::default() }).unwrap()
    };
    let certificate = ClientCertificate { chain: Pem::File(pem.clone()), key: Pem::File(pem) };
    assert_eq!(open(Some(certificate)).check().await.unwrap(), 1);
    let error = open(None).check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { hop: Hop::Tls, .. }), "{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");
}

async fn properties_open(apache: &kafka::Cluster, door: &Door) {
    let file = ADMIN.properties(apache.folder(), "SCRAM-SHA-256", &apache.authority().ca());
    let import = Import::read(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(import.unknown.is_empty(), "{:?}", import.unknown);
    let mut config = Config { brokers: door.brokers.clone(), ..Config::default() };
    import.apply(&mut config);
    assert_eq!(KafkaCluster::new(config).unwrap().check().await.unwrap(), 1);
}

async fn missing_rights_are_named(apache: &kafka::Cluster, door: &Door) {
    let prefix: Prefix = "rights".parse().unwrap();
    let stranger = door.cluster(STRANGER);
    let error = topics::ensure(&stranger, &prefix, 2).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Authorization { .. }), "{text}");
    println!("{text}");
    for name in ["down.control", "up.control", "down.bulk", "up.bulk", "journal"] {
        assert!(text.contains(&format!("--create --if-not-exists --topic rights.{name} ")), "{text}");
    }
    logs::make(&door.cluster(ADMIN), "rights", 2).await;
    let named = |error: Error, right: &str| {
        let text = error.to_string();
        assert!(matches!(error, Error::Authorization { .. }), "{text}");
        assert!(text.contains(&format!("'User:stranger' --operation {right} --topic rights.up.control")), "{text}");
    };
    let topic = prefix.up_control();
    named(stranger.reader(&topic, 0).offset(At::Latest).await.unwrap_err(), "Describe");
    let rule =
        |operation| Rule { user: "stranger", resource: Resource::Topic, name: "rights.", prefix: true, operation };
    apache.allow(&[rule(Operation::Describe)]);
    let mut reader = stranger.reader(&topic, 0);
    assert_eq!(reader.offset(At::Latest).await.unwrap(), 0);
    named(reader.fetch(0, 1000, Duration::from_millis(10)).await.unwrap_err(), "Read");
    named(stranger.writer(&topic, 0).produce(vec![Record::new("", "x")]).await.unwrap_err(), "Write");
    named(stranger.delete_records(&topic, 0, 0).await.unwrap_err(), "Delete");
    // May see, but neither create nor read settings: nothing is missing, so that it is enough.
    let report = topics::ensure(&stranger, &prefix, 2).await.unwrap();
    assert!(report.warnings.iter().any(|w| w.contains("DescribeConfigs")), "{:?}", report.warnings);

    // The rights of the shared layout are enough for controller and agent.
    apache.allow_shared_layout("shared");
    let shared = logs::make(&door.cluster(CONTROLLER), "shared", 2).await;
    append(&door.cluster(AGENT), &shared.up_control(), vec![Record::new("a", "b")]).await;
    assert_eq!(door.cluster(AGENT).reader(&shared.down_control(), 0).offset(At::Latest).await.unwrap(), 0);
}

async fn quotas_slow_down_and_double_nothing(apache: &kafka::Cluster, door: &Door) {
    const BATCHES: usize = 48;
    const SIZE: usize = 256 * 1024;
    let topic = logs::make(&door.cluster(ADMIN), "quota", 1).await.up_bulk();
    apache.admin().set_quota(ADMIN.name, "producer_byte_rate", Some(1_048_576.0)).unwrap();
    apache.admin().set_quota(ADMIN.name, "request_percentage", Some(10.0)).unwrap();
    let cluster = door.cluster(ADMIN);
    let writer = cluster.writer(&topic, 0);
    let start = Instant::now();
    let batches = (0..BATCHES).map(|n| {
        let writer = writer.clone();
        async move {
            // Several at once, as the link sends them, and again while the error is one that passes.
            loop {
                match writer.produce(vec![Record::new(n.to_string(), vec![1; SIZE])]).await {
                    Ok(_) => return,
                    Err(error) => assert!(matches!(error, Error::Transient { .. }), "{error}"),
                }
            }
        }
    });
    futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(batches), 4, |batch| batch).await;
    let seconds = start.elapsed().as_secs_f64();
    println!("{BATCHES} batches of {SIZE} bytes at 1 MiB/s took {seconds:.1} s");
    assert!(seconds < 40.0, "{seconds}");
    apache.admin().set_quota(ADMIN.name, "producer_byte_rate", None).unwrap();
    apache.admin().set_quota(ADMIN.name, "request_percentage", None).unwrap();
    let mut reader = cluster.reader(&topic, 0);
    let end = reader.offset(At::Latest).await.unwrap();
    assert_eq!(end, BATCHES as i64, "no batch is there twice");
    let mut seen = BTreeMap::new();
    for (_, record) in read(reader.as_mut(), 0, BATCHES).await {
        *seen.entry(record.key).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), BATCHES);
    assert!(seconds > 4.0, "the quota was not felt: {seconds}");
}

async fn a_node_that_is_killed_and_comes_back_is_found_again(apache: &kafka::Cluster, door: &Door) {
    let topic = logs::make(&door.cluster(ADMIN), "kill", 1).await.up_control();
    let cluster = door.cluster(ADMIN);
    let writer = cluster.writer(&topic, 0);
    let mut reader = cluster.reader(&topic, 0);
    writer.produce(vec![Record::new("", "before")]).await.unwrap();
    assert_eq!(read(reader.as_mut(), 0, 1).await.len(), 1);
    apache.kill(0);
    let start = Instant::now();
    let error = writer.produce(vec![Record::new("", "into the void")]).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let error = reader.fetch(1, 1000, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    println!("{error}");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let again = apache.clone();
    spawn_blocking(move || again.restart(0)).await.unwrap();
    let offset = append(&cluster, &topic, vec![Record::new("", "after")]).await;
    assert_eq!(read(reader.as_mut(), offset, 1).await[0].1.value, "after");
    // The writer that saw it die finds it again too.
    assert_eq!(writer.produce(vec![Record::new("", "again")]).await.unwrap(), offset + 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java: make test-kafka"]
async fn three_nodes_are_followed_through_each_ones_death() {
    let (apache, door) = start(3).await;
    let cluster = door.cluster(ADMIN);
    logs::topics_are_made_once_and_compared_then(&cluster, 3).await;
    let topic = logs::make(&cluster, "three", 1).await.up_control();
    let mut reader = cluster.reader(&topic, 0);
    let mut sent = 0;
    for node in 0..3 {
        apache.kill(node);
        let gap = Instant::now();
        append(&cluster, &topic, vec![Record::new("", format!("without {node}"))]).await;
        sent += 1;
        assert!(read(reader.as_mut(), 0, sent).await.len() >= sent);
        println!("without node {node}: written and read after {:.1?}", gap.elapsed());
        let again = apache.clone();
        spawn_blocking(move || {
            again.restart(node);
            again.wait_until_in_sync();
        })
        .await
        .unwrap();
    }
    // A frozen node answers nothing, and keeps its connections open.
    apache.signal(0, "STOP");
    let gap = Instant::now();
    append(&cluster, &topic, vec![Record::new("", "beside a frozen node")]).await;
    println!("beside a frozen node: written after {:.1?}", gap.elapsed());
    apache.signal(0, "CONT");
}
