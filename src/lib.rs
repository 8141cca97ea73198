//! Remote execution where controller and agents meet only in Apache Kafka.
//!
//! Legend of the tree, from the bottom up:
//!
//! | module | holds |
//! |---|---|
//! | leaves (`id`, `job`, `bundle`, `layout`, `certs`, `clock`, `secret`, `frame`, `backoff`, `selector`, `size`, `versioned`, `private_file`, `tagged`, `metrics`, `health`) | nouns and verbs that everybody shares |
//! | `kafka` | what we ask of a cluster: settings, connections, topics, and a log in memory for tests |
//! | `link` | QUIC over Kafka: packets, sockets, lanes, identities, sessions |
//! | `protocol` | the messages on a session's streams |
//! | `service` | what an agent offers by name, and the channel that carries it |
//! | `bytelog` | durable byte streams in a topic: the output of jobs |
//! | `journal` | the controller's state as an event log in a topic |
//! | `agent` | what runs on a machine that can only dial out |
//! | `controller` | registry, store, HTTP |
//! | `api` | types of the HTTP API, shared by `cli` and `controller::http` |
//! | `broker` | an embedded broker for the demo, the tests and single machines |
//! | `config` | file < environment < flags, converted once into each layer's own `Config` |
//! | `cli` | one file per subcommand |

pub mod backoff;
pub mod bundle;
pub mod clock;
pub mod frame;
#[cfg(feature = "health")]
pub mod health;
pub mod id;
pub mod job;
pub mod layout;
#[cfg(feature = "health")]
pub mod metrics;
#[cfg(any(feature = "broker", feature = "controller", feature = "program"))]
pub mod private_file;
pub mod secret;
pub mod selector;
pub mod size;
pub mod tagged;
pub mod update;
pub mod versioned;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "http")]
pub mod api;
#[cfg(feature = "broker")]
pub mod broker;
#[cfg(feature = "bytelog")]
pub mod bytelog;
#[cfg(any(feature = "broker", feature = "controller", feature = "cli"))]
pub mod certs;
#[cfg(feature = "cli")]
pub mod cli;
// The smallest agent has a command line of its own, made of the same files.
#[cfg(all(feature = "agent", not(feature = "cli")))]
#[path = "cli/alone.rs"]
pub mod cli;
#[cfg(feature = "program")]
pub mod config;
#[cfg(feature = "controller")]
pub mod controller;
#[cfg(feature = "controller")]
pub mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "link")]
pub mod link;
#[cfg(any(feature = "link", feature = "http"))]
pub mod protocol;
#[cfg(any(feature = "link", feature = "http"))]
pub mod service;
