//! Portable code: WebAssembly modules for WASI preview 1, each run by a process of its own.
//!
//! Whoever names a module as a command gets it run as one: the command becomes `<this program> wasm-run … MODULE`, and
//! everything that holds for a process holds for it: shim and keeper, limits on time, signals, stdio, the exit code. What it may do
//! is far less: it sees the directories that it is granted and nothing above them, the environment that a process would get, its
//! stdio, clocks and random numbers. There is no network for it, and no other process.
//!
//! A module that misbehaves ends as a process would:
//!
//! | exit code | why |
//! |---|---|
//! | its own | it ended by itself |
//! | 126 | it cannot be run: no module, a component, a library, imports that nobody provides |
//! | 127 | there is no such file |
//! | 134 | it trapped (128 + SIGABRT) |
//! | 137 | it trapped after memory above the limit was refused, or began with more (128 + SIGKILL) |
//! | 152 | its fuel was used up (128 + SIGXCPU) |
//!
//! and, except in the first case, one line on stderr says so.

mod command;
#[cfg(feature = "wasm")]
mod folder;
#[cfg_attr(not(feature = "wasm"), allow(dead_code, reason = "nobody reads what stands on the command line"))]
mod order;
#[cfg(feature = "wasm")]
mod sandbox;
#[cfg(all(test, feature = "wasm"))]
mod tests;

#[cfg(feature = "wasm")]
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) use command::{Modules, Place, is_named_like_one};

use super::warden::Program;

/// The hidden subcommand that makes this program a module's process.
pub const SUBCOMMAND: &str = "wasm-run";

/// Whether this program can be one.
pub const AVAILABLE: bool = cfg!(feature = "wasm");

/// What a module may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, its tables included; more is refused, and the module goes on with what it has. Default 256 MiB.
    pub memory: u64,
    /// How much it may execute: about one for each instruction. Default without a limit, as for other commands: those end by
    /// their timeout. Counting costs a seventh of the speed.
    pub fuel: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 256 << 20, fuel: None }
    }
}

/// What runs modules.
#[derive(Debug, Clone)]
pub struct Runner {
    /// A program that calls [`run`] with the arguments that are added to its own.
    pub program: Program,
    /// What each module may use.
    pub limits: Limits,
}

impl Runner {
    /// This program itself, also after its file was replaced.
    pub fn ourselves(limits: Limits) -> Self {
        let program = Program { path: PathBuf::from("/proc/self/exe"), args: vec![SUBCOMMAND.into()] };
        Self { program, limits }
    }
}

/// Runs a module with the arguments that follow [`SUBCOMMAND`]; `own` is this process's environment, of which the module gets what
/// the arguments name. Returns the exit code.
#[cfg(feature = "wasm")]
pub fn run(arguments: &[OsString], own: &[(OsString, OsString)]) -> u8 {
    let ended = order::Order::parse(arguments)
        .map_err(|message| sandbox::Failure { code: 64, message: format!("{SUBCOMMAND}: {message}") })
        .and_then(|order| sandbox::run(&order, own));
    ended.unwrap_or_else(|failure| {
        let line = format!("rk: {}\n", failure.message.replace('\n', " "));
        // Nobody may be there to read it.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
        failure.code
    })
}
