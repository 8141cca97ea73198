//! The value of a packet record: an envelope and the QUIC datagrams in it.
//!
//! ```text
//! value    = version:u8 kind:u8 incarnation:16 epoch:u32le body
//! body     = datagram*                        (kind UP, DOWN)
//!          | notice, see `notice`             (kind NOTICE)
//!          | nonce:u64le                      (kind PROBE)
//! datagram = length:u16le bytes [mac:16]      (a MAC if kind is UP and the first byte has the long-header bit)
//! ```
//!
//! The record's key is the agent's name: a routing hint, no proof. On the way down the incarnation is the addressee's,
//! on the way up the sender's. Nothing here is secret, and only the MAC and what QUIC itself protects can be believed.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The only version of the envelope.
const VERSION: u8 = 1;
/// Bytes before the body.
pub const HEADER: usize = 2 + 16 + 4;
/// Bytes of a MAC.
pub const MAC: usize = 16;
/// Bytes around a datagram at most.
pub const OVERHEAD: usize = 2 + MAC;

/// One run of an agent's process. Greater is newer: `starts` grows with each start, also across hosts if their clocks
/// agree; `random` tells two runs with the same count apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation {
    /// Counts the starts.
    pub starts: u64,
    /// Drawn at the start.
    pub random: u64,
}

impl Incarnation {
    /// As it stands in the envelope and under MACs.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.starts.to_le_bytes());
        bytes[8..].copy_from_slice(&self.random.to_le_bytes());
        bytes
    }
}

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Datagrams from an agent.
    Up,
    /// Datagrams to an agent.
    Down,
    /// What a controller has to say to an agent that it cannot speak QUIC with.
    Notice,
    /// A controller's own record, to see whether the partition works.
    Probe,
}

/// The envelope of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// The agent's run.
    pub incarnation: Incarnation,
    /// Up: the highest controller's epoch that the agent knows. Down: the controller's.
    pub epoch: u32,
}

/// The bytes are no packet record. Dropped and counted, never an error towards anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed packet record")]
pub struct Malformed;

impl Header {
    /// Appends the envelope.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u8(match self.kind {
            Kind::Up => 0,
            Kind::Down => 1,
            Kind::Notice => 2,
            Kind::Probe => 3,
        });
        out.put_slice(&self.incarnation.to_bytes());
        out.put_u32_le(self.epoch);
    }

    /// Takes the envelope off the front of `value`.
    pub fn decode(value: &mut Bytes) -> Result<Self, Malformed> {
        if value.len() < HEADER || value.get_u8() != VERSION {
            return Err(Malformed);
        }
        let kind = match value.get_u8() {
            0 => Kind::Up,
            1 => Kind::Down,
            2 => Kind::Notice,
            3 => Kind::Probe,
            _ => return Err(Malformed),
        };
        let incarnation = Incarnation { starts: value.get_u64_le(), random: value.get_u64_le() };
        Ok(Self { kind, incarnation, epoch: value.get_u32_le() })
    }
}

/// Appends a datagram; `mac` where the reader expects one.
pub fn put_datagram(out: &mut BytesMut, datagram: &[u8], mac: Option<[u8; MAC]>) {
    debug_assert!(datagram.len() <= u16::MAX as usize, "quinn's MTU is below 16 KiB");
    out.put_u16_le(datagram.len() as u16);
    out.put_slice(datagram);
    if let Some(mac) = mac {
        out.put_slice(&mac);
    }
}

/// Whether the datagram starts with a long-header packet: part of a handshake.
pub fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

/// The source connection id of a long-header packet, as far as the bytes are there.
pub fn source_connection_id(datagram: &[u8]) -> Option<&[u8]> {
    let rest = datagram.get(5..)?;
    let (&dcid_len, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(dcid_len)..)?;
    let (&scid_len, rest) = rest.split_first()?;
    rest.get(..usize::from(scid_len))
}

/// The datagrams of a body, without copying. Ends at the first malformed one.
pub struct Datagrams {
    body: Bytes,
    with_mac: bool,
}

impl Datagrams {
    /// Of the body that [`Header::decode`] left.
    pub fn new(header: &Header, body: Bytes) -> Self {
        Self { body, with_mac: header.kind == Kind::Up }
    }
}

impl Iterator for Datagrams {
    type Item = Result<(Bytes, Option<[u8; MAC]>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.body.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.body.clear();
        }
        Some(item)
    }
}

impl Datagrams {
    fn take(&mut self) -> Result<(Bytes, Option<[u8; MAC]>), Malformed> {
        if self.body.len() < 2 {
            return Err(Malformed);
        }
        let length = usize::from(self.body.get_u16_le());
        if length == 0 || self.body.len() < length {
            return Err(Malformed);
        }
        let datagram = self.body.split_to(length);
        if !(self.with_mac && is_long(&datagram)) {
            return Ok((datagram, None));
        }
        if self.body.len() < MAC {
            return Err(Malformed);
        }
        let mac = self.body.split_to(MAC);
        Ok((datagram, Some(mac.as_ref().try_into().expect("just split"))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            starts: u64, random: u64, epoch: u32, up: bool,
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..2000), 0..5),
        ) {
            let kind = if up { Kind::Up } else { Kind::Down };
            let header = Header { kind, incarnation: Incarnation { starts, random }, epoch };
            let mut out = BytesMut::new();
            header.encode(&mut out);
            let mac = |d: &[u8]| (up && is_long(d)).then_some([7; MAC]);
            for d in &datagrams {
                put_datagram(&mut out, d, mac(d));
            }
            let mut value = out.freeze();
            prop_assert_eq!(Header::decode(&mut value), Ok(header));
            let got: Vec<_> = Datagrams::new(&header, value).map(|d| d.expect("own bytes")).collect();
            prop_assert_eq!(got.len(), datagrams.len());
            for ((got, got_mac), sent) in got.iter().zip(&datagrams) {
                prop_assert_eq!(got.as_ref(), &sent[..]);
                prop_assert_eq!(*got_mac, mac(sent));
            }
        }

        #[test]
        fn garbage_never_panics_and_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut value = Bytes::from(bytes.clone());
            if let Ok(header) = Header::decode(&mut value) {
                let taken: usize = Datagrams::new(&header, value).flatten().map(|(d, _)| d.len()).sum();
                prop_assert!(taken <= bytes.len());
            }
            let _ = source_connection_id(&bytes);
        }
    }
}
