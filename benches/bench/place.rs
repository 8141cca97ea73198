//! The broker that is measured on: `rk broker` as a process of its own, or Apache Kafka with one or three nodes; all
//! with TLS and SCRAM.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use remoting_kafka::kafka::{Config, config::Mechanism};

use crate::support::{
    certs::Authority,
    kafka::Cluster,
    ports,
    process::{self, Process, rk},
    user::{self, User},
    wait,
};

/// A running broker or cluster; dropped, it is gone.
pub struct Place {
    pub name: &'static str,
    pub nodes: usize,
    pub bootstrap: Vec<String>,
    pub ca: PathBuf,
    folder: PathBuf,
    _running: Running,
}

#[expect(dead_code, reason = "held for their drop")]
enum Running {
    Embedded(Process),
    Kafka(Cluster),
}

impl Place {
    /// Starts what `name` names.
    pub fn start(name: &str) -> Self {
        match name {
            "embedded" => Self::embedded(),
            "kafka" => Self::kafka("kafka", 1),
            "kafka3" => Self::kafka("kafka3", 3),
            other => panic!("{other} is no broker; there are embedded, kafka and kafka3"),
        }
    }

    fn embedded() -> Self {
        let folder = process::folder("bench");
        let authority = Authority::new(&folder);
        authority.server("node", &["localhost", "127.0.0.1"]);
        let users: Vec<String> = user::USERS.iter().map(|user| format!("{}:{}\n", user.name, user.password)).collect();
        let users = user::private(&folder.join("users"), &users.concat());
        let address = format!("127.0.0.1:{}", ports::free(Ipv4Addr::LOCALHOST.into()));
        let mut command = rk(&["broker", "--listen", &address]);
        command.arg("--listen-cert").arg(folder.join("node.crt")).arg("--listen-key").arg(folder.join("node.key"));
        command.arg("--users").arg(users).arg("--data").arg(folder.join("data"));
        let process = Process::start(command, &folder.join("broker.log")).unwrap();
        wait::until("the embedded broker listens", Duration::from_secs(20), || {
            TcpStream::connect(&address).map_err(|error| error.to_string())
        });
        Self {
            name: "embedded",
            nodes: 1,
            bootstrap: vec![address],
            ca: authority.ca(),
            folder,
            _running: Running::Embedded(process),
        }
    }

    fn kafka(name: &'static str, nodes: usize) -> Self {
        let cluster = Cluster::start(nodes);
        Self {
            name,
            nodes,
            bootstrap: cluster.bootstrap().into_iter().filter(|address| address != ports::DEAD).collect(),
            ca: cluster.authority().ca(),
            folder: cluster.folder().to_owned(),
            _running: Running::Kafka(cluster),
        }
    }

    /// How we reach it. All are the same user, so that access rules are not measured.
    pub fn config(&self, client_id: &str) -> Config {
        Config { client_id: client_id.to_owned(), ..config(&self.bootstrap.join(","), &self.ca) }
    }

    /// The same for a process, as `--command-config`.
    pub fn properties(&self) -> PathBuf {
        let user: User = user::ADMIN;
        user.properties(&self.folder, "SCRAM-SHA-512", &self.ca)
    }
}

/// How a cluster with this bootstrap list and authority is reached.
pub fn config(bootstrap: &str, ca: &Path) -> Config {
    user::ADMIN.kafka(Mechanism::ScramSha512, bootstrap.split(',').map(str::to_owned).collect(), ca)
}

/// This program again, in one of its other roles.
pub fn again(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(args);
    command
}
