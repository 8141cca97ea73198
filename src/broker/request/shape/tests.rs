//! The layouts against what the codec encodes.

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
fn rights_and_users_are_walked_to_their_ends() {
    let text = || StrBytes::from_static_str("text");
    walk(ApiKey::CreatePartitions, |_| {
        use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1); 2]);
        let topic = CreatePartitionsTopic::default().with_name(name());
        let assigned = topic.clone().with_assignments(Some(vec![assignment; 2]));
        CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None), assigned])
    });
    walk(ApiKey::CreateAcls, |_| {
        let creation = create_acls_request::AclCreation::default()
            .with_resource_name(text())
            .with_principal(text())
            .with_host(text());
        CreateAclsRequest::default().with_creations(vec![creation; 2])
    });
    walk(ApiKey::DeleteAcls, |_| {
        let filter = delete_acls_request::DeleteAclsFilter::default().with_principal_filter(Some(text()));
        DeleteAclsRequest::default().with_filters(vec![filter.clone().with_host_filter(None), filter])
    });
    walk(ApiKey::DescribeUserScramCredentials, |_| {
        let user = describe_user_scram_credentials_request::UserName::default().with_name(text());
        DescribeUserScramCredentialsRequest::default().with_users(Some(vec![user; 2]))
    });
    walk(ApiKey::AlterUserScramCredentials, |_| {
        use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
        let deletion = ScramCredentialDeletion::default().with_name(text());
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text())
            .with_salt(vec![1; 20].into())
            .with_salted_password(vec![2; 64].into());
        AlterUserScramCredentialsRequest::default()
            .with_deletions(vec![deletion; 2])
            .with_upsertions(vec![upsertion; 2])
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
