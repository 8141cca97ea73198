//! What was: Jenkins's configuration as code, and the command lines of old agents.

use serde_json::{Map, Value};

use super::{
    cluster::{Cluster, Store},
    command_line::Agent,
};

/// Everything that is known of the old installation.
#[derive(Debug, Default)]
pub struct Old {
    pub cluster: Cluster,
    pub nodes: Vec<Node>,
    pub clouds: Vec<Cloud>,
    pub agents: Vec<Agent>,
    /// Nodes that the plugin did not launch.
    pub others: usize,
}

/// A permanent node that the plugin launched.
#[derive(Debug, Default)]
pub struct Node {
    pub name: String,
    pub remote_fs: Option<String>,
    /// What else is harmless to print, by its key.
    pub plain: Vec<(&'static str, String)>,
    /// Keys that are not printed: variables and tools may hold secrets.
    pub left_out: Vec<String>,
}

/// A cloud of the plugin in Kubernetes.
#[derive(Debug, Default)]
pub struct Cloud {
    pub name: String,
    pub server: Option<String>,
    pub namespace: Option<String>,
    pub image: Option<String>,
    pub label: Option<String>,
    pub work: Option<String>,
    pub idle_minutes: Option<String>,
}

/// Keys of a node that are printed again as they are.
const PLAIN: [&str; 4] = ["labelString", "mode", "nodeDescription", "numExecutors"];

impl Old {
    /// Whether nothing of the plugin was found.
    pub fn is_empty(&self) -> bool {
        self.cluster == Cluster::default() && self.nodes.is_empty() && self.clouds.is_empty() && self.agents.is_empty()
    }

    /// Takes one file of Jenkins's configuration as code.
    pub fn take_yaml(&mut self, text: &str) -> Result<(), String> {
        let document: Value = serde_saphyr::from_str(text)
            .map_err(|e| e.to_string().lines().next().unwrap_or("it is no YAML").to_owned())?;
        if !document.is_object() {
            return Err("it is no configuration as code: keys like jenkins: and unclassified: are expected".to_owned());
        }
        let kafka = &document["unclassified"]["kafka"];
        if let Value::Object(kafka) = kafka {
            self.take_kafka(kafka, &document);
        }
        for node in document["jenkins"]["nodes"].as_array().into_iter().flatten() {
            match &node["permanent"] {
                Value::Object(permanent) if permanent.get("launcher").is_some_and(is_kafka) => {
                    self.take_node(permanent)
                }
                _ => self.others += 1,
            }
        }
        for cloud in document["jenkins"]["clouds"].as_array().into_iter().flatten() {
            for (kind, settings) in cloud.as_object().into_iter().flatten() {
                if kind.to_ascii_lowercase().contains("kafka") {
                    self.clouds.push(Cloud::read(settings, kafka));
                }
            }
        }
        Ok(())
    }

    /// Takes an agent's command line.
    pub fn take_agent(&mut self, agent: Agent) {
        let stores = [agent.truststore.as_ref(), agent.keystore.as_ref()];
        self.cluster.fill(agent.brokers.as_ref(), agent.user.as_ref(), stores, !agent.noauth);
        self.agents.push(agent);
    }

    fn take_kafka(&mut self, kafka: &Map<String, Value>, document: &Value) {
        let text = |key: &str| kafka.get(key).and_then(scalar);
        let store = |key: &str| {
            let id = text(key)?;
            // The plugin kept a store's path as the user name of its credential.
            Some(Store { path: user_of(document, &id), credential: Some(id) })
        };
        let cluster = &mut self.cluster;
        cluster.brokers = text("brokerURL").or(cluster.brokers.take());
        cluster.zookeeper = text("zookeeperURL").or(cluster.zookeeper.take());
        cluster.secure |= text("enableSSL").as_deref() == Some("true");
        cluster.credential = text("kafkaCredentialsId").or(cluster.credential.take());
        if let Some(id) = &cluster.credential {
            cluster.user = user_of(document, id).or(cluster.user.take());
        }
        cluster.truststore = store("sslTruststoreCredentialsId").or(cluster.truststore.take());
        cluster.keystore = store("sslKeystoreCredentialsId").or(cluster.keystore.take());
    }

    fn take_node(&mut self, permanent: &Map<String, Value>) {
        let text = |key: &str| permanent.get(key).and_then(scalar);
        let kafka = &permanent["launcher"]["kafka"];
        let path = |key: &str| kafka[key].as_str().filter(|path| !path.is_empty()).map(Store::at);
        let user = kafka["kafkaUsername"].as_str().filter(|user| !user.is_empty()).map(str::to_owned);
        let secure = scalar(&kafka["enableSSL"]).as_deref() == Some("true");
        let (truststore, keystore) = (path("sslTruststoreLocation"), path("sslKeystoreLocation"));
        self.cluster.fill(None, user.as_ref(), [truststore.as_ref(), keystore.as_ref()], secure);
        let known = |key: &str| PLAIN.contains(&key) || ["name", "remoteFS", "launcher"].contains(&key);
        self.nodes.push(Node {
            name: text("name").unwrap_or_default(),
            remote_fs: text("remoteFS"),
            plain: PLAIN.into_iter().filter_map(|key| Some((key, text(key)?))).collect(),
            left_out: permanent.keys().filter(|key| !known(key)).cloned().collect(),
        });
    }
}

impl Cloud {
    fn read(settings: &Value, kafka: &Value) -> Self {
        let first = |of: &Value, keys: &[&str]| keys.iter().find_map(|key| scalar(&of[*key]));
        let address = || {
            let host = first(kafka, &["kubernetesIp"])?;
            Some(first(kafka, &["kubernetesApiPort"]).map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
        };
        let idle = |key: &&String| key.to_ascii_lowercase().contains("idle");
        Self {
            name: first(settings, &["name"]).unwrap_or_else(|| "kafka".to_owned()),
            server: first(settings, &["serverUrl"]).or_else(|| first(kafka, &["kubernetesUrl"])).or_else(address),
            namespace: first(settings, &["namespace"]).or_else(|| first(kafka, &["kubernetesNamespace"])),
            image: first(settings, &["image", "containerImage"]),
            label: first(settings, &["label"]),
            work: first(settings, &["workingDir"]),
            idle_minutes: settings
                .as_object()
                .and_then(|settings| settings.keys().find(idle).and_then(|key| scalar(&settings[key]))),
        }
    }
}

/// The user name of a credential of Jenkins's; its password is never looked at.
fn user_of(document: &Value, id: &str) -> Option<String> {
    let domains = document["credentials"]["system"]["domainCredentials"].as_array()?;
    let all = domains.iter().flat_map(|domain| domain["credentials"].as_array().into_iter().flatten());
    let mut users = all.map(|credential| &credential["usernamePassword"]);
    let found = users.find(|credential| credential["id"].as_str() == Some(id))?;
    scalar(&found["username"])
}

/// Whether a launcher is the plugin's, which has settings or none.
fn is_kafka(launcher: &Value) -> bool {
    launcher.get("kafka").is_some() || launcher.as_str() == Some("kafka")
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(on.to_string()),
        _ => None,
    }
}
