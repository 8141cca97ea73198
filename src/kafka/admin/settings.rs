//! Topics' settings: reading and changing.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest, IncrementalAlterConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};

use super::{Admin, text, unknown};
use crate::kafka::{Error, acl::Resource};

/// Sets a value, among the operations on settings.
const SET: i8 = 0;

/// Settings by their names.
pub type Settings = BTreeMap<String, String>;

impl Admin {
    /// The settings `keys` of `topics`, defaults included. One result per topic, in their order. Takes DescribeConfigs on
    /// each.
    pub async fn topic_settings(&self, topics: &[&str], keys: &[&str]) -> Result<Vec<Result<Settings, Error>>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        self.within("DescribeConfigs", self.describe_settings(topics, keys)).await
    }

    async fn describe_settings(&self, topics: &[&str], keys: &[&str]) -> Result<Vec<Result<Settings, Error>>, Error> {
        let connection = self.metadata.controller().await?;
        let resource = |topic: &&str| {
            DescribeConfigsResource::default()
                .with_resource_type(Resource::Topic.code())
                .with_resource_name(text(topic))
                .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()))
        };
        let request = DescribeConfigsRequest::default().with_resources(topics.iter().map(resource).collect());
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let of = |topic: &&str| {
            let asked = self.asked("DescribeConfigs", topic, "DescribeConfigs");
            let answer = response.results.iter().find(|answer| answer.resource_name.as_str() == *topic);
            let answer = answer.ok_or_else(|| asked.error(ResponseError::UnknownTopicOrPartition))?;
            asked.check_with(answer.error_code, answer.error_message.as_ref())?;
            let value = |value: &Option<StrBytes>| value.as_ref().map(ToString::to_string).unwrap_or_default();
            Ok(answer.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect())
        };
        Ok(topics.iter().map(of).collect())
    }

    /// Sets some settings of topics and leaves the others. One result per topic, in their order: all of a topic's, or
    /// none. Takes AlterConfigs on each.
    pub async fn set_topic_settings(
        &self,
        changes: &[(&str, &[(&str, &str)])],
    ) -> Result<Vec<Result<(), Error>>, Error> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        self.within("IncrementalAlterConfigs", self.alter_settings(changes)).await
    }

    async fn alter_settings(&self, changes: &[(&str, &[(&str, &str)])]) -> Result<Vec<Result<(), Error>>, Error> {
        let connection = self.metadata.controller().await?;
        let set = |(key, value): &(&str, &str)| {
            AlterableConfig::default().with_name(text(key)).with_config_operation(SET).with_value(Some(text(value)))
        };
        let resource = |(topic, settings): &(&str, &[(&str, &str)])| {
            AlterConfigsResource::default()
                .with_resource_type(Resource::Topic.code())
                .with_resource_name(text(topic))
                .with_configs(settings.iter().map(set).collect())
        };
        let request = IncrementalAlterConfigsRequest::default().with_resources(changes.iter().map(resource).collect());
        let response = connection.call(&request, self.metadata.dialer.request_timeout()).await?;
        let of = |(topic, _): &(&str, &[(&str, &str)])| {
            let answer = response.responses.iter().find(|answer| answer.resource_name.as_str() == *topic);
            let answer = answer.ok_or_else(|| unknown("IncrementalAlterConfigs"))?;
            let asked = self.asked("IncrementalAlterConfigs", topic, "AlterConfigs");
            asked.check_with(answer.error_code, answer.error_message.as_ref())
        };
        Ok(changes.iter().map(of).collect())
    }
}
