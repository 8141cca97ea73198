//! Kafka's own `client.properties`, taken over: what works with Kafka's tools works here.
//!
//! Whatever would weaken the connection or cannot work is refused with its cure; keys that mean nothing to us are listed
//! and left.

mod jaas;
mod syntax;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{
    Error,
    config::{ClientCertificate, Config, Login, Mechanism, Pem, Protocol, Roots, Sasl, Tls, TokenSource},
};
use crate::secret::Secret;

/// What a `client.properties` says to us. What it does not mention is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Import {
    /// `bootstrap.servers`.
    pub brokers: Option<Vec<String>>,
    /// `client.id`.
    pub client_id: Option<String>,
    /// `security.protocol`.
    pub protocol: Option<Protocol>,
    /// The `ssl.*` keys, where the protocol is TLS.
    pub tls: Option<Tls>,
    /// The `sasl.*` keys, where the protocol has a login.
    pub sasl: Option<Sasl>,
    /// `request.timeout.ms`.
    pub request_timeout: Option<Duration>,
    /// Keys that mean nothing to us.
    pub unknown: Vec<String>,
}

impl Import {
    /// Reads the text of a `client.properties`.
    pub fn read(text: &str) -> Result<Self, Error> {
        let mut keys = Keys(syntax::parse(text).map_err(Error::Config)?);
        let protocol = keys.take("security.protocol").map(|p| p.parse::<Protocol>()).transpose();
        let protocol = protocol.map_err(Error::Config)?;
        let tls = tls(&mut keys)?;
        let sasl = if protocol.is_some_and(Protocol::sasl) { Some(sasl(&mut keys)?) } else { None };
        let list = |brokers: String| brokers.split(',').map(|b| b.trim().to_owned()).collect::<Vec<_>>();
        let millis = |ms: String| {
            let wrong = || Error::Config(format!("request.timeout.ms={ms} is refused; it is a number of milliseconds"));
            ms.trim().parse().map(Duration::from_millis).map_err(|_| wrong())
        };
        Ok(Self {
            brokers: keys.take("bootstrap.servers").map(list),
            client_id: keys.take("client.id"),
            tls: tls.filter(|_| protocol.is_some_and(Protocol::tls)),
            protocol,
            sasl,
            request_timeout: keys.take("request.timeout.ms").map(millis).transpose()?,
            unknown: keys.rest(),
        })
    }

    /// Writes what it says over `config`.
    pub fn apply(self, config: &mut Config) {
        if let Some(brokers) = self.brokers {
            config.brokers = brokers;
        }
        if let Some(client_id) = self.client_id {
            config.client_id = client_id;
        }
        if self.protocol.is_some() {
            config.tls = self.tls;
            config.sasl = self.sasl;
        }
        if let Some(limit) = self.request_timeout {
            config.request_timeout = limit;
        }
    }
}

/// The keys that nobody has asked for yet.
struct Keys(BTreeMap<String, String>);

/// Keys that make sense beside ours and change nothing.
const HARMLESS: [&str; 4] =
    ["ssl.protocol", "ssl.enabled.protocols", "sasl.login.callback.handler.class", "sasl.kerberos.service.name"];

impl Keys {
    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn rest(mut self) -> Vec<String> {
        self.0.retain(|key, _| !HARMLESS.contains(&key.as_str()));
        self.0.into_keys().collect()
    }
}

fn tls(keys: &mut Keys) -> Result<Option<Tls>, Error> {
    if keys.take("ssl.endpoint.identification.algorithm").is_some_and(|algorithm| algorithm.trim().is_empty()) {
        let what = "an empty ssl.endpoint.identification.algorithm would accept any broker's certificate for any name, \
                    and is not supported; connect by a name that the certificate holds, or have one made for this name";
        return Err(Error::Config(what.to_owned()));
    }
    Ok(Some(Tls { roots: roots(keys)?, client: client(keys)? }))
}

fn roots(keys: &mut Keys) -> Result<Roots, Error> {
    let location = keys.take("ssl.truststore.location");
    let kind = keys.take("ssl.truststore.type");
    let text = keys.take("ssl.truststore.certificates");
    keys.take("ssl.truststore.password");
    match (location, text) {
        (_, Some(text)) => Ok(Roots::Pem(inline(&text))),
        (None, None) => Ok(Roots::System),
        (Some(path), None) if is_pem(kind.as_deref()) => Ok(Roots::Pem(Pem::File(PathBuf::from(path)))),
        (Some(path), None) => Err(Error::Config(format!(
            "ssl.truststore.location={path} is a Java key store ({}), and only PEM is read; convert it with `keytool \
             -list -rfc -keystore {path} > ca.pem`, then set ssl.truststore.type=PEM and ssl.truststore.location=ca.pem",
            kind.as_deref().unwrap_or("JKS, the default of ssl.truststore.type")
        ))),
    }
}

