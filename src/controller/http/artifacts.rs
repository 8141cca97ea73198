//! Paths about the files that jobs left.

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header},
    response::Response,
    routing::get,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{
    access::can,
    routes::{Answer, framed, invalid, json},
};
use crate::{
    api::{
        ApiError, Code,
        access::Verb,
        artifacts::{ArtifactQuery, PackItem, PackQuery, SHA256_HEADER},
    },
    controller::{Handle, access::Caller},
};

/// Pieces that wait for a slow client.
const WAITING: usize = 4;

/// The paths.
pub fn router() -> Router<Handle> {
    Router::new()
        .route("/v1/jobs/{id}/artifacts", can(Verb::View, get(list)))
        .route("/v1/jobs/{id}/artifacts/{*path}", can(Verb::View, get(one)))
        .route("/v1/jobs/{id}/pack", can(Verb::View, get(pack)))
}

async fn list(
    State(handle): State<Handle>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<ArtifactQuery>, QueryRejection>,
) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.artifacts_for(&caller, &id, &query.map_err(invalid)?.0).await?))
}

/// A file as it is. Its length is known: one that ends early broke.
async fn one(
    State(handle): State<Handle>,
    caller: Caller,
    Path((id, path)): Path<(String, String)>,
) -> Answer<Response> {
    let (file, part) = handle.artifact_for(&caller, &id, &path).await?;
    let ended = handle.token_ended(&caller);
    let (out, mut items) = mpsc::channel(WAITING);
    tokio::spawn(part.run(out));
    // What is gone from the start on is an answer of its own.
    let first = match items.recv().await {
        Some(PackItem::Gone(message)) => return Err(ApiError::new(Code::Gone, message).into()),
        Some(PackItem::Failed(message)) => return Err(ApiError::new(Code::Internal, message).into()),
        first => first,
    };
    let bytes = futures_util::stream::unfold((first, items), |(first, mut items)| async move {
        let mut next = first;
        loop {
            match next {
                Some(PackItem::Bytes(bytes)) => return Some((Ok(bytes), (items.recv().await, items))),
                Some(PackItem::Idle) => next = items.recv().await,
                Some(PackItem::Done) => return None,
                Some(PackItem::Gone(why) | PackItem::Failed(why)) => {
                    return Some((Err(std::io::Error::other(why)), (Some(PackItem::Done), items)));
                }
                None => return Some((Err(std::io::ErrorKind::UnexpectedEof.into()), (Some(PackItem::Done), items))),
            }
        }
    });
    let mut response = Response::new(Body::from_stream(bytes.take_until(ended)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(file.size));
    if let Ok(digest) = HeaderValue::from_str(&file.sha256.to_string()) {
        headers.insert(SHA256_HEADER, digest);
    }
    Ok(response)
}

/// A part of the pack, in frames.
async fn pack(
    State(handle): State<Handle>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<PackQuery>, QueryRejection>,
) -> Answer<Response> {
    let part = handle.pack_for(&caller, &id, query.map_err(invalid)?.0).await?;
    let ended = handle.token_ended(&caller);
    let (out, items) = mpsc::channel(WAITING);
    tokio::spawn(part.run(out));
    Ok(framed(items, ended))
}
