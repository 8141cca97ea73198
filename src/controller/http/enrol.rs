//! Paths about how agents get in, and as which program.
//!
//! What changes something goes on also for a client that goes away: its answer may hold a secret that cannot be had again, and
//! half a rotation helps nobody.

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{delete, get, post},
};

use super::{
    access::{Detail, can},
    routes::{Answer, agent_for, internal, invalid, json, read_json},
};
use crate::{
    api::{ApiError, access::Verb, agents::UpdateAgent},
    controller::{Handle, access::Caller},
};

/// The paths.
pub fn router() -> Router<Handle> {
    Router::new()
        .route("/v1/tokens", can(Verb::Enrol, get(list).post(create)))
        .route("/v1/tokens/{id}", can(Verb::Enrol, delete(revoke_token)))
        .route("/v1/agents/{name}/rotate", can(Verb::Enrol, post(rotate)))
        .route("/v1/agents/{name}/revoke", can(Verb::Enrol, post(revoke)))
        .route("/v1/agents/{name}/update", can(Verb::Update, post(update)))
}

async fn list(State(handle): State<Handle>) -> Response {
    json(StatusCode::OK, &handle.tokens())
}

async fn create(State(handle): State<Handle>, caller: Caller, body: Body) -> Answer<Response> {
    caller.check_unlimited("only one that is not can make join tokens").map_err(ApiError::from)?;
    let request = read_json(body).await?;
    let created = tokio::spawn(async move { handle.create_token(request).await }).await.map_err(internal)??;
    Ok(json(StatusCode::CREATED, &created))
}

async fn revoke_token(State(handle): State<Handle>, caller: Caller, Path(id): Path<String>) -> Answer<Response> {
    caller.check_unlimited("only one that is not can revoke join tokens").map_err(ApiError::from)?;
    let id = id.parse().map_err(invalid)?;
    let revoked = tokio::spawn(async move { handle.revoke_token(id).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &revoked))
}

async fn rotate(
    State(handle): State<Handle>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Answer<Response> {
    let (name, request) = (agent_for(&handle, &caller, &name)?, read_json(body).await?);
    let rotated = tokio::spawn(async move { handle.rotate_agent(&name, request).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &rotated))
}

async fn revoke(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>) -> Answer<Response> {
    let name = agent_for(&handle, &caller, &name)?;
    let revoked = tokio::spawn(async move { handle.revoke_agent(&name).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &revoked))
}

async fn update(
    State(handle): State<Handle>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Answer<Response> {
    let (name, request) = (agent_for(&handle, &caller, &name)?, read_json::<UpdateAgent>(body).await?);
    let detail = Detail(format!("{name} to {}", request.bundle));
    let agent = tokio::spawn(async move { handle.update_agent(&name, request).await }).await.map_err(internal)??;
    let mut response = json(StatusCode::OK, &agent);
    response.extensions_mut().insert(detail);
    Ok(response)
}
