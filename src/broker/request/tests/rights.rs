//! What a client is answered that may not do what it asks for, and the requests for access control lists.

use super::*;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;

const ALLOW: i8 = 3;
const TOPIC: i8 = 2;
const CLUSTER: i8 = 4;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
/// Kafka's numbers for operations.
const READ: i8 = 3;
const WRITE: i8 = 4;
const CREATE: i8 = 5;
const DELETE: i8 = 6;
const ALTER: i8 = 7;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;
const ALTER_CONFIGS: i8 = 11;
const IDEMPOTENT_WRITE: i8 = 12;

const NO_TOPIC: i16 = 29;
const NO_CLUSTER: i16 = 31;

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(string(name))
}

fn creation(resource: i8, pattern: i8, name: &str, operation: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(resource)
        .with_resource_pattern_type(pattern)
        .with_resource_name(string(name))
        .with_principal(string("User:alice"))
        .with_host(string("*"))
        .with_operation(operation)
        .with_permission_type(ALLOW)
}

impl Node {
    /// With lists that count, the topics `there` and `other`, and root as the asker.
    fn guarded() -> Self {
        let mut node = Self::configured(Config { super_users: ["root".to_owned()].into(), ..Config::default() });
        for name in ["there", "other"] {
            node.shared.topics.create(name, 2, Default::default(), false).unwrap();
        }
        node.become_user("root");
        node
    }

    fn become_user(&mut self, name: &str) {
        self.auth = Auth::Done(Client::user(name, HOST));
    }

    /// Allows alice this, and goes on as alice.
    fn allow(&mut self, resource: i8, name: &str, operation: i8) {
        self.become_user("root");
        let request = CreateAclsRequest::default().with_creations(vec![creation(resource, LITERAL, name, operation)]);
        assert_eq!(self.call(&request, 3).results[0].error_code, 0);
        self.become_user("alice");
    }
}

/// Asks without a right, expects `denied`; then with the right, and expects that it is allowed.
fn needs<R: Request + Encodable>(
    (resource, name, operation): (i8, &str, i8),
    denied: i16,
    request: &R,
    code: impl Fn(&R::Response, i16) -> i16,
) where
    R::Response: Decodable,
{
    for version in all_versions(ApiKey::try_from(R::KEY).unwrap()) {
        let mut node = Node::guarded();
        node.become_user("alice");
        // Produce and fetch name topics by their ids from version 13 on; that has a test of its own.
        if version >= 13 {
            continue;
        }
        assert_eq!(code(&node.call(request, version), version), denied, "{} version {version}, without", R::KEY);
        node.allow(TOPIC, "other", operation);
        // Neither implies anything that is asked for here.
        node.allow(resource, name, if operation == CREATE { DELETE } else { CREATE });
        assert_eq!(code(&node.call(request, version), version), denied, "{} version {version}, other", R::KEY);
        node.allow(resource, name, operation);
        let allowed = code(&node.call(request, version), version);
        assert_eq!(allowed, 0, "{} version {version}, with", R::KEY);
    }
}

fn records() -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let now = super::super::super::clock::now_ms();
    let data = PartitionProduceData::default().with_records(Some(produced(&[b"x"], now, None).into()));
    let data = TopicProduceData::default().with_name(there()).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(1).with_topic_data(vec![data])
}

fn fetch() -> FetchRequest {
    use fetch_request::{FetchPartition, FetchTopic};
    let partition = FetchPartition::default().with_partition_max_bytes(1000);
    let wanted = FetchTopic::default().with_topic(there()).with_partitions(vec![partition]);
    FetchRequest::default().with_max_bytes(1000).with_topics(vec![wanted])
}

#[test]
fn records_need_write_read_describe_and_delete() {
    let there_with = |operation| (TOPIC, "there", operation);
    needs(there_with(WRITE), NO_TOPIC, &records(), |r, _| r.responses[0].partition_responses[0].error_code);
    needs(there_with(READ), NO_TOPIC, &fetch(), |r, _| r.responses[0].partitions[0].error_code);
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    let wanted = ListOffsetsTopic::default().with_name(there()).with_partitions(vec![ListOffsetsPartition::default()]);
    let request = ListOffsetsRequest::default().with_topics(vec![wanted]);
    needs(there_with(DESCRIBE), NO_TOPIC, &request, |r, _| r.topics[0].partitions[0].error_code);
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    let wanted = DeleteRecordsTopic::default().with_name(there());
    let wanted = wanted.with_partitions(vec![DeleteRecordsPartition::default().with_offset(-1)]);
    let request = DeleteRecordsRequest::default().with_topics(vec![wanted]);
    needs(there_with(DELETE), NO_TOPIC, &request, |r, _| r.topics[0].partitions[0].error_code);
}

