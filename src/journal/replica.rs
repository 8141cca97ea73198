//! A reader's state: what was read so far, by the rule, held against what a witness has seen before.

use super::{
    error::Error,
    head::Head,
    record::{Codec, Record, Unopened},
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
    /// The next record is the first of a log that was cut.
    is_cut: bool,
}

/// A record that counts.
pub(super) struct Valid {
    pub(super) record: Record,
    /// The head after it.
    pub(super) head: Head,
    /// It is a snapshot's begin at which the reading starts.
    pub(super) is_anchor: bool,
}

impl Replica {
    /// A reader that starts at `start`, the log's beginning.
    pub(super) fn new(topic: &str, topic_id: u128, codec: Codec, start: i64, witness: Option<Witness>) -> Self {
        let topic = topic.to_owned();
        let awaited = witness.filter(|witness| witness.offset >= 0);
        let (rule, is_cut) = (Rule::new(), start > 0);
        Self { topic, topic_id, codec, rule, position: start, last: -1, ignored: 0, awaited, is_cut }
    }

    /// What was to be read next is gone: the log begins at `start` now.
    pub(super) fn jump(&mut self, start: i64) {
        self.position = start;
        self.is_cut = true;
    }

    /// Whether the log was cut and nothing of what is left was read.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Reads the record at `offset`; none if it does not count.
    pub(super) fn read(&mut self, offset: i64, sealed: &[u8]) -> Result<Option<Valid>, Error> {
        self.skip_to(offset)?;
        self.position = offset + 1;
        let opened = self.codec.open(sealed);
        let is_anchor = self.is_cut;
        if self.is_cut {
            self.start_at(offset, opened.as_ref().ok())?;
        }
        let valid = match opened {
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
        self.last = offset;
        self.check_witness()?;
        Ok(Some(Valid { record, head: self.rule.head(), is_anchor }))
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
        let ((epoch, seq), head) = (self.rule.progress(), self.rule.head());
        Witness { topic_id: self.topic_id, epoch, offset: self.last, head, seq }
    }

    /// Takes the log's first record for what it must be. The rule's documentation says why it may be believed.
    fn start_at(&mut self, offset: i64, first: Option<&Record>) -> Result<(), Error> {
        let truncated = || Error::Truncated { topic: self.topic.clone(), start: offset };
        let begin = first.ok_or_else(truncated)?;
        let rule = Rule::before(begin).ok_or_else(truncated)?;
        let here = (begin.epoch, begin.seq);
        if here <= self.rule.progress() {
            let (epoch, seq) = self.rule.progress();
            return Err(self.rolled_back(format!(
                "it begins at offset {offset} with record {} of epoch {}, and was read up to record {seq} of epoch {epoch}",
                here.1, here.0,
            )));
        }
        // What was seen was cut away, and the snapshot must be newer. Of what was seen here, the head will tell.
        if let Some(seen) = self.awaited.take_if(|seen| seen.offset < offset)
            && here <= (seen.epoch, seen.seq)
        {
            return Err(self.rolled_back(format!(
                "it begins at offset {offset} with record {} of epoch {}, and record {} of epoch {} was seen before",
                here.1, here.0, seen.seq, seen.epoch,
            )));
        }
        (self.rule, self.is_cut) = (rule, false);
        Ok(())
    }

    fn check_witness(&mut self) -> Result<(), Error> {
        if self.is_cut {
            return Ok(());
        }
        let Some(seen) = self.awaited.take_if(|seen| self.position > seen.offset) else { return Ok(()) };
        let here = self.witness();
        if (here.epoch, here.offset, here.head) == (seen.epoch, seen.offset, seen.head) {
            return Ok(());
        }
        let (offset, epoch) = (seen.offset, seen.epoch);
        Err(self.rolled_back(format!("offset {offset} does not hold what was seen there in epoch {epoch}")))
    }

    fn rolled_back(&self, detail: String) -> Error {
        Error::RolledBack { topic: self.topic.clone(), detail }
    }

    fn newer(&self, offset: i64, detail: String) -> Error {
        Error::Newer { topic: self.topic.clone(), offset, detail }
    }
}
