//! Simulations: whole links on logs in memory, under paused time, from seeds.

mod compat;
mod crowd;
mod enrol;
mod faults;
mod outages;
mod pair;
mod schedules;
mod sessions;
