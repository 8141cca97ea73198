//! Connections that go on with a protocol of their own.

use std::time::Duration;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Place, routes::Failure};
use crate::api::{ApiError, Code};

/// How long a client may take from the upgrade to its request.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Answers 101, and has `serve` serve what follows. `what` names it for who does not ask for `protocol`.
pub fn upgrade<F, W>(protocol: &'static str, what: &str, mut request: Request, serve: F) -> Response
where
    F: FnOnce(TokioIo<Upgraded>) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|asked| asked.eq_ignore_ascii_case(protocol)) {
        let message = format!("{what} need an upgrade of the connection to {protocol}");
        return Failure::from(ApiError::new(Code::Invalid, message)).into_response();
    }
    let place = request.extensions().get::<Place>().cloned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match timeout(PATIENCE, upgraded).await {
            Ok(Ok(stream)) => serve(TokioIo::new(stream)).await,
            Ok(Err(error)) => tracing::debug!(%error, "an upgrade failed"),
            Err(_) => tracing::debug!("an upgrade took too long"),
        }
        drop(place);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    response
}
