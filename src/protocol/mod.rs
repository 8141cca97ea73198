//! The messages on a session's streams, one file per family.
//!
//! The controller opens every stream and writes one [`Open`] first; what follows depends on it. Messages are
//! [`frame`](crate::frame)s of postcard; raw bytes are raw. Enums only grow at their end, and a peer that gets a
//! variant it does not know answers by resetting the stream with [`UNKNOWN_STREAM`].

pub mod allowance;
pub mod call;
pub mod exec;
#[cfg(test)]
mod golden;
pub mod jobs;
pub mod service;
pub mod update;

use serde::{Deserialize, Serialize};

/// Stream error code: the peer does not know this kind of stream or message.
pub const UNKNOWN_STREAM: u32 = 1;
/// Stream error code: the peer gave the stream up (its user went away).
pub const CANCELLED: u32 = 2;

/// The first message on every stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// A call: [`call`]. Control lane, or bulk for large bodies.
    Call(call::Call),
    /// Starts and steers a process: [`exec`]. Control lane.
    Exec(exec::Start),
    /// Carries bytes of a started process: [`exec`]. Bulk lane.
    Stdio(exec::Stdio),
    /// Carries orders and reports about jobs: [`jobs`]. Control lane.
    Jobs(jobs::Hello),
    /// Starts and steers a process that outlives what connects us: [`exec`]. Control lane.
    ExecResumable(exec::StartResumable),
    /// Comes back to one: [`exec`]. Control lane.
    ExecResume(exec::Resume),
    /// A stream to a named service: [`service`]. Bulk lane.
    Service(service::Start),
}
