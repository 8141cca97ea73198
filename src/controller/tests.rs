//! The controller on a journal in memory, with agents that the tests play.

mod access;
mod allowance;
mod enrol;
mod events;
mod exec;
mod flow;
mod http;
mod jobs;
mod store;
