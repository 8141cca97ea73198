//! `Fetch`, with long poll: a request that finds too little waits at the partitions themselves, and the append that
//! brings more wakes it.
//!
//! There are no fetch sessions: every answer has session id 0, which tells a client to send whole requests.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::log::partition::{Extent, Partition, Read};
use super::super::server::Shared;
use super::RequestError;
use bytes::Bytes;
use futures_util::future::select_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Most bytes in one answer, whatever the client allows: it bounds the memory of a connection.
const MOST: usize = 16 << 20;
/// Longest wait, whatever the client asks for.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// One topic of the request with what it refers to.
struct Wanted {
    name: TopicName,
    id: Uuid,
    partitions: Vec<(FetchPartition, Result<Arc<Partition>, ResponseError>)>,
}

pub(super) async fn handle(
    shared: &Shared,
    rights: &Rights,
    request: FetchRequest,
    version: i16,
) -> Result<FetchResponse, RequestError> {
    if request.session_id != 0 {
        return Ok(FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code()));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let most = usize::try_from(request.max_bytes).unwrap_or(0).min(MOST);
    let least = usize::try_from(request.min_bytes).unwrap_or(0).min(most);
    let wanted = resolve(shared, rights, request, version);
    let partitions = || wanted.iter().flat_map(|t| &t.partitions).filter_map(|(_, p)| p.as_ref().ok());
    loop {
        // Listening begins before reading, so that no append falls between the two.
        let mut changes: Vec<_> = partitions().map(|p| Box::pin(p.changed())).collect();
        let (responses, bytes, failed) = read_all(&wanted, most, version).await?;
        if bytes >= least || failed || changes.is_empty() || Instant::now() >= deadline {
            return Ok(FetchResponse::default().with_responses(responses));
        }
        let changed = async {
            match changes.len() {
                1 => changes.remove(0).await,
                _ => select_all(changes).await.0,
            }
        };
        // What expires is answered with what there is by then.
        let _ = timeout_at(deadline, changed).await;
    }
}

fn unknown(version: i16) -> ResponseError {
    if version >= 13 { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition }
}

fn resolve(shared: &Shared, rights: &Rights, request: FetchRequest, version: i16) -> Vec<Wanted> {
    let topics = request.topics.into_iter().map(|wanted| {
        let topic =
            if version >= 13 { shared.topics.with_id(wanted.topic_id) } else { shared.topics.named(&wanted.topic) };
        // Before anything is said about a named topic, even that there is none.
        let name = topic.as_ref().map_or(wanted.topic.as_str(), |topic| &topic.name);
        let denied = (version < 13 || topic.is_some()) && !rights.topic(Operation::Read, name);
        let partitions = wanted.partitions.into_iter().map(|partition| {
            let found = topic.as_ref().and_then(|t| t.partition(partition.partition)).cloned();
            let found = if denied {
                Err(ResponseError::TopicAuthorizationFailed)
            } else {
                found.ok_or_else(|| unknown(version))
            };
            (partition, found)
        });
        Wanted { partitions: partitions.collect(), name: wanted.topic, id: wanted.topic_id }
    });
    topics.collect()
}

/// Reads every partition once: the answers, how many bytes of records they hold, and whether any is an error.
async fn read_all(
    wanted: &[Wanted],
    most: usize,
    version: i16,
) -> Result<(Vec<FetchableTopicResponse>, usize, bool), RequestError> {
    let (mut bytes, mut failed) = (0, false);
    let mut responses = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for (request, partition) in &topic.partitions {
            let answer = read(request, partition, most.saturating_sub(bytes), bytes == 0, version).await?;
            bytes += answer.records.as_ref().map_or(0, Bytes::len);
            failed |= answer.error_code != 0;
            answers.push(answer);
        }
        let response = FetchableTopicResponse::default().with_partitions(answers);
        responses.push(if version >= 13 {
            response.with_topic_id(topic.id)
        } else {
            response.with_topic(topic.name.clone())
        });
    }
    Ok((responses, bytes, failed))
}

async fn read(
    request: &FetchPartition,
    partition: &Result<Arc<Partition>, ResponseError>,
    left: usize,
    at_least_one: bool,
    version: i16,
) -> Result<PartitionData, RequestError> {
    let partition = match partition {
        Ok(partition) => partition,
        Err(error) => return Ok(answer(request, Err(*error), None, version)),
    };
    let most = usize::try_from(request.partition_max_bytes).unwrap_or(0).min(left);
    let records = if request.current_leader_epoch > 0 {
        Err(ResponseError::UnknownLeaderEpoch)
    } else {
        match partition.read(request.fetch_offset, most, at_least_one) {
            Read::Ready(bytes) => Ok(bytes),
            Read::OutOfRange => Err(ResponseError::OffsetOutOfRange),
            Read::Gone => Err(unknown(version)),
            Read::OnDisk { snapshot, position } => {
                let offset = request.fetch_offset;
                let read =
                    tokio::task::spawn_blocking(move || snapshot.read(position, offset, most, at_least_one)).await?;
                read.map_err(|error| {
                    // Retention may have taken the segment since.
                    if offset < partition.extent().log_start {
                        return ResponseError::OffsetOutOfRange;
                    }
                    tracing::error!(directory = %partition.directory().display(), %error, "cannot read the log");
                    ResponseError::KafkaStorageError
                })
            }
        }
    };
    Ok(answer(request, records, Some(partition.extent()), version))
}

fn answer(
    request: &FetchPartition,
    records: Result<Bytes, ResponseError>,
    extent: Option<Extent>,
    version: i16,
) -> PartitionData {
    let (end, start) = extent.map_or((-1, -1), |e| (e.next_offset, e.log_start));
    let (records, error) = match records {
        Ok(records) => (records, 0),
        Err(error) => (Bytes::new(), error.code()),
    };
    let data = PartitionData::default()
        .with_partition_index(request.partition)
        .with_error_code(error)
        .with_high_watermark(end)
        .with_last_stable_offset(end)
        .with_aborted_transactions(None)
        .with_records(Some(records));
    if version >= 5 { data.with_log_start_offset(start) } else { data }
}
