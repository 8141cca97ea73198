//! The way to a cluster step by step, for who wants to know which step fails: each can be timed and judged by itself,
//! where [`KafkaCluster`](super::KafkaCluster) goes them all at once and tries again.
//!
//! Promises: every call ends within the limit that [`Examiner::new`] was given; nothing is tried twice; what a broker
//! showed is told also if it was refused. What a result means to people is for those above to say.

mod visit;
mod watch;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

pub use visit::{Appended, ClusterView, PartitionView, TopicView, Visit};
pub use watch::Shown;

use super::{
    Error, Hop,
    config::{Address, Config},
    connection::Connection,
    dial::{self, Stream, fail},
    sasl::Authenticator,
    tls::Material,
};

/// How steps towards one cluster are made. The files that the settings name are read once, when it is made.
pub struct Examiner {
    config: Config,
    bootstrap: Vec<Address>,
    tls: Option<Material>,
    authenticator: Option<Authenticator>,
    limit: Duration,
}

/// A connection on which nothing was said yet.
pub struct Line {
    broker: Address,
    stream: Box<dyn Stream>,
    shown: Shown,
    encrypted: bool,
}

/// A connection to a broker that speaks Kafka's protocol.
pub struct Greeted {
    connection: Connection,
}

impl Examiner {
    /// Reads the files; does not connect. Each step may take `limit`.
    ///
    /// # Errors
    /// [`Error::Config`]: settings that cannot work.
    pub fn new(config: Config, limit: Duration) -> Result<Self, Error> {
        config.check()?;
        Ok(Self {
            bootstrap: config.brokers.iter().map(|b| b.parse()).collect::<Result<_, _>>().map_err(Error::Config)?,
            tls: config.tls.as_ref().map(Material::read).transpose()?,
            authenticator: config.sasl.as_ref().map(Authenticator::new),
            config,
            limit,
        })
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configured addresses.
    pub fn bootstrap(&self) -> &[Address] {
        &self.bootstrap
    }

    /// Looks a broker's name up.
    pub async fn resolve(&self, broker: &Address) -> Result<Vec<SocketAddr>, Error> {
        dial::resolve(broker, self.limit).await
    }

    /// Opens a TCP connection to one of a broker's addresses.
    pub async fn connect(&self, broker: &Address, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        dial::connect_to(broker, addresses, self.limit).await
    }

    /// Puts TLS on a connection, if the settings say so. What the broker showed meanwhile comes back in any case.
    pub async fn secure(&self, broker: &Address, stream: TcpStream) -> (Result<Line, Error>, Shown) {
        let line = |stream, shown| Line { broker: broker.clone(), stream, shown, encrypted: self.tls.is_some() };
        let Some(material) = &self.tls else { return (Ok(line(Box::new(stream), Shown::default())), Shown::default()) };
        let seen = Arc::new(Mutex::new(Shown::default()));
        let secured = match watch::client_config(material, Arc::clone(&seen)) {
            Err(error) => Err(error),
            Ok(config) => timeout(self.limit, dial::secure(broker, stream, config))
                .await
                .unwrap_or_else(|_| Err(fail(Hop::Handshake, broker, self.silence("the TLS handshake")))),
        };
        let shown = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let secured = secured.map_err(|error| self.at_certificate(error, &shown));
        (secured.map(|stream| line(stream, shown.clone())), shown)
    }

    /// Asks the broker which requests it knows. A broker that does not like our client certificate says so only now:
    /// the error's hop is then [`Hop::Tls`].
    pub async fn greet(&self, line: Line) -> Result<Greeted, Error> {
        let Line { broker, stream, shown, encrypted } = line;
        let start = Connection::start(stream, broker.clone(), &self.config.client_id, self.limit);
        let greeted = timeout(self.limit, start).await.unwrap_or_else(|_| Err(self.silent(&broker, "ApiVersions")));
        match greeted {
            Ok(connection) => Ok(Greeted { connection }),
            // Where the broker hangs up right after the handshake, its alert may have been lost with the connection.
            Err(Error::Unreachable { hop: Hop::Request, .. }) if encrypted && shown.wants_certificate => {
                let detail = "the broker refused the handshake".to_owned();
                Err(self.at_certificate(fail(Hop::Tls, &broker, detail), &shown))
            }
            Err(error @ Error::Unreachable { hop: Hop::Tls, .. }) => Err(self.at_certificate(error, &shown)),
            Err(Error::Unreachable { hop: Hop::Request, detail, .. }) if detail.starts_with("no answer") => {
                Err(self.silent(&broker, "ApiVersions"))
            }
            Err(error) => Err(error),
        }
    }

    /// Logs in. Without a login in the settings asks the first question that takes one where the listener wants it.
    pub async fn login(&self, greeted: Greeted) -> Result<Visit, Error> {
        let Greeted { connection } = greeted;
        let broker = connection.broker().clone();
        let late = || fail(Hop::Sasl, &broker, self.silence("the login"));
        let at_login = |error| match error {
            Error::Unreachable { hop: Hop::Request, broker, detail } => {
                Error::Unreachable { hop: Hop::Sasl, broker, detail }
            }
            other => other,
        };
        if let Some(authenticator) = &self.authenticator {
            let login = authenticator.login(&connection, self.limit);
            timeout(self.limit, login).await.map_err(|_| late())?.map_err(at_login)?;
        }
        let visit = Visit::new(connection, self.config.principal(), self.limit);
        if self.authenticator.is_none() {
            timeout(self.limit, visit.cluster(&[])).await.map_err(|_| late())?.map_err(at_login)?;
        }
        Ok(visit)
    }

    /// All steps at once.
    pub async fn visit(&self, broker: &Address) -> Result<Visit, Error> {
        let addresses = self.resolve(broker).await?;
        let stream = self.connect(broker, &addresses).await?;
        let line = self.secure(broker, stream).await.0?;
        self.login(self.greet(line).await?).await
    }

    /// A broker that asked for a client certificate and then refused the handshake did so because of it, whatever its
    /// alert is called: a certificate of an authority with the right name and another key is a `DecryptError`.
    fn at_certificate(&self, error: Error, shown: &Shown) -> Error {
        match error {
            Error::Unreachable { hop: Hop::Tls, broker, detail }
                if shown.wants_certificate && detail.starts_with("the broker refused the handshake") =>
            {
                let given = self.tls.as_ref().is_some_and(|tls| tls.client.is_some());
                let got = if given { "it does not take ours" } else { "got none" };
                let said = detail.split("; ").next().unwrap_or_default();
                let detail = format!("the broker asked for a client certificate, and {got}: {said}");
                Error::Unreachable { hop: Hop::Tls, broker, detail }
            }
            other => other,
        }
    }

    fn silent(&self, broker: &Address, what: &str) -> Error {
        fail(Hop::Request, broker, self.silence(what))
    }

    fn silence(&self, what: &str) -> String {
        format!("the port accepts connections and stays silent: no answer to {what} within {:?}", self.limit)
    }
}

impl Greeted {
    /// How many kinds of requests the broker knows.
    pub fn requests(&self) -> usize {
        self.connection.versions().len()
    }
}
