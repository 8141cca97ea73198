//! Paths about bundles.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
    routing::{delete, get, post},
};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{
    access::{Detail, can},
    routes::{Answer, internal, invalid, json, read_json},
};
use crate::{
    api::{
        ApiError, Code,
        access::Verb,
        bundles::{Blob, PushBundle},
    },
    bundle::{Archive, Digest},
    controller::{Handle, access::Caller},
};

/// How long a client may take between two pieces of an archive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How slow an upload may be in all, in bytes a second, and what it may take beside that: others wait for its partition.
const SLOWEST: u64 = 128 << 10;
const BESIDE: Duration = Duration::from_secs(120);

/// The paths.
pub fn router() -> Router<Handle> {
    Router::new()
        .route("/v1/bundles", can(Verb::View, get(list)).merge(can(Verb::Push, post(push))))
        .route("/v1/bundles/{text}", can(Verb::View, get(show)).merge(can(Verb::Push, delete(remove))))
        .route("/v1/blobs/{sha256}", can(Verb::Push, get(look).put(upload)))
}

async fn list(State(handle): State<Handle>) -> Response {
    json(StatusCode::OK, &handle.bundles())
}

async fn show(State(handle): State<Handle>, Path(text): Path<String>) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.bundle(&text)?))
}

async fn push(State(handle): State<Handle>, caller: Caller, body: Body) -> Answer<Response> {
    caller.check_push()?;
    let request: PushBundle = read_json(body).await?;
    let name = request.name.clone();
    let by = caller.name().to_owned();
    let bundle = tokio::spawn(async move { handle.push_bundle(request, &by).await }).await.map_err(internal)??;
    let mut response = json(StatusCode::CREATED, &bundle);
    response.extensions_mut().insert(Detail(format!("{name}@sha256:{}", bundle.digest)));
    Ok(response)
}

async fn remove(State(handle): State<Handle>, caller: Caller, Path(text): Path<String>) -> Answer<Response> {
    caller.check_push()?;
    let bundle = tokio::spawn(async move { handle.remove_bundle(&text).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &bundle))
}

#[derive(Deserialize)]
struct Size {
    size: u64,
}

fn archive(sha256: &str, size: Result<Query<Size>, QueryRejection>) -> Answer<Archive> {
    let sha256: Digest = sha256.parse().map_err(invalid)?;
    Ok(Archive { sha256, size: size.map_err(invalid)?.0.size })
}

async fn look(
    State(handle): State<Handle>,
    Path(sha256): Path<String>,
    size: Result<Query<Size>, QueryRejection>,
) -> Answer<Response> {
    let present = handle.has_blob(&archive(&sha256, size)?).await?;
    Ok(json(StatusCode::OK, &Blob { present }))
}

/// Takes an archive as it comes: what is held of it is one batch of records.
async fn upload(
    State(handle): State<Handle>,
    caller: Caller,
    Path(sha256): Path<String>,
    size: Result<Query<Size>, QueryRejection>,
    mut body: Body,
) -> Answer<Response> {
    caller.check_push()?;
    let archive = archive(&sha256, size)?;
    let mut upload = handle.upload(archive).await?;
    let until = Instant::now() + BESIDE + Duration::from_secs(archive.size / SLOWEST);
    let broke = |why: String| ApiError::new(Code::Invalid, format!("the archive broke off: {why}"));
    loop {
        let frame = timeout_at(until.min(Instant::now() + PATIENCE), body.frame()).await;
        match frame.map_err(|_| broke("it came too slowly".to_owned()))? {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    upload.put(&data).await?;
                }
            }
            Some(Err(error)) => return Err(broke(error.to_string()).into()),
            None => break,
        }
    }
    upload.finish().await?;
    Ok(json(StatusCode::CREATED, &Blob { present: true }))
}
