//! A look over a request's bytes before the codec decodes them.
//!
//! The codec reserves memory for as many elements as an array claims to have, and a claim costs four bytes: one small
//! frame could ask for hundreds of gigabytes. So each request that holds arrays has its layout written down here, and
//! a frame whose arrays can't lie in the bytes that came is refused before anything is reserved. A test walks what
//! the codec encodes in every version, so the two can't drift apart.

use kafka_protocol::messages::ApiKey;

/// The request's bytes do not have the layout of its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request's bytes do not have the layout of its version")]
pub(crate) struct Misshapen;

#[derive(Debug)]
enum Shape {
    Fixed(usize),
    Text,
    Bytes,
    List(&'static Shape),
    Structs(&'static [Field]),
}

/// A field and the versions that have it.
#[derive(Debug)]
struct Field(i16, i16, Shape);

const ALL: i16 = i16::MAX;
const BYTE: Shape = Fixed(1);
const SHORT: Shape = Fixed(2);
const INT: Shape = Fixed(4);
const LONG: Shape = Fixed(8);
const UUID: Shape = Fixed(16);
use Shape::{Bytes, Fixed, List, Structs, Text};

static PRODUCE: &[Field] = &[
    Field(0, ALL, Text),
    Field(0, ALL, SHORT),
    Field(0, ALL, INT),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, UUID),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, Bytes)])),
        ]),
    ),
];

static FETCH: &[Field] = &[
    Field(0, 14, INT),
    Field(0, ALL, INT),
    Field(0, ALL, INT),
    Field(0, ALL, INT),
    Field(0, ALL, BYTE),
    Field(7, ALL, INT),
    Field(7, ALL, INT),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, 12, Text),
            Field(13, ALL, UUID),
            Field(
                0,
                ALL,
                Structs(&[
                    Field(0, ALL, INT),
                    Field(9, ALL, INT),
                    Field(0, ALL, LONG),
                    Field(12, ALL, INT),
                    Field(5, ALL, LONG),
                    Field(0, ALL, INT),
                ]),
            ),
        ]),
    ),
    Field(7, ALL, Structs(&[Field(0, 12, Text), Field(13, ALL, UUID), Field(0, ALL, List(&INT))])),
    Field(11, ALL, Text),
];

static LIST_OFFSETS: &[Field] = &[
    Field(0, ALL, INT),
    Field(2, ALL, BYTE),
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(4, ALL, INT), Field(0, ALL, LONG)])),
        ]),
    ),
    Field(10, ALL, INT),
];

static METADATA: &[Field] = &[
    Field(0, ALL, Structs(&[Field(10, ALL, UUID), Field(0, ALL, Text)])),
    Field(4, ALL, BYTE),
    Field(8, 10, BYTE),
    Field(8, ALL, BYTE),
];

static CREATE_TOPICS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, Text),
            Field(0, ALL, INT),
            Field(0, ALL, SHORT),
            Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, List(&INT))])),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, INT),
    Field(0, ALL, BYTE),
];

static DELETE_TOPICS: &[Field] = &[
    Field(6, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, UUID)])),
    Field(0, 5, List(&Text)),
    Field(0, ALL, INT),
];

static DELETE_RECORDS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Structs(&[Field(0, ALL, INT), Field(0, ALL, LONG)]))])),
    Field(0, ALL, INT),
];

static DESCRIBE_CONFIGS: &[Field] = &[
    Field(0, ALL, Structs(&[Field(0, ALL, BYTE), Field(0, ALL, Text), Field(0, ALL, List(&Text))])),
    Field(0, ALL, BYTE),
    Field(3, ALL, BYTE),
];

static INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, BYTE),
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, BYTE), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, BYTE),
];

static ALTER_CONFIGS: &[Field] = &[
    Field(
        0,
        ALL,
        Structs(&[
            Field(0, ALL, BYTE),
            Field(0, ALL, Text),
            Field(0, ALL, Structs(&[Field(0, ALL, Text), Field(0, ALL, Text)])),
        ]),
    ),
    Field(0, ALL, BYTE),
];

static FIND_COORDINATOR: &[Field] = &[Field(0, 3, Text), Field(1, ALL, BYTE), Field(4, ALL, List(&Text))];

