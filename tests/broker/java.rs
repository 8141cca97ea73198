//! Apache Kafka's own command line tools as clients of the embedded broker, over TLS and SCRAM.

use crate::support::{Running, secured};
use remoting_kafka::broker::Config;
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

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const ACLS: &str = "org.apache.kafka.tools.AclCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";

impl Tools {
    /// As alice.
    fn of(broker: &Running, directory: &Path) -> Self {
        let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".kafka/lib");
        assert!(jars.is_dir(), "{} is missing: make .kafka", jars.display());
        let properties = client_properties(directory, "alice", "correct horse");
        Self { jars, properties, address: broker.address.clone() }
    }

    /// The same as another user.
    fn as_user(&self, directory: &Path, user: &str, password: &str) -> Self {
        let properties = client_properties(directory, user, password);
        Self { jars: self.jars.clone(), properties, address: self.address.clone() }
    }

    /// Runs an admin tool that must succeed.
    async fn admin(&self, class: &str, args: &[&str]) -> Vec<String> {
        self.run(class, "--command-config", args, String::new()).await
    }

    /// Runs a tool that must fail; all that it says.
    async fn fails(&self, class: &str, args: &[&str]) -> String {
        let (success, out, err) = self.execute(class, "--command-config", args, String::new()).await;
        assert!(!success, "{class} {args:?}: {out}");
        format!("{out}{err}")
    }

    /// Runs a tool to its end; its output without the logging lines and empty ones.
    async fn run(&self, class: &str, properties_flag: &str, args: &[&str], stdin: String) -> Vec<String> {
        let (success, out, err) = self.execute(class, properties_flag, args, stdin).await;
        assert!(success, "{class} {args:?}\n{out}\n{err}");
        out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    async fn execute(
        &self,
        class: &str,
        properties_flag: &str,
        args: &[&str],
        stdin: String,
    ) -> (bool, String, String) {
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
        // A tool that fails may not read to the end.
        let _ = feed.await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), out.into_owned(), err.into_owned())
    }
}

fn client_properties(directory: &Path, user: &str, password: &str) -> PathBuf {
    let path = directory.join(format!("{user}.properties"));
    let authority = directory.join("tls/ca.pem");
    let content = format!(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
         sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
         username=\"{user}\" password=\"{password}\";\n\
         ssl.truststore.type=PEM\nssl.truststore.location={}\n",
        authority.display()
    );
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java and Apache Kafka's jars: make test-kafka"]
async fn kafkas_own_console_tools_work_with_an_explicit_partition() {
    let data = tempfile::tempdir().unwrap();
    let (config, _) = secured(data.path());
    let broker = Running::start(config).await;
    let tools = Tools::of(&broker, data.path());

    let create = ["--create", "--topic", "from-java", "--partitions", "1", "--config", "retention.ms=900000"];
    tools.admin(TOPICS, &create).await;
    let described = tools.admin(TOPICS, &["--describe", "--topic", "from-java"]).await;
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Java and Apache Kafka's jars: make test-kafka"]
async fn kafkas_own_admin_tools_change_users_rights_and_topics() {
    let data = tempfile::tempdir().unwrap();
    let (config, _) = secured(data.path());
    let broker = Running::start(Config { super_users: ["alice".to_owned()].into(), ..config }).await;
    let alice = Tools::of(&broker, data.path());
    let bob = alice.as_user(data.path(), "bob", "builder");

    let scram = "SCRAM-SHA-512=[iterations=8192,password=builder]";
    let of_bob = ["--alter", "--entity-type", "users", "--entity-name", "bob"];
    alice.admin(CONFIGS, &[&of_bob[..], &["--add-config", scram]].concat()).await;
    alice.admin(TOPICS, &["--create", "--topic", "orders", "--partitions", "1"]).await;
    assert!(bob.admin(TOPICS, &["--list"]).await.is_empty(), "bob logs in, and sees nothing");

    let rule = ["--allow-principal", "User:bob", "--operation", "Alter", "--operation", "AlterConfigs"];
    let on = ["--topic", "ord", "--resource-pattern-type", "prefixed"];
    alice.admin(ACLS, &[&["--add"][..], &rule, &on].concat()).await;
    let listed = alice.admin(ACLS, &["--list", "--topic", "orders", "--resource-pattern-type", "match"]).await;
    let listed = listed.join("\n");
    assert!(listed.contains("principal=User:bob") && listed.contains("ALTER_CONFIGS"), "{listed}");
    assert_eq!(bob.admin(TOPICS, &["--list"]).await, ["orders"]);

    bob.admin(TOPICS, &["--alter", "--topic", "orders", "--partitions", "3"]).await;
    let of_orders = ["--alter", "--entity-type", "topics", "--entity-name", "orders"];
    bob.admin(CONFIGS, &[&of_orders[..], &["--add-config", "retention.ms=900000"]].concat()).await;
    let described = bob.admin(TOPICS, &["--describe", "--topic", "orders"]).await.join("\n");
    assert!(described.contains("PartitionCount: 3") && described.contains("retention.ms=900000"), "{described}");
    let refused = bob.fails(TOPICS, &["--delete", "--topic", "orders"]).await;
    assert!(refused.contains("TopicAuthorizationException"), "{refused}");
    let refused = bob.fails(ACLS, &["--list"]).await;
    assert!(refused.contains("ClusterAuthorizationException"), "{refused}");

    alice.admin(ACLS, &[&["--remove", "--force"][..], &rule, &on].concat()).await;
    assert!(bob.admin(TOPICS, &["--list"]).await.is_empty());
    alice.admin(TOPICS, &["--delete", "--topic", "orders"]).await;
    alice.admin(CONFIGS, &[&of_bob[..], &["--delete-config", "SCRAM-SHA-512"]].concat()).await;
    let refused = bob.fails(TOPICS, &["--list"]).await;
    assert!(refused.contains("SaslAuthenticationException"), "{refused}");
    broker.stop().await;
}
