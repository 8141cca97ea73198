//! `CreatePartitions`: more of them for a topic that exists. Records stay where they are.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::server::{NODE, Shared};
use super::refusal::{self, Refusal};
use super::{RequestError, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) async fn create(
    shared: &Arc<Shared>,
    rights: Rights,
    request: CreatePartitionsRequest,
) -> Result<CreatePartitionsResponse, RequestError> {
    let shared = Arc::clone(shared);
    let created = tokio::task::spawn_blocking(move || {
        let mut times = BTreeMap::new();
        for topic in request.topics {
            times.entry(topic.name.clone()).or_insert_with(Vec::new).push(topic);
        }
        let results = times.into_iter().map(|(name, mut wanted)| {
            let grown = match (wanted.pop(), wanted.is_empty()) {
                (Some(wanted), true) => grow(&shared, &rights, &wanted, request.validate_only),
                _ => Err((ResponseError::InvalidRequest, "Duplicate topic name.".to_owned())),
            };
            let result = CreatePartitionsTopicResult::default().with_name(name);
            match grown {
                Ok(()) => result,
                Err((error, message)) => result.with_error_code(error.code()).with_error_message(text(message)),
            }
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    });
    Ok(created.await?)
}

fn grow(shared: &Shared, rights: &Rights, wanted: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    refusal::topic(rights, Operation::Alter, &wanted.name)?;
    let count = usize::try_from(wanted.count).unwrap_or(0);
    let grown = shared.topics.grow(&wanted.name, count, validate_only, |new| match &wanted.assignments {
        None => true,
        Some(given) => given.len() == new && given.iter().all(|a| a.broker_ids.iter().all(|id| id.0 == NODE)),
    });
    let added = grown.map_err(|error| (error.code(), error.to_string()))?;
    if !validate_only {
        tracing::info!(topic = wanted.name.as_str(), added, partitions = count, "added partitions");
    }
    Ok(())
}
