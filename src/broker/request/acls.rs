//! `DescribeAcls`, `CreateAcls` and `DeleteAcls`.

use super::super::acl::{
    Binding, CLUSTER_NAME, Entry, Filter, Operation, Pattern, PatternFilter, PatternType, Permission, ResourceType,
};
use super::super::authorizer::{Authorizer, ChangeError, Rights};
use super::super::server::Shared;
use super::refusal::{self, Refusal};
use super::{RequestError, text};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
    DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::sync::Arc;

/// The list, for who may do this with it; without one, the refusal that Kafka has for that.
fn list<'a>(shared: &'a Shared, rights: &Rights, operation: Operation) -> Result<&'a Authorizer, Refusal> {
    refusal::cluster(rights, operation)?;
    shared.authorizer.as_ref().ok_or_else(|| {
        let message = "No Authorizer is configured: name the broker's super users to use access control lists.";
        (ResponseError::SecurityDisabled, message.to_owned())
    })
}

fn invalid(message: impl Into<String>) -> Refusal {
    (ResponseError::InvalidRequest, message.into())
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let code = match error {
            ChangeError::Full => ResponseError::PolicyViolation,
            ChangeError::Io(_) => ResponseError::KafkaStorageError,
        };
        tracing::error!(%error, "access control list was not changed");
        (code, error.to_string())
    }
}

pub(super) fn describe(shared: &Shared, rights: &Rights, request: &DescribeAclsRequest) -> DescribeAclsResponse {
    let found = list(shared, rights, Operation::Describe).and_then(|list| {
        let filter = Numbers {
            resource: request.resource_type_filter,
            pattern: request.pattern_type_filter,
            operation: request.operation,
            permission: request.permission_type,
        };
        let texts = [&request.resource_name_filter, &request.principal_filter, &request.host_filter];
        Ok(list.matching(&filter.read(texts)?))
    });
    match found {
        Ok(bindings) => DescribeAclsResponse::default().with_resources(grouped(bindings)),
        Err((error, message)) => {
            DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(text(message))
        }
    }
}

/// Bindings by what they are about; those about the same stand next to each other already.
fn grouped(bindings: Vec<Binding>) -> Vec<DescribeAclsResource> {
    let same = bindings.chunk_by(|a, b| a.pattern == b.pattern);
    let resources = same.filter_map(|group| {
        let pattern = &group.first()?.pattern;
        let acls = group.iter().map(|Binding { entry, .. }| {
            AclDescription::default()
                .with_principal(StrBytes::from_string(entry.principal.clone()))
                .with_host(StrBytes::from_string(entry.host.clone()))
                .with_operation(entry.operation.number())
                .with_permission_type(entry.permission.number())
        });
        let resource = DescribeAclsResource::default()
            .with_resource_type(pattern.resource.number())
            .with_resource_name(StrBytes::from_string(pattern.name.clone()))
            .with_pattern_type(pattern.pattern.number());
        Some(resource.with_acls(acls.collect()))
    });
    resources.collect()
}

pub(super) async fn create(
    shared: &Arc<Shared>,
    rights: &Rights,
    request: CreateAclsRequest,
) -> Result<CreateAclsResponse, RequestError> {
    let mut read: Vec<Result<Binding, Refusal>> = match list(shared, rights, Operation::Alter) {
        Ok(_) => request.creations.iter().map(binding).collect(),
        Err(refused) => request.creations.iter().map(|_| Err(refused.clone())).collect(),
    };
    let good: Vec<Binding> = read.iter().filter_map(|read| read.clone().ok()).collect();
    if !good.is_empty() {
        let shared = Arc::clone(shared);
        let created = tokio::task::spawn_blocking(move || match &shared.authorizer {
            Some(list) => list.create(good),
            None => Ok(()),
        });
        if let Err(error) = created.await? {
            let refused = Refusal::from(error);
            read.iter_mut().filter(|read| read.is_ok()).for_each(|read| *read = Err(refused.clone()));
        }
    }
    let results = read.into_iter().map(|read| match read {
        Ok(_) => AclCreationResult::default(),
        Err((error, message)) => {
            AclCreationResult::default().with_error_code(error.code()).with_error_message(text(message))
        }
    });
    Ok(CreateAclsResponse::default().with_results(results.collect()))
}

