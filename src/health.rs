//! How a process is, for those who watch it: `/health/live`, `/health/ready` and `/metrics` over plain HTTP.
//!
//! Nothing here is secret and nothing can be asked for but these pages; still it is for the operator to choose who reaches
//! the address.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

use crate::metrics::{self, Page};

/// Connections that are served at once; more wait.
const CONNECTIONS: usize = 32;
/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is watched.
pub trait Health: Send + Sync + 'static {
    /// Whether it can do its work now, or why not.
    fn ready(&self) -> Result<(), String>;

    /// Puts its numbers on the page.
    fn measure(&self, page: &mut Page);
}

/// Answers on `listener` for ever.
pub async fn serve(listener: &TcpListener, health: Arc<dyn Health>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the health address was not accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let health = health.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &*health);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                // One request each: who watches comes again in a while.
                .keep_alive(false)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection to the health address broke");
            }
            drop(place);
        });
    }
}

/// The page at `path`.
pub fn answer(method: &Method, path: &str, health: &dyn Health) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/health/live") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET | &Method::HEAD, "/health/ready") => match health.ready() {
            Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why + "\n"),
        },
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let mut page = Page::default();
            page.gauges("rk_build_info", "What runs.", "version", &[(env!("CARGO_PKG_VERSION"), 1)]);
            page.gauge("rk_ready", "Whether it can do its work.", u8::from(health.ready().is_ok()));
            health.measure(&mut page);
            (StatusCode::OK, metrics::CONTENT_TYPE, page.into_text())
        }
        _ => {
            let known = "there is /health/live, /health/ready and /metrics\n";
            (StatusCode::NOT_FOUND, "text/plain", known.to_owned())
        }
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        time::timeout,
    };

    use super::*;

    struct Broken;

    impl Health for Broken {
        fn ready(&self) -> Result<(), String> {
            Err("no session".to_owned())
        }

        fn measure(&self, page: &mut Page) {
            page.counter("rk_tries_total", "Tries.", 7);
        }
    }

    #[tokio::test]
    async fn whoever_asks_is_told_how_it_is() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let serving = tokio::spawn(async move { serve(&listener, Arc::new(Broken)).await });
        for (path, status, part) in [
            ("/health/live", "200", "ok\n"),
            ("/health/ready", "503", "no session\n"),
            (
                "/metrics",
                "200",
                "rk_ready 0\n# HELP rk_tries_total Tries.\n# TYPE rk_tries_total counter\nrk_tries_total 7\n",
            ),
            ("/v1/status", "404", "there is"),
        ] {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("asked");
            let mut text = String::new();
            let read = stream.read_to_string(&mut text);
            timeout(Duration::from_secs(20), read).await.expect("in time").expect("answered");
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains(part), "{path}: {text}");
        }
        serving.abort();
    }
}
