//! Connections through the agent, as far as its operator lets them.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, lookup_host},
    time::timeout,
};

use super::policy::is_like;
use crate::{
    secret,
    service::{
        Channel, Context, Failure, Refusal, Services,
        forward::{CONNECT, LISTEN, TAKE, host_and_port, splice},
    },
};

/// How long a connection may take to be opened.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a connection that came waits to be taken, and how many do.
const TAKE_PATIENCE: Duration = Duration::from_secs(20);
const WAITING: usize = 256;

/// Whereto connections may go. What listens does so on the agent's own machine only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwards {
    /// To the agent's own machine, and from it.
    loopback: bool,
    listed: Vec<Target>,
}

/// `HOST:PORT`, in which `*` stands for any characters of the host, or for any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: Option<u16>,
}

impl Default for Forwards {
    fn default() -> Self {
        Self { loopback: true, listed: Vec::new() }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no target; write HOST:PORT, like db.internal:5432, *.internal:443 or host:*");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(wrong());
        }
        let port = if port == "*" { None } else { Some(port.parse().map_err(|_| wrong())?) };
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }
}

impl Forwards {
    /// To the agent's own machine if `loopback`, and to what is listed.
    pub fn new(loopback: bool, listed: Vec<Target>) -> Self {
        Self { loopback, listed }
    }

    /// Nowhere.
    pub fn none() -> Self {
        Self { loopback: false, listed: Vec::new() }
    }

    /// Whether a connection may go to `address`, under which `host` was found.
    fn allows(&self, host: &str, address: SocketAddr) -> bool {
        let lists = |target: &Target| {
            target.port.is_none_or(|port| port == address.port())
                && is_like(target.host.as_bytes(), host.to_ascii_lowercase().as_bytes())
        };
        (self.loopback && is_here(address.ip())) || self.listed.iter().any(lists)
    }
}

fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// `services`, and those that forward.
pub(super) fn services(services: Services, forwards: &Forwards) -> Services {
    let allowed = Arc::new(forwards.clone());
    let came = Arc::new(Came::default());
    let (listening, taken) = (came.clone(), came);
    let listens = forwards.loopback;
    services
        .with(CONNECT, move |context: Context, channel: Channel| connect(allowed.clone(), context.about, channel))
        .with(LISTEN, move |context: Context, channel: Channel| {
            listen(listens, context.about, channel, listening.clone())
        })
        .with(TAKE, move |context: Context, channel: Channel| take(context.about, channel, taken.clone()))
}

async fn connect(forwards: Arc<Forwards>, about: String, channel: Channel) -> Result<(), Failure> {
    let (host, port) = host_and_port(&about)
        .ok_or_else(|| Failure::refused(Refusal::Invalid, format!("{about:?} is no HOST:PORT")))?;
    let open = async {
        let addresses: Vec<SocketAddr> = lookup_host((host, port))
            .await
            .map_err(|e| Failure::new(format!("{host} cannot be found from the agent: {e}")))?
            .collect();
        let (allowed, other): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|address| forwards.allows(host, *address));
        if allowed.is_empty() {
            let seen = other.first().map(|address| format!(" ({})", address.ip())).unwrap_or_default();
            let text = format!(
                "this agent forwards nothing to {about}{seen}; its operator allows it with --forward-to {about}"
            );
            return Err(Failure::refused(Refusal::Denied, text));
        }
        TcpStream::connect(&allowed[..]).await.map_err(|e| Failure::new(format!("{about} from the agent: {e}")))
    };
    let connection = timeout(CONNECT_PATIENCE, open).await.unwrap_or_else(|_| {
        Err(Failure::new(format!("{about} did not answer the agent within {CONNECT_PATIENCE:?}")))
    })?;
    carry(connection, channel).await;
    Ok(())
}

/// Carries a connection to its end. One that breaks off does so on both sides, and is no failure of ours.
async fn carry(connection: TcpStream, channel: Channel) {
    if let Err(error) = splice(connection, channel).await {
        tracing::debug!(%error, "a forwarded connection broke off");
    }
}

