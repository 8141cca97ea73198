//! The order to change to another version of the program: the body of [`Call::Update`](super::call::Call::Update).
//!
//! New fields come at the end; a reader that does not know them passes them over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bundle::Ticket;

/// The largest body.
pub const MAX_ORDER: usize = 64 << 10;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which request: one that comes again does nothing.
    pub id: u64,
    /// The bundle with the program.
    pub ticket: Ticket,
    /// How long the new program may take until it has proved itself.
    pub deadline: Duration,
    /// How long what would be cut is waited for.
    pub drain: Duration,
    /// Whether it is cut then, with its grace, instead of giving up.
    pub interrupt: bool,
    /// Whether an older version is taken too.
    pub downgrade: bool,
}
