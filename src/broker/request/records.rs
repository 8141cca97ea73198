//! `DeleteRecords`: a new first offset, that outlives restarts.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::log::partition::DeleteError;
use super::super::server::Shared;
use super::RequestError;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use std::sync::Arc;

pub(super) async fn delete(
    shared: &Arc<Shared>,
    rights: Rights,
    request: DeleteRecordsRequest,
) -> Result<DeleteRecordsResponse, RequestError> {
    let shared = Arc::clone(shared);
    Ok(tokio::task::spawn_blocking(move || delete_all(&shared, &rights, request)).await?)
}

fn delete_all(shared: &Shared, rights: &Rights, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let topics = request.topics.into_iter().map(|wanted| {
        let denied = !rights.topic(Operation::Delete, &wanted.name);
        let topic = shared.topics.named(&wanted.name);
        let partitions = wanted.partitions.iter().map(|partition| {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            let found = topic.as_ref().and_then(|t| t.partition(partition.partition_index));
            let deleted = match found {
                _ if denied => Err(ResponseError::TopicAuthorizationFailed),
                None => Err(ResponseError::UnknownTopicOrPartition),
                Some(log) => log.delete_before(partition.offset).map_err(|error| match error {
                    DeleteError::OutOfRange => ResponseError::OffsetOutOfRange,
                    DeleteError::Io(error) => {
                        tracing::error!(directory = %log.directory().display(), %error, "cannot delete records");
                        ResponseError::KafkaStorageError
                    }
                }),
            };
            match deleted {
                Ok(start) => result.with_low_watermark(start),
                Err(error) => result.with_low_watermark(-1).with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(wanted.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}
