//! One connection to one broker: requests go out in order, answers come back in the same order.
//!
//! Any number of requests may be on the way. A request that is not answered in time poisons the connection, because the
//! answers behind it would wait too: everybody on it gets the error, and its owner opens another one.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader},
    protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes, encode_request_header_into_buffer},
};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{
    Error, Hop,
    config::Address,
    dial::{Stream, fail},
    frames::Frames,
    tls,
};

type Answer = oneshot::Sender<Bytes>;

/// An open connection.
pub(super) struct Connection {
    broker: Address,
    client_id: StrBytes,
    versions: BTreeMap<i16, (i16, i16)>,
    state: Arc<Mutex<State>>,
    /// Taken for the time of one frame, so that frames do not mix. The order in which it is taken is the order of
    /// `State::waiting`.
    write: tokio::sync::Mutex<WriteHalf<Box<dyn Stream>>>,
    reader: JoinHandle<()>,
    /// When the login ends.
    pub(super) renew_at: Option<Instant>,
}

#[derive(Default)]
struct State {
    next: i32,
    answered: u64,
    waiting: VecDeque<(i32, Answer)>,
    /// Why the connection is of no use any more.
    dead: Option<Error>,
}

/// An answer that is on its way.
pub(super) struct Pending<'a> {
    connection: &'a Connection,
    request: &'static str,
    deadline: Instant,
    limit: Duration,
    answer: oneshot::Receiver<Bytes>,
}

impl Connection {
    /// Takes a stream over and asks the broker which versions it speaks.
    pub(super) async fn start(
        stream: Box<dyn Stream>,
        broker: Address,
        client_id: &str,
        limit: Duration,
    ) -> Result<Self, Error> {
        let (read, write) = tokio::io::split(stream);
        let state = Arc::new(Mutex::new(State::default()));
        let reader = tokio::spawn(read_answers(read, broker.clone(), Arc::clone(&state)));
        let mut connection = Self {
            broker,
            client_id: StrBytes::from_string(client_id.to_owned()),
            versions: BTreeMap::new(),
            state,
            write: tokio::sync::Mutex::new(write),
            reader,
            renew_at: None,
        };
        connection.versions = connection.ask_versions(limit).await?;
        Ok(connection)
    }

    /// The broker at the other end.
    pub(super) fn broker(&self) -> &Address {
        &self.broker
    }

    /// The versions of each request that the broker speaks.
    pub(super) fn versions(&self) -> &BTreeMap<i16, (i16, i16)> {
        &self.versions
    }

    /// Whether it may be used for a new request.
    pub(super) fn is_usable(&self) -> bool {
        self.state().dead.is_none() && self.renew_at.is_none_or(|at| Instant::now() < at)
    }

    /// Whether the broker serves a request at all.
    pub(super) fn knows(&self, key: ApiKey) -> bool {
        self.versions.contains_key(&(key as i16))
    }

    /// The newest version of a request that both sides speak, from `ours` on down.
    pub(super) fn version(&self, key: ApiKey, ours: std::ops::RangeInclusive<i16>) -> Result<i16, Error> {
        let (least, most) = self.versions.get(&(key as i16)).copied().unwrap_or((0, -1));
        let version = most.min(*ours.end());
        if version >= least.max(*ours.start()) {
            return Ok(version);
        }
        let code = match most {
            -1 => format!("that it does not know {key:?}; is it Apache Kafka 2.1 or newer?"),
            _ => format!("versions {least} to {most}, and we speak {} to {}", ours.start(), ours.end()),
        };
        Err(Error::Refused { broker: self.broker.to_string(), request: "ApiVersions", code })
    }

    /// Sends `request` and waits up to `limit` for its answer.
    pub(super) async fn call<R: Request>(&self, request: &R, limit: Duration) -> Result<R::Response, Error> {
        let key = ApiKey::try_from(R::KEY).expect("a request of the codec has a key");
        let version = self.version(key, R::VERSIONS.min..=R::VERSIONS.max.min(newest(key)))?;
        let frame = self.frame(key, version, |frame| request.encode(frame, version))?;
        let body = self.send(frame, name(key), limit).await?.wait().await?;
        self.decode::<R::Response>(body, version, name(key))
    }

