//! Where an execution meets its stdio streams: they come on another lane, so earlier or later than its start.
//!
//! Whoever comes first waits at a place of the table, and whoever leaves clears it. The table is bounded.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::stream::Duplex;
use crate::{id::ExecId, protocol::exec::Channel};

type Key = (ExecId, Channel);

/// The table.
pub(super) struct Meeting {
    table: Mutex<Table>,
    limit: usize,
}

#[derive(Default)]
struct Table {
    waiting: BTreeMap<Key, Waiting>,
    tickets: u64,
}

struct Waiting {
    /// Tells one visitor of a place from the next.
    ticket: u64,
    party: Party,
}

enum Party {
    /// A stream is here.
    Stream {
        stream: Duplex,
        /// Its keeper sees this go when the stream is taken.
        _kept: oneshot::Sender<()>,
    },
    /// An execution is here.
    Execution(oneshot::Sender<Duplex>),
}

/// Waits for one stream; leaves when dropped.
pub(super) struct Expected<'a> {
    stream: oneshot::Receiver<Duplex>,
    _place: Option<Place<'a>>,
}

/// A taken place, cleared on drop.
struct Place<'a> {
    meeting: &'a Meeting,
    key: Key,
    ticket: u64,
}

impl Meeting {
    /// A table for `limit` who wait.
    pub fn new(limit: usize) -> Self {
        Self { table: Mutex::default(), limit }
    }

    /// An execution comes for a stream; `None` if another one with its id waits already, or too many wait.
    pub fn expect(&self, id: ExecId, channel: Channel) -> Option<Expected<'_>> {
        let key = (id, channel);
        let (sender, stream) = oneshot::channel();
        let mut table = self.lock();
        let _place = match table.waiting.get(&key) {
            Some(Waiting { party: Party::Execution(_), .. }) => return None,
            Some(Waiting { party: Party::Stream { .. }, .. }) => {
                if let Some(Waiting { party: Party::Stream { stream: duplex, .. }, .. }) = table.waiting.remove(&key) {
                    sender.send(duplex).ok();
                }
                None
            }
            None => Some(self.sit(&mut table, key, Party::Execution(sender)).ok()?),
        };
        Some(Expected { stream, _place })
    }

    /// A stream comes. It goes to its execution at once, or waits up to `patience` for it; otherwise it is returned.
    pub async fn arrive(&self, id: ExecId, channel: Channel, stream: Duplex, patience: Duration) -> Result<(), Duplex> {
        let key = (id, channel);
        let (kept, taken) = oneshot::channel();
        let place = {
            let mut table = self.lock();
            match table.waiting.remove(&key) {
                Some(Waiting { party: Party::Execution(sender), .. }) => return sender.send(stream),
                Some(other) => {
                    table.waiting.insert(key, other);
                    return Err(stream);
                }
                None => match self.sit(&mut table, key, Party::Stream { stream, _kept: kept }) {
                    Ok(place) => place,
                    Err(Party::Stream { stream, .. }) => return Err(stream),
                    Err(Party::Execution(_)) => unreachable!("a stream was to sit"),
                },
            }
        };
        if tokio::time::timeout(patience, taken).await.is_ok() {
            return Ok(());
        }
        match place.clear() {
            Some(Party::Stream { stream, .. }) => Err(stream),
            _ => Ok(()),
        }
    }

    /// Takes the streams that wait for an execution which will not be.
    pub fn turn_away(&self, id: ExecId) -> Vec<Duplex> {
        let mut table = self.lock();
        let mut streams = Vec::new();
        for channel in [Channel::InOut, Channel::Err] {
            match table.waiting.remove(&(id, channel)) {
                Some(Waiting { party: Party::Stream { stream, .. }, .. }) => streams.push(stream),
                Some(other) => {
                    table.waiting.insert((id, channel), other);
                }
                None => {}
            }
        }
        streams
    }

    fn sit(&self, table: &mut Table, key: Key, party: Party) -> Result<Place<'_>, Party> {
        if table.waiting.len() >= self.limit {
            return Err(party);
        }
        table.tickets += 1;
        let ticket = table.tickets;
        table.waiting.insert(key, Waiting { ticket, party });
        Ok(Place { meeting: self, key, ticket })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected<'_> {
    /// The stream, once it is here. Ends only then.
    pub async fn stream(&mut self) -> Duplex {
        match (&mut self.stream).await {
            Ok(stream) => stream,
            // The sender stays in the table until it sends or we leave.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Place<'_> {
    fn clear(&self) -> Option<Party> {
        match self.meeting.lock().waiting.entry(self.key) {
            Entry::Occupied(entry) if entry.get().ticket == self.ticket => Some(entry.remove().party),
            _ => None,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.clear());
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::agent::testing;

    const PATIENCE: Duration = Duration::from_secs(10);
    const ID: ExecId = ExecId(7);

    #[tokio::test(start_paused = true)]
    async fn they_meet_whoever_comes_first_and_the_table_is_empty_after() {
        let meeting = Meeting::new(2);
        let mut early = meeting.expect(ID, Channel::InOut).expect("free");
        assert!(meeting.expect(ID, Channel::InOut).is_none(), "the same id twice");
        meeting.arrive(ID, Channel::InOut, testing::duplex(), PATIENCE).await.ok().expect("taken at once");
        early.stream().now_or_never().expect("it is here");

        let arriving = meeting.arrive(ID, Channel::Err, testing::duplex(), PATIENCE);
        tokio::pin!(arriving);
        assert!(arriving.as_mut().now_or_never().is_none());
        let mut late = meeting.expect(ID, Channel::Err).expect("a stream waits");
        late.stream().now_or_never().expect("it is here");
        assert!(arriving.await.is_ok());
        assert!(meeting.lock().waiting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_or_leaves_clears_the_place_and_a_full_table_turns_away() {
        let meeting = Meeting::new(1);
        assert!(meeting.arrive(ID, Channel::Err, testing::duplex(), PATIENCE).await.is_err());
        let expected = meeting.expect(ID, Channel::Err).expect("free again");
        assert!(meeting.expect(ID, Channel::InOut).is_none(), "full");
        assert!(meeting.arrive(ID, Channel::InOut, testing::duplex(), PATIENCE).await.is_err(), "full");
        drop(expected);
        assert!(meeting.lock().waiting.is_empty());
    }
}
