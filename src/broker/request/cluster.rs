//! `DescribeCluster`, and the refusal of everything that needs a group coordinator.

use super::super::authorizer::Rights;
use super::super::server::{NODE, Shared};
use super::text;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse,
};
use kafka_protocol::protocol::StrBytes;

const BROKERS: i8 = 1;
const NO_COORDINATOR: &str =
    "the embedded broker serves neither consumer groups nor transactions: assign partitions explicitly";

pub(super) fn describe(shared: &Shared, rights: &Rights, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(text("the embedded broker has no controllers of its own"));
    }
    let node = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE))
        .with_host(StrBytes::from_string(shared.host.clone()))
        .with_port(i32::from(shared.port));
    let response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(shared.topics.cluster_id.clone()))
        .with_controller_id(BrokerId(NODE))
        .with_brokers(vec![node]);
    if request.include_cluster_authorized_operations {
        response.with_cluster_authorized_operations(rights.cluster_operations())
    } else {
        response
    }
}

/// An error that clients don't retry.
pub(super) fn find_coordinator(request: &FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let error = ResponseError::InvalidRequest.code();
    if version >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| {
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(-1))
                .with_port(-1)
                .with_error_code(error)
                .with_error_message(text(NO_COORDINATOR))
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let response = FindCoordinatorResponse::default().with_error_code(error).with_node_id(BrokerId(-1)).with_port(-1);
    if version >= 1 { response.with_error_message(text(NO_COORDINATOR)) } else { response }
}
