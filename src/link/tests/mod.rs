//! Simulations: whole links on logs in memory, under paused time, from seeds.

mod pair;
mod sessions;