/// The layout of a request that holds arrays, and the first version with compact lengths and tagged fields.
fn layout(key: ApiKey) -> Option<(&'static [Field], i16)> {
    Some(match key {
        ApiKey::Produce => (PRODUCE, 9),
        ApiKey::Fetch => (FETCH, 12),
        ApiKey::ListOffsets => (LIST_OFFSETS, 6),
        ApiKey::Metadata => (METADATA, 9),
        ApiKey::CreateTopics => (CREATE_TOPICS, 5),
        ApiKey::DeleteTopics => (DELETE_TOPICS, 4),
        ApiKey::DeleteRecords => (DELETE_RECORDS, 2),
        ApiKey::DescribeConfigs => (DESCRIBE_CONFIGS, 4),
        ApiKey::IncrementalAlterConfigs => (INCREMENTAL_ALTER_CONFIGS, 1),
        ApiKey::AlterConfigs => (ALTER_CONFIGS, 2),
        ApiKey::FindCoordinator => (FIND_COORDINATOR, 3),
        _ => return None,
    })
}

/// Checks the body of a request; one without arrays always passes.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<(), Misshapen> {
    let Some((fields, compact_from)) = layout(key) else { return Ok(()) };
    let mut walker = Walker { rest: body, version, compact: version >= compact_from };
    walker.fields(fields)
}

struct Walker<'a> {
    rest: &'a [u8],
    version: i16,
    compact: bool,
}

