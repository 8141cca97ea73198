//! Requests as frames, answered without a network.

use super::super::authorizer::Client;
use super::super::config::{Config, ListenerConfig, Users};
use super::super::connection::Auth;
use super::super::log::batch::tests::produced;
use super::super::server::Shared;
use super::{Outcome, RequestError, handle, versions};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use tokio::runtime::Runtime;

mod partitions;
mod rights;
mod users;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Node {
    shared: Arc<Shared>,
    auth: Auth,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Node {
    fn new(listener: ListenerConfig) -> Self {
        Self::configured(Config { listener, ..Config::default() })
    }

    /// Over the directory of the configuration, or one of its own if that is the default.
    fn configured(config: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let own = config.data == Config::default().data;
        let config = if own { Config { data: directory.path().to_owned(), ..config } } else { config };
        let auth = if config.listener.sasl.is_some() { Auth::Expected } else { Auth::Done(Client::anonymous(HOST)) };
        let shared = Shared::open(config, "127.0.0.1:9092".parse().unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { shared: Arc::new(shared), auth, runtime, _directory: directory }
    }

    fn open() -> Self {
        let node = Self::new(ListenerConfig::plaintext());
        node.shared.topics.create("there", 2, Default::default(), false).unwrap();
        node
    }

    fn frame(&mut self, frame: Bytes) -> Result<Outcome, RequestError> {
        self.runtime.block_on(handle(&self.shared, HOST, &mut self.auth, frame))
    }

    /// Sends a request and decodes its answer, which must end where the frame does.
    fn call<R: Request + Encodable>(&mut self, request: &R, version: i16) -> R::Response
    where
        R::Response: Decodable,
    {
        let reply = match self.frame(frame(request, version)).unwrap() {
            Outcome::Reply(reply) | Outcome::Denied { reply, .. } => reply,
            Outcome::Silent => panic!("no answer"),
        };
        let mut reply = reply.freeze();
        assert_eq!(reply.get_i32() as usize, reply.len());
        let key = ApiKey::try_from(R::KEY).unwrap();
        let header = ResponseHeader::decode(&mut reply, key.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, 77);
        let response = R::Response::decode(&mut reply, version).unwrap();
        assert!(reply.is_empty(), "{key:?} version {version}");
        response
    }
}

fn frame<R: Request + Encodable>(request: &R, version: i16) -> Bytes {
    let key = ApiKey::try_from(R::KEY).unwrap();
    let mut frame = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut frame, key.request_header_version(version))
        .unwrap();
    request.encode(&mut frame, version).unwrap();
    frame.freeze()
}

fn all_versions(key: ApiKey) -> impl Iterator<Item = i16> {
    let range = versions::served(key).unwrap();
    range.min..=range.max
}

fn there() -> TopicName {
    TopicName(StrBytes::from_static_str("there"))
}

#[test]
fn produce_and_fetch_work_in_every_version() {
    let mut node = Node::open();
    let id = node.shared.topics.named("there").unwrap().id;
    let mut offset = 0;
    for version in all_versions(ApiKey::Produce) {
        use produce_request::{PartitionProduceData, TopicProduceData};
        let now = super::super::clock::now_ms();
        let good = PartitionProduceData::default().with_records(Some(produced(&[b"x"], now, None).into()));
        let bad = PartitionProduceData::default().with_index(1).with_records(Some(Bytes::from_static(b"nonsense")));
        let absent = good.clone().with_index(2);
        let topic = TopicProduceData::default().with_partition_data(vec![good, bad, absent]);
        let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_name(there()) };
        let request = ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]);
        let response = node.call(&request, version);
        let codes: Vec<_> = response.responses[0].partition_responses.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0, ResponseError::CorruptMessage.code(), ResponseError::UnknownTopicOrPartition.code()]);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, offset);
        offset += 1;
    }
    for version in all_versions(ApiKey::Fetch) {
        use fetch_request::{FetchPartition, FetchTopic};
        let partition = FetchPartition::default().with_fetch_offset(3).with_partition_max_bytes(1 << 20);
        let beyond = partition.clone().with_fetch_offset(99);
        let topic = FetchTopic::default().with_partitions(vec![partition, beyond]);
        let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_topic(there()) };
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(vec![topic]);
        let response = node.call(&request, version);
        let answers = &response.responses[0].partitions;
        assert_eq!((answers[0].error_code, answers[0].high_watermark), (0, offset));
        assert!(answers[0].records.as_ref().unwrap().len() > 100);
        assert_eq!(answers[1].error_code, ResponseError::OffsetOutOfRange.code());
    }
}

