//! A reader's state: what was read so far, by the rule, held against what a witness has seen before.

use super::{
    error::Error,
    head::Head,
    record::{Codec, Kind, Record, Unopened},
    rule::{Rule, Verdict},
    witness::Witness,
};

/// One reader of one journal. Pure.
pub(super) struct Replica {
    topic: String,
    topic_id: u128,
    codec: Codec,
    rule: Rule,
    /// The next offset to read.
    position: i64,
    /// The offset of the last valid record, -1 before the first.
    last: i64,
    ignored: u64,
    /// What must be found on the way.
    awaited: Option<Witness>,
}

/// A record that counts.
pub(super) struct Valid {
    pub(super) record: Record,
    /// The head after it.
    pub(super) head: Head,
}

impl Replica {
    pub(super) fn new(topic: &str, topic_id: u128, codec: Codec, position: i64, witness: Option<Witness>) -> Self {
        let topic = topic.to_owned();
        let awaited = witness.filter(|witness| witness.offset >= 0);
        Self { topic, topic_id, codec, rule: Rule::new(), position, last: -1, ignored: 0, awaited }
    }

    /// Reads the record at `offset`; none if it does not count.
    pub(super) fn read(&mut self, offset: i64, sealed: &[u8]) -> Result<Option<Valid>, Error> {
        self.skip_to(offset)?;
        self.position = offset + 1;
        let valid = match self.codec.open(sealed) {
            Ok(record) => match self.rule.judge(&record, sealed) {
                Verdict::Claimed | Verdict::Applied => Some(record),
                Verdict::Ignored(reason) => {
                    tracing::debug!(
                        topic = self.topic,
                        offset,
                        epoch = record.epoch,
                        seq = record.seq,
                        ?reason,
                        "ignored"
                    );
                    None
                }
            },
            Err(Unopened::Foreign) => {
                tracing::debug!(topic = self.topic, offset, "ignored a record that is not sealed under our key");
                None
            }
            Err(newer @ Unopened::Newer(_)) => return Err(self.newer(offset, newer.to_string())),
        };
        let Some(record) = valid else {
            self.ignored += 1;
            self.check_witness()?;
            return Ok(None);
        };
        if let Kind::Other(kind) = record.kind {
            return Err(self.newer(offset, format!("the record has kind {kind}")));
        }
        self.last = offset;
        self.check_witness()?;
        Ok(Some(Valid { record, head: self.rule.head() }))
    }

    /// There are no records below `position`.
    pub(super) fn skip_to(&mut self, position: i64) -> Result<(), Error> {
        self.position = self.position.max(position);
        self.check_witness()
    }

    pub(super) fn position(&self) -> i64 {
        self.position
    }

    pub(super) fn epoch(&self) -> u32 {
        self.rule.epoch()
    }

    pub(super) fn head(&self) -> Head {
        self.rule.head()
    }

    /// How many records did not count.
    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    pub(super) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// What was seen so far.
    pub(super) fn witness(&self) -> Witness {
        Witness { topic_id: self.topic_id, epoch: self.rule.epoch(), offset: self.last, head: self.rule.head() }
    }

    fn check_witness(&mut self) -> Result<(), Error> {
        let Some(seen) = self.awaited.filter(|seen| self.position > seen.offset) else { return Ok(()) };
        self.awaited = None;
        let here = Witness { topic_id: seen.topic_id, ..self.witness() };
        if here == seen {
            return Ok(());
        }
        let (offset, epoch) = (seen.offset, seen.epoch);
        let detail = format!("offset {offset} does not hold what was seen there in epoch {epoch}");
        Err(Error::RolledBack { topic: self.topic.clone(), detail })
    }

    fn newer(&self, offset: i64, detail: String) -> Error {
        Error::Newer { topic: self.topic.clone(), offset, detail }
    }
}
