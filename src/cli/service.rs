//! What commands that run for long have in common: sockets, signals, and going when their parent goes.

use std::{io, process, thread, time::Duration};

use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{Failure, failure};
use crate::config::{Settings, keys};

/// A request to stop is worth asking three times: drain, cancel, go.
const ASKS: usize = 3;
/// After its parent is gone, a child that must not outlive it has this long.
const ORPHAN: Duration = Duration::from_secs(3);

/// Listens on `--listen`, or on `default`.
#[cfg(all(feature = "cli", any(feature = "controller", feature = "broker")))]
pub async fn listen(settings: &Settings, default: &str) -> Result<TcpListener, Failure> {
    let address = settings.parse::<String>(&keys::LISTEN)?.unwrap_or_else(|| default.to_owned());
    TcpListener::bind(&address).await.map_err(|e| {
        let origin = settings.origin(&keys::LISTEN);
        match e.kind() {
            io::ErrorKind::AddrInUse => Failure::new(
                failure::TRY_AGAIN,
                format!("{address} is taken by another process: stop that one, or choose another port with --listen"),
            ),
            io::ErrorKind::PermissionDenied => Failure::new(
                failure::REFUSED,
                format!("{address} may not be listened on: choose a port above 1023 with --listen"),
            ),
            _ => Failure::usage(format!("{origin} {address}: {e}; use an address of this machine, like {default}")),
        }
    })
}

/// Listens on `--health-addr`, if that is given.
pub async fn listen_for_health(settings: &Settings) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = settings.parse::<String>(&keys::HEALTH_ADDR)? else { return Ok(None) };
    match TcpListener::bind(&address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(e) => {
            let origin = settings.origin(&keys::HEALTH_ADDR);
            Err(Failure::usage(format!(
                "{origin} {address}: {e}; use a free address of this machine, like 127.0.0.1:7481"
            )))
        }
    }
}

/// Where a listener listens, for messages.
#[cfg(all(feature = "cli", any(feature = "controller", feature = "broker")))]
pub fn address(listener: &TcpListener) -> Result<std::net::SocketAddr, Failure> {
    Ok(listener.local_addr()?)
}

/// Requests to stop: one for each SIGTERM or SIGINT, and all at once when a parent is gone that this process must not
/// outlive.
pub fn stops(settings: &Settings) -> Result<mpsc::Receiver<()>, Failure> {
    let (stop, stops) = mpsc::channel(ASKS);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    if settings.switch(&keys::EXIT_WITH_STDIN)? {
        go_with_parent(stop.clone())?;
    }
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => (),
                _ = interrupt.recv() => (),
            }
            // Whoever does not listen any more is about to go.
            let _ = stop.try_send(());
        }
    });
    Ok(stops)
}

/// The parent holds the other end of our stdin: it ends when the parent does, however that ends.
fn go_with_parent(stop: mpsc::Sender<()>) -> io::Result<()> {
    let wait = move || {
        // Whatever is written there means nothing; only the end counts.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        for _ in 0..ASKS {
            let _ = stop.try_send(());
        }
        thread::park_timeout(ORPHAN);
        process::exit(failure::UNREACHABLE.into());
    };
    thread::Builder::new().name("parent".to_owned()).spawn(wait)?;
    Ok(())
}
