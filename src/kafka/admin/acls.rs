//! Access rules: reading, adding, removing.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, create_acls_request::AclCreation,
        delete_acls_request::DeleteAclsFilter,
    },
};

use super::{Admin, Offered, text, unknown};
use crate::kafka::{
    Error,
    acl::{Acl, Operation, Pattern, Permission, Resource},
};

/// Matches every value, in a filter.
const ANY: i8 = 1;

impl Admin {
    /// All access rules on topics; on `principal`'s alone (`User:name`) if one is given. Rules whose words a newer Kafka
    /// added are left out. Takes Describe on the cluster.
    pub async fn topic_acls(&self, principal: Option<&str>) -> Result<Offered<Vec<Acl>>, Error> {
        self.within("DescribeAcls", self.describe_acls(principal)).await
    }

    async fn describe_acls(&self, principal: Option<&str>) -> Result<Offered<Vec<Acl>>, Error> {
        let Offered::Present(connection) = self.connection_for(ApiKey::DescribeAcls).await? else {
            return Ok(Offered::Absent);
        };
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(Resource::Topic.code())
            .with_resource_name_filter(None)
            .with_pattern_type_filter(ANY)
            .with_principal_filter(principal.map(text))
            .with_host_filter(None)
            .with_operation(ANY)
            .with_permission_type(ANY);
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        if response.error_code == ResponseError::SecurityDisabled.code() {
            return Ok(Offered::Absent);
        }
        let asked = self.asked_of_cluster("DescribeAcls", "Describe");
        asked.check_with(response.error_code, response.error_message.as_ref())?;
        let mut acls = Vec::new();
        for resource in &response.resources {
            for rule in &resource.acls {
                acls.extend(acl(
                    [resource.resource_type, resource.pattern_type, rule.operation, rule.permission_type],
                    [&resource.resource_name, &rule.principal, &rule.host],
                ));
            }
        }
        acls.sort();
        Ok(Offered::Present(acls))
    }

    /// Adds access rules; those that are there stay. One result per rule, in their order. Takes Alter on the cluster.
    pub async fn create_acls(&self, acls: &[&Acl]) -> Result<Offered<Vec<Result<(), Error>>>, Error> {
        self.within("CreateAcls", self.add_acls(acls)).await
    }

    async fn add_acls(&self, acls: &[&Acl]) -> Result<Offered<Vec<Result<(), Error>>>, Error> {
        let Offered::Present(connection) = self.connection_for(ApiKey::CreateAcls).await? else {
            return Ok(Offered::Absent);
        };
        let creation = |acl: &&Acl| {
            AclCreation::default()
                .with_resource_type(acl.resource.code())
                .with_resource_name(text(&acl.name))
                .with_resource_pattern_type(acl.pattern.code())
                .with_principal(text(&acl.principal))
                .with_host(text(&acl.host))
                .with_operation(acl.operation.code())
                .with_permission_type(acl.permission.code())
        };
        let request = CreateAclsRequest::default().with_creations(acls.iter().map(creation).collect());
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let disabled = ResponseError::SecurityDisabled.code();
        if response.results.iter().any(|result| result.error_code == disabled) {
            return Ok(Offered::Absent);
        }
        let asked = self.asked_of_cluster("CreateAcls", "Alter");
        let mut results = response.results.iter();
        let of = |_: &&Acl| match results.next() {
            Some(result) => asked.check_with(result.error_code, result.error_message.as_ref()),
            None => Err(unknown("CreateAcls")),
        };
        Ok(Offered::Present(acls.iter().map(of).collect()))
    }

    /// Removes exactly these access rules; returns those that were there. Takes Alter on the cluster.
    pub async fn delete_acls(&self, acls: &[&Acl]) -> Result<Offered<Vec<Acl>>, Error> {
        self.within("DeleteAcls", self.remove_acls(acls)).await
    }

    async fn remove_acls(&self, acls: &[&Acl]) -> Result<Offered<Vec<Acl>>, Error> {
        let Offered::Present(connection) = self.connection_for(ApiKey::DeleteAcls).await? else {
            return Ok(Offered::Absent);
        };
        let filter = |acl: &&Acl| {
            DeleteAclsFilter::default()
                .with_resource_type_filter(acl.resource.code())
                .with_resource_name_filter(Some(text(&acl.name)))
                .with_pattern_type_filter(acl.pattern.code())
                .with_principal_filter(Some(text(&acl.principal)))
                .with_host_filter(Some(text(&acl.host)))
                .with_operation(acl.operation.code())
                .with_permission_type(acl.permission.code())
        };
        let request = DeleteAclsRequest::default().with_filters(acls.iter().map(filter).collect());
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let asked = self.asked_of_cluster("DeleteAcls", "Alter");
        let mut removed = Vec::new();
        for result in &response.filter_results {
            if result.error_code == ResponseError::SecurityDisabled.code() {
                return Ok(Offered::Absent);
            }
            asked.check_with(result.error_code, result.error_message.as_ref())?;
            for rule in &result.matching_acls {
                asked.check_with(rule.error_code, rule.error_message.as_ref())?;
                removed.extend(acl(
                    [rule.resource_type, rule.pattern_type, rule.operation, rule.permission_type],
                    [&rule.resource_name, &rule.principal, &rule.host],
                ));
            }
        }
        Ok(Offered::Present(removed))
    }
}

/// A rule from its numbers (resource, pattern, operation, permission) and names (resource, principal, host).
fn acl(numbers: [i8; 4], names: [&str; 3]) -> Option<Acl> {
    let [resource, pattern, operation, permission] = numbers;
    let [name, principal, host] = names.map(str::to_owned);
    Some(Acl {
        principal,
        resource: Resource::of_code(resource)?,
        name,
        pattern: Pattern::of_code(pattern)?,
        operation: Operation::of_code(operation)?,
        permission: Permission::of_code(permission)?,
        host,
    })
}
