//! Paths, the token, bodies and their limits.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bytes::BytesMut;
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    super::{Handle, access::Caller, call::SMALL},
    access::{self, Gate, can},
    artifacts, bundles, enrol, exec, jobs, service,
};
use crate::{
    api::{AddAgent, ApiError, Code, MAX_CALL, access::Verb},
    frame, health,
    id::AgentName,
    link::Lane,
    protocol::call::{self, Call},
    secret::Secret,
    selector::Selector,
};

/// The largest JSON body that is read. A request is small; answers may be larger.
const MAX_BODY: usize = 1 << 20;

// What the API lets in, an agent takes.
const _: () = assert!(MAX_CALL <= call::MAX_BODY);

/// How much of a call's body is held at once.
const CHUNK: usize = 128 << 10;

pub(super) type Answer<T> = Result<T, Failure>;

/// The API's paths.
pub fn router(handle: Handle, token: Secret<String>) -> Router {
    Router::new()
        .route("/v1/status", can(Verb::View, get(status)))
        .route("/v1/agents", can(Verb::View, get(list)).merge(can(Verb::Enrol, post(add))))
        .route("/v1/agents/{name}", can(Verb::View, get(show)).merge(can(Verb::Enrol, delete(remove))))
        .route("/v1/agents/{name}/call", can(Verb::Call, post(echo)))
        .route("/v1/agents/{name}/condition", can(Verb::Call, get(condition)))
        .route("/v1/exec", can(Verb::Exec, post(exec::start)))
        // What it takes depends on the service.
        .route("/v1/services", post(service::open))
        .merge(jobs::router())
        .merge(access::router())
        .route("/metrics", can(Verb::View, get(watch)))
        .merge(enrol::router())
        .merge(bundles::router())
        .merge(artifacts::router())
        .fallback(nothing)
        .method_not_allowed_fallback(nothing)
        .with_state(handle.clone())
        .layer(Extension(handle.clone()))
        .layer(middleware::from_fn_with_state(Gate::new(handle.clone(), token), access::identify))
        // For who watches the process, and has no token.
        .merge(Router::new().route("/health/live", get(watch)).route("/health/ready", get(watch)).with_state(handle))
}

/// An error as an answer.
pub struct Failure(ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, axum::Json(self.0)).into_response()
    }
}

async fn nothing(method: Method, uri: axum::http::Uri) -> Failure {
    Failure(ApiError::new(Code::NotFound, format!("the API has no {method} {}", uri.path())))
}

async fn watch(State(handle): State<Handle>, method: Method, uri: axum::http::Uri) -> Response {
    health::answer(&method, uri.path(), &handle).map(Body::new)
}

async fn status(State(handle): State<Handle>) -> Response {
    json(StatusCode::OK, &handle.status())
}

#[derive(Deserialize)]
struct Selection {
    #[serde(default)]
    selector: String,
}

async fn list(
    State(handle): State<Handle>,
    caller: Caller,
    query: Result<Query<Selection>, QueryRejection>,
) -> Answer<Response> {
    let text = query.map_err(invalid)?.0.selector;
    let selector: Selector = text.parse().map_err(invalid)?;
    let mut list = handle.agents(&selector);
    list.agents.retain(|agent| caller.check_agent(&agent.name, &agent.labels).is_ok());
    Ok(json(StatusCode::OK, &list))
}

async fn show(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.show_agent(&agent_for(&handle, &caller, &name)?).await?))
}

async fn add(State(handle): State<Handle>, caller: Caller, body: Body) -> Answer<Response> {
    let request: AddAgent = read_json(body).await?;
    // The labels that it is given decide who may work with it.
    caller.check_agent(&request.name, &request.labels).map_err(ApiError::from)?;
    // The answer holds a secret that cannot be had again: a client that goes away meanwhile must not stop half-way.
    let added = tokio::spawn(async move { handle.add_agent(request).await }).await.map_err(internal)??;
    Ok(json(StatusCode::CREATED, &added))
}

async fn remove(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>) -> Answer<Response> {
    let name = agent_for(&handle, &caller, &name)?;
    let removed = tokio::spawn(async move { handle.remove_agent(&name).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &removed))
}

async fn condition(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.condition(&agent_for(&handle, &caller, &name)?).await?))
}

/// Streams the body to the agent and the answer back, both at once.
async fn echo(
    State(handle): State<Handle>,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    mut body: Body,
) -> Answer<Response> {
    let name = agent_for(&handle, &caller, &name)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_CALL as u64) {
        return Err(too_large(MAX_CALL).into());
    }
    let lane = if length.is_some_and(|length| length <= SMALL as u64) { Lane::Control } else { Lane::Bulk };
    let (peer, mut send, recv) = handle.open_call(&name, Call::Echo, lane).await?;
    // Ends with the body, or when the agent or the client is gone; a body that is not whole resets the stream.
    tokio::spawn(async move {
        let mut room = MAX_CALL;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = room.checked_sub(data.len()) else { return };
            room = left;
            if send.write_all(&data).await.is_err() {
                return;
            }
        }
        let _ = send.shutdown().await;
    });
    let recv = handle.answer(&peer, recv).await?;
    let bytes = futures_util::stream::try_unfold(recv, |mut recv| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK);
        let read = recv.read_buf(&mut chunk).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (chunk.freeze(), recv)))
    });
    Ok(Response::new(Body::from_stream(bytes)))
}

pub(super) async fn read_json<T: DeserializeOwned>(body: Body) -> Answer<T> {
    let limited = http_body_util::Limited::new(body, MAX_BODY);
    let bytes = match limited.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(too_large(MAX_BODY).into()),
        Err(error) => return Err(ApiError::new(Code::Invalid, format!("the body broke: {error}")).into()),
    };
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::new(Code::Invalid, format!("the body is malformed: {e}")).into())
}

pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    (status, axum::Json(value)).into_response()
}

/// A body of items in frames, as they come, until `ended` does.
pub(super) fn framed<T: Serialize + Send + 'static>(
    items: mpsc::Receiver<T>,
    ended: impl Future<Output: Send> + Send + 'static,
) -> Response {
    let bytes = stream::unfold(items, |mut items| async move {
        let item = items.recv().await?;
        let mut frame = BytesMut::new();
        frame::encode(&item, &mut frame).expect("plain data can be written");
        Some((Ok::<_, std::io::Error>(frame.freeze()), items))
    });
    let mut response = Response::new(Body::from_stream(bytes.take_until(ended)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    response
}

/// The agent `text`, with which `caller` may work.
pub(super) fn agent_for(handle: &Handle, caller: &Caller, text: &str) -> Answer<AgentName> {
    let name = agent_name(text)?;
    handle.check_agent(caller, &name)?;
    Ok(name)
}

pub(super) fn agent_name(text: &str) -> Answer<AgentName> {
    text.parse().map_err(invalid)
}

pub(super) fn invalid(error: impl std::fmt::Display) -> Failure {
    Failure(ApiError::new(Code::Invalid, error.to_string()))
}

pub(super) fn internal(error: tokio::task::JoinError) -> Failure {
    Failure(ApiError::new(Code::Internal, format!("the request was not completed: {error}")))
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::TooLarge, format!("the body is above the limit of {limit} bytes"))
}