#[test]
fn topics_are_described_in_every_version() {
    let mut node = Node::open();
    let id = node.shared.topics.named("there").unwrap().id;
    for version in all_versions(ApiKey::Metadata) {
        use metadata_request::MetadataRequestTopic;
        let name = |name| MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
        let request = MetadataRequest::default().with_allow_auto_topic_creation(true).with_topics(Some(vec![
            name("there"),
            name("absent"),
            name("not a name"),
        ]));
        let response = node.call(&request, version);
        let codes: Vec<_> = response.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [0, 3, 17], "version {version}");
        assert_eq!(response.topics[0].partitions.len(), 2);
        assert_eq!(response.brokers.len(), 1);
        if version >= 10 {
            let request = MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_name(None).with_topic_id(id)]));
            assert_eq!(node.call(&request, version).topics[0].name, Some(there()));
        }
    }
    for version in all_versions(ApiKey::ListOffsets) {
        use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
        let at = |time| ListOffsetsPartition::default().with_timestamp(time);
        let absent = at(-1).with_partition_index(9);
        let wanted = vec![at(-1), at(-2), at(0), at(-3), absent];
        let topic = ListOffsetsTopic::default().with_name(there()).with_partitions(wanted);
        let response = node.call(&ListOffsetsRequest::default().with_topics(vec![topic]), version);
        let found: Vec<_> = response.topics[0].partitions.iter().map(|p| (p.error_code, p.offset)).collect();
        assert_eq!(found, [(0, 0), (0, 0), (0, -1), (0, -1), (3, -1)]);
    }
}

#[test]
fn topics_are_created_and_deleted_in_every_version() {
    use create_topics_request::{CreatableTopic, CreatableTopicConfig};
    let mut node = Node::open();
    for version in all_versions(ApiKey::CreateTopics) {
        let topic = |name: &'static str| {
            CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_num_partitions(3)
                .with_replication_factor(1)
        };
        let config = |key, value| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(key))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let request = CreateTopicsRequest::default().with_topics(vec![
            topic("new").with_configs(vec![config("retention.ms", "900000")]),
            topic("there"),
            topic("compacted").with_configs(vec![config("cleanup.policy", "compact")]),
            topic("replicated").with_replication_factor(3),
            topic("bad name"),
            topic("none").with_num_partitions(0),
        ]);
        let codes: Vec<_> = node.call(&request, version).topics.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [0, 36, 40, 38, 17, 37], "version {version}");
        assert_eq!(node.shared.topics.named("new").unwrap().settings().retention_ms, Some(900_000));
        let name = TopicName(StrBytes::from_static_str("new"));
        for delete in all_versions(ApiKey::DeleteTopics) {
            let id = node.shared.topics.named("new").unwrap().id;
            let request = if delete >= 6 {
                let state = delete_topics_request::DeleteTopicState::default().with_name(None).with_topic_id(id);
                DeleteTopicsRequest::default().with_topics(vec![state])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![name.clone()])
            };
            assert_eq!(node.call(&request, delete).responses[0].error_code, 0);
            assert_ne!(node.call(&request, delete).responses[0].error_code, 0, "it is gone");
            node.shared.topics.create("new", 1, Default::default(), false).unwrap();
        }
        node.shared.topics.delete("new").unwrap();
    }
}

#[test]
fn settings_are_described_and_changed_in_every_version() {
    let mut node = Node::open();
    let text = StrBytes::from_static_str;
    for version in all_versions(ApiKey::IncrementalAlterConfigs) {
        use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
        let set = |name, value| AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
        let resource = |configs| {
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("there"))
                .with_configs(configs)
        };
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            resource(vec![set("retention.ms", "5000"), set("segment.bytes", "2000000")]),
            resource(vec![set("no.such", "1")]),
            resource(vec![set("segment.bytes", "").with_config_operation(1)]),
        ]);
        let codes: Vec<_> = node.call(&request, version).responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 40, 0]);
    }
    for version in all_versions(ApiKey::DescribeConfigs) {
        use describe_configs_request::DescribeConfigsResource;
        let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("there"));
        let one = topic.clone().with_configuration_keys(Some(vec![text("retention.ms")]));
        let node_one = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text("1"));
        let all = vec![topic.with_configuration_keys(None), one, node_one.with_configuration_keys(None)];
        let response = node.call(&DescribeConfigsRequest::default().with_resources(all), version);
        assert!(response.results[0].configs.len() > 20);
        let configs = &response.results[1].configs;
        assert_eq!((configs.len(), configs[0].value.as_deref(), configs[0].config_source), (1, Some("5000"), 1));
        assert!(response.results[2].configs.iter().any(|c| &*c.name == "message.max.bytes"));
    }
    for version in all_versions(ApiKey::AlterConfigs) {
        let resource = alter_configs_request::AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("there"));
        let response = node.call(&AlterConfigsRequest::default().with_resources(vec![resource]), version);
        assert_eq!(response.responses[0].error_code, 0);
        assert!(node.shared.topics.named("there").unwrap().given().is_empty(), "replaced by nothing");
    }
}