#[test]
fn topics_named_by_their_ids_are_guarded_too() {
    let mut node = Node::guarded();
    let id = node.shared.topics.named("there").unwrap().id;
    let mut produce = records();
    produce.topic_data[0].topic_id = id;
    produce.topic_data[0].name = TopicName::default();
    let mut read = fetch();
    read.topics[0].topic_id = id;
    read.topics[0].topic = TopicName::default();
    let describe = metadata_request::MetadataRequestTopic::default().with_name(None).with_topic_id(id);
    let describe = MetadataRequest::default().with_topics(Some(vec![describe]));
    let codes = |node: &mut Node| {
        let fetched = node.call(&read, 13).responses[0].partitions[0].error_code;
        let described = node.call(&describe, 12).topics.remove(0);
        assert_eq!(described.name.is_some(), described.error_code == 0, "the name is not disclosed");
        let produced = node.call(&produce, 13).responses[0].partition_responses[0].error_code;
        (produced, fetched, described.error_code)
    };
    node.become_user("alice");
    assert_eq!(codes(&mut node), (NO_TOPIC, NO_TOPIC, NO_TOPIC));
    node.allow(TOPIC, "there", READ);
    assert_eq!(codes(&mut node), (NO_TOPIC, 0, 0));
    node.allow(TOPIC, "there", WRITE);
    assert_eq!(codes(&mut node), (0, 0, 0));
}

#[test]
fn a_topic_that_is_not_there_looks_like_one_that_is() {
    let mut node = Node::guarded();
    node.become_user("alice");
    let name = |name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![name("there"), name("absent"), name("other")]));
    let codes = |node: &mut Node| node.call(&request, 12).topics.iter().map(|t| t.error_code).collect::<Vec<_>>();
    assert_eq!(codes(&mut node), [NO_TOPIC; 3]);
    node.allow(TOPIC, "there", WRITE);
    node.allow(TOPIC, "absent", DESCRIBE);
    assert_eq!(codes(&mut node), [0, 3, NO_TOPIC]);
    for version in all_versions(ApiKey::Metadata) {
        let all = MetadataRequest::default().with_topics(if version == 0 { Some(vec![]) } else { None });
        let seen: Vec<_> = node.call(&all, version).topics.into_iter().map(|t| t.name.unwrap()).collect();
        assert_eq!(seen, [there()], "version {version}: all topics are those that may be seen");
    }
    let operations = request.with_include_topic_authorized_operations(true);
    let answer = node.call(&operations, 12);
    assert_eq!(answer.topics[0].topic_authorized_operations, 1 << WRITE | 1 << DESCRIBE);
    assert_eq!(answer.topics[2].topic_authorized_operations, i32::MIN, "not told");
}

#[test]
fn changes_of_topics_need_create_delete_and_alter() {
    let new = create_topics_request::CreatableTopic::default().with_name(topic("new")).with_num_partitions(1);
    let create = CreateTopicsRequest::default().with_topics(vec![new.with_replication_factor(1)]);
    let code = |r: &CreateTopicsResponse, version: i16| {
        let hidden = if version >= 5 && r.topics[0].error_code == 0 { NO_TOPIC } else { 0 };
        assert_eq!(r.topics[0].topic_config_error_code, hidden, "settings need a right of their own");
        r.topics[0].error_code
    };
    needs((TOPIC, "new", CREATE), NO_TOPIC, &create, code);
    needs((CLUSTER, "kafka-cluster", CREATE), NO_TOPIC, &create, |r, _| r.topics[0].error_code);
    let wanted = create_partitions_request::CreatePartitionsTopic::default().with_name(there()).with_count(3);
    let grow = CreatePartitionsRequest::default().with_topics(vec![wanted.with_assignments(None)]);
    needs((TOPIC, "there", ALTER), NO_TOPIC, &grow, |r, _| r.results[0].error_code);
    let mut node = Node::guarded();
    let id = node.shared.topics.named("there").unwrap().id;
    let state = delete_topics_request::DeleteTopicState::default;
    let by_id = DeleteTopicsRequest::default().with_topics(vec![state().with_name(None).with_topic_id(id)]);
    let names = ["there", "absent"].map(|name| state().with_name(Some(topic(name))));
    let by_name = DeleteTopicsRequest::default().with_topics(names.into());
    node.become_user("alice");
    let codes = |r: DeleteTopicsResponse| r.responses.iter().map(|r| r.error_code).collect::<Vec<_>>();
    assert_eq!(codes(node.call(&by_name, 6)), [NO_TOPIC, NO_TOPIC]);
    let denied = node.call(&by_id, 6).responses.remove(0);
    assert_eq!((denied.error_code, denied.name, denied.topic_id), (NO_TOPIC, None, id));
    node.allow(TOPIC, "there", DESCRIBE);
    assert_eq!(node.call(&by_id, 6).responses[0].name, Some(there()));
    node.allow(TOPIC, "there", DELETE);
    assert_eq!(codes(node.call(&by_name, 6)), [0, NO_TOPIC]);
    node.allow(CLUSTER, "kafka-cluster", DELETE);
    assert_eq!(codes(node.call(&by_name, 6)), [3, 3], "the cluster's right is for all topics");
}

