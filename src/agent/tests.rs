//! Executions of real processes over streams in memory.

mod allowance;
mod bytes;
mod compat;
mod endings;
mod engine;
mod starting;
mod warden;
