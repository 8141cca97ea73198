//! What the whole-system tests share. Each test binary takes what it needs:
//! `#[path = "../support/mod.rs"] mod support;`.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

pub mod certs;
pub mod kafka;
pub mod ports;
pub mod process;
pub mod user;
pub mod wait;
