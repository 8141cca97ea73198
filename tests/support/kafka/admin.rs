//! The few admin requests that a test needs: on the internal listener of Apache Kafka's nodes, where everybody is a super
//! user, or as some user over TLS.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateAclsRequest, CreateTopicsRequest,
    DescribeAclsRequest, IncrementalAlterConfigsRequest, MetadataRequest, MetadataResponse, RequestHeader,
    SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{
    Decodable, Encodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use super::super::another::trusting;
use super::super::user::{AGENT, CONTROLLER, User};

/// Kinds of resources, as the protocol numbers them.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Resource {
    Topic = 2,
    Cluster = 4,
}

/// Operations, as the protocol numbers them.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    DescribeConfigs = 10,
    AlterConfigs = 11,
}

/// A rule that allows `user` an operation on one resource, or on all whose name starts with `name`.
pub struct Rule<'a> {
    /// Whom.
    pub user: &'a str,
    /// On what kind of thing.
    pub resource: Resource,
    /// Its name; `kafka-cluster` for the cluster.
    pub name: &'a str,
    /// Whether `name` is only the start.
    pub prefix: bool,
    /// What.
    pub operation: Operation,
}

impl Rule<'_> {
    fn pattern(&self) -> i8 {
        const LITERAL: i8 = 3;
        const PREFIXED: i8 = 4;
        if self.prefix { PREFIXED } else { LITERAL }
    }

    fn principal(&self) -> StrBytes {
        string(&format!("User:{}", self.user))
    }
}

const ALLOW: i8 = 3;

/// Whether `RK_TEST_LAYOUT=per-agent` asks for agents with topics of their own.
pub fn agents_have_topics() -> bool {
    match std::env::var("RK_TEST_LAYOUT").as_deref() {
        Err(_) | Ok("" | "shared") => false,
        Ok("per-agent") => true,
        Ok(other) => panic!("RK_TEST_LAYOUT={other}: it is shared or per-agent"),
    }
}

/// Names of the topics below a prefix: of the shared layout, and of all agents that have one of their own.
pub struct SharedLayout([String; 7]);

impl SharedLayout {
    /// Below the prefix `cluster`.
    pub fn new(cluster: &str) -> SharedLayout {
        SharedLayout(
            ["", "down.", "up.", "logs", "blobs", "artifacts", "agent."].map(|name| format!("{cluster}.{name}")),
        )
    }

    /// The rights of [`CONTROLLER`] and [`AGENT`].
    pub fn rules(&self) -> Vec<Rule<'_>> {
        let [all, down, up, logs, blobs, artifacts, own] = &self.0;
        let topic = |user: User, name, prefix, operation| Rule {
            user: user.name,
            resource: Resource::Topic,
            name,
            prefix,
            operation,
        };
        let mut rules = vec![
            topic(CONTROLLER, all, true, Operation::All),
            topic(AGENT, down, true, Operation::Read),
            topic(AGENT, up, true, Operation::Write),
            topic(AGENT, logs, false, Operation::Write),
            topic(AGENT, blobs, false, Operation::Read),
            topic(AGENT, artifacts, false, Operation::Write),
        ];
        if agents_have_topics() {
            rules.push(topic(AGENT, own, true, Operation::Read));
        }
        rules
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection to one node.
pub struct Admin {
    stream: Box<dyn Stream>,
    correlation: i32,
}

impl Admin {
    /// Connects to a node's internal listener.
    pub fn connect(port: u16) -> io::Result<Admin> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        stream.set_nodelay(true)?;
        Ok(Admin { stream: Box::new(stream), correlation: 0 })
    }

