//! What a user without rights is answered, request by request: the same on both brokers.

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::support::{
    cluster::TestCluster,
    kafka::admin::{Admin, Operation, Resource, Rule},
    user::STRANGER,
};

const NOT_LEADER: i16 = 6;
const NO_TOPIC: i16 = 29;
const NO_CLUSTER: i16 = 31;
const ANY: i8 = 1;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(string(name))
}

/// What is asked about records: produce, fetch, offsets, deletion.
fn records(user: &mut Admin, topic: &str) -> [i16; 4] {
    use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use fetch_request::{FetchPartition, FetchTopic};
    use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use produce_request::{PartitionProduceData, TopicProduceData};
    let name = || topic_name(topic);
    let data = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"never looked at")));
    let data = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
    let produce = ProduceRequest::default().with_acks(-1).with_timeout_ms(5_000).with_topic_data(vec![data]);
    let part = FetchPartition::default().with_partition_max_bytes(1000);
    let part = FetchTopic::default().with_topic(name()).with_partitions(vec![part]);
    let fetch = FetchRequest::default().with_max_bytes(1000).with_topics(vec![part]);
    let part = ListOffsetsTopic::default().with_name(name()).with_partitions(vec![ListOffsetsPartition::default()]);
    let offsets = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![part]);
    let part = DeleteRecordsPartition::default().with_offset(-1);
    let part = DeleteRecordsTopic::default().with_name(name()).with_partitions(vec![part]);
    let delete = DeleteRecordsRequest::default().with_timeout_ms(5_000).with_topics(vec![part]);
    [
        user.ask(9, &produce).unwrap().responses[0].partition_responses[0].error_code,
        user.ask(12, &fetch).unwrap().responses[0].partitions[0].error_code,
        user.ask(7, &offsets).unwrap().topics[0].partitions[0].error_code,
        user.ask(2, &delete).unwrap().topics[0].partitions[0].error_code,
    ]
}

/// What is asked about topics: create, grow, delete.
fn topics(user: &mut Admin, there: &str, new: &str) -> [i16; 3] {
    use create_partitions_request::CreatePartitionsTopic;
    use create_topics_request::CreatableTopic;
    use delete_topics_request::DeleteTopicState;
    let create = CreatableTopic::default().with_name(topic_name(new)).with_num_partitions(1);
    let create = vec![create.with_replication_factor(1)];
    let create = CreateTopicsRequest::default().with_timeout_ms(5_000).with_topics(create);
    let grow = CreatePartitionsTopic::default().with_name(topic_name(there)).with_count(9).with_assignments(None);
    let grow = CreatePartitionsRequest::default().with_timeout_ms(5_000).with_topics(vec![grow]);
    let delete = DeleteTopicState::default().with_name(Some(topic_name(there)));
    let delete = DeleteTopicsRequest::default().with_timeout_ms(5_000).with_topics(vec![delete]);
    [
        user.ask(7, &create).unwrap().topics[0].error_code,
        user.ask(3, &grow).unwrap().results[0].error_code,
        user.ask(6, &delete).unwrap().responses[0].error_code,
    ]
}

/// What is asked about the settings of a resource: describe, alter.
fn settings(user: &mut Admin, kind: i8, name: &str) -> [i16; 2] {
    let resource = describe_configs_request::DescribeConfigsResource::default().with_configuration_keys(None);
    let resource = resource.with_resource_type(kind).with_resource_name(string(name));
    let describe = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let resource = incremental_alter_configs_request::AlterConfigsResource::default();
    let resource = resource.with_resource_type(kind).with_resource_name(string(name));
    let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    [user.ask(4, &describe).unwrap().results[0].error_code, user.ask(1, &alter).unwrap().responses[0].error_code]
}

