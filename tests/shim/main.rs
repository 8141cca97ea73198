//! The shim with real processes: `rk job-shim` is killed, blocked and ordered about, and no byte and no job is lost.

#![cfg(all(feature = "agent", feature = "cli"))]

mod adoption;
mod deaths;
mod endings;
mod redaction;
mod rig;
mod spooling;
mod starting;
