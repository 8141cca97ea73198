//! The HTTP API: see [`api`](crate::api) for what can be asked.
//!
//! It sees the [`Handle`] and nothing else of the controller. Every connection is bounded in what it may send before
//! it is known, and their number is bounded: more wait to be accepted.

mod access;
mod artifacts;
mod bundles;
mod enrol;
mod exec;
mod jobs;
mod routes;
mod service;
mod stdin;
mod upgrade;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::Handle;
use crate::secret::Secret;

/// How long a connection may take for a TLS handshake, and then for each request's head; also how long it may idle.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves the API on `listener` until it is dropped.
pub async fn serve(
    listener: &TcpListener,
    handle: Handle,
    token: Secret<String>,
    tls: Option<Arc<rustls::ServerConfig>>,
    max_connections: usize,
) {
    let service = TowerToHyperService::new(routes::router(handle, token));
    let tls = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok((stream, from)) => (stream, From(from)),
            Err(error) => {
                // Out of file descriptors, or the peer was faster gone than accepted: neither may spin.
                tracing::warn!(%error, "a connection to the API was not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Frames are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (service, tls) = (service.clone(), tls.clone());
        let place = Place(Arc::new(permit));
        connections.spawn(async move {
            match tls {
                None => connection(stream, service, place, from).await,
                Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, service, place, from).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the API failed"),
                    Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
                },
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A connection's place among those that are served at once. An upgraded stream keeps it.
#[derive(Clone)]
struct Place(#[expect(dead_code, reason = "held, never looked at")] Arc<OwnedSemaphorePermit>);

/// Where a connection comes from.
#[derive(Clone, Copy)]
struct From(SocketAddr);

async fn connection<S>(stream: S, service: TowerToHyperService<axum::Router>, place: Place, from: From)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        request.extensions_mut().insert(from);
        service.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the API broke");
    }
}
