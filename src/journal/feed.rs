//! What those above are handed of the valid records, and which snapshots are whole. Pure.
//!
//! A snapshot is whole iff its begin is followed, before any claim and any other begin, by its end, with as many parts
//! between as the end says, and with no more events between than [`BESIDE_BYTES`]. All else is torn, and counts for
//! nothing. Its state is that of the begin: the events between come after it.
//!
//! - A reader that has read what is before the begin skips the snapshot.
//! - A reader that starts at the begin ([`Valid::is_anchor`]) takes it: it is handed the parts at once, and the events
//!   between when the end comes. That such a snapshot is whole was known before the log was cut.
//! - A founding snapshot is taken by all but its writer, who has the state: it replaces what is before it. If it is
//!   torn, nothing is before it.
//!
//! Input: [`Feed::read`] for each valid record. Output: [`Feed::next`].

use std::collections::VecDeque;

use super::{
    Committed,
    error::Error,
    record::{Kind, OVERHEAD, Record},
    replica::Valid,
    snapshot::{End, Snapshot, decode_begin, decode_part},
};

/// The events between a snapshot's begin and its end, with [`EACH`] for each: what a reader that starts there keeps in
/// memory. A part of the rule, so it stays as it is; a writer whose snapshot exceeds it tries another.
pub(super) const BESIDE_BYTES: usize = 32 << 20;
/// What an event takes in memory beside its payload.
pub(super) const EACH: usize = 128;

/// How much a log has grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Growth {
    /// Records, whether they count or not.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// See the module.
pub(super) struct Feed {
    topic: String,
    open: Option<Open>,
    whole: Option<Snapshot>,
    /// Since the whole snapshot was begun, without its own parts.
    growth: Growth,
    /// Whether the founding snapshot that we began is whole. Until then all others lack the state that we have.
    founded: Option<bool>,
    out: VecDeque<Committed>,
}

/// A snapshot that was begun and has not ended.
struct Open {
    at: Snapshot,
    role: Role,
    parts: u64,
    /// What the events since its begin take.
    beside: usize,
    /// Those events, if the snapshot is taken.
    held: Vec<Committed>,
    /// The log's growth up to its begin.
    before: Growth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// We have its state.
    Skipped,
    /// We write it.
    Own { founding: bool },
    /// We start there.
    Anchor,
    /// It replaces our state.
    Founding,
}

impl Role {
    fn is_taken(self) -> bool {
        matches!(self, Self::Anchor | Self::Founding)
    }
}

impl Feed {
    pub(super) fn new(topic: &str) -> Self {
        let topic = topic.to_owned();
        Self { topic, open: None, whole: None, growth: Growth::default(), founded: None, out: VecDeque::new() }
    }

    /// Takes the valid record at `offset`; `mine` if this journal wrote it in its present tenure.
    pub(super) fn read(&mut self, valid: &Valid, offset: i64, mine: bool) -> Result<(), Error> {
        let record = &valid.record;
        match record.kind {
            Kind::Claim => {
                self.claimed(record.epoch, mine)?;
                self.grow(record);
            }
            Kind::Event => {
                self.event(record, offset)?;
                self.grow(record);
            }
            Kind::SnapshotBegin => {
                self.begin(record, offset, mine, valid.is_anchor)?;
                self.grow(record);
            }
            Kind::SnapshotPart => self.part(record, offset)?,
            Kind::SnapshotEnd => self.end(record, offset)?,
            Kind::Other(kind) => return Err(self.newer(offset, format!("the record has kind {kind}"))),
        }
        Ok(())
    }

    /// A record of `bytes` bytes did not count.
    pub(super) fn ignored(&mut self, bytes: usize) {
        self.growth.records += 1;
        self.growth.bytes += bytes as u64;
    }

    /// The reader goes on elsewhere, at another snapshot's begin.
    pub(super) fn jump(&mut self) {
        self.open = None;
    }

    /// What is handed on next.
    pub(super) fn next(&mut self) -> Option<Committed> {
        self.out.pop_front()
    }

    /// Takes back what [`next`](Self::next) returned.
    pub(super) fn put_back(&mut self, committed: Committed) {
        self.out.push_front(committed);
    }

    pub(super) fn push(&mut self, committed: Committed) {
        self.out.push_back(committed);
    }

    pub(super) fn has_next(&self) -> bool {
        !self.out.is_empty()
    }

    /// The newest whole snapshot: up to its begin the log can be cut.
    pub(super) fn whole(&self) -> Option<Snapshot> {
        self.whole
    }

    pub(super) fn growth(&self) -> Growth {
        self.growth
    }

    /// Whether this journal is writing the snapshot `at`.
    pub(super) fn writes(&self, at: &Snapshot) -> bool {
        self.open.as_ref().is_some_and(|open| open.at == *at && matches!(open.role, Role::Own { .. }))
    }