/// Connections that came and were not taken yet.
#[derive(Default)]
struct Came(Mutex<BTreeMap<String, TcpStream>>);

impl Came {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one, and returns its ticket: who holds that may take it. `None` if too many wait.
    fn put(self: &Arc<Self>, connection: TcpStream) -> Option<String> {
        let ticket = u128::from_le_bytes(secret::random());
        let ticket = format!("{ticket:032x}");
        let mut table = self.table();
        if table.len() >= WAITING {
            return None;
        }
        table.insert(ticket.clone(), connection);
        drop(table);
        let (came, late) = (Arc::downgrade(self), ticket.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TAKE_PATIENCE).await;
            if let Some(came) = came.upgrade() {
                came.table().remove(&late);
            }
        });
        Some(ticket)
    }
}

async fn listen(allowed: bool, about: String, mut channel: Channel, came: Arc<Came>) -> Result<(), Failure> {
    if !allowed {
        return Err(Failure::refused(
            Refusal::Denied,
            "this agent listens for nobody (--no-forward, --no-exec or --allow)",
        ));
    }
    let wrong = || Failure::refused(Refusal::Invalid, format!("{about:?} is no [HOST:]PORT"));
    let (host, port) = match about.parse() {
        Ok(port) => ("127.0.0.1", port),
        Err(_) => host_and_port(&about).ok_or_else(wrong)?,
    };
    let addresses: Vec<SocketAddr> = timeout(CONNECT_PATIENCE, lookup_host((host, port)))
        .await
        .map_err(|_| Failure::new(format!("{host} was not found at the agent within {CONNECT_PATIENCE:?}")))?
        .map_err(|e| Failure::new(format!("{host} cannot be found at the agent: {e}")))?
        .filter(|address| is_here(address.ip()))
        .collect();
    if addresses.is_empty() {
        return Err(Failure::refused(
            Refusal::Denied,
            format!("an agent listens on its own machine only, not on {host}"),
        ));
    }
    let listener =
        TcpListener::bind(&addresses[..]).await.map_err(|e| Failure::new(format!("{about} at the agent: {e}")))?;
    channel.writer.write_all(format!("{}\n", listener.local_addr()?).as_bytes()).await?;
    loop {
        match listener.accept().await {
            Ok((connection, from)) => {
                // Too many wait already: this one is closed.
                let Some(ticket) = came.put(connection) else { continue };
                channel.writer.write_all(format!("{ticket} {from}\n").as_bytes()).await?;
            }
            // Out of descriptors, or gone before it was accepted: neither may spin.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => (),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn take(ticket: String, channel: Channel, came: Arc<Came>) -> Result<(), Failure> {
    let connection = came.table().remove(&ticket);
    let connection = connection.ok_or_else(|| Failure::new("that connection is not there any more"))?;
    carry(connection, channel).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_own_machine_and_to_what_is_listed() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("address");
        let listed =
            ["db.internal:5432", "*.test:443", "10.0.0.1:*"].map(|text| text.parse().expect("target")).to_vec();
        for (loopback, host, address, allowed) in [
            (true, "localhost", "127.0.0.1:80", true),
            (true, "localhost", "[::1]:80", true),
            (true, "mapped", "[::ffff:127.0.0.1]:80", true),
            (false, "localhost", "127.0.0.1:80", false),
            // What a name says counts less than where it leads.
            (true, "localhost", "192.0.2.1:80", false),
            (false, "DB.internal", "192.0.2.1:5432", true),
            (false, "db.internal", "192.0.2.1:5433", false),
            (false, "a.test", "192.0.2.1:443", true),
            (false, "test", "192.0.2.1:443", false),
            (false, "10.0.0.1", "10.0.0.1:9", true),
        ] {
            let forwards = Forwards::new(loopback, Vec::clone(&listed));
            assert_eq!(forwards.allows(host, at(address)), allowed, "{host} {address}");
        }
        assert!(!Forwards::none().allows("localhost", at("127.0.0.1:80")));
        for wrong in ["", "host", ":80", "host:x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
