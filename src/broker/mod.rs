//! The embedded broker: one node that speaks the Kafka protocol, for a demo, tests and a single machine.
//!
//! It exists so that remoting can be tried, and used on one machine, without installing Apache Kafka; with more than
//! one machine, use Apache Kafka. It keeps record batches byte for byte in segment files under [`Config::data`], and
//! promises that a record that was acknowledged outlives the death of the process at any moment.
//!
//! What it serves: topics (create, delete, grow, describe, alter settings), produce with idempotence, fetch with long
//! poll, offsets by time, deletion of records, retention by time and size; TLS, and SASL with PLAIN, SCRAM-SHA-256 and
//! SCRAM-SHA-512, whose users can be changed by request; access control lists, which count as soon as
//! [`Config::super_users`] names somebody. What it does not: replication, consumer groups, transactions, compaction and
//! quotas. Requests for those get an error that says so.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use remoting_kafka::broker::{self, Config, ListenerConfig, Users};
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9092").await?;
//! let config = Config {
//!     data: "/var/lib/rk/broker".into(),
//!     listener: ListenerConfig::tls_from_pem("server.pem".as_ref(), "server.key".as_ref(), None)?
//!         .with_users(Users::default().with("controller", "secret")),
//!     ..Config::default()
//! };
//! broker::run(listener, config, async { let _ = tokio::signal::ctrl_c().await; }).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Inside: `server` accepts, `connection` frames, `request` has one file for each family of requests, `sasl` says who
//! somebody is and `credentials` keeps what requests made of that, `acl` decides what they may and `authorizer` keeps the
//! list, `topics` knows what exists, `log` keeps the records, `upkeep` syncs and forgets. Of the rest of this crate it
//! knows nothing; of Kafka's client it shares the codecs.

mod acl;
mod authorizer;
mod clock;
mod config;
mod connection;
mod credentials;
mod files;
mod log;
mod request;
mod sasl;
mod scram;
mod server;
mod settings;
mod topics;
mod upkeep;

pub use config::{Config, ListenerConfig, Sync, Users};
pub use server::run;

use std::path::PathBuf;

/// Why the broker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key can't be used.
    #[error("broker TLS: {0}")]
    Tls(String),
    /// The data directory can't be used.
    #[error("broker data directory {path}: {source}", path = path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Another broker has the data directory.
    #[error("broker data directory {path} is used by another broker: stop that one or choose another directory", path = .0.display())]
    Locked(PathBuf),
    /// The listener can't be used.
    #[error("broker listener: {0}")]
    Listener(std::io::Error),
}
