//! Executions of real processes over streams in memory.

mod bytes;
mod endings;
mod starting;
mod warden;
