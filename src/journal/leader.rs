//! Whether we lead, and who waits for what: claims and appends in, answers out as the log is read. Sends nothing itself:
//! the driver asks [`Leader::outbox`] what is due.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Random,
    error::Error,
    intake::Intake,
    outbox::Outbox,
    record::{Kind, Record},
    replica::{Replica, Valid},
    snapshot::{End, Snapshot, encode_begin},
};

/// Where an answer goes. The caller may have dropped its future.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What callers ask for.
#[derive(Debug)]
pub(super) enum Command {
    /// To lead with an epoch greater than `above`.
    Claim {
        above: u32,
        reply: Reply<u32>,
    },
    /// To write an event; if it is not `kept`, only while somebody waits for the answer.
    Append {
        payload: Bytes,
        kept: bool,
        reply: Reply<u64>,
    },
    /// To begin a snapshot.
    Begin {
        founding: bool,
        reply: Reply<u64>,
    },
    /// To go on with the snapshot `of`, if it is still open.
    Part {
        of: Snapshot,
        part: Bytes,
        reply: Reply<u64>,
    },
    End {
        of: Snapshot,
        parts: u64,
        reply: Reply<u64>,
    },
}

/// See the module.
pub(super) struct Leader {
    /// There while we lead, or try to. The claim's record has no waiter: `claimants` wait for all that it takes.
    outbox: Option<Outbox<Option<Reply<u64>>>>,
    /// Each with the epoch that it wants to exceed.
    claimants: Vec<(u32, Reply<u32>)>,
    /// Why we do not lead.
    lost: Error,
    /// A founding snapshot was begun, and was not seen to be whole.
    founding: bool,
    random: Random,
}

impl Leader {
    pub(super) fn new(random: Random) -> Self {
        Self { outbox: None, claimants: Vec::new(), lost: Error::NotLeader, founding: false, random }
    }

    /// The epoch in which we lead.
    pub(super) fn epoch(&self) -> Option<u32> {
        self.outbox.as_ref().filter(|outbox| outbox.won()).map(Outbox::epoch)
    }

    /// What is to be sent.
    pub(super) fn outbox(&mut self) -> Option<&mut Outbox<Option<Reply<u64>>>> {
        self.outbox.as_mut()
    }

    /// How many records wait, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        self.outbox.as_ref().map_or((0, 0), Outbox::size)
    }

    /// Takes a caller's wish. [`pursue`](Self::pursue) must follow.
    pub(super) fn handle(&mut self, command: Command, intake: &Intake) {
        let (kind, payload, reply) = match command {
            Command::Claim { above, reply } => return self.claimants.push((above, reply)),
            // Nobody waits any more, and nothing was sent: the event need not be.
            Command::Append { kept: false, reply, .. } if reply.is_closed() => return,
            Command::Append { payload, reply, .. } => (Kind::Event, payload, reply),
            Command::Begin { founding, reply } => {
                // What is founded and not yet whole must be founded again: others lack what an ordinary one relies on.
                self.founding = founding || (self.founding && !intake.feed().is_founded());
                (Kind::SnapshotBegin, encode_begin(self.founding), reply)
            }
            Command::Part { of, reply, .. } | Command::End { of, reply, .. }
                if self.epoch().is_some() && !intake.feed().writes(&of) =>
            {
                return answer(reply, Err(Error::Torn));
            }
            Command::Part { part, reply, .. } => (Kind::SnapshotPart, part, reply),
            Command::End { of, parts, reply } => (Kind::SnapshotEnd, End { begin: of.seq, parts }.encode(), reply),
        };
        match &mut self.outbox {
            Some(outbox) if outbox.won() => {
                outbox.push(intake.replica().codec(), nonce(&mut self.random), kind, payload, Some(reply));
            }
            _ => answer(reply, Err(self.lost.clone())),
        }
    }

    /// Brings those who wait for a claim nearer to it. Only once the replay is over.
    pub(super) fn pursue(&mut self, replica: &Replica) {
        self.claimants.retain(|(_, reply)| !reply.is_closed());
        if let Some(epoch) = self.epoch() {
            for (_, reply) in self.claimants.extract_if(.., |(above, _)| *above < epoch) {
                answer(reply, Ok(epoch));
            }
        }
        let Some(above) = self.claimants.iter().map(|(above, _)| *above).max() else { return };
        let above = above.max(replica.epoch());
        if let Some(epoch) = self.epoch() {
            // What is under way may still come before the claim, and count.
            self.abdicate(Error::Diverged { epoch });
        }
        if self.outbox.is_none() {
            match above.checked_add(1) {
                Some(epoch) => {
                    let (writer, nonce) = ((self.random)(), nonce(&mut self.random));
                    self.outbox = Some(Outbox::claim(replica.codec(), epoch, replica.head(), writer, nonce, None));
                }
                None => self.refuse_claims(&Error::EpochsExhausted),
            }
        }
    }

    /// Whether `record` is of our tenure.
    pub(super) fn wrote(&self, record: &Record) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.wrote(record))
    }

    /// A record counts.
    pub(super) fn read(&mut self, Valid { record, head, .. }: &Valid) {
        let epoch = record.epoch;
        match &mut self.outbox {
            Some(outbox) if outbox.wrote(record) => match outbox.read_back(record.seq, *head) {
                Ok(Some(reply)) => answer(reply, Ok(record.seq)),
                Ok(None) => {}
                Err(_) => self.abdicate(Error::Diverged { epoch }),
            },
            _ if record.kind == Kind::Claim => {
                let led = self.epoch().is_some() || !matches!(self.lost, Error::NotLeader);
                self.abdicate(if led { Error::Superseded { by: epoch } } else { Error::NotLeader });
            }
            _ => {}
        }
    }

    /// Batch `number` can't be appended, however often it is sent.
    pub(super) fn refused(&mut self, number: u64, error: &Error) {
        let Some(outbox) = &mut self.outbox else { return };
        outbox.cut(number).into_iter().flatten().for_each(|reply| answer(reply, Err(error.clone())));
        if !outbox.won() {
            self.outbox = None;
            self.refuse_claims(error);
        }
    }

    /// The reading goes on elsewhere: what we wrote may be among what was not read.
    pub(super) fn jumped(&mut self) {
        match self.epoch() {
            Some(epoch) => self.abdicate(Error::Diverged { epoch }),
            None => self.outbox = None,
        }
    }

    fn refuse_claims(&mut self, error: &Error) {
        self.claimants.drain(..).for_each(|(_, reply)| answer(reply, Err(error.clone())));
    }

    fn abdicate(&mut self, why: Error) {
        let waiters = self.outbox.take().into_iter().flat_map(Outbox::into_waiters);
        waiters.flatten().for_each(|reply| answer(reply, Err(why.clone())));
        (self.lost, self.founding) = (why, false);
    }
}

/// Nobody may want the answer any more.
fn answer<T>(reply: Reply<T>, result: Result<T, Error>) {
    let _ = reply.send(result);
}

fn nonce(random: &mut Random) -> [u8; 12] {
    *random().to_ne_bytes().first_chunk().expect("12 of 16 bytes")
}
