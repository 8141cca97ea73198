//! From a frame to its answer: which requests are served, in which versions, and by whom.
//!
//! One file for each family of requests. A handler takes the decoded request and makes the response; what is the same
//! for all (headers, versions, the rule that an unauthenticated client gets nothing else) is here.

mod acls;
mod admin;
mod cluster;
mod configs;
mod fetch;
mod metadata;
mod offsets;
mod partitions;
mod produce;
mod records;
mod refusal;
mod shape;
mod users;
mod versions;

use super::authorizer::{Client, Rights};
use super::connection::Auth;
use super::sasl::{self, Exchange, MECHANISMS, Step};
use super::server::Shared;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use std::net::IpAddr;
use std::sync::Arc;

/// Only produce requests carry much; the rest describes things.
const LARGEST_DESCRIPTION: usize = 8 << 20;

/// What to do after a request.
pub(crate) enum Outcome {
    Reply(BytesMut),
    /// The client wants no answer.
    Silent,
    /// Answer, then close.
    Denied {
        reply: BytesMut,
        why: String,
    },
}

/// A request that has no answer; as with Kafka, the connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("request {key} version {version} is not served by the embedded broker")]
    NotServed { key: i16, version: i16 },
    #[error("request {0:?} before authentication: the client must use SASL")]
    NotAuthenticated(ApiKey),
    #[error("{0:?} request can't be decoded: {1}")]
    Malformed(ApiKey, String),
    #[error("{0:?} response can't be encoded: {1}")]
    Encoding(ApiKey, String),
    #[error("produce without acknowledgement failed: {0}")]
    Unacknowledged(ResponseError),
    #[error("request's header is cut short")]
    Header,
    #[error("task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A request's frame, with its header read.
struct Call {
    key: ApiKey,
    version: i16,
    correlation: i32,
    body: Bytes,
}

impl Call {
    fn read(mut frame: Bytes) -> Result<Self, RequestError> {
        let fixed: [u8; 8] = *frame.first_chunk().ok_or(RequestError::Header)?;
        let (number, mut version) =
            (i16::from_be_bytes([fixed[0], fixed[1]]), i16::from_be_bytes([fixed[2], fixed[3]]));
        let correlation = i32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let not_served = RequestError::NotServed { key: number, version };
        let Some((key, range)) = ApiKey::try_from(number).ok().and_then(|key| Some((key, versions::served(key)?)))
        else {
            return Err(not_served);
        };
        if !(range.min..=range.max).contains(&version) {
            if key != ApiKey::ApiVersions {
                return Err(not_served);
            }
            // A client that does not know us starts with its newest version; it is told ours in the oldest.
            version = versions::UNKNOWN;
            return Ok(Self { key, version, correlation, body: Bytes::new() });
        }
        let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(key, error.to_string());
        RequestHeader::decode(&mut frame, key.request_header_version(version)).map_err(|e| malformed(&e))?;
        if key != ApiKey::Produce && frame.len() > LARGEST_DESCRIPTION {
            return Err(malformed(&"it is too large"));
        }
        shape::check(key, version, &frame).map_err(|e| malformed(&e))?;
        Ok(Self { key, version, correlation, body: frame })
    }

    fn decode<R: Decodable>(&self) -> Result<R, RequestError> {
        R::decode(&mut self.body.clone(), self.version).map_err(|e| RequestError::Malformed(self.key, e.to_string()))
    }

    fn reply<R: Encodable>(&self, response: &R) -> Result<BytesMut, RequestError> {
        self.encode(response).map_err(|e| RequestError::Encoding(self.key, format!("{e:#}")))
    }

    fn encode<R: Encodable>(&self, response: &R) -> anyhow_free::Result<BytesMut> {
        let version = self.version.max(0);
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        let header_version = self.key.response_header_version(version);
        let size = header.compute_size(header_version)? + response.compute_size(version)?;
        let mut reply = BytesMut::with_capacity(4 + size);
        reply.put_u32(u32::try_from(size)?);
        header.encode(&mut reply, header_version)?;
        response.encode(&mut reply, version)?;
        Ok(reply)
    }
}

/// The codec's errors without naming their type, which is another crate's.
mod anyhow_free {
    pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
}

