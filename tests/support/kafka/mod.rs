//! A real Apache Kafka cluster for tests: one or three combined KRaft nodes on loopback, run from the jars in
//! `.kafka/lib` (`make .kafka` fetches them) with the settings in `compose/kafka`.

pub mod admin;

use super::certs::Authority;
use super::process::{self, Process};
use super::user::USERS;
use super::{ports, wait};
use admin::{Admin, Rule, SharedLayout};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a node may take to start on a busy machine.
const START: Duration = Duration::from_secs(120);

/// How a cluster is to be made.
pub struct Setup {
    /// 1 or 3.
    pub nodes: usize,
    /// Where clients reach the nodes.
    pub host: IpAddr,
    /// The heap of each node.
    pub heap: &'static str,
    /// Whether clients are told another port than the one that a node listens on, for a proxy of the caller's.
    pub proxied: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { nodes: 3, host: Ipv4Addr::LOCALHOST.into(), heap: "512m", proxied: false }
    }
}

/// A running cluster. Clones share it; when the last one is dropped the nodes are killed and the folder is removed.
#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    host: IpAddr,
    heap: &'static str,
    authority: Authority,
    nodes: Vec<Node>,
}

struct Node {
    client: u16,
    advertised: u16,
    mutual: u16,
    internal: u16,
    controller: u16,
    folder: PathBuf,
    process: Mutex<Option<Process>>,
}

impl Cluster {
    /// Starts `nodes` nodes and waits until all of them serve.
    pub fn start(nodes: usize) -> Cluster {
        Cluster::start_with(Setup { nodes, ..Setup::default() })
    }

    /// Starts a cluster and waits until all its nodes serve.
    pub fn start_with(setup: Setup) -> Cluster {
        assert!(jars().is_dir(), "Apache Kafka is not here: run `make .kafka` first");
        let folder = process::folder("kafka");
        let authority = Authority::new(&folder);
        authority.server("node", &["localhost", "127.0.0.1", &setup.host.to_string()]);
        let loopback = Ipv4Addr::LOCALHOST.into();
        let nodes = (1..=setup.nodes)
            .map(|id| (id, ports::free(setup.host)))
            .map(|(id, client)| Node {
                client,
                advertised: if setup.proxied { ports::free(setup.host) } else { client },
                mutual: ports::free(setup.host),
                internal: ports::free(loopback),
                controller: ports::free(loopback),
                folder: folder.join(format!("node{id}")),
                process: Mutex::new(None),
            })
            .collect();
        let shared = Shared { folder, host: setup.host, heap: setup.heap, authority, nodes };
        let cluster = Cluster { shared: Arc::new(shared) };
        cluster.configure();
        cluster.format();
        for node in 0..setup.nodes {
            cluster.launch(node);
        }
        for node in 0..setup.nodes {
            cluster.wait_until_up(node);
        }
        cluster
    }

    /// How many nodes there are, dead or alive.
    pub fn nodes(&self) -> usize {
        self.shared.nodes.len()
    }