/// What is asked about the cluster: a producer's id; lists: describe, create, delete; users: describe, alter.
fn cluster(user: &mut Admin) -> [i16; 6] {
    let init = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(1000);
    let describe = DescribeAclsRequest::default()
        .with_resource_type_filter(ANY)
        .with_pattern_type_filter(ANY)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let create = create_acls_request::AclCreation::default()
        .with_resource_type(TOPIC)
        .with_resource_pattern_type(3)
        .with_resource_name(string("some"))
        .with_principal(string("User:some"))
        .with_host(string("*"))
        .with_operation(3)
        .with_permission_type(3);
    let create = CreateAclsRequest::default().with_creations(vec![create]);
    let delete = delete_acls_request::DeleteAclsFilter::default()
        .with_resource_type_filter(ANY)
        .with_pattern_type_filter(ANY)
        .with_operation(ANY)
        .with_permission_type(ANY);
    let delete = DeleteAclsRequest::default().with_filters(vec![delete]);
    // A null list means all users too, but Apache Kafka never answers those whom it refuses that.
    let users = DescribeUserScramCredentialsRequest::default().with_users(Some(vec![]));
    let deletion = alter_user_scram_credentials_request::ScramCredentialDeletion::default();
    let deletion = deletion.with_name(string("admin")).with_mechanism(2);
    let alter = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
    [
        user.ask(4, &init).unwrap().error_code,
        user.ask(3, &describe).unwrap().error_code,
        user.ask(3, &create).unwrap().results[0].error_code,
        user.ask(3, &delete).unwrap().filter_results[0].error_code,
        user.ask(0, &users).unwrap().error_code,
        user.ask(0, &alter).unwrap().results[0].error_code,
    ]
}

/// Metadata of topics by name.
fn metadata(user: &mut Admin, names: [&str; 2]) -> Vec<i16> {
    let topics = names.map(|name| metadata_request::MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let request = MetadataRequest::default().with_topics(Some(topics.into()));
    let mut topics = user.ask(12, &request).unwrap().topics;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics.iter().map(|topic| topic.error_code).collect()
}

#[test]
fn without_rights_every_request_is_refused_and_nothing_is_told() {
    let on = TestCluster::shared();
    let prefix = on.prefix("rights");
    let (there, absent) = (format!("{prefix}.there"), format!("{prefix}.absent"));
    on.admin().create_topic(&there, 1, 1).unwrap();
    let mut stranger = on.log_in(STRANGER);
    assert_eq!(records(&mut stranger, &there), [NO_TOPIC; 4]);
    assert_eq!(records(&mut stranger, &absent), [NO_TOPIC; 4]);
    assert_eq!(topics(&mut stranger, &there, &absent), [NO_TOPIC; 3]);
    assert_eq!(settings(&mut stranger, TOPIC, &there), [NO_TOPIC; 2]);
    assert_eq!(settings(&mut stranger, BROKER, "1"), [NO_CLUSTER; 2]);
    assert_eq!(cluster(&mut stranger), [NO_CLUSTER; 6]);
    assert_eq!(metadata(&mut stranger, [&absent, &there]), [NO_TOPIC; 2]);

    let rule =
        |name, operation| Rule { user: STRANGER.name, resource: Resource::Topic, name, prefix: false, operation };
    on.allow(&[rule(&there, Operation::Alter), rule(&absent, Operation::Describe)]);
    assert_eq!(metadata(&mut stranger, [&absent, &there]), [3, 0], "to alter is to describe");
    let [produced, fetched, offsets, deleted] = records(&mut stranger, &there);
    assert_eq!([produced, fetched, deleted], [NO_TOPIC; 3]);
    assert!([0, NOT_LEADER].contains(&offsets), "{offsets}: allowed, though perhaps another node leads");
    assert_eq!(settings(&mut stranger, TOPIC, &there), [NO_TOPIC; 2]);
    assert_eq!(topics(&mut stranger, &there, &absent), [NO_TOPIC, 0, NO_TOPIC]);
    assert_eq!(cluster(&mut stranger), [NO_CLUSTER; 6]);
}
