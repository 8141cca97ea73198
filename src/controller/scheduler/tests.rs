//! The scheduler with a journal that reads back and agents that the tests play.

mod cost;
mod deciding;
mod failing;
mod random;
mod world;
