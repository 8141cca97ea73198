//! What takes the place of the plugin: our settings, agents, launch lines and Jenkins's nodes, each with where it belongs.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    cluster::{Cluster, Store},
    old::{Cloud, Node, Old},
};
use crate::id::{AgentName, MAX_AGENT_NAME};

/// Where the files lie that the settings name.
const FOLDER: &str = "/etc/rk";

/// A node of Jenkins's and its agent.
struct Pair<'a> {
    agent: AgentName,
    /// The node's name in Jenkins.
    name: String,
    work: Option<&'a str>,
    of: Of<'a>,
}

/// Where it comes from.
enum Of<'a> {
    Node(&'a Node),
    Cloud(&'a Cloud),
    /// Only its command line is known.
    Line,
}

/// All of it, as one text.
pub fn render(old: &Old) -> String {
    let pairs = pairs(old);
    let mut text = String::from(
        "# What takes the place of Jenkins's plugin remoting-kafka. Nothing was changed: each\n\
         # part says where it belongs; read it before you use it.\n",
    );
    settings(&mut text, old);
    if old.cluster.secure {
        stores(&mut text, &old.cluster);
    }
    if !pairs.is_empty() {
        agents(&mut text, &pairs);
        launch(&mut text, &pairs);
        nodes(&mut text, old, &pairs);
    }
    for cloud in &old.clouds {
        pods(&mut text, cloud, old.cluster.secure);
    }
    left(&mut text, old);
    text
}

macro_rules! line {
    ($text:expr, $($part:tt)*) => {
        let _ = writeln!($text, $($part)*);
    };
}

fn heading(text: &mut String, what: &str) {
    line!(text, "\n# ---- {what}\n");
}

fn settings(text: &mut String, old: &Old) {
    let cluster = &old.cluster;
    heading(text, &format!("{FOLDER}/config.yaml, for the rk controller and for each agent"));
    match &cluster.brokers {
        Some(brokers) => {
            let brokers: Vec<String> = brokers.split(',').map(|one| quoted(address(one))).collect();
            line!(text, "brokers: [{}]", brokers.join(", "));
        }
        None => {
            line!(text, "# brokerURL is not in what was read: put the brokers here, as HOST:PORT.\nbrokers: []");
        }
    }
    if !cluster.secure {
        line!(text, "# The plugin went without TLS and login here.\nsecurity-protocol: PLAINTEXT");
        return;
    }
    line!(text, "security-protocol: SASL_SSL\nsasl-mechanism: PLAIN");
    line!(text, "# The plugin had one user for all. With ACLs the controller and the agents have users");
    line!(text, "# of their own: `rk topics plan` says which rights each needs.");
    match &cluster.user {
        Some(user) => {
            line!(text, "sasl-username: {}", quoted(user));
        }
        None => {
            line!(text, "sasl-username: \"\"  # the user name of {}", credential(cluster.credential.as_ref()));
        }
    }
    line!(text, "# The password of {}, in a file of mode 0600.", credential(cluster.credential.as_ref()));
    line!(text, "sasl-password: file:{FOLDER}/kafka.password");
    match cluster.truststore {
        Some(_) => {
            line!(text, "tls-ca: {FOLDER}/ca.pem");
        }
        None => {
            line!(text, "# tls-ca: {FOLDER}/ca.pem  # if the system's CAs do not know the brokers'");
        }
    }
    if cluster.keystore.is_some() {
        line!(text, "tls-cert: {FOLDER}/client.pem\ntls-key: {FOLDER}/client.key");
    }
}

/// Only PEM is read here. `keytool` asks for the passwords itself, so none stands on a command line.
fn stores(text: &mut String, cluster: &Cluster) {
    let (trust, key) = (cluster.truststore.as_ref(), cluster.keystore.as_ref());
    if trust.is_none() && key.is_none() {
        return;
    }
    heading(text, &format!("once, where the Java key stores are: what is in them, as PEM, for {FOLDER}"));
    if let Some(store) = trust {
        told(text, store);
        line!(text, "keytool -list -rfc -keystore {} > ca.pem", shell(store.place("TRUSTSTORE.jks")));
    }
    if let Some(store) = key {
        told(text, store);
        let place = shell(store.place("KEYSTORE.jks"));
        line!(text, "keytool -importkeystore -srckeystore {place} -destkeystore client.p12 -deststoretype PKCS12");
        line!(text, "openssl pkcs12 -in client.p12 -nokeys -out client.pem");
        line!(text, "(umask 077; openssl pkcs12 -in client.p12 -nocerts -nodes -out client.key)");
        line!(text, "rm client.p12");
    }
}

fn told(text: &mut String, store: &Store) {
    if store.credential.is_some() {
        line!(text, "# Path and password are those of {}.", credential(store.credential.as_ref()));
    }
}

fn agents(text: &mut String, pairs: &[Pair]) {
    heading(text, "where the rk controller runs: each agent, and a token for its node alone");
    for Pair { agent, name, .. } in pairs {
        if agent.as_str() != name {
            line!(text, "# Jenkins's node {} has another name here: {agent}", quoted(name));
        }
        line!(text, "rk agents add {agent} --out {agent}.credential");
        line!(
            text,
            "rk access add {} --role operator --verb exec --agent {agent} --out {agent}.token",
            token(agent, pairs)
        );
    }
}

fn launch(text: &mut String, pairs: &[Pair]) {
    heading(text, "on each agent's machine, instead of java -jar remoting-kafka-agent.jar");
    for Pair { agent, work, of, .. } in pairs {
        let work = work.map_or_else(String::new, |work| format!(" --work {}", shell(work)));
        match of {
            Of::Cloud(_) => {
                line!(text, "# {agent}: see the pods below");
            }
            Of::Node(_) | Of::Line => {
                line!(text, "rk agent run --credential file:{FOLDER}/{agent}.credential{work}");
            }
        }
    }
}

fn nodes(text: &mut String, old: &Old, pairs: &[Pair]) {
    heading(text, "jenkins.yaml, instead of the nodes with launcher: kafka; needs the plugin command-launcher");
    line!(text, "jenkins:\n  nodes:");
    for pair in pairs {
        let agent = &pair.agent;
        line!(text, "    - permanent:\n        name: {}", quoted(&pair.name));
        line!(text, "        remoteFS: {}", quoted(pair.work.unwrap_or("/home/jenkins")));
        match &pair.of {
            Of::Node(node) => {
                for (key, value) in &node.plain {
                    let number = value.parse::<u32>().ok().map(|number| number.to_string());
                    line!(text, "        {key}: {}", number.unwrap_or_else(|| quoted(value)));
                }
                if !node.left_out.is_empty() {
                    line!(text, "        # Take over as they are: {}", quoted(&node.left_out.join(", ")));
                }
            }
            Of::Cloud(cloud) => {
                if let Some(label) = &cloud.label {
                    line!(text, "        labelString: {}", quoted(label));
                }
                line!(text, "        mode: EXCLUSIVE\n        numExecutors: 1");
                if let Some(minutes) = cloud.idle_minutes.as_ref().and_then(|minutes| minutes.parse::<u32>().ok()) {
                    line!(text, "        retentionStrategy: {{demand: {{inDemandDelay: 0, idleDelay: {minutes}}}}}");
                }
            }
            Of::Line => {
                line!(text, "        # Only its command line was read: labels and executors are not known.");
            }
        }
        line!(text, "        launcher:\n          command:");
        line!(
            text,
            "            command: \"rk jenkins-agent --api-token file:/var/jenkins_home/rk/{agent}.token {agent}\""
        );
    }
    if old.others > 0 {
        line!(text, "    # And the {} that another launcher starts, as they are.", old.others);
    }
}

fn pods(text: &mut String, cloud: &Cloud, secure: bool) {
    heading(text, &format!("for kubectl, instead of the cloud {}", quoted(&cloud.name)));
    line!(text, "# Jenkins starts no pods here: agents run when the set says so, and Jenkins's node finds them.");
    if let Some(server) = &cloud.server {
        line!(text, "# The cluster at {}.", quoted(server));
    }
    let name = dns(&cloud.name);
    let agent = agent_name(&format!("{}-0", cloud.name));
    line!(text, "apiVersion: apps/v1\nkind: StatefulSet\nmetadata:\n  name: {name}");
    line!(text, "  namespace: {}", quoted(cloud.namespace.as_deref().unwrap_or("default")));
    line!(text, "spec:\n  replicas: 1\n  serviceName: {name}");
    line!(text, "  selector: {{matchLabels: {{app: {name}}}}}");
    line!(
        text,
        "  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      containers:\n        - name: agent"
    );
    line!(text, "          # The image needs Java and rk; nothing of the plugin.");
    line!(text, "          image: {}", quoted(cloud.image.as_deref().unwrap_or("IMAGE")));
    let work = cloud.work.as_ref().map_or_else(String::new, |work| format!(", --work, {}", quoted(work)));
    let secret = format!("rk-{}", dns(agent.as_str()));
    line!(text, "          command: [rk, agent, run, --credential, \"env:CREDENTIAL\"{work}]");
    line!(text, "          env:");
    line!(text, "            - {{name: CREDENTIAL, valueFrom: {{secretKeyRef: {{name: {secret}, key: credential}}}}}}");
    if secure {
        line!(text, "            - {{name: RK_SASL_PASSWORD, value: \"env:KAFKA_PASSWORD\"}}");
        line!(
            text,
            "            - {{name: KAFKA_PASSWORD, valueFrom: {{secretKeyRef: {{name: {secret}, key: password}}}}}}"
        );
    }
    line!(text, "          volumeMounts: [{{name: rk, mountPath: {FOLDER}, readOnly: true}}]");
    line!(text, "      # With config.yaml, and the PEM files that it names.");
    line!(text, "      volumes: [{{name: rk, secret: {{secretName: rk-config}}}}]");
}

fn left(text: &mut String, old: &Old) {
    let mut lines = Vec::new();
    if old.cluster.zookeeper.is_some() {
        lines.push("zookeeperURL: nothing here speaks to ZooKeeper; topics are made through Kafka itself.");
    }
    if old.agents.iter().any(|agent| agent.master.is_some()) {
        lines.push("-master: an agent knows no address of Jenkins's; it meets the rk controller in Kafka.");
    }
    let given: BTreeSet<&str> = old.agents.iter().flat_map(|agent| agent.secrets.iter().copied()).collect();
    if given.contains("-secret") || old.agents.iter().any(|agent| agent.read_secret) {
        lines.push("-secret, -readSecret: the credential takes their place, and comes by file:, fd: or env:.");
    }
    let said = given.into_iter().collect::<Vec<_>>().join(", ");
    let said = format!("{said}: stood on a command line, which every user of the machine can read: change them.");
    if !old.agents.iter().all(|agent| agent.secrets.is_empty()) {
        lines.push(&said);
    }
    if old.clouds.iter().any(|cloud| cloud.idle_minutes.is_some()) {
        lines.push(
            "idle minutes: Jenkins lets go of an idle node after so long (its retentionStrategy); the pod stays.",
        );
    }
    if !old.clouds.is_empty() {
        lines.push("provisioning by Jenkins: each node of Jenkins's has a name and an agent of this name.");
    }
    if lines.is_empty() {
        return;
    }
    heading(text, "what has no successor, and why");
    for line in lines {
        line!(text, "# - {line}");
    }
}

fn pairs(old: &Old) -> Vec<Pair<'_>> {
    let nodes = old.nodes.iter().map(|node| (node.name.clone(), node.remote_fs.as_deref(), Of::Node(node)));
    let clouds = old.clouds.iter().map(|cloud| (format!("{}-0", cloud.name), cloud.work.as_deref(), Of::Cloud(cloud)));
    let known: BTreeSet<&str> = old.nodes.iter().map(|node| node.name.as_str()).collect();
    let lines = old.agents.iter().map(|agent| agent.name.as_deref().unwrap_or("agent"));
    let lines = lines.filter(|name| !known.contains(name)).map(|name| (name.to_owned(), None, Of::Line));
    let mut pairs: Vec<Pair> = Vec::new();
    for (name, work, of) in nodes.chain(clouds).chain(lines) {
        let first = agent_name(&name);
        let (mut agent, mut number) = (first.clone(), 2);
        // Names that differ only in what no agent's name may have.
        while pairs.iter().any(|pair| pair.agent == agent) {
            let short = &first.as_str()[..first.as_str().len().min(MAX_AGENT_NAME - 6)];
            agent = agent_name(&format!("{short}-{number}"));
            number += 1;
        }
        pairs.push(Pair { agent, name, work, of });
    }
    pairs
}

