//! `DescribeConfigs`, `IncrementalAlterConfigs` and `AlterConfigs`.

use super::super::acl::Operation;
use super::super::authorizer::Rights;
use super::super::server::{NODE, Shared};
use super::super::settings::{self, Kind, Known, Refused};
use super::super::topics::TopicError;
use super::refusal::{self, Refusal};
use super::{RequestError, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_response,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

const FROM_TOPIC: i8 = 1;
const FROM_BROKER_FILE: i8 = 4;
const FROM_DEFAULT: i8 = 5;

const SET: i8 = 0;
const DELETE: i8 = 1;

/// One setting of a topic with its value.
pub(super) struct Value {
    pub known: &'static Known,
    pub value: String,
    pub source: i8,
}

/// Every setting of a topic that was given `given`.
pub(super) fn values<'a>(shared: &'a Shared, given: &'a BTreeMap<String, String>) -> impl Iterator<Item = Value> + 'a {
    settings::all().iter().map(|known| match given.get(known.name) {
        Some(value) => Value { known, value: value.clone(), source: FROM_TOPIC },
        None => Value { known, value: known.default_value(&shared.topics.defaults), source: FROM_DEFAULT },
    })
}

/// Topics' settings need rights on the topic, the broker's on the cluster.
fn check(rights: &Rights, operation: Operation, resource_type: i8, name: &str) -> Result<(), Refusal> {
    match resource_type {
        TOPIC => refusal::topic(rights, operation, name),
        _ => refusal::cluster(rights, operation),
    }
}

pub(super) fn describe(
    shared: &Shared,
    rights: &Rights,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let allowed = check(rights, Operation::DescribeConfigs, resource.resource_type, &resource.resource_name);
        match allowed.and_then(|()| describe_one(shared, resource, version)) {
            Ok(configs) => result.with_configs(configs),
            Err((error, message)) => result.with_error_code(error.code()).with_error_message(text(message)),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe_one(
    shared: &Shared,
    resource: &DescribeConfigsResource,
    version: i16,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let wanted = |name: &str| resource.configuration_keys.as_ref().is_none_or(|keys| keys.iter().any(|k| **k == *name));
    let result = |name: &'static str, value: String, source: i8, kind: Kind| {
        let result = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_string(value)))
            .with_config_source(source);
        if version >= 3 { result.with_config_type(kind as i8) } else { result }
    };
    match resource.resource_type {
        TOPIC => {
            let topic = shared.topics.named(&resource.resource_name).ok_or_else(|| {
                let error = TopicError::Unknown(resource.resource_name.to_string());
                (error.code(), error.to_string())
            })?;
            let given = topic.given();
            let configs = values(shared, &given).filter(|v| wanted(v.known.name));
            Ok(configs.map(|v| result(v.known.name, v.value, v.source, v.known.kind)).collect())
        }
        BROKER if *resource.resource_name == *NODE.to_string() => {
            let configs = broker_values(shared).into_iter().filter(|(name, _, _)| wanted(name));
            Ok(configs
                .map(|(name, value, kind)| result(name, value, FROM_BROKER_FILE, kind).with_read_only(true))
                .collect())
        }
        BROKER => Err((ResponseError::InvalidRequest, format!("this is node {NODE}, and the only one"))),
        other => Err((ResponseError::InvalidRequest, format!("resources of type {other} have no settings here"))),
    }
}

fn broker_values(shared: &Shared) -> Vec<(&'static str, String, Kind)> {
    let defaults = &shared.topics.defaults;
    vec![
        ("auto.create.topics.enable", "false".to_owned(), Kind::Boolean),
        ("default.replication.factor", "1".to_owned(), Kind::Int),
        ("log.retention.bytes", defaults.retention_bytes.to_string(), Kind::Long),
        ("log.retention.ms", defaults.retention_ms.to_string(), Kind::Long),
        ("log.roll.ms", defaults.segment_ms.to_string(), Kind::Long),
        ("log.segment.bytes", defaults.segment_bytes.to_string(), Kind::Int),
        ("message.max.bytes", defaults.max_message_bytes.to_string(), Kind::Int),
        ("min.insync.replicas", "1".to_owned(), Kind::Int),
        ("num.partitions", "1".to_owned(), Kind::Int),
    ]
}