    /// Where TLS and SASL are spoken. The first address is dead on purpose.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses(|node| node.advertised)
    }

    /// For each node the port that clients are told, and the one that it listens on.
    pub fn client_ports(&self) -> Vec<(u16, u16)> {
        self.shared.nodes.iter().map(|node| (node.advertised, node.client)).collect()
    }

    /// Where a client certificate takes the place of a password. The first address is dead on purpose.
    pub fn bootstrap_mutual(&self) -> Vec<String> {
        self.addresses(|node| node.mutual)
    }

    fn addresses(&self, port: impl Fn(&Node) -> u16) -> Vec<String> {
        let live = self.shared.nodes.iter().map(|node| format!("{}:{}", self.shared.host, port(node)));
        [ports::DEAD.to_owned()].into_iter().chain(live).collect()
    }

    /// The certificates' authority.
    pub fn authority(&self) -> &Authority {
        &self.shared.authority
    }

    /// A folder of the cluster's own, removed with it.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// A node's process id, while it runs.
    pub fn process_id(&self, node: usize) -> Option<u32> {
        self.shared.nodes[node].process.lock().unwrap().as_ref().map(Process::id)
    }

    /// `kill -9`.
    pub fn kill(&self, node: usize) {
        if let Some(mut process) = self.shared.nodes[node].process.lock().unwrap().take() {
            process.kill();
        }
    }

    /// Sends `STOP` or `CONT` to a node.
    pub fn signal(&self, node: usize, signal: &str) {
        self.shared.nodes[node].process.lock().unwrap().as_ref().expect("the node runs").signal(signal);
    }

    /// Starts a killed node on its old data and waits until it serves. Blocks for some seconds.
    pub fn restart(&self, node: usize) {
        self.launch(node);
        self.wait_until_up(node);
    }

    /// Starts a node and returns at once.
    pub fn launch(&self, node: usize) {
        let node = &self.shared.nodes[node];
        let mut running = node.process.lock().unwrap();
        assert!(running.is_none(), "the node runs already");
        let mut command = java(self.shared.heap);
        command
            .arg(format!("-Dlog4j2.configurationFile={}", compose().join("log4j2.properties").display()))
            .arg("kafka.Kafka")
            .arg(node.folder.join("node.properties"));
        *running = Some(Process::start(command, &node.log()).expect("java and setpriv start"));
    }

    /// Waits until a node is a member of the cluster as it sees it itself.
    pub fn wait_until_up(&self, node: usize) {
        let id = i32::try_from(node).unwrap() + 1;
        let node = &self.shared.nodes[node];
        wait::until(&format!("Kafka node {id} is up"), START, || {
            if let Some(process) = node.process.lock().unwrap().as_mut()
                && let Some(status) = process.ended()
            {
                panic!("Kafka node {id} ended ({status}):\n{}", process::tail(&node.log()));
            }
            let known = Admin::connect(node.internal).and_then(|mut admin| admin.metadata());
            let known = known.map_err(|error| format!("{error}\n{}", process::tail(&node.log())))?;
            if known.brokers.iter().any(|broker| broker.node_id.0 == id) {
                Ok(())
            } else {
                Err("it is fenced".to_owned())
            }
        });
    }

    /// Waits until every replica of every partition is in sync: only then can the next node be killed without
    /// a partition losing its quorum.
    pub fn wait_until_in_sync(&self) {
        wait::until("every replica is in sync", START, || {
            let known = self.admin().metadata().map_err(|error| error.to_string())?;
            if known.brokers.len() < self.nodes() {
                return Err(format!("{} nodes of {}", known.brokers.len(), self.nodes()));
            }
            let behind: BTreeSet<_> = known
                .topics
                .iter()
                .filter(|topic| topic.partitions.iter().any(|part| part.isr_nodes.len() < part.replica_nodes.len()))
                .map(|topic| format!("{:?}", topic.name))
                .collect();
            if behind.is_empty() { Ok(()) } else { Err(format!("{behind:?}")) }
        });
    }

    /// A connection on which everything is allowed, to the first node that answers.
    pub fn admin(&self) -> Admin {
        wait::until("a node answers", Duration::from_secs(30), || {
            let alive = self.shared.nodes.iter().find_map(|node| Admin::connect(node.internal).ok());
            alive.ok_or_else(|| "no node runs".to_owned())
        })
    }

    /// Adds rules and waits until every living node holds them.
    pub fn allow(&self, rules: &[Rule]) {
        self.admin().allow(rules).unwrap();
        for node in &self.shared.nodes {
            wait::until("every node holds the rules", Duration::from_secs(10), || {
                let Ok(mut admin) = Admin::connect(node.internal) else { return Ok(()) };
                let held = rules.iter().map(|rule| admin.holds(rule)).collect::<io::Result<Vec<bool>>>();
                match held {
                    Ok(held) if held.iter().all(|held| *held) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    /// Gives the users of controllers and agents the rights of the shared layout below the prefix `cluster`.
    pub fn allow_shared_layout(&self, cluster: &str) {
        self.allow(&SharedLayout::new(cluster).rules());
    }

    /// Writes each node's settings.
    fn configure(&self) {
        let template = fs::read_to_string(compose().join("node.properties")).unwrap();
        let shared = &self.shared;
        let voters: Vec<String> =
            (1..).zip(&shared.nodes).map(|(id, node)| format!("{id}@127.0.0.1:{}", node.controller)).collect();
        let plain: Vec<String> = USERS.map(|user| format!("user_{}=\"{}\"", user.name, user.password)).into();
        for (id, node) in (1..).zip(&shared.nodes) {
            fs::create_dir_all(&node.folder).unwrap();
            let values: [(&str, String); 13] = [
                ("NODE", i32::to_string(&id)),
                ("VOTERS", voters.join(",")),
                ("DATA", node.data().display().to_string()),
                ("HOST", shared.host.to_string()),
                ("CLIENT_PORT", node.client.to_string()),
                ("ADVERTISED_PORT", node.advertised.to_string()),
                ("MUTUAL_PORT", node.mutual.to_string()),
                ("INTERNAL_PORT", node.internal.to_string()),
                ("CONTROLLER_PORT", node.controller.to_string()),
                ("CERTS", shared.folder.display().to_string()),
                ("PLAIN_USERS", plain.join(" ")),
                ("REPLICATION", shared.nodes.len().min(3).to_string()),
                ("MIN_INSYNC", if shared.nodes.len() < 3 { "1" } else { "2" }.to_owned()),
            ];
            let mut text = template.clone();
            for (name, value) in values {
                text = text.replace(&format!("@{name}@"), &value);
            }
            fs::write(node.folder.join("node.properties"), text).unwrap();
        }
    }

    /// Formats the nodes' storage, all at once, with the SCRAM users in it.
    fn format(&self) {
        const CLUSTER_ID: &str = "cmVtb3Rpbmcta2Fma2EtMQ";
        let nodes = &self.shared.nodes;
        let mut formatting: Vec<_> = nodes
            .iter()
            .map(|node| {
                let mut command = java("128m");
                command.args(["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]);
                command.arg(node.folder.join("node.properties"));
                for user in USERS {
                    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256"] {
                        let credential = format!("{mechanism}=[name={},password={}]", user.name, user.password);
                        command.args(["--add-scram", &credential]);
                    }
                }
                Process::start(command, &node.log()).expect("java and setpriv start")
            })
            .collect();
        for (node, process) in nodes.iter().zip(&mut formatting) {
            let ended = || process.ended().ok_or_else(|| "it still runs".to_owned());
            let status = wait::until("Kafka's storage is formatted", START, ended);
            assert!(status.success(), "kafka-storage format: {status}:\n{}", process::tail(&node.log()));
        }
    }
}

impl Node {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("node.log")
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.process.lock().unwrap().take();
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{}:\n{}", node.log().display(), process::tail(&node.log()));
            }
        }
        if std::env::var_os("RK_TEST_KEEP").is_none() {
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}

/// One of Kafka's own command line tools, by its main class, with a small heap. It dies with the test when it is
/// started by [`process::spawn`] or [`Process::start`].
pub fn tool(class: &str) -> Command {
    let mut command = java("256m");
    command.arg("-XX:TieredStopAtLevel=1").arg(class);
    process::bound(command)
}

/// `kafka-console-producer`.
pub const CONSOLE_PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
/// `kafka-console-consumer`.
pub const CONSOLE_CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
/// `kafka-topics`, `kafka-configs` and `kafka-acls`, as their scripts are named.
pub const ADMIN_TOOLS: [(&str, &str); 3] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
];

fn java(heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args([&format!("-Xmx{heap}"), "-XX:+UseSerialGC", "-Xshare:auto", "-cp"]);
    command.arg(jars().join("*"));
    command
}

fn jars() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".kafka/lib")
}

fn compose() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/kafka")
}
