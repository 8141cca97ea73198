use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record as TheirRecord,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::{collection::vec, prelude::*};

use super::*;

fn record() -> impl Strategy<Value = Record> {
    let bytes = || vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    // The other codec keeps headers by name: each name once.
    let headers = vec(bytes(), 0..4)
        .prop_map(|values| values.into_iter().enumerate().map(|(i, value)| (format!("h{i}"), value)).collect());
    (bytes(), bytes(), headers).prop_map(|(key, value, headers)| Record { key, value, headers })
}

fn encoded(records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    encode(records, &mut out);
    out.freeze()
}

fn with_base(batch: &Bytes, base: i64) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.into()
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(records in vec(record(), 1..20), base in 0..i64::MAX / 2) {
        let batch = with_base(&encoded(&records), base);
        prop_assert_eq!(batch.len(), encoded_size(&records));
        let decoded = decode(batch, base);
        prop_assert_eq!(decoded.next_offset, Some(base + records.len() as i64));
        prop_assert_eq!(decoded.unreadable, None);
        let expected: Vec<_> = records.into_iter().enumerate().map(|(i, r)| (base + i as i64, r)).collect();
        prop_assert_eq!(decoded.records, expected);
    }

    #[test]
    fn another_codec_reads_what_we_write(records in vec(record(), 1..20)) {
        let theirs = RecordBatchDecoder::decode(&mut encoded(&records)).expect("readable").records;
        prop_assert_eq!(theirs.len(), records.len());
        for (i, (theirs, ours)) in theirs.iter().zip(&records).enumerate() {
            prop_assert_eq!(theirs.offset, i as i64);
            prop_assert_eq!(theirs.key.clone().unwrap_or_default(), &ours.key);
            prop_assert_eq!(theirs.value.clone().unwrap_or_default(), &ours.value);
            let headers: Vec<_> = theirs.headers.iter()
                .map(|(k, v)| (k.to_string(), v.clone().unwrap_or_default())).collect();
            prop_assert_eq!(&headers, &ours.headers);
        }
    }

    #[test]
    fn we_read_what_another_codec_writes(records in vec(record(), 1..20), base in 0..1_i64 << 40) {
        let theirs: Vec<_> = records.iter().enumerate().map(|(i, r)| theirs(r, base + i as i64)).collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &theirs, &options).expect("encoded");
        let decoded = decode(bytes.freeze(), base);
        let expected: Vec<_> = records.into_iter().enumerate().map(|(i, r)| (base + i as i64, r)).collect();
        prop_assert_eq!(decoded.records, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode(bytes.into(), 0);
    }

    #[test]
    fn a_batch_with_valid_checksum_and_broken_records_never_panics(
        records in vec(record(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&records).to_vec();
        let at = CHECKED + at.index(bytes.len() - CHECKED);
        bytes[at] = byte;
        let checksum = crc32c::crc32c(&bytes[CHECKED..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        decode(bytes.into(), 0);
    }
}

fn theirs(record: &Record, offset: i64) -> TheirRecord {
    let some = |bytes: &Bytes| (!bytes.is_empty()).then(|| bytes.clone());
    TheirRecord {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: NO_SEQUENCE,
        timestamp: 1,
        key: some(&record.key),
        value: some(&record.value),
        headers: record.headers.iter().map(|(k, v)| (k.clone().into(), Some(v.clone()))).collect(),
    }
}

#[test]
fn records_in_front_of_the_wanted_offset_are_left_out() {
    let batch = with_base(&encoded(&[Record::new("", "a"), Record::new("", "b")]), 10);
    assert_eq!(decode(batch, 11).records, [(11, Record::new("", "b"))]);
}

#[test]
fn a_cut_off_last_batch_is_left_for_the_next_fetch() {
    let whole = with_base(&encoded(&[Record::new("k", "v")]), 5);
    let next = with_base(&encoded(&[Record::new("k", "w")]), 6);
    let bytes = [&whole[..], &next[..next.len() - 1]].concat();
    let decoded = decode(bytes.into(), 5);
    assert_eq!((decoded.records.len(), decoded.next_offset, decoded.unreadable), (1, Some(6), None));
}

#[test]
fn a_batch_that_cannot_be_read_is_stepped_over() {
    let mut compressed = with_base(&encoded(&[Record::new("k", "v")]), 5).to_vec();
    compressed[22] = 4;
    let checksum = crc32c::crc32c(&compressed[CHECKED..]);
    compressed[17..21].copy_from_slice(&checksum.to_be_bytes());
    let good = with_base(&encoded(&[Record::new("k", "w")]), 6);
    let decoded = decode([compressed, good.to_vec()].concat().into(), 5);
    assert_eq!(decoded.records, [(6, Record::new("k", "w"))]);
    assert_eq!(decoded.next_offset, Some(7));
    assert!(decoded.unreadable.is_some_and(|(count, why)| count == 1 && why.contains("compression.type")));
}

#[test]
fn control_batches_count_and_carry_nothing() {
    let mut control = with_base(&encoded(&[Record::new("k", "v")]), 5).to_vec();
    control[22] = CONTROL as u8;
    let checksum = crc32c::crc32c(&control[CHECKED..]);
    control[17..21].copy_from_slice(&checksum.to_be_bytes());
    let decoded = decode(control.into(), 5);
    assert_eq!(decoded, Decoded { records: Vec::new(), next_offset: Some(6), unreadable: None });
}

#[test]
fn numbers_have_the_size_that_was_foretold() {
    for value in [0, -1, 1, 63, -64, 64, 8191, 8192, i64::from(i32::MAX), i64::MAX, i64::MIN] {
        let mut out = BytesMut::new();
        put_varint(&mut out, value);
        assert_eq!(out.len(), varint_size(value), "{value}");
        assert_eq!(Rest { bytes: out.freeze() }.varint(), Some(value));
    }
}