    /// Connects to `address`, host and port, over TLS, trusting `ca`, and logs in.
    pub fn log_in(address: &str, ca: &Path, user: User) -> io::Result<Admin> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        let (host, _) = address.rsplit_once(':').unwrap();
        let name = host.to_owned().try_into().unwrap();
        let tls = rustls::ClientConnection::new(trusting(ca), name).map_err(io::Error::other)?;
        let mut admin = Admin { stream: Box::new(rustls::StreamOwned::new(tls, stream)), correlation: 0 };
        let shaken = admin.ask(1, &SaslHandshakeRequest::default().with_mechanism(string("PLAIN")))?;
        checked(shaken.error_code, None)?;
        let login = format!("\0{}\0{}", user.name, user.password);
        let answer = admin.ask(2, &SaslAuthenticateRequest::default().with_auth_bytes(login.into()))?;
        checked(answer.error_code, answer.error_message)?;
        Ok(admin)
    }

    /// Brokers and topics as this node knows them.
    pub fn metadata(&mut self) -> io::Result<MetadataResponse> {
        self.ask(12, &MetadataRequest::default().with_topics(None))
    }

    /// Allows what the rules say.
    pub fn allow(&mut self, rules: &[Rule]) -> io::Result<()> {
        let creations = rules
            .iter()
            .map(|rule| {
                AclCreation::default()
                    .with_resource_type(rule.resource as i8)
                    .with_resource_name(string(rule.name))
                    .with_resource_pattern_type(rule.pattern())
                    .with_principal(rule.principal())
                    .with_host(string("*"))
                    .with_operation(rule.operation as i8)
                    .with_permission_type(ALLOW)
            })
            .collect();
        let answer = self.ask(3, &CreateAclsRequest::default().with_creations(creations))?;
        answer.results.into_iter().try_for_each(|result| checked(result.error_code, result.error_message))
    }

    /// Whether this node holds a rule.
    pub fn holds(&mut self, rule: &Rule) -> io::Result<bool> {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(rule.resource as i8)
            .with_resource_name_filter(Some(string(rule.name)))
            .with_pattern_type_filter(rule.pattern())
            .with_principal_filter(Some(rule.principal()))
            .with_host_filter(None)
            .with_operation(rule.operation as i8)
            .with_permission_type(ALLOW);
        let answer = self.ask(3, &request)?;
        checked(answer.error_code, answer.error_message)?;
        Ok(!answer.resources.is_empty())
    }

    /// Adds a user for both SCRAM mechanisms, or changes the password.
    pub fn set_password(&mut self, user: &str, password: &str) -> io::Result<()> {
        const ROUNDS: i32 = 4096;
        let rounds = NonZeroU32::new(ROUNDS.unsigned_abs()).unwrap();
        let salt = *uuid::Uuid::new_v4().as_bytes();
        let hashes = [(1, ring::pbkdf2::PBKDF2_HMAC_SHA256, 32), (2, ring::pbkdf2::PBKDF2_HMAC_SHA512, 64)];
        // One mechanism a request: Kafka refuses a user who is named twice.
        for (mechanism, algorithm, length) in hashes {
            let mut salted = vec![0; length];
            ring::pbkdf2::derive(algorithm, rounds, &salt, password.as_bytes(), &mut salted);
            let upsertion = ScramCredentialUpsertion::default()
                .with_name(string(user))
                .with_mechanism(mechanism)
                .with_iterations(ROUNDS)
                .with_salt(Bytes::copy_from_slice(&salt))
                .with_salted_password(salted.into());
            let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
            let answer = self.ask(0, &request)?;
            answer.results.into_iter().try_for_each(|result| checked(result.error_code, result.error_message))?;
        }
        Ok(())
    }

    /// Sets a quota of a user, such as `producer_byte_rate` or `request_percentage`; none removes it.
    pub fn set_quota(&mut self, user: &str, key: &str, value: Option<f64>) -> io::Result<()> {
        let entity = EntityData::default().with_entity_type(string("user")).with_entity_name(Some(string(user)));
        let op =
            OpData::default().with_key(string(key)).with_value(value.unwrap_or_default()).with_remove(value.is_none());
        let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
        let answer = self.ask(1, &AlterClientQuotasRequest::default().with_entries(vec![entry]))?;
        answer.entries.into_iter().try_for_each(|entry| checked(entry.error_code, entry.error_message))
    }

    /// Makes a topic with the cluster's defaults.
    pub fn create_topic(&mut self, name: &str, partitions: i32, replication: i16) -> io::Result<()> {
        let topic = CreatableTopic::default()
            .with_name(string(name).into())
            .with_num_partitions(partitions)
            .with_replication_factor(replication);
        let answer = self.ask(7, &CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000))?;
        answer.topics.into_iter().try_for_each(|topic| checked(topic.error_code, topic.error_message))
    }

    /// Sets a setting of a topic.
    pub fn set_topic_config(&mut self, topic: &str, key: &str, value: &str) -> io::Result<()> {
        const TOPIC: i8 = 2;
        let config = AlterableConfig::default().with_name(string(key)).with_value(Some(string(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(string(topic))
            .with_configs(vec![config]);
        let answer = self.ask(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]))?;
        answer.responses.into_iter().try_for_each(|one| checked(one.error_code, one.error_message))
    }

    /// One request, one answer.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(string("test-admin")));
        let mut frame = BytesMut::new();
        encode_request_header_into_buffer(&mut frame, &header).map_err(io::Error::other)?;
        request.encode(&mut frame, version).map_err(io::Error::other)?;
        self.stream.write_all(&u32::try_from(frame.len()).unwrap().to_be_bytes())?;
        self.stream.write_all(&frame)?;
        self.stream.flush()?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        // Correlation id, and an empty tag section where the response's header is of version 1.
        let header = if R::Response::header_version(version) >= 1 { 5 } else { 4 };
        R::Response::decode(&mut Bytes::from(answer).slice(header..), version).map_err(io::Error::other)
    }
}

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn checked(code: i16, message: Option<StrBytes>) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::other(format!("Kafka says {code}: {}", message.unwrap_or_default().as_str()))),
    }
}
