//! The files that jobs left: their lists, their bytes, and the room that is given back when they are forgotten.
//!
//! Where they lie is part of the job in the journal. Lists are read from the topic when somebody asks, and some stay in memory; bytes
//! go from the topic to whoever asked, a fetch at a time.

mod read;
mod trim;

pub use read::Lists;
pub use trim::keep_trimmed;