fn client(keys: &mut Keys) -> Result<Option<ClientCertificate>, Error> {
    let location = keys.take("ssl.keystore.location");
    let kind = keys.take("ssl.keystore.type");
    let (key, chain) = (keys.take("ssl.keystore.key"), keys.take("ssl.keystore.certificate.chain"));
    keys.take("ssl.keystore.password");
    let password = keys.take("ssl.key.password");
    let certificate = match (location, key, chain) {
        (None, None, None) => return Ok(None),
        (_, Some(key), Some(chain)) => ClientCertificate { chain: inline(&chain), key: inline(&key) },
        (None, _, _) => {
            let what = "ssl.keystore.key and ssl.keystore.certificate.chain go together, and one is missing";
            return Err(Error::Config(what.to_owned()));
        }
        (Some(path), _, _) if is_pem(kind.as_deref()) => {
            let file = Pem::File(PathBuf::from(path));
            ClientCertificate { chain: file.clone(), key: file }
        }
        (Some(path), _, _) => {
            let (source, first) = match kind.as_deref() {
                Some("PKCS12") => (path.clone(), String::new()),
                _ => {
                    let to = "-destkeystore store.p12 -deststoretype PKCS12";
                    ("store.p12".to_owned(), format!("`keytool -importkeystore -srckeystore {path} {to}`, then "))
                }
            };
            return Err(Error::Config(format!(
                "ssl.keystore.location={path} is a Java key store ({}), and only PEM is read; convert it with {first}\
                 `openssl pkcs12 -in {source} -nodes -out client.pem`, then set ssl.keystore.type=PEM and \
                 ssl.keystore.location=client.pem",
                kind.as_deref().unwrap_or("JKS, the default of ssl.keystore.type")
            )));
        }
    };
    if password.is_some() {
        let what = "ssl.key.password is set, and encrypted private keys are not read; decrypt the key with `openssl \
                    pkcs8 -in client.pem -out key.pem` and keep the result readable by this user alone";
        return Err(Error::Config(what.to_owned()));
    }
    Ok(Some(certificate))
}

fn is_pem(kind: Option<&str>) -> bool {
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("PEM"))
}

/// PEM that stands in a value has lost its line ends, or keeps them as spaces.
fn inline(text: &str) -> Pem {
    Pem::Text(Secret::new(syntax::pem_lines(text)))
}

fn sasl(keys: &mut Keys) -> Result<Sasl, Error> {
    let mechanism = keys.take("sasl.mechanism").ok_or_else(|| {
        let cure = "name SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER";
        Error::Config(format!("sasl.mechanism is missing, and Kafka's default, GSSAPI, is not supported; {cure}"))
    })?;
    let mechanism: Mechanism = mechanism.trim().parse().map_err(Error::Config)?;
    let jaas = keys.take("sasl.jaas.config");
    if mechanism == Mechanism::OauthBearer {
        return token(keys).map(Sasl::OauthBearer);
    }
    let jaas = jaas.ok_or_else(|| {
        let what = "sasl.jaas.config is missing; it names the login module with username and password";
        Error::Config(what.to_owned())
    })?;
    let module = jaas::parse(&jaas).map_err(Error::Config)?;
    let fits = match mechanism {
        Mechanism::Plain => module.class.ends_with("PlainLoginModule"),
        _ => module.class.ends_with("ScramLoginModule"),
    };
    if !fits {
        let (class, name) = (&module.class, mechanism.name());
        return Err(Error::Config(format!("sasl.jaas.config names {class}, which does not fit sasl.mechanism={name}")));
    }
    let option = |name: &str| {
        let missing = || Error::Config(format!("sasl.jaas.config has no {name}"));
        module.options.get(name).cloned().ok_or_else(missing)
    };
    let login = Login { user: option("username")?, password: Secret::new(option("password")?) };
    Sasl::password(mechanism, login)
}

fn token(keys: &mut Keys) -> Result<TokenSource, Error> {
    let url = keys.take("sasl.oauthbearer.token.endpoint.url");
    match url.as_deref().and_then(|url| url.strip_prefix("file:")) {
        Some(path) => Ok(TokenSource::File(PathBuf::from(format!("/{}", path.trim_start_matches('/'))))),
        None => {
            let what = "OAUTHBEARER takes its token from a file here (sasl.oauthbearer.token.endpoint.url=file:/path, \
                        or --sasl-token-file) or from a program that prints one (--sasl-token-command); it asks no \
                        token endpoint itself";
            Err(Error::Config(what.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
