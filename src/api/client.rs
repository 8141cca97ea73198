//! A client of the HTTP API: what the command line uses, and programs that don't want to run a controller themselves.
//!
//! Every request has a connection of its own and ends within the timeout; an execution's connection lives as long as
//! the execution.

mod access;
mod artifacts;
mod bundles;
mod enrol;
mod exec;
mod follow;
mod items;
mod jobs;
mod place;
mod resume;
mod retry;
mod service;
mod stdin;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    AddAgent, AddedAgent, Agent, AgentCondition, AgentList, ApiError, Code, EXEC_PROTOCOL, ExecRequest, MAX_CALL,
    MAX_JSON, RemovedAgent, Status, agents::UpdateAgent, frames::FramesError,
};
use crate::{
    id::{AgentName, ExecId},
    secret::Secret,
    selector::Selector,
};

pub use artifacts::PackReceiver;
pub use exec::{ExecReceiver, ExecSender};
pub use follow::{Followed, LogFollower};
pub use jobs::LogReceiver;
#[cfg(feature = "cli")]
pub use retry::Retry;
#[cfg(any(feature = "cli", test))]
pub use retry::patiently;

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The address is malformed.
    #[error(
        "controller address {0:?} is malformed; write it like http://127.0.0.1:7480 or https://controller.example:7480"
    )]
    Address(String),
    /// Nobody listens there, or the way is barred.
    #[error("the controller at {address} cannot be reached: {detail}; is `rk controller run` up?")]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The answer did not come in time.
    #[error("the controller at {address} did not answer within {after:?}")]
    Timeout {
        /// Where.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// Nothing came of several tries.
    #[error("the controller did not answer within {after:?}; look at `rk status`")]
    Silent {
        /// How long was waited.
        after: Duration,
    },
    /// The controller answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The connection ended in the middle.
    #[error("the connection to the controller at {address} broke: {detail}")]
    Broken {
        /// Where.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The answer is not what this program understands.
    #[error("the controller at {address} answers what this program does not understand: {detail}")]
    Protocol {
        /// Where.
        address: String,
        /// What was odd.
        detail: String,
    },
}

impl ClientError {
    /// The exit code of a command that ends with it: 64 usage, 69 unreachable, 75 try again, 77 refused.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) => 64,
            Self::Api(error) => error.code.exit_code(),
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::Broken { .. }
            | Self::Protocol { .. } => 69,
        }
    }

    /// Whether the same request may succeed later, as when a controller restarts.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Silent { .. } | Self::Broken { .. } => true,
            Self::Api(error) => error.code.may_pass(),
            Self::Address(_) | Self::Protocol { .. } => false,
        }
    }
}

/// A client. Clones share their settings.
#[derive(Clone)]
pub struct Client {
    address: String,
    host: String,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    authorization: Secret<String>,
    timeout: Duration,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    /// A client of the controller at `address`: `http://HOST:PORT`, `https://HOST:PORT`, or `HOST:PORT` for http.
    /// `tls` is needed for https: which certificate authorities are trusted.
    pub fn new(
        address: &str,
        token: &Secret<String>,
        tls: Option<Arc<rustls::ClientConfig>>,
    ) -> Result<Self, ClientError> {
        let refuse = || ClientError::Address(address.to_owned());
        let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
        let host = rest.trim_end_matches('/');
        let (name, port) = host.rsplit_once(':').ok_or_else(refuse)?;
        port.parse::<u16>().map_err(|_| refuse())?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let tls = match (scheme, tls) {
            ("http", _) => None,
            ("https", Some(config)) => Some((config, ServerName::try_from(name.to_owned()).map_err(|_| refuse())?)),
            _ => return Err(refuse()),
        };
        Ok(Self {
            address: address.to_owned(),
            host: host.to_owned(),
            tls,
            authorization: Secret::new(format!("Bearer {}", token.expose())),
            timeout: Duration::from_secs(60),
        })
    }

