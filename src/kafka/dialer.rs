//! Opens logged-in connections to a cluster's brokers.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::{
    Error, Hop,
    config::{Address, Config},
    connection::Connection,
    dial::{self, fail},
    idle::Idle,
    sasl::Authenticator,
    tls,
};

/// How connections to one cluster are opened. The PEM files are read once, when it is made.
pub(super) struct Dialer {
    config: Config,
    bootstrap: Vec<Address>,
    principal: String,
    tls: Option<Arc<ClientConfig>>,
    authenticator: Option<Authenticator>,
    idle: Idle,
}

impl Dialer {
    pub(super) fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let bootstrap = config.brokers.iter().map(|b| b.parse()).collect::<Result<_, _>>().map_err(Error::Config)?;
        Ok(Self {
            bootstrap,
            principal: config.principal(),
            tls: config.tls.as_ref().map(tls::client_config).transpose()?,
            authenticator: config.sasl.as_ref().map(Authenticator::new),
            config,
            idle: Idle::default(),
        })
    }

    /// The configured addresses.
    pub(super) fn bootstrap(&self) -> &[Address] {
        &self.bootstrap
    }

    /// Who we are in Kafka's access rules.
    pub(super) fn principal(&self) -> &str {
        &self.principal
    }

    /// How long a broker may take to answer.
    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout.min(Duration::from_secs(30))
    }

    /// A connection to `broker`, logged in, within `connect_timeout`.
    pub(super) async fn open(&self, broker: &Address) -> Result<Connection, Error> {
        let limit = self.config.connect_timeout;
        let deadline = Instant::now() + limit;
        let late = |hop| fail(hop, broker, format!("not done within {limit:?}; is the broker overloaded or frozen?"));
        let stream = timeout_at(deadline, dial::dial(broker, self.tls.as_ref(), self.config.tcp_timeout))
            .await
            .map_err(|_| late(Hop::Handshake))??;
        let start = Connection::start(stream, broker.clone(), &self.config.client_id, limit);
        let mut connection = timeout_at(deadline, start).await.map_err(|_| late(Hop::Request))??;
        if let Some(authenticator) = &self.authenticator {
            let life = timeout_at(deadline, authenticator.login(&connection, limit))
                .await
                .map_err(|_| late(Hop::Sasl))?
                .map_err(at_login)?;
            // A broker that limits logins hangs up when one has ended: a new connection in time is simpler.
            connection.renew_at = life.map(|life| Instant::now() + life.mul_f64(0.85));
        }
        Ok(connection)
    }

    /// A connection to `broker` that somebody gave back, if there is one. The broker may have hung up meanwhile.
    pub(super) fn reuse(&self, broker: &Address) -> Option<Connection> {
        self.idle.take(broker)
    }

    /// Gives a connection back on which nothing is under way.
    pub(super) fn give_back(&self, connection: Connection) {
        self.idle.put(connection);
    }

    /// A connection to whichever of `brokers` answers first; they are tried in turn, a quarter of a second apart.
    pub(super) async fn open_any(&self, brokers: &[Address]) -> Result<Connection, Error> {
        let attempts = brokers.iter().map(|broker| async move {
            match self.open(broker).await {
                // All brokers of a cluster know the same users: one refusal is enough.
                Err(error @ Error::Login { .. }) => Ok(Err(error)),
                Err(error) => Err(error),
                Ok(connection) => Ok(Ok(connection)),
            }
        });
        match dial::first(attempts.collect()).await {
            Ok(outcome) => outcome,
            Err(errors) => Err(most_telling(errors)),
        }
    }
}

/// Of several brokers' errors, that of the one with which we came furthest.
fn most_telling(errors: Vec<Error>) -> Error {
    let distance = |error: &Error| match error {
        Error::Unreachable { hop: Hop::Dns, .. } => 0,
        Error::Unreachable { hop: Hop::Tcp, .. } => 1,
        Error::Unreachable { hop: Hop::Request, .. } => 2,
        Error::Unreachable { hop: Hop::Handshake, .. } => 3,
        Error::Unreachable { hop: Hop::Tls, .. } => 4,
        Error::Unreachable { hop: Hop::Sasl, .. } => 5,
        _ => 6,
    };
    errors
        .into_iter()
        .reduce(|best, error| if distance(&error) > distance(&best) { error } else { best })
        .unwrap_or_else(|| Error::Config("no broker address is given; name at least one as host:port".to_owned()))
}

/// What breaks while we log in, breaks at the login.
fn at_login(error: Error) -> Error {
    match error {
        Error::Unreachable { hop: Hop::Request, broker, detail } => {
            Error::Unreachable { hop: Hop::Sasl, broker, detail }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "broker")]
    #[tokio::test]
    async fn a_broker_that_dies_in_the_handshake_is_no_wrong_setting() {
        use crate::kafka::config::{Pem, Roots, Tls};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let authority = crate::certs::Authority::new("test").expect("an authority");
        let roots = Roots::Pem(Pem::Text(crate::secret::Secret::new(authority.certificate())));
        for (answer, expected) in [(&b""[..], Hop::Handshake), (b"HTTP/1.1 400 Bad Request\r\n\r\n", Hop::Tls)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let brokers = vec![listener.local_addr().expect("bound").to_string()];
            let config = Config { brokers, tls: Some(Tls { roots: roots.clone(), client: None }), ..Config::default() };
            let dialer = Dialer::new(config).expect("good settings");
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("a client");
                stream.read_u8().await.expect("its hello");
                stream.write_all(answer).await.expect("sent");
            };
            let (opened, ()) = tokio::join!(dialer.open(&dialer.bootstrap()[0]), serve);
            let error = opened.err().expect("no broker");
            assert!(matches!(error, Error::Unreachable { hop, .. } if hop == expected), "{error}");
        }
    }

    #[test]
    fn the_error_of_the_furthest_hop_is_told() {
        let error = |hop| Error::Unreachable { hop, broker: format!("{hop}"), detail: String::new() };
        let told = most_telling(vec![error(Hop::Dns), error(Hop::Tls), error(Hop::Tcp)]);
        assert!(matches!(told, Error::Unreachable { hop: Hop::Tls, .. }), "{told}");
        assert!(matches!(most_telling(Vec::new()), Error::Config(_)));
    }
}