impl Walker<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), Misshapen> {
        for Field(from, to, shape) in fields {
            if (*from..=*to).contains(&self.version) {
                self.shape(shape)?;
            }
        }
        if self.compact {
            for _ in 0..self.varint()? {
                self.varint()?;
                let size = self.varint()?;
                self.skip(size as usize)?;
            }
        }
        Ok(())
    }

    fn shape(&mut self, shape: &'static Shape) -> Result<(), Misshapen> {
        match shape {
            Fixed(size) => self.skip(*size),
            Text => {
                let length = self.length(2)?;
                self.skip(length)
            }
            Bytes => {
                let length = self.length(4)?;
                self.skip(length)
            }
            List(element) => {
                for _ in 0..self.count(self.least(element))? {
                    self.shape(element)?;
                }
                Ok(())
            }
            Structs(fields) => {
                for _ in 0..self.count(self.least_of(fields))? {
                    self.fields(fields)?;
                }
                Ok(())
            }
        }
    }

    /// How many elements follow, given the least number of bytes that each one takes.
    fn count(&mut self, least: usize) -> Result<usize, Misshapen> {
        let count = self.length(4)?;
        if count > self.rest.len() / least.max(1) { Err(Misshapen) } else { Ok(count) }
    }

    /// A length, of `classic` bytes before the compact versions; null counts as nothing.
    fn length(&mut self, classic: usize) -> Result<usize, Misshapen> {
        if self.compact {
            return Ok(self.varint()?.saturating_sub(1) as usize);
        }
        let (length, rest) = self.rest.split_at_checked(classic).ok_or(Misshapen)?;
        self.rest = rest;
        let length = match length {
            [a, b] => i32::from(i16::from_be_bytes([*a, *b])),
            [a, b, c, d] => i32::from_be_bytes([*a, *b, *c, *d]),
            _ => return Err(Misshapen),
        };
        if length == -1 { Ok(0) } else { usize::try_from(length).map_err(|_| Misshapen) }
    }

    fn varint(&mut self) -> Result<u32, Misshapen> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Misshapen)?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Misshapen)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Misshapen> {
        self.rest = self.rest.get(bytes..).ok_or(Misshapen)?;
        Ok(())
    }

    /// The least number of bytes of one element.
    fn least(&self, shape: &Shape) -> usize {
        match shape {
            Fixed(size) => *size,
            Text if !self.compact => 2,
            _ if self.compact => 1,
            _ => 4,
        }
    }

    fn least_of(&self, fields: &[Field]) -> usize {
        let there = fields.iter().filter(|Field(from, to, _)| (*from..=*to).contains(&self.version));
        there.map(|Field(_, _, shape)| self.least(shape)).sum::<usize>() + usize::from(self.compact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;

    fn name() -> TopicName {
        TopicName(StrBytes::from_static_str("topic"))
    }

    /// Encodes a request that has two of everything, in every version that can carry it, and walks it to its end.
    fn walk<R: Encodable>(key: ApiKey, request: impl Fn(i16) -> R) {
        let range = key.valid_versions();
        for version in range.min..=range.max {
            let mut bytes = BytesMut::new();
            request(version).encode(&mut bytes, version).unwrap();
            let (fields, compact_from) = layout(key).unwrap();
            let mut walker = Walker { rest: &bytes, version, compact: version >= compact_from };
            assert_eq!(walker.fields(fields), Ok(()), "{key:?} version {version}");
            assert!(walker.rest.is_empty(), "{key:?} version {version}: {} bytes left", walker.rest.len());
            for cut in 0..bytes.len() {
                assert!(check(key, version, &bytes[..cut]).is_err(), "{key:?} version {version} cut at {cut}");
            }
        }
    }

    #[test]
    fn produce_is_walked_to_its_end() {
        walk(ApiKey::Produce, |version| {
            use produce_request::{PartitionProduceData, TopicProduceData};
            let partition = PartitionProduceData::default().with_records(Some(vec![7; 300].into()));
            let topic = TopicProduceData::default().with_partition_data(vec![partition.clone(), partition]);
            let topic = if version >= 13 { topic.with_topic_id(uuid::Uuid::new_v4()) } else { topic.with_name(name()) };
            ProduceRequest::default().with_topic_data(vec![topic.clone(), topic])
        });
    }

    #[test]
    fn fetch_is_walked_to_its_end() {
        walk(ApiKey::Fetch, |version| {
            use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
            let topic = FetchTopic::default().with_partitions(vec![FetchPartition::default(); 2]);
            let topic = if version >= 13 { topic } else { topic.with_topic(name()) };
            let request = FetchRequest::default().with_topics(vec![topic.clone(), topic]);
            if version < 7 {
                return request;
            }
            let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
            let forgotten = if version >= 13 { forgotten } else { forgotten.with_topic(name()) };
            request.with_forgotten_topics_data(vec![forgotten])
        });
    }

    #[test]
    fn offsets_and_metadata_are_walked_to_their_ends() {
        walk(ApiKey::ListOffsets, |_| {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let topic = ListOffsetsTopic::default().with_name(name());
            let topic = topic.with_partitions(vec![ListOffsetsPartition::default(); 2]);
            ListOffsetsRequest::default().with_topics(vec![topic; 2])
        });
        walk(ApiKey::Metadata, |_| {
            let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
            MetadataRequest::default().with_topics(Some(vec![topic; 2])).with_allow_auto_topic_creation(true)
        });
        walk(ApiKey::FindCoordinator, |version| {
            let key = StrBytes::from_static_str("group");
            if version >= 4 {
                FindCoordinatorRequest::default().with_coordinator_keys(vec![key; 2])
            } else {
                FindCoordinatorRequest::default().with_key(key)
            }
        });
    }

    #[test]
    fn changes_of_topics_are_walked_to_their_ends() {
        walk(ApiKey::CreateTopics, |_| {
            use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
            let topic = CreatableTopic::default()
                .with_name(name())
                .with_assignments(vec![CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]); 2])
                .with_configs(vec![CreatableTopicConfig::default().with_value(None); 2]);
            CreateTopicsRequest::default().with_topics(vec![topic; 2])
        });
        walk(ApiKey::DeleteTopics, |version| {
            if version >= 6 {
                let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name()));
                DeleteTopicsRequest::default().with_topics(vec![topic; 2])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![name(); 2])
            }
        });
        walk(ApiKey::DeleteRecords, |_| {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let topic = DeleteRecordsTopic::default().with_name(name());
            let topic = topic.with_partitions(vec![DeleteRecordsPartition::default(); 2]);
            DeleteRecordsRequest::default().with_topics(vec![topic; 2])
        });
    }

    #[test]
    fn settings_are_walked_to_their_ends() {
        let text = || StrBytes::from_static_str("text");
        walk(ApiKey::DescribeConfigs, |_| {
            let resource = describe_configs_request::DescribeConfigsResource::default().with_resource_name(text());
            let keyed = resource.clone().with_configuration_keys(Some(vec![text(); 2]));
            DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None), keyed])
        });
        walk(ApiKey::IncrementalAlterConfigs, |_| {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text()).with_value(Some(text()));
            let resource = AlterConfigsResource::default().with_configs(vec![config; 2]);
            IncrementalAlterConfigsRequest::default().with_resources(vec![resource; 2])
        });
        walk(ApiKey::AlterConfigs, |_| {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text()).with_value(Some(text()));
            let resource = AlterConfigsResource::default().with_configs(vec![config; 2]);
            AlterConfigsRequest::default().with_resources(vec![resource; 2])
        });
    }

    #[test]
    fn a_count_that_the_bytes_cannot_hold_is_refused() {
        let mut body = Vec::new();
        body.extend_from_slice(&i32::MAX.to_be_bytes());
        body.extend_from_slice(&[0; 40]);
        assert_eq!(check(ApiKey::Metadata, 1, &body), Err(Misshapen));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(key in 0i16..60, version in 0i16..20, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(key) = ApiKey::try_from(key) {
                let _ = check(key, version, &body);
            }
        }
    }
}
