//! The whole system: a controller and agents as processes of `rk`, on the cluster that `RK_TEST_KAFKA` chooses. All
//! tests share one cluster; each has a topic prefix, a port and a directory of its own.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod access;
mod agent_life;
mod agents;
mod artifacts;
mod bundles;
mod certs;
mod chaos;
mod controller;
mod doctor;
mod enrol;
mod events;
mod exec;
mod exec_resume;
mod failures;
mod fake;
mod fanout;
mod files;
mod jenkins;
mod jobs;
mod logins;
mod namespaces;
mod open_log;
mod own;
mod quotas;
mod rig;
mod rights;
mod run;
mod run_as;
mod services;
mod setup;
mod smoke;
mod steer;
#[path = "../support/mod.rs"]
mod support;
mod survival;
mod terminal;
mod topics;
mod update;
#[cfg(feature = "wasm")]
mod wasm;