#[test]
fn settings_need_rights_on_topic_and_cluster() {
    let cluster = |operation| (CLUSTER, "kafka-cluster", operation);
    let resource = |kind, name| {
        let resource = describe_configs_request::DescribeConfigsResource::default().with_resource_type(kind);
        let resource = resource.with_resource_name(string(name)).with_configuration_keys(None);
        DescribeConfigsRequest::default().with_resources(vec![resource])
    };
    let code = |r: &DescribeConfigsResponse, _| r.results[0].error_code;
    needs((TOPIC, "there", DESCRIBE_CONFIGS), NO_TOPIC, &resource(2, "there"), code);
    needs((TOPIC, "there", ALTER_CONFIGS), NO_TOPIC, &resource(2, "there"), code);
    needs(cluster(DESCRIBE_CONFIGS), NO_CLUSTER, &resource(4, "1"), code);
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(string("there"));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    needs((TOPIC, "there", ALTER_CONFIGS), NO_TOPIC, &request, |r, _| r.responses[0].error_code);
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(string("there"));
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    needs((TOPIC, "there", ALTER_CONFIGS), NO_TOPIC, &request, |r, _| r.responses[0].error_code);
}

#[test]
fn the_clusters_own_requests_need_the_clusters_rights() {
    let cluster = |operation| (CLUSTER, "kafka-cluster", operation);
    let init = InitProducerIdRequest::default().with_transactional_id(None);
    let mut node = Node::guarded();
    node.allow(TOPIC, "there", READ);
    assert_eq!(node.call(&init, 5).error_code, NO_CLUSTER);
    node.allow(TOPIC, "there", WRITE);
    assert_eq!(node.call(&init, 5).error_code, 0, "who may write somewhere may be idempotent");
    needs(cluster(IDEMPOTENT_WRITE), NO_CLUSTER, &init, |r, _| r.error_code);
    let all = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    needs(cluster(DESCRIBE), NO_CLUSTER, &all, |r, _| r.error_code);
    let create = CreateAclsRequest::default().with_creations(vec![creation(TOPIC, LITERAL, "x", READ)]);
    needs(cluster(ALTER), NO_CLUSTER, &create, |r, _| r.results[0].error_code);
    let nothing = DeleteAclsFilter::default().with_resource_type_filter(3).with_pattern_type_filter(1);
    let nothing = nothing.with_operation(1).with_permission_type(1);
    let delete = DeleteAclsRequest::default().with_filters(vec![nothing]);
    needs(cluster(ALTER), NO_CLUSTER, &delete, |r, _| r.filter_results[0].error_code);
    let describe = DescribeUserScramCredentialsRequest::default().with_users(None);
    needs(cluster(DESCRIBE), NO_CLUSTER, &describe, |r, _| r.error_code);
    let upsertion = alter_user_scram_credentials_request::ScramCredentialUpsertion::default()
        .with_name(string("bob"))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(vec![1; 16].into())
        .with_salted_password(vec![2; 32].into());
    let alter = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
    needs(cluster(ALTER), NO_CLUSTER, &alter, |r, _| r.results[0].error_code);
}

