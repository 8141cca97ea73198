//! From settings to a cluster.

use super::{Failure, failure};
use crate::{
    config::Settings,
    kafka::{KafkaCluster, config::client_id},
    link::LinkError,
};

/// The cluster that the settings name, seen as `rk-<role>-<name>`. Nothing is opened yet.
pub fn cluster(settings: &Settings, role: &str, name: &str) -> Result<KafkaCluster, Failure> {
    Ok(KafkaCluster::new(settings.kafka(client_id(role, name))?)?)
}

impl From<LinkError> for Failure {
    fn from(e: LinkError) -> Self {
        let code = match &e {
            LinkError::Kafka(e) => return e.clone().into(),
            LinkError::NoAnswer(_) | LinkError::Ended(_) => failure::UNREACHABLE,
            LinkError::UnknownAgent(_)
            | LinkError::Removed(_)
            | LinkError::Revoked(_)
            | LinkError::NotEnrolled(_)
            | LinkError::AnotherController { .. } => failure::REFUSED,
            LinkError::Superseded(_) => failure::SUPERSEDED,
            LinkError::Version(_) => failure::TOO_OLD,
        };
        Self::new(code, e.to_string())
    }
}
