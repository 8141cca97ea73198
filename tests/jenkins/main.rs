//! A real Hudson, of the family that Jenkins is of, with a node that it reaches through a real three-node Apache Kafka alone.
//! `make test-jenkins` runs it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::cast_possible_truncation, reason = "tests")]

mod http;
mod hudson;
mod nodes;
#[path = "../it/rig.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod rig;
#[path = "../support/mod.rs"]
mod support;
