//! From an address to a byte stream, hop by hop, so that a failure names its hop.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Error, Hop, config::Address, tls};

/// How long one address may keep us waiting before the next is tried beside it (RFC 8305 advises 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// What is read of an encrypted connection at once: rustls by itself asks for 4 KiB each time, 64 system calls for a
/// record of 256 KiB.
const READ: usize = 64 << 10;

/// A connected byte stream.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Opens a TCP connection, with TLS on it if `tls` says so. The caller bounds the time of the TLS handshake.
pub(super) async fn dial(
    broker: &Address,
    tls: Option<&Arc<ClientConfig>>,
    tcp_timeout: Duration,
) -> Result<Box<dyn Stream>, Error> {
    let stream = connect(broker, tcp_timeout).await?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    secure(broker, stream, Arc::clone(tls)).await
}

/// Puts TLS on a connection. The caller bounds the time.
pub(super) async fn secure(
    broker: &Address,
    stream: TcpStream,
    tls: Arc<ClientConfig>,
) -> Result<Box<dyn Stream>, Error> {
    let name = ServerName::try_from(broker.host.clone())
        .map_err(|_| fail(Hop::Tls, broker, format!("{:?} is no name that a certificate can be for", broker.host)))?;
    let stream = TlsConnector::from(tls)
        .connect(name, BufReader::with_capacity(READ, stream))
        .await
        .map_err(|e| fail(tls::hop(&e), broker, tls::explain(&e, &broker.host)))?;
    Ok(Box::new(stream))
}

async fn connect(broker: &Address, limit: Duration) -> Result<TcpStream, Error> {
    let addresses = resolve(broker, limit).await?;
    connect_to(broker, &addresses, limit).await
}

/// Looks a broker's name up.
pub(super) async fn resolve(broker: &Address, limit: Duration) -> Result<Vec<SocketAddr>, Error> {
    let addresses = timeout(limit, tokio::net::lookup_host((broker.host.as_str(), broker.port)))
        .await
        .map_err(|_| fail(Hop::Dns, broker, format!("no answer within {limit:?}; is the name server up?")))?
        .map_err(|e| fail(Hop::Dns, broker, format!("{e}; is the name right?")))?;
    Ok(addresses.collect())
}

/// Connects to whichever of a broker's addresses answers first.
pub(super) async fn connect_to(
    broker: &Address,
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<TcpStream, Error> {
    let attempts: Vec<_> = addresses.iter().copied().map(TcpStream::connect).collect();
    let stream = timeout(limit, first(attempts))
        .await
        .map_err(|_| {
            let what = format!("no answer within {limit:?}; is the address right, and does a firewall let us through?");
            fail(Hop::Tcp, broker, what)
        })?
        .map_err(|errors| {
            let error = errors.into_iter().next().unwrap_or_else(|| io::Error::other("the name has no address"));
            let cure = match error.kind() {
                io::ErrorKind::ConnectionRefused => "; is the broker up, and is this its port?",
                _ => "",
            };
            fail(Hop::Tcp, broker, format!("{error}{cure}"))
        })?;
    // Small records are the rule, and each waits for its answer.
    stream.set_nodelay(true).map_err(|e| fail(Hop::Tcp, broker, e.to_string()))?;
    Ok(stream)
}

/// Starts the attempts in turn, the next when one has failed or 250 ms have gone by, and takes the first that
/// succeeds. If none does, all errors in the order in which they came.
pub(super) async fn first<F, T, E>(attempts: Vec<F>) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut errors = Vec::new();
    running.extend(waiting.next());
    loop {
        tokio::select! {
            biased;
            done = running.next() => match done {
                Some(Ok(value)) => return Ok(value),
                Some(Err(error)) => {
                    errors.push(error);
                    running.extend(waiting.next());
                }
                None => return Err(errors),
            },
            () = sleep(STAGGER), if waiting.len() > 0 => running.extend(waiting.next()),
        }
    }
}

/// The error of a hop.
pub(super) fn fail(hop: Hop, broker: &Address, detail: String) -> Error {
    Error::Unreachable { hop, broker: broker.to_string(), detail }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::time::Instant;

    use super::*;

    type Attempt = BoxFuture<'static, Result<u8, &'static str>>;

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_address_costs_a_quarter_of_a_second() {
        let silent: Attempt = Box::pin(std::future::pending());
        let good: Attempt = Box::pin(async { Ok(2) });
        let start = Instant::now();
        assert_eq!(first(vec![silent, good]).await, Ok(2));
        assert_eq!(start.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusing_first_address_costs_nothing() {
        let refused: Attempt = Box::pin(async { Err("refused") });
        let good: Attempt = Box::pin(async { Ok(2) });
        let start = Instant::now();
        assert_eq!(first(vec![refused, good]).await, Ok(2));
        assert!(start.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn all_errors_are_kept_when_nothing_answers() {
        let attempts: Vec<Attempt> = vec![Box::pin(async { Err("one") }), Box::pin(async { Err("two") })];
        assert_eq!(first(attempts).await, Err(vec!["one", "two"]));
        assert_eq!(first(Vec::<Attempt>::new()).await, Err(Vec::new()));
    }
}
