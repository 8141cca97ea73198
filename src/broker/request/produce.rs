//! `Produce` and `InitProducerId`.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::clock;
use super::super::config::Sync;
use super::super::log::batch::BatchError;
use super::super::log::partition::{AppendError, Appended};
use super::super::server::Shared;
use super::super::topics::Topic;
use super::{RequestError, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};
use std::fs::File;
use std::sync::Arc;

const ALL_REPLICAS: i16 = -1;

/// None: the client wants no acknowledgement, and all went well.
pub(super) async fn handle(
    shared: &Arc<Shared>,
    rights: &Rights,
    request: ProduceRequest,
    version: i16,
) -> Result<Option<ProduceResponse>, RequestError> {
    let acks = request.acks;
    let mut unsynced = Vec::new();
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        responses.push(produce_topic(shared, rights, topic, acks, version, &mut unsynced));
    }
    if shared.sync == Sync::Always && acks != 0 && !unsynced.is_empty() {
        sync(unsynced, &mut responses).await?;
    }
    if acks == 0 {
        let codes = responses.iter().flat_map(|t| &t.partition_responses).map(|p| p.error_code);
        return match codes.into_iter().find_map(ResponseError::try_from_code) {
            None => Ok(None),
            Some(error) => Err(RequestError::Unacknowledged(error)),
        };
    }
    Ok(Some(ProduceResponse::default().with_responses(responses)))
}

fn produce_topic(
    shared: &Shared,
    rights: &Rights,
    data: TopicProduceData,
    acks: i16,
    version: i16,
    unsynced: &mut Vec<Arc<File>>,
) -> TopicProduceResponse {
    let (topic, unknown) = if version >= 13 {
        (shared.topics.with_id(data.topic_id), ResponseError::UnknownTopicId)
    } else {
        (shared.topics.named(&data.name), ResponseError::UnknownTopicOrPartition)
    };
    // Before anything is said about a named topic, even that there is none.
    let name = topic.as_ref().map_or(data.name.as_str(), |topic| &topic.name);
    let denied = (version < 13 || topic.is_some()) && !rights.topic(Operation::Write, name);
    let partitions = data.partition_data.iter().map(|data| {
        let response = PartitionProduceResponse::default().with_index(data.index).with_log_append_time_ms(-1);
        let result = match &topic {
            _ if denied => Err((ResponseError::TopicAuthorizationFailed, None)),
            None => Err((unknown, None)),
            Some(topic) => append(topic, data, acks, clock::now_ms() + shared.config.clock_offset_ms),
        };
        match result {
            Ok(appended) => {
                unsynced.extend(appended.file);
                let response =
                    response.with_base_offset(appended.base_offset).with_log_append_time_ms(appended.append_time);
                if version >= 5 { response.with_log_start_offset(appended.log_start) } else { response }
            }
            Err((error, message)) => {
                let response = response.with_base_offset(-1).with_error_code(error.code());
                if version >= 8 { response.with_error_message(message.and_then(text)) } else { response }
            }
        }
    });
    let response = TopicProduceResponse::default().with_partition_responses(partitions.collect());
    if version >= 13 { response.with_topic_id(data.topic_id) } else { response.with_name(data.name) }
}

fn append(
    topic: &Topic,
    data: &PartitionProduceData,
    acks: i16,
    now_ms: i64,
) -> Result<Appended, (ResponseError, Option<String>)> {
    if !(-1..=1).contains(&acks) {
        return Err((ResponseError::InvalidRequiredAcks, None));
    }
    let partition = topic.partition(data.index).ok_or((ResponseError::UnknownTopicOrPartition, None))?;
    let settings = topic.settings();
    if acks == ALL_REPLICAS && settings.min_insync_replicas > 1 {
        let message = "topic's min.insync.replicas is above 1, and this is the only node".to_owned();
        return Err((ResponseError::NotEnoughReplicas, Some(message)));
    }
    let batch = data.records.as_deref().unwrap_or_default();
    partition.append(batch, &settings, now_ms).map_err(|error| {
        let code = match &error {
            AppendError::Batch(BatchError::Short | BatchError::Sum) => ResponseError::CorruptMessage,
            AppendError::Batch(BatchError::Magic(_)) => ResponseError::UnsupportedForMessageFormat,
            AppendError::Batch(BatchError::Malformed(_)) => ResponseError::InvalidRecord,
            AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
            AppendError::Transactional => ResponseError::InvalidTxnState,
            AppendError::Timestamp(_) => ResponseError::InvalidTimestamp,
            AppendError::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            AppendError::Fenced => ResponseError::InvalidProducerEpoch,
            AppendError::Gone => ResponseError::UnknownTopicOrPartition,
            AppendError::Io(io) => {
                tracing::error!(topic = topic.name, partition = data.index, error = %io, "cannot write the log");
                ResponseError::KafkaStorageError
            }
        };
        (code, Some(error.to_string()))
    })
}

/// Forces files to stable storage; on failure nothing in the request counts as written.
async fn sync(mut files: Vec<Arc<File>>, responses: &mut [TopicProduceResponse]) -> Result<(), RequestError> {
    files.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let synced = tokio::task::spawn_blocking(move || files.iter().try_for_each(|file| file.sync_data())).await?;
    if let Err(error) = synced {
        tracing::error!(%error, "cannot sync the log");
        let partitions = responses.iter_mut().flat_map(|t| &mut t.partition_responses);
        for partition in partitions.filter(|p| p.error_code == 0) {
            partition.error_code = ResponseError::KafkaStorageError.code();
            partition.base_offset = -1;
        }
    }
    Ok(())
}

/// Ids for idempotent producers. An older id and epoch that the client names are simply replaced by a fresh id.
pub(super) async fn init_producer_id(
    shared: &Arc<Shared>,
    rights: &Rights,
    request: InitProducerIdRequest,
) -> Result<InitProducerIdResponse, RequestError> {
    let refused = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        tracing::warn!("refused a transactional producer: the embedded broker serves no transactions");
        return Ok(refused(ResponseError::InvalidRequest));
    }
    if !rights.cluster(Operation::IdempotentWrite) && !rights.some_topic(Operation::Write) {
        return Ok(refused(ResponseError::ClusterAuthorizationFailed));
    }
    let shared = Arc::clone(shared);
    let id = tokio::task::spawn_blocking(move || shared.topics.next_producer_id()).await?;
    Ok(match id {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::error!(%error, "cannot reserve producer ids");
            refused(ResponseError::KafkaStorageError)
        }
    })
}
