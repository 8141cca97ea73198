//! The demo's stage: a directory with certificates, passwords and logs, two free ports, and the arguments of each
//! process.

use std::{
    ffi::OsString,
    fs::DirBuilder,
    io,
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::{
    api::Client,
    certs,
    cli::{Failure, failure},
    private_file,
    secret::Secret,
};

/// A directory of the demo's own; dropping it removes it.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    /// Where the broker will listen.
    pub broker_port: u16,
    api_port: u16,
}

impl Stage {
    /// Makes the directory and what the processes find in it.
    pub fn set() -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("rk-demo-{}", Uuid::new_v4().simple()));
        DirBuilder::new().mode(0o700).create(&dir).map_err(|e| {
            Failure::new(failure::USAGE, format!("{}: {e}; set TMPDIR to a directory that takes files", dir.display()))
        })?;
        let stage = Self { dir, broker_port: free_port()?, api_port: free_port()? };
        std::fs::create_dir(stage.path("logs"))?;
        certs::write_server(&stage.path("certs"), &certs::LOOPBACK)?;
        let (controller, agent) = (password(), password());
        stage.secret("users", &format!("controller:{controller}\nagent:{agent}"))?;
        stage.secret("controller.password", &controller)?;
        stage.secret("agent.password", &agent)?;
        Ok(stage)
    }

    /// A file or directory of the stage.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a file that nobody else may read.
    pub fn secret(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        private_file::create(&path, format!("{text}\n").as_bytes())
            .map_err(|e| Failure::new(failure::USAGE, e.to_string()))?;
        Ok(path)
    }

    /// The controller's address.
    pub fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// The file with the controller's token.
    pub fn token(&self) -> PathBuf {
        self.path("controller").join("api.token")
    }

    /// A client of the controller, once it has written its token.
    pub fn client(&self) -> Option<Client> {
        let token = String::from_utf8(private_file::read(&self.token()).ok()?).ok()?;
        Client::new(&self.api(), &Secret::new(token.trim().to_owned()), None).ok()
    }

    /// The broker's arguments.
    pub fn broker(&self) -> Vec<OsString> {
        let mut args = words(&["broker", "--listen", &format!("127.0.0.1:{}", self.broker_port)]);
        for (flag, name) in [
            ("--data", "broker"),
            ("--listen-cert", "certs/server.pem"),
            ("--listen-key", "certs/server.key"),
            ("--users", "users"),
        ] {
            args.extend([flag.into(), self.path(name).into()]);
        }
        args
    }

    /// The controller's arguments.
    pub fn controller(&self) -> Vec<OsString> {
        let mut args = words(&["controller", "run", "--listen", &format!("127.0.0.1:{}", self.api_port)]);
        args.extend(["--data".into(), self.path("controller").into()]);
        args.extend(self.kafka("controller"));
        args
    }

    /// An agent's arguments.
    pub fn agent(&self, name: &str, credential: &Path) -> Vec<OsString> {
        let mut args = words(&["agent", "run", "--credential", &format!("file:{}", credential.display())]);
        args.extend(["--data".into(), self.path(name).into()]);
        args.extend(self.kafka("agent"));
        args
    }

    fn kafka(&self, user: &str) -> Vec<OsString> {
        let password = self.path(&format!("{user}.password"));
        let mut args = words(&["--brokers", &format!("127.0.0.1:{}", self.broker_port), "--sasl-username", user]);
        args.extend(words(&["--sasl-password", &format!("file:{}", password.display())]));
        args.extend(["--tls-ca".into(), self.path("certs/ca.pem").into()]);
        args
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn password() -> String {
    Uuid::new_v4().simple().to_string()
}

/// A port that nobody uses now. Somebody may take it before our process does: then that one says so.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
