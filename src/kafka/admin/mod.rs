//! What only an administrator asks of a cluster: topics and their settings, access rules, users.
//!
//! Every call ends within 30 s and asks once. An answer per item says what became of each; a missing right is an
//! [`Error::Authorization`] that names it. What a cluster does not have at all is no error but [`Offered::Absent`].

mod acls;
mod scram;
mod settings;
mod topics;

use std::sync::Arc;

use kafka_protocol::{error::ResponseError, messages::ApiKey, protocol::StrBytes};

pub use scram::{ScramMechanism, ScramUser};
pub use topics::FoundTopic;

use super::{
    Error, KafkaCluster,
    cluster::{QUESTION, within},
    code::Asked,
    connection::Connection,
    metadata::Metadata,
};

/// Something that not every cluster has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered<T> {
    /// It is there.
    Present(T),
    /// The cluster has none: access rules where no authorizer is configured, users where none are kept.
    Absent,
}

impl<T> Offered<T> {
    /// What is there.
    pub fn present(self) -> Option<T> {
        match self {
            Self::Present(value) => Some(value),
            Self::Absent => None,
        }
    }
}

/// One cluster, as an administrator sees it. Clones share its connection for questions.
#[derive(Clone)]
pub struct Admin {
    metadata: Arc<Metadata>,
}

impl KafkaCluster {
    /// The cluster as an administrator sees it.
    pub fn admin(&self) -> Admin {
        Admin { metadata: Arc::clone(self.metadata()) }
    }
}

impl Admin {
    /// Who we are in access rules: `User:name`.
    pub fn principal(&self) -> &str {
        self.metadata.dialer.principal()
    }

    /// The configured brokers, as `--bootstrap-server` takes them.
    pub fn bootstrap(&self) -> String {
        self.metadata.dialer.bootstrap().iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    async fn within<T>(&self, request: &'static str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(QUESTION, self.metadata.dialer.bootstrap(), request, call).await
    }

    /// A connection for a request that an older or simpler broker may not know.
    async fn connection_for(&self, key: ApiKey) -> Result<Offered<Arc<Connection>>, Error> {
        let connection = self.metadata.controller().await?;
        Ok(if connection.knows(key) { Offered::Present(connection) } else { Offered::Absent })
    }

    fn asked<'a>(&'a self, request: &'static str, topic: &'a str, right: &'static str) -> Asked<'a> {
        Asked { request, topic, partition: None, right, principal: self.principal(), bytes: 0 }
    }

    /// A question about the cluster as a whole.
    fn asked_of_cluster(&self, request: &'static str, right: &'static str) -> Asked<'_> {
        self.asked(request, "the cluster", right)
    }
}

impl Asked<'_> {
    /// As [`Asked::check`], with the broker's own words, which say what it is that was refused.
    fn check_with(&self, code: i16, said: Option<&StrBytes>) -> Result<(), Error> {
        let Some(error) = ResponseError::try_from_code(code) else { return Ok(()) };
        Err(match self.error(error) {
            Error::Refused { broker, request, code } => {
                let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
                Error::Refused { broker, request, code: code + &said }
            }
            other => other,
        })
    }
}

/// That a broker served a request whose kind it does not know is our mistake, and no panic.
fn unknown(request: &'static str) -> Error {
    Error::Refused { broker: "the cluster".to_owned(), request, code: "that it does not know it".to_owned() }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