/// Serves one request of a client at the address `host`.
pub(crate) async fn handle(
    shared: &Arc<Shared>,
    host: IpAddr,
    auth: &mut Auth,
    frame: Bytes,
) -> Result<Outcome, RequestError> {
    let call = Call::read(frame)?;
    match call.key {
        ApiKey::ApiVersions => return call.reply(&versions::answer(call.version)).map(Outcome::Reply),
        ApiKey::SaslHandshake => return handshake(shared, auth, &call),
        ApiKey::SaslAuthenticate => return authenticate(shared, host, auth, &call),
        _ => {}
    }
    let Auth::Done(client) = auth else { return Err(RequestError::NotAuthenticated(call.key)) };
    let rights = Rights::new(shared.authorizer.as_ref(), client);
    let reply = match call.key {
        ApiKey::Produce => match produce::handle(shared, &rights, call.decode()?, call.version).await? {
            Some(response) => call.reply(&response),
            None => return Ok(Outcome::Silent),
        },
        ApiKey::Fetch => call.reply(&fetch::handle(shared, &rights, call.decode()?, call.version).await?),
        ApiKey::Metadata => call.reply(&metadata::handle(shared, &rights, &call.decode()?, call.version)),
        ApiKey::ListOffsets => call.reply(&offsets::handle(shared, &rights, call.decode()?, call.version).await?),
        ApiKey::CreateTopics => call.reply(&admin::create(shared, rights, call.decode()?, call.version).await?),
        ApiKey::DeleteTopics => call.reply(&admin::delete(shared, rights, call.decode()?, call.version).await?),
        ApiKey::DeleteRecords => call.reply(&records::delete(shared, rights, call.decode()?).await?),
        ApiKey::DescribeConfigs => call.reply(&configs::describe(shared, &rights, &call.decode()?, call.version)),
        ApiKey::IncrementalAlterConfigs => {
            call.reply(&configs::alter_incrementally(shared, rights, call.decode()?).await?)
        }
        ApiKey::AlterConfigs => call.reply(&configs::alter(shared, rights, call.decode()?).await?),
        ApiKey::DescribeCluster => call.reply(&cluster::describe(shared, &rights, &call.decode()?)),
        ApiKey::FindCoordinator => call.reply(&cluster::find_coordinator(&call.decode()?, call.version)),
        ApiKey::InitProducerId => call.reply(&produce::init_producer_id(shared, &rights, call.decode()?).await?),
        ApiKey::CreatePartitions => call.reply(&partitions::create(shared, rights, call.decode()?).await?),
        ApiKey::DescribeAcls => call.reply(&acls::describe(shared, &rights, &call.decode()?)),
        ApiKey::CreateAcls => call.reply(&acls::create(shared, &rights, call.decode()?).await?),
        ApiKey::DeleteAcls => call.reply(&acls::delete(shared, &rights, call.decode()?).await?),
        ApiKey::DescribeUserScramCredentials => call.reply(&users::describe(shared, &rights, &call.decode()?)),
        ApiKey::AlterUserScramCredentials => call.reply(&users::alter(shared, &rights, call.decode()?).await?),
        key => return Err(RequestError::NotServed { key: key as i16, version: call.version }),
    };
    reply.map(Outcome::Reply)
}

fn handshake(shared: &Shared, auth: &mut Auth, call: &Call) -> Result<Outcome, RequestError> {
    let request: SaslHandshakeRequest = call.decode()?;
    let offered = MECHANISMS.iter().filter(|_| shared.must_authenticate());
    let response = SaslHandshakeResponse::default()
        .with_mechanisms(offered.map(|(name, _)| StrBytes::from_static_str(name)).collect());
    if !shared.must_authenticate() || matches!(auth, Auth::Done(_)) {
        return call.reply(&response.with_error_code(ResponseError::IllegalSaslState.code())).map(Outcome::Reply);
    }
    let Some(mechanism) = sasl::mechanism(&request.mechanism) else {
        let reply = call.reply(&response.with_error_code(ResponseError::UnsupportedSaslMechanism.code()))?;
        return Ok(Outcome::Denied { reply, why: "SASL mechanism asked for is not served".to_owned() });
    };
    *auth = Auth::Proving(Exchange::new(mechanism));
    call.reply(&response).map(Outcome::Reply)
}

fn authenticate(shared: &Shared, host: IpAddr, auth: &mut Auth, call: &Call) -> Result<Outcome, RequestError> {
    let request: SaslAuthenticateRequest = call.decode()?;
    let refusal = |error: ResponseError, text: String| {
        SaslAuthenticateResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(text)))
    };
    let Auth::Proving(exchange) = &mut *auth else {
        let text = "SaslAuthenticate must follow SaslHandshake, once".to_owned();
        return call.reply(&refusal(ResponseError::IllegalSaslState, text)).map(Outcome::Reply);
    };
    let answer = match exchange.step(&shared.accounts, &request.auth_bytes) {
        Ok(Step::Challenge(challenge)) => challenge,
        Ok(Step::Done { user, answer }) => {
            tracing::debug!(user, "client authenticated");
            *auth = Auth::Done(Client::user(&user, host));
            answer
        }
        Err(denied) => {
            let why = denied.to_string();
            let reply = call.reply(&refusal(ResponseError::SaslAuthenticationFailed, why.clone()))?;
            return Ok(Outcome::Denied { reply, why });
        }
    };
    call.reply(&SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from(answer))).map(Outcome::Reply)
}

/// A message for a response's error field.
fn text(message: impl std::fmt::Display) -> Option<StrBytes> {
    Some(StrBytes::from_string(message.to_string()))
}

#[cfg(test)]
mod tests;
