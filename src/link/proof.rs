//! The MAC on an agent's handshake packets: it costs the controller a hash to drop what no agent sent, where QUIC
//! would spend half a millisecond, a connection's memory and an answer on it.

use ring::hmac;

use super::{
    Lane, SecretHash,
    caller::Caller,
    packet::{self, Header, MAC},
};

/// The MAC of a long-header datagram, or `None` if it is too short to be one. It covers who sends, in which run, the
/// epoch it knows, the lane, and the sender's connection id.
pub fn prove(hash: &SecretHash, caller: &Caller, header: &Header, lane: Lane, datagram: &[u8]) -> Option<[u8; MAC]> {
    let text = caller.text();
    let scid = packet::source_connection_id(datagram)?;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &hash.0));
    context.update(b"rk1 handshake");
    context.update(&[text.len() as u8]);
    context.update(text.as_bytes());
    context.update(&header.incarnation.to_bytes());
    context.update(&header.epoch.to_le_bytes());
    context.update(&[lane as u8]);
    context.update(scid);
    Some(context.sign().as_ref()[..MAC].try_into().expect("a MAC is longer than we cut"))
}

/// Whether `mac` is what the owner of `hash` would have sent.
pub fn check(
    hash: &SecretHash,
    caller: &Caller,
    header: &Header,
    lane: Lane,
    datagram: &[u8],
    mac: &[u8; MAC],
) -> bool {
    prove(hash, caller, header, lane, datagram)
        .is_some_and(|expected| subtle::ConstantTimeEq::ct_eq(&expected[..], &mac[..]).into())
}
