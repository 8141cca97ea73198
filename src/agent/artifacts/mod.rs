//! Files that a job leaves: gathered in its work directory, and stored in the topic.
//!
//! ```text
//! work directory ─ gather ─→ manifest, pieces of the pack ─ store ─→ <cluster>.artifacts ─→ rk artifacts       controller
//! ```
//!
//! They are read twice: first to know what there is and what it is worth, which makes the list, and then to be sent. What was
//! read of a file the second time must be what the list says.

mod gather;
mod store;

pub use gather::Wanted;
pub use store::Store;

/// How artifacts are stored here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The topic.
    pub topic: String,
    /// What those of one job may have together, in bytes; 0 takes none.
    pub limit: u64,
}
