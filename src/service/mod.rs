//! Services: what an agent offers by name beside executions and jobs, on a stream with its caller.
//!
//! A [`Service`] gets a [`Channel`], which carries bytes in both directions, and a [`Context`], which says who asked for what.
//! Any protocol that wants bytes runs on it; [`json`] is one for people and scripts, `rmi` one for programs in Rust.
//! Every stream ends with exactly one [`Outcome`].

mod channel;
pub mod files;
pub mod forward;
pub mod json;
mod registry;
#[cfg(feature = "rmi")]
pub mod rmi;
#[cfg(test)]
mod tests;

pub use channel::{Channel, Ending, Reader, Serving, Writer, accepted, opened};
pub use registry::{Context, Failure, Service, Services};

pub use crate::protocol::{
    allowance::Budget,
    service::{Outcome, Refusal},
};
