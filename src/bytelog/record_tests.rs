use proptest::prelude::*;

use super::*;
use crate::bytelog::{
    JobSecret,
    meta::{Point, Positions, Run, tests::bodies},
};

fn job() -> JobKey {
    JobKey::new("job-1").expect("fits")
}

fn attempt(secret: u8, number: u32) -> Attempt {
    Attempt::new(job(), number, &JobSecret::new([secret; 32]).attempt(&job(), number))
}

fn sealer(format: Format) -> Sealer {
    Sealer::new(attempt(7, 2), format, [5; 16])
}

fn meta(body: Body) -> Meta {
    let (before, acked) = (Positions([1000, 42, 0]), Positions([900, 42, 0]));
    Meta { topic: 9, batch: Some(77), index: None, before, acked, body }
}

fn example() -> Opened {
    let runs = vec![Run { time: 1_732_531_200_123, length: 6 }, Run { time: 1_732_531_200_120, length: 7 }];
    let bytes = Bytes::from_static(b"hello\nworld!\n");
    Opened { stream: Stream::Stderr, offset: 42, bytes, meta: meta(Body::Data(runs)) }
}

fn seal(sealer: &Sealer, record: &Opened) -> kafka::Record {
    sealer.seal(record.stream, record.offset, record.bytes.to_vec(), &record.meta)
}