    /// A frame with everything but its length and correlation id.
    pub(super) fn frame<E: std::fmt::Display>(
        &self,
        key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<BytesMut, Error> {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_client_id(Some(self.client_id.clone()));
        let mut frame = BytesMut::with_capacity(512);
        frame.put_i32(0);
        let refused = |e: String| Error::Refused { broker: self.broker.to_string(), request: name(key), code: e };
        encode_request_header_into_buffer(&mut frame, &header).map_err(|e| refused(e.to_string()))?;
        body(&mut frame).map_err(|e| refused(e.to_string()))?;
        Ok(frame)
    }

    /// Sends a frame. When this returns, it is with the operating system, and the answer can be waited for.
    pub(super) async fn send(
        &self,
        mut frame: BytesMut,
        request: &'static str,
        limit: Duration,
    ) -> Result<Pending<'_>, Error> {
        let deadline = Instant::now() + limit;
        let length = i32::try_from(frame.len() - 4).map_err(|_| {
            let code = format!("{} bytes in one request", frame.len());
            Error::Refused { broker: self.broker.to_string(), request, code }
        })?;
        let mut write = timeout_at(deadline, self.write.lock()).await.map_err(|_| self.late(request, limit))?;
        let answer = {
            let mut state = self.state();
            if let Some(error) = &state.dead {
                return Err(error.clone());
            }
            let id = state.next;
            state.next = state.next.wrapping_add(1);
            frame[..4].copy_from_slice(&length.to_be_bytes());
            frame[CORRELATION..CORRELATION + 4].copy_from_slice(&id.to_be_bytes());
            let (answer, receiver) = oneshot::channel();
            state.waiting.push_back((id, answer));
            receiver
        };
        let half_sent = HalfSent { connection: self, request };
        let sent = timeout_at(deadline, async {
            write.write_all(&frame).await?;
            write.flush().await
        })
        .await;
        std::mem::forget(half_sent);
        match sent {
            Ok(Ok(())) => Ok(Pending { connection: self, request, deadline, limit, answer }),
            Ok(Err(error)) => {
                let fresh = self.state().is_fresh();
                Err(self.poison(io_error(&self.broker, &error, fresh)))
            }
            Err(_) => Err(self.late(request, limit)),
        }
    }

    /// Decodes an answer's header and body.
    pub(super) fn decode<T: Decodable + HeaderVersion>(
        &self,
        mut body: Bytes,
        version: i16,
        request: &'static str,
    ) -> Result<T, Error> {
        ResponseHeader::decode(&mut body, T::header_version(version))
            .and_then(|_| T::decode(&mut body, version))
            .map_err(|e| Error::Refused {
                broker: self.broker.to_string(),
                request,
                code: format!("something that cannot be read ({e})"),
            })
    }

    async fn ask_versions(&self, limit: Duration) -> Result<BTreeMap<i16, (i16, i16)>, Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(env!("CARGO_PKG_NAME")))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        // A broker that does not know a version answers in version 0 with an error code, and is asked in version 0.
        let mut version = 3;
        loop {
            let frame = self.frame(ApiKey::ApiVersions, version, |frame| request.encode(frame, version))?;
            let body = self.send(frame, "ApiVersions", limit).await?.wait().await?;
            let refused = body.len() >= 6 && body.slice(4..6).get_i16() != 0;
            if refused && version > 0 {
                version = 0;
                continue;
            }
            let response: ApiVersionsResponse = self.decode(body, version, "ApiVersions")?;
            return Ok(response.api_keys.iter().map(|k| (k.api_key, (k.min_version, k.max_version))).collect());
        }
    }

    fn late(&self, request: &str, limit: Duration) -> Error {
        self.poison(fail(Hop::Request, &self.broker, format!("no answer to {request} within {limit:?}")))
    }

    /// Makes the connection useless; the first reason stays.
    fn poison(&self, error: Error) -> Error {
        self.reader.abort();
        self.state().die(error)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl State {
    /// Whether the broker has answered no more than the question for its versions.
    fn is_fresh(&self) -> bool {
        self.answered <= 1
    }

    fn die(&mut self, error: Error) -> Error {
        self.waiting.clear();
        self.dead.get_or_insert(error).clone()
    }
}

impl Pending<'_> {
    /// Waits for the answer: correlation id, header and body.
    pub(super) async fn wait(self) -> Result<Bytes, Error> {
        match timeout_at(self.deadline, self.answer).await {
            Ok(Ok(body)) => Ok(body),
            Ok(Err(_)) => {
                let lost = || fail(Hop::Request, &self.connection.broker, "the connection was closed".to_owned());
                Err(self.connection.state().dead.clone().unwrap_or_else(lost))
            }
            Err(_) => Err(self.connection.late(self.request, self.limit)),
        }
    }
}

