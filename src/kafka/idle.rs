//! Connections that nobody needs at present, kept for a while: a login costs a broker and us milliseconds, and who reads many
//! short logs would log in for each.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{config::Address, connection::Connection};

/// How long one is kept: far below the ten minutes after which a broker closes it.
const KEPT: Duration = Duration::from_secs(60);

/// How many of one broker are kept.
const MOST: usize = 8;

/// The connections, by broker; the newest are last.
#[derive(Default)]
pub(super) struct Idle(Mutex<BTreeMap<Address, Vec<(Instant, Connection)>>>);

impl Idle {
    /// One that is open as far as we know.
    pub(super) fn take(&self, broker: &Address) -> Option<Connection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get_mut(broker)?;
        while let Some((since, connection)) = kept.pop() {
            if since.elapsed() < KEPT && connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps one on which nothing is under way.
    pub(super) fn put(&self, connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // All brokers, so that those of one that nobody asks any more do not stay.
        all.retain(|_, kept| {
            kept.retain(|(since, connection)| since.elapsed() < KEPT && connection.is_usable());
            !kept.is_empty()
        });
        let kept = all.entry(connection.broker().clone()).or_default();
        if kept.len() < MOST {
            kept.push((Instant::now(), connection));
        }
    }
}
