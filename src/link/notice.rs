//! What a controller says to an agent that it does not let speak QUIC: signed, so that the agent can believe it or
//! see that another controller spoke.
//!
//! A notice is answered to nothing but a handshake, is smaller than that, and is limited in rate: it cannot be used to
//! flood anybody.

use bytes::{Buf, Bytes, BytesMut};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::{
    Fingerprint, Identity,
    packet::{Header, Incarnation, Kind},
};

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
    key: Vec<u8>,
    signature: Vec<u8>,
}

/// A notice that an agent read: who says it, and whether the signature is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// Why there is no connection.
    pub reason: Reason,
    /// Who signed it.
    pub controller: Fingerprint,
}

/// The whole record value of a notice to one run of a caller, whose records have the key `key`.
pub fn write(identity: &Identity, epoch: u32, key: &str, incarnation: Incarnation, reason: Reason) -> Bytes {
    let mut value = BytesMut::new();
    Header { kind: Kind::Notice, incarnation, epoch }.encode(&mut value);
    let signature = identity.sign(&signed(key, incarnation, reason));
    let wire = Wire { reason, key: identity.spki(), signature };
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
    public.verify(&signed(key, incarnation, wire.reason), &wire.signature).ok()?;
    Some(Notice { reason: wire.reason, controller: Fingerprint::of(&wire.key) })
}

fn signed(key: &str, incarnation: Incarnation, reason: Reason) -> Vec<u8> {
    let reason = [reason as u8];
    [b"rk1 notice" as &[u8], &reason, &incarnation.to_bytes(), key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_believed_only_as_it_was_signed() {
        let identity = Identity::generate();
        let run = Incarnation { starts: 1, random: 2 };
        let mut value = write(&identity, 3, "a", run, Reason::Unknown);
        Header::decode(&mut value).expect("own bytes");
        let read_back = read("a", run, &value).expect("own notice");
        assert_eq!(read_back, Notice { reason: Reason::Unknown, controller: identity.fingerprint() });
        assert_eq!(read("b", run, &value), None, "another name");
        assert_eq!(read("a", Incarnation { starts: 2, random: 2 }, &value), None, "another run");
        assert_eq!(read("a", run, &value.slice(1..)), None, "cut");
    }
}
