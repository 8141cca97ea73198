//! What a controller says to an agent that it does not let speak QUIC: signed, so that the agent can believe it or
//! see that another controller spoke.
//!
//! It names the datagram that it answers, with all that was judged of it. An agent believes what is said of a datagram that it
//! sent as it was judged, and nothing else: anybody who may write packets can have one turned away under another's name.
//!
//! A notice is answered to nothing but a handshake, is smaller than that, and is limited in rate: it cannot be used to
//! flood anybody.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf, Bytes, BytesMut};
use ring::{
    digest,
    signature::{ED25519, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::{
    Fingerprint, Identity, Lane,
    packet::{Header, Incarnation, Kind, MAC},
};

/// Handshake datagrams that an agent remembers: more than it sends before it is told.
const SENT: usize = 64;

/// Names a handshake datagram, with all of it that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject([u8; 16]);

impl Subject {
    /// That of a datagram which came with this envelope, on this lane. Who sends gets a notice under its own name and run.
    pub fn of(header: &Header, lane: Lane, datagram: &[u8], mac: Option<[u8; MAC]>) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&header.incarnation.to_bytes());
        hash.update(&header.epoch.to_le_bytes());
        hash.update(&[lane as u8]);
        hash.update(&mac.unwrap_or_default());
        hash.update(datagram);
        Self(hash.finish().as_ref()[..16].try_into().expect("SHA-256 has 32 bytes"))
    }
}

/// The handshake datagrams that one run of an agent sent last.
#[derive(Debug, Default)]
pub struct Sent(Mutex<VecDeque<Subject>>);

impl Sent {
    /// Remembers one.
    pub fn note(&self, subject: Subject) {
        let mut sent = self.sent();
        if sent.len() == SENT {
            sent.pop_front();
        }
        sent.push_back(subject);
    }

    /// Whether it was sent.
    pub fn has(&self, subject: Subject) -> bool {
        self.sent().contains(&subject)
    }

    fn sent(&self) -> MutexGuard<'_, VecDeque<Subject>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The name is not known, or the secret is another one.
    Unknown,
    /// A newer process runs under this name.
    Superseded,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    reason: Reason,
    subject: Subject,
    key: Vec<u8>,
    signature: Vec<u8>,
}

/// A notice that an agent read: who says it, and whether the signature is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Why there is no connection.
    pub reason: Reason,
    /// What it answers.
    pub subject: Subject,
    /// Who signed it.
    pub controller: Fingerprint,
}

/// The whole record value of a notice to one run of a caller, whose records have the key `key`.
pub fn write(
    identity: &Identity,
    epoch: u32,
    key: &str,
    incarnation: Incarnation,
    reason: Reason,
    subject: Subject,
) -> Bytes {
    let mut value = BytesMut::new();
    Header { kind: Kind::Notice, incarnation, epoch }.encode(&mut value);
    let signature = identity.sign(&signed(key, incarnation, reason, subject));
    let wire = Wire { reason, subject, key: identity.spki(), signature };
    value.extend_from_slice(&postcard::to_allocvec(&wire).expect("it has no unserializable part"));
    value.freeze()
}

/// Reads the body of a notice; `None` if it is malformed or the signature is wrong.
pub fn read(key: &str, incarnation: Incarnation, body: &Bytes) -> Option<Notice> {
    if body.remaining() > 1024 {
        return None;
    }
    let wire: Wire = postcard::from_bytes(body).ok()?;
    let raw = wire.key.get(wire.key.len().checked_sub(32)?..)?;
    let public = UnparsedPublicKey::new(&ED25519, raw);
    public.verify(&signed(key, incarnation, wire.reason, wire.subject), &wire.signature).ok()?;
    Some(Notice { reason: wire.reason, subject: wire.subject, controller: Fingerprint::of(&wire.key) })
}

fn signed(key: &str, incarnation: Incarnation, reason: Reason, subject: Subject) -> Vec<u8> {
    let reason = [reason as u8];
    [b"rk1 notice" as &[u8], &reason, &subject.0, &incarnation.to_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_believed_only_as_it_was_signed() {
        let identity = Identity::generate();
        let run = Incarnation { starts: 1, random: 2 };
        let subject = Subject([9; 16]);
        let mut value = write(&identity, 3, "a", run, Reason::Unknown, subject);
        Header::decode(&mut value).expect("own bytes");
        let read_back = read("a", run, &value).expect("own notice");
        assert_eq!(read_back, Notice { reason: Reason::Unknown, subject, controller: identity.fingerprint() });
        assert_eq!(read("b", run, &value), None, "another name");
        assert_eq!(read("a", Incarnation { starts: 2, random: 2 }, &value), None, "another run");
        assert_eq!(read("a", run, &value.slice(1..)), None, "cut");
    }
    #[test]
    fn a_subject_is_the_datagram_with_all_that_was_judged_of_it() {
        let header = |random, epoch| Header { kind: Kind::Up, incarnation: Incarnation { starts: 1, random }, epoch };
        let sent = Sent::default();
        sent.note(Subject::of(&header(2, 3), Lane::Control, b"hello", Some([4; MAC])));
        let was = |header, lane, datagram: &[u8], mac| sent.has(Subject::of(&header, lane, datagram, Some([mac; MAC])));
        assert!(was(header(2, 3), Lane::Control, b"hello", 4));
        assert!(!was(header(1, 3), Lane::Control, b"hello", 4), "another run");
        assert!(!was(header(2, 2), Lane::Control, b"hello", 4), "another epoch");
        assert!(!was(header(2, 3), Lane::Bulk, b"hello", 4), "another lane");
        assert!(!was(header(2, 3), Lane::Control, b"hallo", 4), "other bytes");
        assert!(!was(header(2, 3), Lane::Control, b"hello", 5), "another MAC");
        (0..SENT).for_each(|n| sent.note(Subject([n as u8; 16])));
        assert!(!was(header(2, 3), Lane::Control, b"hello", 4), "it is bounded");
    }
}