    /// Waits up to `timeout` for each answer; 60 s unless told otherwise.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How the controller is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.json(Method::GET, "/v1/status", Bytes::new()).await
    }

    /// The agents that `selector` selects, sorted by name.
    pub async fn agents(&self, selector: &Selector) -> Result<AgentList, ClientError> {
        let path = match selector.is_empty() {
            true => "/v1/agents".to_owned(),
            false => format!("/v1/agents?selector={}", percent_encoded(&selector.to_string())),
        };
        self.json(Method::GET, &path, Bytes::new()).await
    }

    /// One agent.
    pub async fn agent(&self, name: &AgentName) -> Result<Agent, ClientError> {
        self.json(Method::GET, &format!("/v1/agents/{name}"), Bytes::new()).await
    }

    /// Adds an agent; the answer holds its credential, which cannot be had again.
    pub async fn add_agent(&self, request: &AddAgent) -> Result<AddedAgent, ClientError> {
        self.json(Method::POST, "/v1/agents", self.body(request)?).await
    }

    /// Removes an agent and ends its session.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<RemovedAgent, ClientError> {
        self.json(Method::DELETE, &format!("/v1/agents/{name}"), Bytes::new()).await
    }

    /// Orders an agent to change its program. Asked again with the same id it does nothing more.
    pub async fn update_agent(&self, name: &AgentName, request: &UpdateAgent) -> Result<Agent, ClientError> {
        self.json(Method::POST, &format!("/v1/agents/{name}/update"), self.body(request)?).await
    }

    /// Sends `body` to an agent and returns what came back: the same bytes. For round trips and tests.
    pub async fn echo(&self, name: &AgentName, body: Bytes) -> Result<Bytes, ClientError> {
        self.request(Method::POST, &format!("/v1/agents/{name}/call"), body, MAX_CALL).await
    }

    /// Asks an agent how it is.
    pub async fn condition(&self, name: &AgentName) -> Result<AgentCondition, ClientError> {
        self.json(Method::GET, &format!("/v1/agents/{name}/condition"), Bytes::new()).await
    }

    /// Starts an execution. Its first frame is either `Started`, or `Exit` with why it was not; that no such agent
    /// exists, or that it is offline, is an `Exit` as well and not an error of this call.
    ///
    /// One with [`ExecRequest::resume`] goes on when the connection breaks or the execution cannot be reached: the receiver then
    /// says `Lost` and, when it goes on without a byte missing or doubled, `Resumed`. When the agreed time is over it ends with
    /// the error of a broken connection.
    pub async fn exec(&self, request: &ExecRequest) -> Result<(ExecSender, ExecReceiver), ClientError> {
        let open = async {
            let stream = self.upgrade("/v1/exec", EXEC_PROTOCOL).await?;
            let opened = match request.resume {
                None => exec::open(stream, request).await,
                Some(resume) => exec::open_resumable(stream, request, resume, self.clone()).await,
            };
            opened.map_err(|e| match e {
                FramesError::Malformed(detail) => ApiError::new(Code::TooLarge, detail).into(),
                FramesError::Io(e) => self.broken(e),
            })
        };
        self.within(self.timeout, open).await
    }

    /// Comes as a new user to the execution `id` of `agent`, whoever began it, and shuts the user before out. The first frame is `Attached`, or
    /// `Exit` or `Lost` with why not.
    pub async fn attach(&self, agent: AgentName, id: ExecId) -> Result<(ExecSender, ExecReceiver), ClientError> {
        let open = async {
            let stream = self.upgrade("/v1/exec", EXEC_PROTOCOL).await?;
            exec::open_attached(stream, agent, id, self.clone()).await.map_err(|e| match e {
                FramesError::Malformed(detail) => self.protocol(detail),
                FramesError::Io(e) => self.broken(e),
            })
        };
        self.within(self.timeout, open).await
    }

    /// A connection that goes on with `protocol`.
    async fn upgrade(&self, path: &str, protocol: &'static str) -> Result<resume::Upgraded, ClientError> {
        let upgrade = self
            .head(Method::POST, path)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, protocol)
            .body(Full::default())
            .map_err(|e| self.protocol(e))?;
        let response = self.send(upgrade).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.collect(response, MAX_JSON).await?;
            return Err(self.protocol("no upgrade"));
        }
        let stream = hyper::upgrade::on(response).await.map_err(|e| self.broken(e))?;
        Ok(TokioIo::new(stream))
    }

    async fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let bytes = self.request(method, path, body, MAX_JSON).await?;
        serde_json::from_slice(&bytes).map_err(|e| self.protocol(e))
    }

    async fn request(&self, method: Method, path: &str, body: Bytes, limit: usize) -> Result<Bytes, ClientError> {
        let request = self
            .head(method, path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| self.protocol(e))?;
        self.within(self.timeout, async { self.collect(self.send(request).await?, limit).await }).await
    }

    fn head(&self, method: Method, path: &str) -> hyper::http::request::Builder {
        let mut authorization = header::HeaderValue::from_str(self.authorization.expose())
            .unwrap_or_else(|_| header::HeaderValue::from_static("malformed"));
        authorization.set_sensitive(true);
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, authorization)
    }

    fn body(&self, value: &impl Serialize) -> Result<Bytes, ClientError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|e| self.protocol(e))
    }

    /// Sends a request, and again when it came too often: nothing was done with it. An answer that would come too late is the one that says so.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let until = Instant::now() + self.timeout;
        loop {
            let response = self.send_once(request.clone()).await?;
            let again = retry::retry_after(&response).map(|after| Instant::now() + after);
            match again.filter(|again| *again < until) {
                Some(again) => sleep_until(again).await,
                None => return Ok(response),
            }
        }
    }

    async fn send_once<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ClientError>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let stream = self.within(CONNECT_TIMEOUT, self.connect()).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        // Ends with the connection: when the answer was read, or when an upgraded stream took it over.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|e| self.broken(e))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let unreachable =
            |e: std::io::Error| ClientError::Unreachable { address: self.address.clone(), detail: e.to_string() };
        let stream = TcpStream::connect(&self.host).await.map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((config, name)) => {
                let connector = TlsConnector::from(config.clone());
                Box::new(connector.connect(name.clone(), stream).await.map_err(unreachable)?)
            }
        })
    }

    /// The body of a good answer, or the error in a bad one.
    async fn collect(&self, response: Response<Incoming>, limit: usize) -> Result<Bytes, ClientError> {
        let (head, body) = response.into_parts();
        let limit = if head.status.is_success() { limit } else { MAX_JSON };
        let body = Limited::new(body, limit).collect().await.map_err(|e| self.broken(e))?.to_bytes();
        if head.status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<ApiError>(&body) {
            Ok(error) => error.into(),
            Err(_) => self.protocol(format_args!("status {}", head.status)),
        })
    }

    async fn within<T>(
        &self,
        after: Duration,
        future: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match timeout(after, future).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout { address: self.address.clone(), after }),
        }
    }

    fn broken(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { address: self.address.clone(), detail: error.to_string() }
    }

    fn protocol(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Protocol { address: self.address.clone(), detail: error.to_string() }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("address", &self.address).finish_non_exhaustive()
    }
}

/// `text` as a part of a query.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_a_scheme_and_bad_ones_refused() {
        let token = Secret::new("t".to_owned());
        for good in ["127.0.0.1:7480", "http://localhost:1/", "http://[::1]:7480"] {
            assert!(Client::new(good, &token, None).is_ok(), "{good}");
        }
        for bad in ["", "localhost", "http://localhost", "ftp://a:1", "a:b", "https://a:1"] {
            let message = Client::new(bad, &token, None).expect_err(bad).to_string();
            assert!(message.contains("write it like http://"), "{message}");
        }
    }

    #[test]
    fn a_selector_passes_through_a_query() {
        assert_eq!(percent_encoded("os=linux,!a ä"), "os%3Dlinux%2C%21a%20%C3%A4");
    }

    #[tokio::test]
    async fn a_closed_port_is_told_with_the_cure() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        drop(listener);
        let client = Client::new(&address, &Secret::new("t".to_owned()), None).expect("client");
        let error = client.status().await.expect_err("nobody listens");
        assert!(error.to_string().contains("rk controller run"), "{error}");
        assert_eq!(error.exit_code(), 69);
    }
}
