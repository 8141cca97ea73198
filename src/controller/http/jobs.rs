//! Paths about jobs.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{
    access::{Detail, can},
    routes::{Answer, agent_for, framed, internal, invalid, json, read_json},
};
use crate::{
    api::{
        ApiError,
        access::Verb,
        jobs::{AskedBy, CancelJob, JobQuery, SetDeadline, SubmitJob},
        logs::LogQuery,
    },
    controller::{Handle, access::Caller, jobs::Reading},
};

/// Pieces of a log that wait for a slow client.
const WAITING: usize = 16;

/// The paths.
pub fn router() -> Router<Handle> {
    Router::new()
        .route("/v1/jobs", can(Verb::View, get(list)).merge(can(Verb::Run, post(submit))))
        .route("/v1/jobs/{id}", can(Verb::View, get(show)))
        .route("/v1/jobs/{id}/wait", can(Verb::View, get(wait)))
        .route("/v1/jobs/{id}/cancel", can(Verb::Cancel, post(cancel)))
        .route("/v1/jobs/{id}/retry", can(Verb::Run, post(retry)))
        .route("/v1/jobs/{id}/deadline", can(Verb::Cancel, post(deadline)))
        .route("/v1/jobs/{id}/log", can(Verb::View, get(log)))
        .route("/v1/agents/{name}/drain", can(Verb::Drain, post(drain)))
        .route("/v1/agents/{name}/resume", can(Verb::Drain, post(resume)))
}

async fn submit(State(handle): State<Handle>, caller: Caller, body: Body) -> Answer<Response> {
    let mut request: SubmitJob = read_json(body).await?;
    handle.limit_job(&caller, &mut request)?;
    // What was asked for is done also for a client that goes away.
    let job = tokio::spawn(async move { handle.submit_job(request).await }).await.map_err(internal)??;
    let mut response = json(StatusCode::CREATED, &job);
    response.extensions_mut().insert(Detail(format!("{} on {}: {}", job.id, job.target, job.command)));
    Ok(response)
}

async fn list(
    State(handle): State<Handle>,
    caller: Caller,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.jobs_for(&caller, &query.map_err(invalid)?.0)?))
}

async fn show(State(handle): State<Handle>, caller: Caller, Path(id): Path<String>) -> Answer<Response> {
    Ok(json(StatusCode::OK, &handle.job_for(&caller, &id)?))
}

#[derive(Deserialize)]
struct Waiting {
    for_ms: u64,
}

async fn wait(
    State(handle): State<Handle>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<Waiting>, QueryRejection>,
) -> Answer<Response> {
    let patience = Duration::from_millis(query.map_err(invalid)?.0.for_ms);
    handle.job_for(&caller, &id)?;
    tokio::select! {
        job = handle.wait_for_job(&id, patience) => Ok(json(StatusCode::OK, &job?)),
        error = handle.token_ended(&caller) => Err(error.into()),
    }
}

async fn cancel(State(handle): State<Handle>, caller: Caller, Path(id): Path<String>, body: Body) -> Answer<Response> {
    handle.job_for(&caller, &id)?;
    let mut request: CancelJob = read_json(body).await?;
    request.by = caller.signs(request.by);
    Ok(json(StatusCode::OK, &handle.cancel_job(&id, &request).await?))
}

async fn retry(State(handle): State<Handle>, caller: Caller, Path(id): Path<String>, body: Body) -> Answer<Response> {
    let by: AskedBy = read_json(body).await?;
    // It runs as it was asked for, on agents and for somebody that this one may not choose.
    caller.check_unlimited("submit the job anew (`rk run`)").map_err(ApiError::from)?;
    let job = tokio::spawn(async move { handle.retry_job(&id, &by).await }).await.map_err(internal)??;
    Ok(json(StatusCode::CREATED, &job))
}

async fn deadline(
    State(handle): State<Handle>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Answer<Response> {
    handle.job_for(&caller, &id)?;
    let mut request: SetDeadline = read_json(body).await?;
    request.by = caller.signs(request.by);
    Ok(json(StatusCode::OK, &handle.set_job_deadline(&id, &request).await?))
}

async fn drain(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>, body: Body) -> Answer<Response> {
    let name = agent_for(&handle, &caller, &name)?;
    let by: AskedBy = read_json(body).await?;
    Ok(json(StatusCode::OK, &handle.drain_agent(&name, &AskedBy { by: caller.signs(by.by) }).await?))
}

async fn resume(
    State(handle): State<Handle>,
    caller: Caller,
    Path(name): Path<String>,
    body: Body,
) -> Answer<Response> {
    let name = agent_for(&handle, &caller, &name)?;
    let by: AskedBy = read_json(body).await?;
    Ok(json(StatusCode::OK, &handle.resume_agent(&name, &by).await?))
}

/// Streams a job's output. Reading ends when the client is gone, or its token: then it asks for the rest, and is told so.
async fn log(
    State(handle): State<Handle>,
    caller: Caller,
    Path(id): Path<String>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Answer<Response> {
    let id = handle.job_for(&caller, &id)?.id;
    let ended = handle.token_ended(&caller);
    let (out, items) = mpsc::channel(WAITING);
    let reading = Reading::new(handle, id, query.map_err(invalid)?.0, out)?;
    tokio::spawn(reading.run());
    Ok(framed(items, ended))
}