/// A caller that goes away in the middle of a frame leaves a connection on which nothing can follow.
struct HalfSent<'a> {
    connection: &'a Connection,
    request: &'static str,
}

impl Drop for HalfSent<'_> {
    fn drop(&mut self) {
        let detail = format!("{} was given up half-sent", self.request);
        self.connection.poison(fail(Hop::Request, &self.connection.broker, detail));
    }
}

async fn read_answers(read: ReadHalf<Box<dyn Stream>>, broker: Address, state: Arc<Mutex<State>>) {
    let mut frames = Frames::new(read);
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let error = loop {
        let frame = match frames.next().await {
            Ok(frame) => frame,
            Err(error) => break io_error(&broker, &error, lock().is_fresh()),
        };
        let mut state = lock();
        let id = frame.get(..4).map(|mut id| id.get_i32());
        match state.waiting.pop_front() {
            // The receiver may have gone away, that is no fault of the connection.
            Some((expected, answer)) if Some(expected) == id => drop(answer.send(frame)),
            _ => break fail(Hop::Request, &broker, "an answer came that nobody asked for".to_owned()),
        }
        state.answered += 1;
    };
    lock().die(error);
}

/// What a broken stream means. Before the first real answer it mostly means that the two sides expect different things.
fn io_error(broker: &Address, error: &io::Error, fresh: bool) -> Error {
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        return fail(Hop::Tls, broker, tls::explain(error, &broker.host));
    }
    let closed = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    let detail = match (closed, fresh) {
        (true, true) => "the broker hung up at the first request; does this listener want TLS, or a login?".to_owned(),
        (true, false) => "the broker closed the connection".to_owned(),
        (false, _) => error.to_string(),
    };
    fail(Hop::Request, broker, detail)
}

/// Where the correlation id lies in a request: behind length, API key and version.
const CORRELATION: usize = 8;

/// The newest versions that we use. Fetch and Produce name topics by id from 13 on, which we do not keep track of;
/// DeleteTopics may from 6 on.
fn newest(key: ApiKey) -> i16 {
    match key {
        ApiKey::Fetch => 12,
        ApiKey::ListOffsets => 7,
        ApiKey::Metadata => 12,
        ApiKey::DeleteTopics => 5,
        _ => i16::MAX,
    }
}

fn name(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "Produce",
        ApiKey::Fetch => "Fetch",
        ApiKey::ListOffsets => "ListOffsets",
        ApiKey::Metadata => "Metadata",
        ApiKey::SaslHandshake => "SaslHandshake",
        ApiKey::SaslAuthenticate => "SaslAuthenticate",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::CreateTopics => "CreateTopics",
        ApiKey::DeleteRecords => "DeleteRecords",
        ApiKey::DeleteTopics => "DeleteTopics",
        ApiKey::DescribeConfigs => "DescribeConfigs",
        ApiKey::IncrementalAlterConfigs => "IncrementalAlterConfigs",
        ApiKey::DescribeAcls => "DescribeAcls",
        ApiKey::CreateAcls => "CreateAcls",
        ApiKey::DeleteAcls => "DeleteAcls",
        ApiKey::DescribeUserScramCredentials => "DescribeUserScramCredentials",
        ApiKey::AlterUserScramCredentials => "AlterUserScramCredentials",
        _ => "request",
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
