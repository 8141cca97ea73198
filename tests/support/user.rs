//! The users of a test cluster, and the files in which clients find their settings.

use remoting_kafka::kafka::Config;
use remoting_kafka::kafka::config::{Login, Mechanism, Pem, Roots, Sasl, Tls};
use remoting_kafka::secret::Secret;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A user of the cluster's SASL listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// The password, the same for PLAIN and both SCRAM mechanisms.
    pub password: &'static str,
}

/// May do everything.
pub const ADMIN: User = User { name: "admin", password: "admin-secret" };
/// What a controller logs in as.
pub const CONTROLLER: User = User { name: "controller", password: "controller-secret" };
/// What agents log in as.
pub const AGENT: User = User { name: "agent", password: "agent-secret" };
/// May log in, and has no rights.
pub const STRANGER: User = User { name: "stranger", password: "stranger-secret" };

/// All of them.
pub const USERS: [User; 4] = [ADMIN, CONTROLLER, AGENT, STRANGER];

impl User {
    /// How the library reaches a cluster as this user: over TLS, with the password.
    pub fn kafka(&self, mechanism: Mechanism, brokers: Vec<String>, ca: &Path) -> Config {
        let login = Login { user: self.name.to_owned(), password: Secret::new(self.password.to_owned()) };
        Config {
            brokers,
            tls: Some(Tls { roots: Roots::Pem(Pem::File(ca.to_owned())), client: None }),
            sasl: Some(Sasl::password(mechanism, login).unwrap()),
            ..Config::default()
        }
    }

    /// Writes a `client.properties` for Kafka's own tools and for `--command-config`; `mechanism` is SASL's name for it.
    pub fn properties(&self, folder: &Path, mechanism: &str, ca: &Path) -> PathBuf {
        let module = match mechanism {
            "PLAIN" => "plain.PlainLoginModule",
            "SCRAM-SHA-256" | "SCRAM-SHA-512" => "scram.ScramLoginModule",
            other => panic!("no login module for {other}"),
        };
        let text = format!(
            "security.protocol=SASL_SSL\n\
             sasl.mechanism={mechanism}\n\
             sasl.jaas.config=org.apache.kafka.common.security.{module} required username=\"{}\" password=\"{}\";\n\
             ssl.truststore.type=PEM\n\
             ssl.truststore.location={}\n",
            self.name,
            self.password,
            ca.display(),
        );
        private(&folder.join(format!("{}-{}.properties", self.name, mechanism.to_lowercase())), &text)
    }

    /// Writes the password alone into a file, as `--sasl-password file:PATH` wants it.
    pub fn password_file(&self, folder: &Path) -> PathBuf {
        private(&folder.join(format!("{}.password", self.name)), self.password)
    }
}

/// Writes a file that only its owner may read.
pub fn private(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}
