//! What is measured: a controller in this process, agents as processes of `rk`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use remoting_kafka::{
    api::{AddAgent, Client},
    controller::{self, Handle},
    id::AgentName,
    kafka::{KafkaCluster, Prefix, topics},
    link::{self, Identity},
    secret::Secret,
    selector::Labels,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    place::Place,
    support::{
        process::{Process, agent, rk},
        user,
    },
};

/// How long things may take that take a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller that serves.
pub struct Stage {
    pub handle: Handle,
    pub cluster: Arc<KafkaCluster>,
    pub prefix: Prefix,
    pub partitions: u32,
    address: SocketAddr,
    bootstrap: String,
    properties: PathBuf,
    dir: TempDir,
    stop: mpsc::Sender<()>,
    served: JoinHandle<Result<(), controller::Error>>,
}

impl Stage {
    /// Makes the topics of a new prefix, and starts a controller on them.
    pub async fn open(place: &Place, prefix: &str, partitions: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("rk-bench-").tempdir().unwrap();
        let prefix: Prefix = prefix.parse().unwrap();
        let cluster = Arc::new(KafkaCluster::new(place.config("rk-controller-bench")).unwrap());
        topics::ensure(&cluster, &prefix, i32::try_from(partitions).unwrap()).await.unwrap();
        let link = link::Config { prefix: prefix.clone(), partitions, ..link::Config::default() };
        let data = dir.path().join("controller");
        std::fs::create_dir(&data).unwrap();
        let config = controller::Config { link, data, ..controller::Config::default() };
        let controller =
            controller::start(&config, cluster.clone(), &Arc::new(Identity::generate())).await.expect("takes over");
        let handle = controller.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stops) = mpsc::channel(4);
        let served = tokio::spawn(controller.serve(config, listener, stops));
        let (bootstrap, properties) = (place.bootstrap.join(","), place.properties());
        Self { handle, cluster, prefix, partitions, address, bootstrap, properties, dir, stop, served }
    }

    /// Adds an agent and returns the file with its credential.
    pub async fn add(&self, name: &str) -> PathBuf {
        let request = AddAgent { name: name.parse().unwrap(), labels: Labels::new(), layout: None };
        let added = self.handle.add_agent(request).await.expect("added");
        user::private(&self.path(&format!("{name}.credential")), &added.credential)
    }

    /// Starts an agent's process.
    pub fn start_agent(&self, name: &str, credential: &Path, more: &[&str]) -> Process {
        let mut command = agent(&["agent", "run", "--prefix", &self.prefix.to_string()]);
        command.args(more);
        command.args(["--partitions", &self.partitions.to_string(), "--credential"]);
        command.arg(format!("file:{}", credential.display()));
        command.arg("--data").arg(self.path(&format!("{name}.data"))).args(["--brokers", &self.bootstrap]);
        command.arg("--command-config").arg(&self.properties);
        Process::start(command, &self.path(&format!("{name}.log"))).unwrap()
    }

    /// Adds an agent, starts it, and waits until it is online.
    pub async fn agent(&self, name: &str) -> (AgentName, Process) {
        self.agent_with(name, &[]).await
    }

    /// The same with more arguments.
    pub async fn agent_with(&self, name: &str, more: &[&str]) -> (AgentName, Process) {
        let credential = self.add(name).await;
        let process = self.start_agent(name, &credential, more);
        let name = name.parse().unwrap();
        self.wait_online(&name).await;
        (name, process)
    }

    /// Waits until an agent has a session, looked at every quarter of a millisecond.
    pub async fn wait_online(&self, name: &AgentName) {
        let online = async {
            while self.handle.session(name).is_err() {
                sleep(Duration::from_micros(250)).await;
            }
        };
        let log = || std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default();
        timeout(PATIENCE, online).await.unwrap_or_else(|_| panic!("{name} is not online: {}", log()));
    }

    /// The command line, for this controller.
    pub fn cli(&self, args: &[&str]) -> Command {
        let mut command = rk(args);
        command.env("RK_API", format!("http://{}", self.address));
        command.env("RK_API_TOKEN", format!("file:{}", self.path("controller/api.token").display()));
        command
    }

    /// A client of this controller's HTTP API.
    pub fn client(&self) -> Client {
        let token = std::fs::read_to_string(self.path("controller/api.token")).unwrap();
        Client::new(&format!("http://{}", self.address), &Secret::new(token.trim().to_owned()), None).unwrap()
    }

    /// A file of this stage.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends the controller, whatever still runs.
    pub async fn close(self) {
        for _ in 0..3 {
            self.stop.send(()).await.ok();
        }
        timeout(PATIENCE, self.served).await.expect("stops").unwrap().expect("stopped");
    }
}