fn open(record: &kafka::Record) -> Result<Opened, Unopened> {
    Opener::new(attempt(7, 2)).open(record)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(record: &kafka::Record) -> String {
    let headers = record.headers.iter().map(|(name, value)| format!("{name}:{}", value.escape_ascii()));
    headers.collect::<Vec<_>>().join(",")
}

/// Written by version 1 and never changed: what lies in a topic stays readable.
const SEALED_HEADERS: &str = "stream:stderr,offset:42,attempt:2,rk:AQAABQUFBQUFBQUFBQUFBQUFBQAAAAAAAAAAAAAADQ";
const SEALED_VALUE: &str = concat!(
    "b411eb2867ebf231945391c424f8bbb712737b805573500f655df26ca6d5526e5b16ab4e61e5840aea2404950ece058236afb1b3a4f4f74c6c0653ea",
    "358c1c53",
);
const OPEN_HEADERS: &str = concat!(
    "stream:stderr,offset:42,attempt:2,time:1732531200123,meta:AAAAAAAAAAAAAAAAAAAACU4A6AcqAGQAAAL2gcGu7GQGBQc,",
    "rk:AQEABQUFBQUFBQUFBQUFBQUFBQAAAAAAAAAAAAAADRJuVqAuvS7UP2P1sI01ZwE6odi9b7TmTByYCX0NT6VK",
);

#[test]
fn the_bytes_of_version_1_stay_as_they_are() {
    let sealed = seal(&sealer(Format::Sealed), &example());
    assert_eq!((text(&sealed).as_str(), hex(&sealed.value).as_str()), (SEALED_HEADERS, SEALED_VALUE));
    assert_eq!(open(&sealed), Ok(example()));
    let plain = seal(&sealer(Format::Open), &example());
    assert_eq!((text(&plain).as_str(), &plain.value), (OPEN_HEADERS, &example().bytes));
    assert_eq!(open(&plain), Ok(example()));
}

#[test]
fn a_record_of_another_job_or_attempt_is_told_from_a_forged_one() {
    for format in [Format::Sealed, Format::Open] {
        let record = seal(&sealer(format), &example());
        assert_eq!(Opener::new(attempt(7, 3)).open(&record), Err(Unopened::Other));
        assert_eq!(Opener::new(attempt(8, 2)).open(&record), Err(Unopened::Forged));
        let other = kafka::Record { key: "job-2".into(), ..record };
        assert_eq!(open(&other), Err(Unopened::Other));
        let renamed = JobKey::new("job-2").expect("fits");
        let key = JobSecret::new([7; 32]).attempt(&job(), 2);
        assert_eq!(Opener::new(Attempt::new(renamed, 2, &key)).open(&other), Err(Unopened::Forged));
    }
}

#[test]
fn no_changed_byte_opens() {
    for format in [Format::Sealed, Format::Open] {
        let record = seal(&sealer(format), &example());
        for at in 0..record.value.len() {
            let mut value = record.value.to_vec();
            value[at] ^= 1;
            assert_eq!(open(&kafka::Record { value: value.into(), ..record.clone() }), Err(Unopened::Forged));
            let value = record.value.slice(..at);
            assert_eq!(open(&kafka::Record { value, ..record.clone() }), Err(Unopened::Forged));
        }
        for header in 0..record.headers.len() {
            for at in 0..record.headers[header].1.len() {
                let mut changed = record.clone();
                let mut value = changed.headers[header].1.to_vec();
                value[at] ^= 1;
                changed.headers[header].1 = value.into();
                assert!(open(&changed).is_err(), "{format:?}, {:?}", changed.headers[header]);
            }
            let mut without = record.clone();
            without.headers.remove(header);
            assert_eq!(open(&without), Err(Unopened::Forged));
        }
    }
}

/// A record of version 2 of the attempt's.
pub(in crate::bytelog) fn newer(attempt: Attempt) -> kafka::Record {
    let sealer = Sealer::new(attempt, Format::Sealed, [5; 16]);
    let mut value = b"what the future brings".to_vec();
    let envelope =
        Envelope { version: 2, format: Format::Sealed, kind: Kind::Data, salt: [5; 16], counter: 3, length: 4 };
    let covered = covered(&sealer.attempt, Stream::Stderr, 42, &envelope);
    let tag = sealer.key.seal.seal_in_place_separate_tag(nonce(3), Aad::from(&covered), &mut value).expect("sealed");
    value.extend_from_slice(tag.as_ref());
    let mut record = seal(&sealer, &example());
    record.value = value.into();
    record.headers[3].1 = BASE64.encode(envelope.encode()).into();
    record
}

#[test]
fn a_newer_version_is_told_from_foreign_bytes() {
    assert_eq!(open(&newer(attempt(7, 2))), Err(Unopened::Newer(2)));
}

#[test]
fn no_nonce_comes_twice_under_a_salt() {
    let sealer = sealer(Format::Sealed);
    let (one, two) = (seal(&sealer, &example()), seal(&sealer, &example()));
    assert_ne!(one.value, two.value);
    let mut opener = Opener::new(attempt(7, 2));
    assert_eq!((opener.open(&one), opener.open(&two)), (Ok(example()), Ok(example())));
}

#[test]
fn an_index_and_an_end_have_no_bytes() {
    let points = vec![
        Point { offset: 70, before: Positions([0, 0, 0]), time: 5 },
        Point { offset: 64, before: Positions([10, 0, 3]), time: 4 },
    ];
    for body in [Body::Index(points), Body::End([3; 32])] {
        for format in [Format::Sealed, Format::Open] {
            let record = Opened { bytes: Bytes::new(), stream: Stream::Stderr, offset: 42, meta: meta(body.clone()) };
            let written = seal(&sealer(format), &record);
            assert!(format == Format::Sealed || written.value.is_empty());
            assert_eq!(open(&written), Ok(record));
        }
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        (_, body) in bodies(), before in prop::array::uniform3(0..u64::MAX / 2), stream in 0..3_usize,
        salt in any::<[u8; 16]>(), format in any::<bool>(),
    ) {
        let stream = Stream::ALL[stream];
        let length = match &body {
            Body::Data(runs) => runs.iter().map(|run| run.length as usize).sum(),
            _ => 0,
        };
        let bytes: Bytes = (0..length).map(|at| at as u8).collect();
        let before = Positions(before);
        let meta = Meta { topic: 1, batch: None, index: Some(3), before, acked: before, body };
        let record = Opened { stream, offset: before[stream], bytes, meta };
        let format = if format { Format::Open } else { Format::Sealed };
        let sealed = seal(&Sealer::new(attempt(7, 2), format, salt), &record);
        prop_assert_eq!(open(&sealed), Ok(record));
    }

    #[test]
    fn garbage_is_refused_without_a_panic(
        value in prop::collection::vec(any::<u8>(), 0..200), rk in prop::collection::vec(any::<u8>(), 0..80),
        format in 0..3_u8, offset in any::<u64>(), meta in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut rk = rk;
        if let Some(byte) = rk.get_mut(1) {
            *byte = format;
        }
        let headers = [
            ("stream", Bytes::from_static(b"stdout")), ("attempt", Bytes::from_static(b"2")),
            ("offset", offset.to_string().into()), ("rk", BASE64.encode(rk).into()),
            ("meta", BASE64.encode(meta).into()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).into();
        let record = kafka::Record { key: job().bytes().clone(), value: value.into(), headers };
        prop_assert_eq!(open(&record), Err(Unopened::Forged));
    }
}