/// The nearest name that an agent can have.
fn agent_name(name: &str) -> AgentName {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '-' }).collect();
    let plain = plain.trim_start_matches(['-', '_']);
    let plain = if plain.is_empty() { "agent" } else { plain };
    plain[..plain.len().min(MAX_AGENT_NAME)].parse().expect("only characters that a name may have")
}

/// The name of an agent's token: `jenkins-` before it, where that is short enough.
fn token(agent: &AgentName, pairs: &[Pair]) -> AgentName {
    let name = format!("jenkins-{agent}");
    match name.len() <= MAX_AGENT_NAME && pairs.iter().all(|pair| pair.agent.as_str() != name) {
        true => agent_name(&name),
        false => agent.clone(),
    }
}

/// The nearest name that Kubernetes takes.
fn dns(name: &str) -> String {
    let plain: String = agent_name(name).as_str().to_ascii_lowercase().replace('_', "-");
    plain.trim_end_matches('-').to_owned()
}

fn credential(id: Option<&String>) -> String {
    id.map_or_else(|| "the Kafka user".to_owned(), |id| format!("Jenkins's credential {}", quoted(id)))
}

/// HOST:PORT of what may be written as a URL.
fn address(broker: &str) -> &str {
    let broker = broker.trim().trim_end_matches('/');
    broker.split_once("://").map_or(broker, |(_, address)| address)
}

/// A string of YAML, whatever is in it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

/// A word of a shell.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:=@+,".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
