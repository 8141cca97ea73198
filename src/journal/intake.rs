//! The reading half: what was fetched in, valid records and what is handed on out. Pure; the driver waits.

use std::collections::VecDeque;

use super::{
    Committed,
    error::Error,
    feed::Feed,
    record::Record,
    replica::{Replica, Valid},
    tail::Step,
};
use crate::kafka;

/// See the module.
pub(super) struct Intake {
    replica: Replica,
    feed: Feed,
    /// Where the log ended when it was opened.
    replay_end: i64,
    caught_up: bool,
    /// Fetched and not yet read, and where the fetch ended.
    fetched: VecDeque<(i64, kafka::Record)>,
    fetched_end: i64,
}

/// What [`Intake::read`] did.
pub(super) enum Read {
    /// Nothing is there to be read.
    Nothing,
    /// A record that does not count, or that was read before.
    Passed,
    /// A record that counts, and whether it is ours.
    Valid(Valid, bool),
    /// The replay is over.
    CaughtUp,
}

impl Intake {
    pub(super) fn new(replica: Replica, feed: Feed, replay_end: i64) -> Self {
        let fetched_end = replica.position();
        Self { replica, feed, replay_end, caught_up: false, fetched: VecDeque::new(), fetched_end }
    }

    pub(super) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    pub(super) fn feed_mut(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// Whether all that was there at the start is read, and the state is complete.
    pub(super) fn is_ready(&self) -> bool {
        self.caught_up && !self.is_restoring()
    }

    /// Whether [`read`](Self::read) has something to do.
    pub(super) fn has_next(&self) -> bool {
        !self.fetched.is_empty() || self.catches_up()
    }

    /// Takes the tail's next step, once the one before was read.
    pub(super) fn take(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Fetched(fetched) => {
                self.fetched = fetched.records.into();
                self.fetched_end = fetched.next_offset;
                if self.fetched.is_empty() { self.replica.skip_to(self.fetched_end) } else { Ok(()) }
            }
            Step::Jumped { start, end } => {
                self.feed.jump();
                self.replica.jump(start);
                self.replay_end = self.replay_end.max(end);
                Ok(())
            }
        }
    }

    /// Reads one record, or finds that the replay is over. What [`Feed::next`] then holds must be handed on before the
    /// next call.
    pub(super) fn read(&mut self, is_mine: impl FnOnce(&Record) -> bool) -> Result<Read, Error> {
        if self.catches_up() {
            if self.is_restoring() {
                return Err(self.feed.truncated(self.replica.position()));
            }
            self.caught_up = true;
            self.feed.push(Committed::CaughtUp);
            return Ok(Read::CaughtUp);
        }
        let Some((offset, record)) = self.fetched.pop_front() else { return Ok(Read::Nothing) };
        // A fetch may start with records before those that were asked for.
        let read = if offset < self.replica.position() {
            Read::Passed
        } else if let Some(valid) = self.replica.read(offset, &record.value)? {
            let mine = is_mine(&valid.record);
            self.feed.read(&valid, offset, mine)?;
            Read::Valid(valid, mine)
        } else {
            self.feed.ignored(record.value.len());
            Read::Passed
        };
        if self.fetched.is_empty() {
            self.replica.skip_to(self.fetched_end)?;
        }
        Ok(read)
    }

    fn is_restoring(&self) -> bool {
        self.replica.is_cut() || self.feed.is_restoring()
    }

    fn catches_up(&self) -> bool {
        !self.caught_up && self.replica.position() >= self.replay_end
    }
}
