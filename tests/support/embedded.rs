//! The embedded broker in this process, with the certificates, users and rights of a real cluster: TLS, SASL and ACLs.

use super::certs::Authority;
use super::kafka::admin::{Admin, SharedLayout};
use super::user::{ADMIN, USERS};
use super::{ports, process, wait};
use remoting_kafka::broker::{self, Config, ListenerConfig, Users};
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// Changes the settings of a broker that is about to start; the folder holds the certificates' files.
type Alter = Box<dyn Fn(&mut Config, &Path) + Send + Sync>;

/// A broker on a runtime of its own, so that a test that blocks does not block it; stopped when dropped.
pub struct Embedded {
    folder: PathBuf,
    authority: Authority,
    port: u16,
    alter: Alter,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Starts a broker.
    pub fn start() -> Embedded {
        Embedded::start_with(|_, _| {}, |_, _| {})
    }

    /// Starts a broker that is different: `prepare` makes files, such as another `node.crt` and `node.key`, and `alter`
    /// changes its settings.
    pub fn start_with(
        prepare: impl FnOnce(&Authority, &Path),
        alter: impl Fn(&mut Config, &Path) + Send + Sync + 'static,
    ) -> Embedded {
        let folder = process::folder("broker");
        let authority = Authority::new(&folder);
        authority.server("node", &["localhost", "127.0.0.1"]);
        prepare(&authority, &folder);
        let port = ports::free(Ipv4Addr::LOCALHOST.into());
        let broker = Embedded { folder, authority, port, alter: Box::new(alter), running: Mutex::new(None) };
        broker.launch();
        broker
    }

    /// Where TLS and SASL are spoken. The first address is dead on purpose.
    pub fn bootstrap(&self) -> Vec<String> {
        vec![ports::DEAD.to_owned(), format!("127.0.0.1:{}", self.port)]
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificates' authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A folder of the broker's own, removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A connection on which everything is allowed.
    pub fn admin(&self) -> Admin {
        Admin::log_in(&format!("127.0.0.1:{}", self.port), &self.authority.ca(), ADMIN).unwrap()
    }

    /// Gives the users of controllers and agents the rights of the shared layout below the prefix `cluster`.
    pub fn allow_shared_layout(&self, cluster: &str) {
        self.admin().allow(&SharedLayout::new(cluster).rules()).unwrap();
    }

    /// Stops the broker; its connections break.
    pub fn stop(&self) {
        if let Some(running) = self.running.lock().unwrap().take() {
            running.stop.send(()).ok();
            running.thread.join().unwrap();
        }
    }

    /// Starts a stopped broker on its old data and port.
    pub fn launch(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "the broker runs already");
        let listener = ListenerConfig::tls_from_pem(&self.folder.join("node.crt"), &self.folder.join("node.key"), None);
        let users: Users = USERS.iter().map(|user| (user.name, user.password)).collect();
        let mut config = Config {
            data: self.folder.join("data"),
            listener: listener.unwrap().with_users(users),
            super_users: [ADMIN.name.to_owned()].into(),
            ..Config::default()
        };
        (self.alter)(&mut config, &self.folder);
        let (stop, stopped) = oneshot::channel();
        let port = self.port;
        let thread = thread::Builder::new()
            .name("embedded broker".to_owned())
            .spawn(move || {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                    broker::run(listener, config, async { drop(stopped.await) }).await.unwrap();
                });
                runtime.shutdown_timeout(Duration::from_secs(5));
            })
            .unwrap();
        *running = Some(Running { stop, thread });
        wait::until("the embedded broker listens", Duration::from_secs(20), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| error.to_string())
        });
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop();
        if std::env::var_os("RK_TEST_KEEP").is_none() {
            fs::remove_dir_all(&self.folder).ok();
        }
    }
}