    /// Whether a founding snapshot of this journal's is whole.
    pub(super) fn is_founded(&self) -> bool {
        self.founded == Some(true)
    }

    /// Whether the state is incomplete until more of the log is read, which is there.
    pub(super) fn is_restoring(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.role == Role::Anchor)
    }

    /// What it means that the state stays incomplete.
    pub(super) fn truncated(&self, offset: i64) -> Error {
        Error::Truncated { topic: self.topic.clone(), start: self.open.as_ref().map_or(offset, |open| open.at.offset) }
    }

    fn claimed(&mut self, epoch: u32, mine: bool) -> Result<(), Error> {
        if self.founded == Some(false) {
            // No reader will come to the state that we have: it is not the journal's any more.
            return Err(Error::Superseded { by: epoch });
        }
        self.tear()?;
        self.out.push_back(Committed::Claimed { epoch, mine });
        Ok(())
    }

    fn event(&mut self, record: &Record, offset: i64) -> Result<(), Error> {
        let &Record { epoch, seq, ref payload, .. } = record;
        let event = Committed::Event { epoch, seq, offset, payload: payload.clone() };
        if let Some(open) = &mut self.open {
            open.beside += payload.len() + EACH;
            if open.beside > BESIDE_BYTES {
                self.tear()?;
            }
        }
        match &mut self.open {
            Some(open) if open.role.is_taken() => open.held.push(event),
            _ => self.out.push_back(event),
        }
        Ok(())
    }

    fn begin(&mut self, record: &Record, offset: i64, mine: bool, is_anchor: bool) -> Result<(), Error> {
        let founding = decode_begin(&record.payload).ok_or_else(|| self.damaged(offset))?;
        self.tear()?;
        let at = Snapshot { epoch: record.epoch, seq: record.seq, offset };
        let role = match (is_anchor, mine, founding) {
            (true, ..) => Role::Anchor,
            (false, true, founding) => Role::Own { founding },
            (false, false, true) => Role::Founding,
            (false, false, false) => Role::Skipped,
        };
        match role {
            Role::Skipped => {}
            Role::Own { founding } => {
                self.founded = if founding { Some(false) } else { self.founded };
                self.out.push_back(Committed::SnapshotBegun(at));
            }
            Role::Anchor | Role::Founding => self.out.push_back(Committed::Restore(at)),
        }
        if is_anchor {
            (self.whole, self.growth) = (None, Growth::default());
        }
        self.open = Some(Open { at, role, parts: 0, beside: 0, held: Vec::new(), before: self.growth });
        Ok(())
    }

    fn part(&mut self, record: &Record, offset: i64) -> Result<(), Error> {
        let Some(open) = &mut self.open else {
            self.grow(record);
            return Ok(());
        };
        open.parts += 1;
        if open.role.is_taken() {
            let payloads = decode_part(record.payload.clone()).ok_or_else(|| self.damaged(offset))?;
            self.out.extend(payloads.into_iter().map(|payload| Committed::Restored { payload }));
        }
        Ok(())
    }

    fn end(&mut self, record: &Record, offset: i64) -> Result<(), Error> {
        let end = End::decode(&record.payload).ok_or_else(|| self.damaged(offset))?;
        let is_whole = |open: &mut Open| (end.begin, end.parts) == (open.at.seq, open.parts);
        let Some(open) = self.open.take_if(is_whole) else { return self.tear() };
        self.whole = Some(open.at);
        if open.role == (Role::Own { founding: true }) {
            self.founded = Some(true);
        }
        self.growth.records = self.growth.records.saturating_sub(open.before.records);
        self.growth.bytes = self.growth.bytes.saturating_sub(open.before.bytes);
        if open.role.is_taken() {
            self.out.push_back(Committed::RestoreEnd);
            self.out.extend(open.held);
        }
        Ok(())
    }

    /// The snapshot that is open, if one is, will not become whole.
    fn tear(&mut self) -> Result<(), Error> {
        let Some(open) = self.open.take() else { return Ok(()) };
        match open.role {
            Role::Skipped | Role::Own { .. } => {}
            Role::Anchor => return Err(Error::Truncated { topic: self.topic.clone(), start: open.at.offset }),
            Role::Founding => {
                self.out.extend([Committed::Restore(open.at), Committed::RestoreEnd]);
                self.out.extend(open.held);
            }
        }
        Ok(())
    }

    fn grow(&mut self, record: &Record) {
        self.ignored(record.payload.len() + OVERHEAD);
    }

    fn damaged(&self, offset: i64) -> Error {
        self.newer(offset, "a snapshot's record has another form".to_owned())
    }

    fn newer(&self, offset: i64, detail: String) -> Error {
        Error::Newer { topic: self.topic.clone(), offset, detail }
    }
}

#[cfg(test)]
mod tests;
