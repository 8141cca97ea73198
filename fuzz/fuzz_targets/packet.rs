//! Packet records as a stranger with rights on the topic could write them: decoding ends, panics never, and what is
//! decoded and encoded again gives the same.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use remoting_kafka::link::packet::{Datagrams, Header, put_datagram, source_connection_id};

fuzz_target!(|bytes: &[u8]| {
    source_connection_id(bytes);
    let mut value = Bytes::copy_from_slice(bytes);
    let Ok(header) = Header::decode(&mut value) else { return };
    let mut again = BytesMut::new();
    header.encode(&mut again);
    let mut whole = true;
    for datagram in Datagrams::new(&header, value) {
        match datagram {
            Ok((datagram, mac)) => put_datagram(&mut again, &datagram, mac),
            Err(_) => whole = false,
        }
    }
    assert!(bytes.starts_with(&again));
    assert!(!whole || again.len() == bytes.len());
});