#[test]
fn lists_are_created_described_and_deleted_in_every_version() {
    let mut node = Node::guarded();
    let filter = |pattern, name: Option<&str>| {
        DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(pattern)
            .with_resource_name_filter(name.map(string))
            .with_principal_filter(None)
            .with_host_filter(None)
            .with_operation(1)
            .with_permission_type(1)
    };
    for version in all_versions(ApiKey::CreateAcls) {
        let bindings = vec![
            creation(TOPIC, LITERAL, "orders", READ),
            creation(TOPIC, LITERAL, "orders", WRITE),
            creation(TOPIC, PREFIXED, "ord", READ),
            creation(TOPIC, LITERAL, "", READ),
            creation(CLUSTER, LITERAL, "other-cluster", READ),
            creation(TOPIC, 1, "orders", READ),
            creation(1, LITERAL, "orders", READ),
            creation(TOPIC, LITERAL, "orders", 1),
            creation(TOPIC, LITERAL, "orders", READ).with_permission_type(0),
            creation(TOPIC, LITERAL, "orders", READ).with_principal(string("alice")),
            creation(TOPIC, LITERAL, "orders", READ).with_host(string("")),
        ];
        let answer = node.call(&CreateAclsRequest::default().with_creations(bindings), version);
        let codes: Vec<_> = answer.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 0, 0, 42, 42, 42, 42, 42, 42, 42, 42]);
        let found = |answer: DescribeAclsResponse| {
            assert_eq!(answer.error_code, 0);
            let resources = answer.resources.into_iter();
            resources.map(|r| (r.pattern_type, r.resource_name.to_string(), r.acls.len())).collect::<Vec<_>>()
        };
        let (orders, ord) = ((LITERAL, "orders".to_owned(), 2), (PREFIXED, "ord".to_owned(), 1));
        assert_eq!(found(node.call(&filter(1, None), version)), [orders.clone(), ord.clone()]);
        assert_eq!(found(node.call(&filter(2, Some("orders")), version)), [orders.clone(), ord]);
        assert_eq!(found(node.call(&filter(1, Some("orders")), version)), [orders]);
        assert_eq!(node.call(&filter(0, None), version).error_code, 42);
        let delete = |pattern, operation| {
            DeleteAclsFilter::default()
                .with_resource_type_filter(TOPIC)
                .with_pattern_type_filter(pattern)
                .with_resource_name_filter(Some(string("orders")))
                .with_principal_filter(None)
                .with_host_filter(None)
                .with_operation(operation)
                .with_permission_type(ALLOW)
        };
        let request = DeleteAclsRequest::default().with_filters(vec![delete(1, WRITE), delete(99, READ), delete(2, 1)]);
        let answer = node.call(&request, version);
        let gone: Vec<_> = answer.filter_results.iter().map(|r| (r.error_code, r.matching_acls.len())).collect();
        assert_eq!(gone, [(0, 1), (42, 0), (0, 3)]);
        assert!(found(node.call(&filter(1, None), version)).is_empty());
    }
}

#[test]
fn without_super_users_everything_is_allowed_and_lists_are_refused() {
    let mut node = Node::open();
    let describe = DescribeAclsRequest::default().with_resource_type_filter(1).with_pattern_type_filter(1);
    let describe = describe.with_operation(1).with_permission_type(1);
    let create = CreateAclsRequest::default().with_creations(vec![creation(TOPIC, LITERAL, "x", READ); 2]);
    let delete = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default()]);
    let disabled = ResponseError::SecurityDisabled.code();
    assert_eq!(node.call(&describe, 3).error_code, disabled);
    assert_eq!(node.call(&create, 3).results.iter().map(|r| r.error_code).collect::<Vec<_>>(), [disabled; 2]);
    assert_eq!(node.call(&delete, 3).filter_results[0].error_code, disabled);
    let operations = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let all = [CREATE, ALTER, DESCRIBE, 9, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE];
    let all = all.into_iter().fold(0, |bits, operation| bits | 1 << operation);
    assert_eq!(node.call(&operations, 2).cluster_authorized_operations, all);
    let mut node = Node::guarded();
    node.become_user("alice");
    assert_eq!(node.call(&operations, 2).cluster_authorized_operations, 0);
}

#[test]
fn who_did_not_log_in_is_anonymous() {
    let mut node = Node::configured(Config { super_users: ["ANONYMOUS".to_owned()].into(), ..Config::default() });
    let all = DescribeUserScramCredentialsRequest::default().with_users(None);
    assert_eq!(node.call(&all, 0).error_code, 0);
    let mut node = Node::configured(Config { super_users: ["root".to_owned()].into(), ..Config::default() });
    assert_eq!(node.call(&all, 0).error_code, NO_CLUSTER);
}
