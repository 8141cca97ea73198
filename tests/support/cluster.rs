//! One suite, two brokers: `RK_TEST_KAFKA=1` or `3` takes as many nodes of Apache Kafka, otherwise it is the embedded
//! broker. A test sees only what both have in common.

use super::certs::Authority;
use super::embedded::Embedded;
use super::kafka;
use super::kafka::admin::{Admin, Rule};
use super::user::User;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A running cluster with TLS, SASL and ACLs, and the users of [`super::user`].
pub enum TestCluster {
    /// The embedded broker, in this process.
    Embedded(Box<Embedded>),
    /// Apache Kafka.
    Kafka(kafka::Cluster),
}

/// How many nodes of Apache Kafka were asked for; 0 means the embedded broker.
pub fn kafka_nodes() -> usize {
    match std::env::var("RK_TEST_KAFKA").as_deref() {
        Err(_) | Ok("") => 0,
        Ok("1") => 1,
        Ok("3") => 3,
        Ok(other) => panic!("RK_TEST_KAFKA={other}: it is 1 or 3 nodes, or unset for the embedded broker"),
    }
}

impl TestCluster {
    /// The cluster that the tests of one process share; each takes topics of its own with [`TestCluster::prefix`].
    /// It ends with the process.
    pub fn shared() -> &'static TestCluster {
        static SHARED: OnceLock<TestCluster> = OnceLock::new();
        SHARED.get_or_init(TestCluster::start)
    }

    /// A cluster of the caller's own, for a test that stops nodes.
    pub fn start() -> TestCluster {
        match kafka_nodes() {
            0 => TestCluster::Embedded(Box::new(Embedded::start())),
            nodes => TestCluster::Kafka(kafka::Cluster::start(nodes)),
        }
    }

    /// A topic prefix (`<cluster>` in a topic's name) that nobody else has; the users of controllers and
    /// agents have their rights below it.
    pub fn prefix(&self, test: &str) -> String {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let prefix = format!("{test}-{}", &id[..8]);
        match self {
            TestCluster::Embedded(broker) => broker.allow_shared_layout(&prefix),
            TestCluster::Kafka(cluster) => cluster.allow_shared_layout(&prefix),
        }
        prefix
    }

    /// A connection on which everything is allowed.
    pub fn admin(&self) -> Admin {
        match self {
            TestCluster::Embedded(broker) => broker.admin(),
            TestCluster::Kafka(cluster) => cluster.admin(),
        }
    }

    /// A connection as this user, to the first living address of the bootstrap list.
    pub fn log_in(&self, user: User) -> Admin {
        let bootstrap = self.bootstrap();
        bootstrap.split(',').find_map(|address| Admin::log_in(address, &self.ca(), user).ok()).expect("a node answers")
    }

    /// Adds rules and waits until every node holds them.
    pub fn allow(&self, rules: &[Rule]) {
        match self {
            TestCluster::Embedded(broker) => broker.admin().allow(rules).unwrap(),
            TestCluster::Kafka(cluster) => cluster.allow(rules),
        }
    }

    /// The bootstrap list, joined by commas. Its first address is dead on purpose.
    pub fn bootstrap(&self) -> String {
        match self {
            TestCluster::Embedded(broker) => broker.bootstrap().join(","),
            TestCluster::Kafka(cluster) => cluster.bootstrap().join(","),
        }
    }

    /// The certificates' authority.
    pub fn authority(&self) -> &Authority {
        match self {
            TestCluster::Embedded(broker) => broker.authority(),
            TestCluster::Kafka(cluster) => cluster.authority(),
        }
    }

    /// The authority's certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.authority().ca()
    }

    /// A folder that is removed with the cluster.
    pub fn folder(&self) -> &Path {
        match self {
            TestCluster::Embedded(broker) => broker.folder(),
            TestCluster::Kafka(cluster) => cluster.folder(),
        }
    }

    /// A `client.properties` of a user, for `--command-config` and Kafka's own tools.
    pub fn properties(&self, user: User) -> PathBuf {
        user.properties(self.folder(), "SCRAM-SHA-512", &self.ca())
    }

    /// How many nodes there are, dead or alive.
    pub fn nodes(&self) -> usize {
        match self {
            TestCluster::Embedded(_) => 1,
            TestCluster::Kafka(cluster) => cluster.nodes(),
        }
    }

    /// Stops a node at once: `kill -9`, where it is a process.
    pub fn kill(&self, node: usize) {
        match self {
            TestCluster::Embedded(broker) => broker.stop(),
            TestCluster::Kafka(cluster) => cluster.kill(node),
        }
    }

    /// Starts a stopped node on its old data, and waits until it serves. Blocks for some seconds.
    pub fn restart(&self, node: usize) {
        match self {
            TestCluster::Embedded(broker) => broker.launch(),
            TestCluster::Kafka(cluster) => cluster.restart(node),
        }
    }

    /// Stops all nodes at once.
    pub fn kill_all(&self) {
        (0..self.nodes()).for_each(|node| self.kill(node));
    }

    /// Starts all nodes after [`TestCluster::kill_all`], and waits until they serve.
    pub fn restart_all(&self) {
        match self {
            TestCluster::Embedded(broker) => broker.launch(),
            TestCluster::Kafka(cluster) => {
                (0..cluster.nodes()).for_each(|node| cluster.launch(node));
                (0..cluster.nodes()).for_each(|node| cluster.wait_until_up(node));
            }
        }
    }

    /// Waits until the next node can be stopped without a partition losing its quorum.
    pub fn wait_until_in_sync(&self) {
        if let TestCluster::Kafka(cluster) = self {
            cluster.wait_until_in_sync();
        }
    }
}