fn binding(creation: &AclCreation) -> Result<Binding, Refusal> {
    let resource = ResourceType::from_number(creation.resource_type).ok_or_else(|| invalid("Invalid resourceType"))?;
    let pattern =
        PatternType::from_number(creation.resource_pattern_type).ok_or_else(|| invalid("Invalid patternType"))?;
    let operation = Operation::from_number(creation.operation).ok_or_else(|| invalid("Invalid operation"))?;
    let permission =
        Permission::from_number(creation.permission_type).ok_or_else(|| invalid("Invalid permissionType"))?;
    let name = creation.resource_name.to_string();
    if name.is_empty() {
        return Err(invalid("Invalid empty resource name"));
    }
    if resource == ResourceType::Cluster && name != CLUSTER_NAME {
        return Err(invalid(format!("The only valid name for the CLUSTER resource is {CLUSTER_NAME}")));
    }
    let principal = creation.principal.to_string();
    if !principal.split_once(':').is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty()) {
        return Err(invalid(format!("Could not parse principal from `{principal}`: write User:name")));
    }
    let host = creation.host.to_string();
    if host.is_empty() {
        return Err(invalid("Invalid empty host: write an address, or * for all"));
    }
    Ok(Binding {
        pattern: Pattern { resource, pattern, name },
        entry: Entry { principal, host, operation, permission },
    })
}

pub(super) async fn delete(
    shared: &Arc<Shared>,
    rights: &Rights,
    request: DeleteAclsRequest,
) -> Result<DeleteAclsResponse, RequestError> {
    let read: Vec<Result<Filter, Refusal>> = match list(shared, rights, Operation::Alter) {
        Ok(_) => request.filters.iter().map(filter).collect(),
        Err(refused) => request.filters.iter().map(|_| Err(refused.clone())).collect(),
    };
    let good: Vec<Filter> = read.iter().filter_map(|read| read.clone().ok()).collect();
    let shared = Arc::clone(shared);
    let deleted = tokio::task::spawn_blocking(move || match &shared.authorizer {
        Some(list) if !good.is_empty() => list.delete(&good),
        _ => Ok(Vec::new()),
    });
    let mut deleted = deleted.await?.map(Vec::into_iter).map_err(Refusal::from);
    let results = read.into_iter().map(|read| {
        let found = read.and_then(|_| match &mut deleted {
            Ok(found) => Ok(found.next().unwrap_or_default()),
            Err(refused) => Err(refused.clone()),
        });
        match found {
            Ok(found) => DeleteAclsFilterResult::default().with_matching_acls(found.into_iter().map(gone).collect()),
            Err((error, message)) => {
                DeleteAclsFilterResult::default().with_error_code(error.code()).with_error_message(text(message))
            }
        }
    });
    Ok(DeleteAclsResponse::default().with_filter_results(results.collect()))
}

fn gone(Binding { pattern, entry }: Binding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_resource_type(pattern.resource.number())
        .with_resource_name(StrBytes::from_string(pattern.name))
        .with_pattern_type(pattern.pattern.number())
        .with_principal(StrBytes::from_string(entry.principal))
        .with_host(StrBytes::from_string(entry.host))
        .with_operation(entry.operation.number())
        .with_permission_type(entry.permission.number())
}

fn filter(wanted: &DeleteAclsFilter) -> Result<Filter, Refusal> {
    let numbers = Numbers {
        resource: wanted.resource_type_filter,
        pattern: wanted.pattern_type_filter,
        operation: wanted.operation,
        permission: wanted.permission_type,
    };
    numbers.read([&wanted.resource_name_filter, &wanted.principal_filter, &wanted.host_filter])
}

/// A filter's numbers, as they came.
struct Numbers {
    resource: i8,
    pattern: i8,
    operation: i8,
    permission: i8,
}

impl Numbers {
    /// The filter with these texts: resource name, principal and host.
    fn read(&self, texts: [&Option<StrBytes>; 3]) -> Result<Filter, Refusal> {
        let unknown = |what: &str| invalid(format!("Unknown {what} in the filter"));
        let [name, principal, host] = texts.map(|text| text.as_ref().map(ToString::to_string));
        Ok(Filter {
            resource: Filter::word(self.resource, ResourceType::from_number).ok_or_else(|| unknown("resource type"))?,
            pattern: PatternFilter::from_number(self.pattern).ok_or_else(|| unknown("pattern type"))?,
            name,
            principal,
            host,
            operation: Filter::word(self.operation, Operation::from_number).ok_or_else(|| unknown("operation"))?,
            permission: Filter::word(self.permission, Permission::from_number)
                .ok_or_else(|| unknown("permission type"))?,
        })
    }
}
