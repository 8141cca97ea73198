//! Rogues: clients that the cluster lets in and that mean harm. One has another agent's Kafka login, and so the rights of an
//! agent of the shared layout; one may do everything on the cluster. Each attempt runs beside a controller and an honest agent,
//! and goes on being judged by them: the honest agent answers during and after it, in the same session.
//!
//! The cluster is chosen by `RK_TEST_KAFKA`, as in `tests/it`. `make test-rogue` takes Apache Kafka, and prints the figures.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "tests")]

mod corrupt;
mod credentials;
mod eavesdrop;
mod flood;
mod forge;
mod impostor;
mod packets;
#[path = "../it/rig.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod rig;
mod rights;
mod rollback;
mod stage;
#[path = "../support/mod.rs"]
mod support;
