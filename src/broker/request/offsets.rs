//! `ListOffsets`: the ends of a log, and offsets by time.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::log::partition::Partition;
use super::super::server::Shared;
use super::RequestError;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use std::sync::Arc;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

pub(super) async fn handle(
    shared: &Shared,
    rights: &Rights,
    request: ListOffsetsRequest,
    version: i16,
) -> Result<ListOffsetsResponse, RequestError> {
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let denied = !rights.topic(Operation::Describe, &wanted.name);
        let topic = shared.topics.named(&wanted.name);
        let mut partitions = Vec::with_capacity(wanted.partitions.len());
        for partition in &wanted.partitions {
            let found = topic.as_ref().and_then(|t| t.partition(partition.partition_index));
            let found = if denied {
                Err(ResponseError::TopicAuthorizationFailed)
            } else {
                found.ok_or(ResponseError::UnknownTopicOrPartition)
            };
            partitions.push(list(partition, found, version).await?);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(wanted.name).with_partitions(partitions));
    }
    Ok(ListOffsetsResponse::default().with_topics(topics))
}

async fn list(
    request: &ListOffsetsPartition,
    partition: Result<&Arc<Partition>, ResponseError>,
    version: i16,
) -> Result<ListOffsetsPartitionResponse, RequestError> {
    let response = ListOffsetsPartitionResponse::default().with_partition_index(request.partition_index);
    let result = match partition {
        Err(error) => Err(error),
        Ok(_) if request.current_leader_epoch > 0 => Err(ResponseError::UnknownLeaderEpoch),
        Ok(partition) => find(partition, request.timestamp).await?,
    };
    Ok(match result {
        Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
        Ok((offset, timestamp)) => {
            let response = response.with_offset(offset).with_timestamp(timestamp);
            if version >= 4 && offset >= 0 { response.with_leader_epoch(0) } else { response }
        }
    })
}

/// Offset and time; -1 where there is none.
async fn find(partition: &Arc<Partition>, timestamp: i64) -> Result<Result<(i64, i64), ResponseError>, RequestError> {
    let extent = partition.extent();
    let search = match timestamp {
        LATEST => return Ok(Ok((extent.next_offset, -1))),
        EARLIEST | EARLIEST_LOCAL => return Ok(Ok((extent.log_start, -1))),
        LATEST_TIERED => return Ok(Ok((-1, -1))),
        MAX_TIMESTAMP => None,
        time if time >= 0 => Some(time),
        _ => return Ok(Err(ResponseError::InvalidRequest)),
    };
    let searched = Arc::clone(partition);
    let found = tokio::task::spawn_blocking(move || match search {
        None => searched.find_max_timestamp(),
        Some(time) => searched.find_timestamp(time),
    });
    Ok(match found.await? {
        Ok(found) => Ok(found.unwrap_or((-1, -1))),
        Err(error) => {
            tracing::error!(directory = %partition.directory().display(), %error, "cannot search the log");
            Err(ResponseError::KafkaStorageError)
        }
    })
}
