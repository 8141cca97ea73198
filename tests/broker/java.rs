//! Apache Kafka's own command line tools as clients of the embedded broker, over TLS and SCRAM.

use crate::support::{Running, secured};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A Java tool starts within seconds, on a busy machine within more.
const TOOL: Duration = Duration::from_secs(120);
const RECORDS: usize = 2_000;

struct Tools {
    jars: PathBuf,
    properties: PathBuf,
    address: String,
}

impl Tools {
    /// Runs a tool to its end; its output without the logging lines.
    async fn run(&self, class: &str, properties_flag: &str, args: &[&str], stdin: String) -> Vec<String> {
        let mut tool = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(self.jars.join("*"))
            .args([class, "--bootstrap-server", &self.address, properties_flag])
            .arg(&self.properties)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = tool.stdin.take().unwrap();
        let feed = tokio::spawn(async move { input.write_all(stdin.as_bytes()).await });
        let output = tokio::time::timeout(TOOL, tool.wait_with_output()).await.unwrap().unwrap();
        feed.await.unwrap().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{class}: {}\n{out}\n{err}", output.status);
        out.lines().map(str::to_owned).collect()
    }
}

fn client_properties(directory: &Path) -> PathBuf {
    let path = directory.join("client.properties");
    let authority = directory.join("tls/ca.pem");
    let content = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
         sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
         username=\"alice\" password=\"correct horse\";\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\n",
        authority.display()
    );
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java and Apache Kafka's jars: make test-kafka"]
async fn kafkas_own_console_tools_work_with_an_explicit_partition() {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".kafka/lib");
    assert!(jars.is_dir(), "{} is missing: make .kafka", jars.display());
    let data = tempfile::tempdir().unwrap();
    let (config, _) = secured(data.path());
    let broker = Running::start(config).await;
    let tools = Tools { jars, properties: client_properties(data.path()), address: broker.address.clone() };

    let create = ["--create", "--topic", "from-java", "--partitions", "1", "--config", "retention.ms=900000"];
    let topics = "org.apache.kafka.tools.TopicCommand";
    tools.run(topics, "--command-config", &create, String::new()).await;
    let described = tools.run(topics, "--command-config", &["--describe", "--topic", "from-java"], String::new()).await;
    assert!(described.iter().any(|line| line.contains("retention.ms=900000")), "{described:?}");

    // Idempotent by default: it asks for a producer id, and numbers its batches.
    let lines: Vec<String> = (0..RECORDS).map(|n| format!("record {n}")).collect();
    let producer = "org.apache.kafka.tools.ConsoleProducer";
    tools.run(producer, "--producer.config", &["--topic", "from-java"], lines.join("\n") + "\n").await;

    let most = RECORDS.to_string();
    let consume = ["--topic", "from-java", "--partition", "0", "--offset", "earliest", "--max-messages", &most];
    let consumer = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let consumed = tools.run(consumer, "--consumer.config", &consume, String::new()).await;
    assert_eq!(consumed, lines);
    broker.stop().await;
}