#[test]
fn the_rest_is_answered_in_every_version() {
    let mut node = Node::open();
    for version in all_versions(ApiKey::DescribeCluster) {
        let response = node.call(&DescribeClusterRequest::default(), version);
        assert_eq!((response.brokers.len(), response.brokers[0].port), (1, 9092));
    }
    for version in all_versions(ApiKey::FindCoordinator) {
        let request = if version >= 4 {
            FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("group")])
        } else {
            FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("group"))
        };
        let response = node.call(&request, version);
        let code = response.coordinators.first().map_or(response.error_code, |c| c.error_code);
        assert_eq!(code, ResponseError::InvalidRequest.code());
    }
    let mut ids = std::collections::BTreeSet::new();
    for version in all_versions(ApiKey::InitProducerId).chain(all_versions(ApiKey::InitProducerId)) {
        let request = InitProducerIdRequest::default().with_transactional_id(None);
        let response = node.call(&request, version);
        assert!(response.error_code == 0 && ids.insert(response.producer_id.0));
    }
    for version in all_versions(ApiKey::DeleteRecords) {
        use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
        let partition = |offset| DeleteRecordsPartition::default().with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(there());
        let topic = topic.with_partitions(vec![partition(-1), partition(5)]);
        let response = node.call(&DeleteRecordsRequest::default().with_topics(vec![topic]), version);
        let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0, 1]);
    }
    for version in all_versions(ApiKey::ApiVersions) {
        let response = node.call(&ApiVersionsRequest::default(), version);
        assert!(response.error_code == 0 && response.api_keys.iter().any(|k| k.api_key == 18));
    }
}

#[test]
fn a_newer_question_for_versions_is_answered_in_the_oldest() {
    let mut node = Node::open();
    let mut frame = BytesMut::new();
    frame.put_i16(18);
    frame.put_i16(99);
    frame.put_i32(77);
    frame.extend_from_slice(b"whatever a version 99 looks like");
    let Outcome::Reply(reply) = node.frame(frame.freeze()).unwrap() else { panic!("no answer") };
    let mut reply = reply.freeze();
    reply.advance(8);
    let response = ApiVersionsResponse::decode(&mut reply, 0).unwrap();
    assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
    assert!(response.api_keys.iter().any(|k| k.api_key == 18 && k.max_version >= 3));
}

#[test]
fn requests_that_are_not_served_end_the_connection() {
    let mut node = Node::open();
    let joined = node.frame(frame(&JoinGroupRequest::default(), 5));
    assert!(matches!(joined, Err(RequestError::NotServed { key: 11, version: 5 })));
    let mut future = BytesMut::from(&frame(&MetadataRequest::default(), 5)[..]);
    future[3] = 99;
    assert!(matches!(node.frame(future.freeze()), Err(RequestError::NotServed { key: 3, version: 99 })));
}

#[test]
fn nothing_is_served_before_authentication() {
    let mut node = Node::new(ListenerConfig::plaintext().with_users(Users::default().with("alice", "wonder")));
    assert!(matches!(
        node.frame(frame(&MetadataRequest::default(), 5)),
        Err(RequestError::NotAuthenticated(ApiKey::Metadata))
    ));
    let early = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0alice\0wonder"));
    assert_eq!(node.call(&early, 2).error_code, ResponseError::IllegalSaslState.code());
    let kerberos = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("GSSAPI"));
    let refused = node.call(&kerberos, 1);
    assert_eq!(refused.error_code, ResponseError::UnsupportedSaslMechanism.code());
    assert_eq!(refused.mechanisms.len(), 3);
    let plain = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    assert_eq!(node.call(&plain, 1).error_code, 0);
    for version in all_versions(ApiKey::SaslAuthenticate) {
        node.auth = Auth::Expected;
        node.call(&plain, 1);
        let wrong = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"\0alice\0x"));
        let denied = node.call(&wrong, version);
        assert_eq!(denied.error_code, ResponseError::SaslAuthenticationFailed.code());
        assert!(denied.error_message.unwrap().contains("invalid user name or password"));
        assert!(!matches!(node.auth, Auth::Done(_)));
    }
    assert_eq!(node.call(&early, 2).error_code, 0);
    assert!(node.call(&MetadataRequest::default(), 5).topics.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_never_panics(
        key in 0i16..70,
        version in -1i16..20,
        flexible in any::<bool>(),
        body in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()], 0..120),
    ) {
        thread_local! {
            static NODE: std::cell::RefCell<Node> = std::cell::RefCell::new(Node::open());
            // Lists count, and who asks may change them.
            static GUARDED: std::cell::RefCell<Node> = std::cell::RefCell::new(Node::configured(Config {
                super_users: ["ANONYMOUS".to_owned()].into(),
                ..Config::default()
            }));
        }
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_i16(-1);
        if flexible {
            frame.put_u8(0);
        }
        frame.extend_from_slice(&body);
        let frame = frame.freeze();
        let ask = |node: &mut Node| {
            // A parked fetch would wait: what matters is that nothing panics before.
            let Node { shared, auth, runtime, .. } = node;
            let asked = handle(shared, HOST, auth, frame.clone());
            let _ = runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_millis(1), asked).await });
        };
        NODE.with_borrow_mut(ask);
        GUARDED.with_borrow_mut(ask);
    }
}
