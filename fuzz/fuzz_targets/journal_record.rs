//! Journal records as a stranger, and as an earlier or later version of ourselves, could write them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use remoting_kafka::journal::{
    record::{Codec, StateKey, decode_body},
    rule::{Rule, Verdict},
    snapshot::{End, decode_begin, decode_part},
};

fuzz_target!(|bytes: &[u8]| {
    let codec = Codec::new(&StateKey::new([7; 32]), "rk.journal");
    assert!(codec.open(bytes).is_err(), "nobody forges a seal");
    let _ = (decode_begin(bytes), End::decode(bytes));
    if let Some(payloads) = decode_part(Bytes::copy_from_slice(bytes)) {
        assert_eq!(payloads.iter().map(|payload| 4 + payload.len()).sum::<usize>(), bytes.len());
    }
    if let Ok(record) = decode_body(1, Bytes::copy_from_slice(bytes)) {
        let sealed = codec.seal(&record, [0; 12]);
        // Where it stands first it is taken as it is, or not at all; a second time it never counts.
        if let Some(mut rule) = Rule::before(&record) {
            assert_eq!(rule.judge(&record, &sealed), Verdict::Applied);
            assert!(matches!(rule.judge(&record, &sealed), Verdict::Ignored(_)));
        }
        assert_eq!(codec.open(&sealed), Ok(record));
    }
});
