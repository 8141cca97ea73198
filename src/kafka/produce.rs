//! The produce request as bytes. Version 8 has the records last, so that they are written straight behind the rest:
//! each value is copied once on its way from the caller to the socket.

use bytes::{BufMut, BytesMut};

use super::{Record, batch};

/// The versions that are written here; they differ only in the answer.
pub(super) const VERSIONS: std::ops::RangeInclusive<i16> = 7..=8;

/// All replicas that are in sync have it before it is acknowledged.
const ALL: i16 = -1;

/// Appends the body of a request that appends `records` to one partition as one batch.
pub(super) fn encode(topic: &str, partition: i32, timeout_ms: i32, records: &[Record], out: &mut BytesMut) {
    let size = batch::encoded_size(records);
    out.reserve(size + topic.len() + 32);
    out.put_i16(-1); // no transaction
    out.put_i16(ALL);
    out.put_i32(timeout_ms);
    out.put_i32(1); // one topic
    out.put_i16(topic.len() as i16);
    out.put_slice(topic.as_bytes());
    out.put_i32(1); // one partition
    out.put_i32(partition);
    out.put_i32(size as i32);
    batch::encode(records, out);
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{messages::ProduceRequest, protocol::Decodable};

    use super::*;

    #[test]
    fn another_codec_reads_the_request() {
        let records = [Record::new("k", vec![1; 300]), Record::new("", "v")];
        let mut out = BytesMut::new();
        encode("rk.up.control", 3, 25_000, &records, &mut out);
        for version in VERSIONS {
            let mut bytes = out.clone().freeze();
            let request = ProduceRequest::decode(&mut bytes, version).expect("readable");
            assert!(bytes.is_empty());
            assert_eq!((request.acks, request.timeout_ms, &request.transactional_id), (ALL, 25_000, &None));
            let topic = &request.topic_data[0];
            assert_eq!(topic.name.as_str(), "rk.up.control");
            let partition = &topic.partition_data[0];
            assert_eq!(partition.index, 3);
            let decoded = batch::decode(partition.records.clone().expect("records"), 0);
            assert_eq!(decoded.records.into_iter().map(|(_, r)| r).collect::<Vec<_>>(), records);
        }
    }
}
