//! Records of a job's log as a stranger with rights on the topic could write them.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use remoting_kafka::{
    bytelog::{
        Attempt, Body, Format, JobKey, JobSecret, Kind, Meta, Stream,
        record::{Opener, Sealer},
    },
    kafka::Record,
};

/// Fields are cut out of the input by a length in front of each.
fn field(rest: &mut &[u8]) -> Bytes {
    let Some((length, behind)) = rest.split_first() else { return Bytes::new() };
    let (field, behind) = behind.split_at(behind.len().min(usize::from(*length)));
    *rest = behind;
    Bytes::copy_from_slice(field)
}

fuzz_target!(|bytes: &[u8]| {
    let job = JobKey::new("job").expect("fits");
    let attempt = Attempt::new(job.clone(), 1, &JobSecret::new([7; 32]).attempt(&job, 1));
    let mut opener = Opener::new(attempt.clone());

    // As it comes: nobody forges a record.
    let mut rest = bytes;
    let names = ["stream", "offset", "attempt", "time", "meta", "rk"];
    let headers = names.map(|name| (name.to_owned(), field(&mut rest))).into();
    let value = Bytes::copy_from_slice(rest);
    let record = Record { key: job.bytes().clone(), value, headers };
    assert!(opener.open(&record).is_err(), "nobody forges a record");

    // With the key, as an earlier or later version of ourselves: what is read is what was written.
    for kind in [Kind::Data, Kind::End, Kind::Index] {
        let Some(meta) = Meta::decode(bytes, kind) else { continue };
        let (length, stream) = match &meta.body {
            Body::Data(runs) => (runs.iter().map(|run| u64::from(run.length)).sum::<u64>(), Stream::Stdout),
            _ => (0, Stream::Stdout),
        };
        let offset = meta.before.0[0];
        if length > 1 << 16 || offset.checked_add(length).is_none() {
            continue;
        }
        for format in [Format::Sealed, Format::Open] {
            let sealer = Sealer::new(attempt.clone(), format, [5; 16]);
            let sealed = sealer.seal(stream, offset, vec![0; length as usize], &meta);
            let opened = opener.open(&sealed).expect("ours");
            assert_eq!((opened.meta, opened.offset, opened.bytes.len() as u64), (meta.clone(), offset, length));
        }
    }
});
