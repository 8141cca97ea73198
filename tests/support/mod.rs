//! What the whole-system tests share. Each test binary takes what it needs:
//! `#[path = "../support/mod.rs"] mod support;`.
//!
//! - [`cluster::TestCluster`]: the broker that the suite was told to run on, with TLS and SASL; start here.
//! - [`kafka::Cluster`]: Apache Kafka with ACLs and quotas, for what only it can do.
//! - [`process`]: children that die with the test; [`wait`]: bounded waiting; [`ports`]: ports that can be taken again.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

pub mod another;
pub mod certs;
pub mod cluster;
pub mod embedded;
pub mod kafka;
pub mod ports;
pub mod process;
pub mod user;
pub mod wait;