/// The change that one request wants for one resource.
struct Change {
    resource_type: i8,
    name: StrBytes,
    /// Begin from nothing instead of from what the topic has.
    replace: bool,
    /// Name, operation, value.
    edits: Vec<(StrBytes, i8, Option<StrBytes>)>,
}

impl Change {
    fn apply(&self, shared: &Shared, rights: &Rights, validate_only: bool) -> Result<(), Refusal> {
        check(rights, Operation::AlterConfigs, self.resource_type, &self.name)?;
        if self.resource_type != TOPIC {
            let message = "only topics' settings can be changed; the broker's own are its command line's".to_owned();
            return Err((ResponseError::InvalidRequest, message));
        }
        let altered = shared.topics.alter(&self.name, validate_only, |given| {
            if self.replace {
                given.clear();
            }
            self.edits.iter().try_for_each(|(name, operation, value)| edit(given, name, *operation, value.as_deref()))
        });
        altered.map_err(|error| (error.code(), error.to_string()))
    }
}

fn edit(given: &mut BTreeMap<String, String>, name: &str, operation: i8, value: Option<&str>) -> Result<(), Refused> {
    match (operation, value) {
        (SET, Some(value)) => {
            given.insert(name.to_owned(), value.to_owned());
        }
        (DELETE, _) => {
            if settings::find(name).is_none() {
                return Err(Refused(format!("Unknown topic config name: {name}")));
            }
            given.remove(name);
        }
        (SET, None) => return Err(Refused(format!("Null value not supported for topic config: {name}"))),
        _ => {
            return Err(Refused(format!(
                "{name}: the embedded broker serves only set and delete, not append and subtract"
            )));
        }
    }
    Ok(())
}

pub(super) async fn alter_incrementally(
    shared: &Arc<Shared>,
    rights: Rights,
    request: IncrementalAlterConfigsRequest,
) -> Result<IncrementalAlterConfigsResponse, RequestError> {
    let changes = request.resources.into_iter().map(|resource| Change {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        replace: false,
        edits: resource.configs.into_iter().map(|c| (c.name, c.config_operation, c.value)).collect(),
    });
    let responses = apply(shared, rights, changes.collect(), request.validate_only).await?.into_iter().map(|done| {
        incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(done.resource_type)
            .with_resource_name(done.name)
            .with_error_code(done.error_code)
            .with_error_message(done.error_message)
    });
    Ok(IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
}

pub(super) async fn alter(
    shared: &Arc<Shared>,
    rights: Rights,
    request: AlterConfigsRequest,
) -> Result<AlterConfigsResponse, RequestError> {
    let changes = request.resources.into_iter().map(|resource| Change {
        resource_type: resource.resource_type,
        name: resource.resource_name,
        replace: true,
        edits: resource.configs.into_iter().map(|c| (c.name, SET, c.value)).collect(),
    });
    let responses = apply(shared, rights, changes.collect(), request.validate_only).await?.into_iter().map(|done| {
        alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(done.resource_type)
            .with_resource_name(done.name)
            .with_error_code(done.error_code)
            .with_error_message(done.error_message)
    });
    Ok(AlterConfigsResponse::default().with_responses(responses.collect()))
}

/// What became of a change.
struct Done {
    resource_type: i8,
    name: StrBytes,
    error_code: i16,
    error_message: Option<StrBytes>,
}

async fn apply(
    shared: &Arc<Shared>,
    rights: Rights,
    changes: Vec<Change>,
    validate_only: bool,
) -> Result<Vec<Done>, tokio::task::JoinError> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || {
        let done = changes.into_iter().map(|change| {
            let (error_code, error_message) = match change.apply(&shared, &rights, validate_only) {
                Ok(()) => (0, None),
                Err((error, message)) => (error.code(), text(message)),
            };
            Done { resource_type: change.resource_type, name: change.name, error_code, error_message }
        });
        done.collect()
    })
    .await
}
