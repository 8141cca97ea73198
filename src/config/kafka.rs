//! Settings of the way to the cluster: Kafka's own file below, our flags above it.

use super::{Error, Settings, keys};
use crate::{
    kafka::{
        Prefix,
        config::{ClientCertificate, Config, Login, Mechanism, Pem, Protocol, Roots, Sasl, Tls, TokenSource},
        properties::Import,
    },
    link,
};

impl Settings {
    /// How the cluster is reached, as `client_id`.
    pub fn kafka(&self, client_id: String) -> Result<Config, Error> {
        let mut config = Config { brokers: Vec::new(), client_id, ..Config::default() };
        let imported = self.command_config()?;
        let protocol_below = imported.as_ref().and_then(|imported| imported.protocol);
        if let Some(imported) = imported {
            imported.apply(&mut config);
        }
        let brokers = self.list(&keys::BROKERS);
        if !brokers.is_empty() {
            config.brokers = brokers;
        }
        if config.brokers.is_empty() {
            return Err(self.missing(&keys::BROKERS, "no Kafka brokers are given"));
        }
        config.connect_timeout = self.duration(&keys::CONNECT_TIMEOUT)?.unwrap_or(config.connect_timeout);
        config.request_timeout = self.duration(&keys::REQUEST_TIMEOUT)?.unwrap_or(config.request_timeout);
        if let Some(sasl) = self.sasl(config.sasl.as_ref())? {
            // A password belongs into TLS, unless somebody says otherwise.
            if protocol_below.is_none() {
                config.tls.get_or_insert_default();
            }
            config.sasl = Some(sasl);
        }
        if let Some(tls) = self.tls(config.tls.clone())? {
            config.tls = Some(tls);
        }
        if let Some(protocol) = self.parse::<Protocol>(&keys::SECURITY_PROTOCOL)? {
            self.obey(protocol, &mut config)?;
        }
        config.check().map_err(|e| Error::Value { origin: self.origin(&keys::BROKERS), problem: e.to_string() })?;
        Ok(config)
    }

    /// The link's settings: the same on both sides.
    pub fn link(&self) -> Result<link::Config, Error> {
        let default = link::Config::default();
        let partitions = self.convert(&keys::PARTITIONS, |text| {
            let number = text.parse().ok().filter(|n| (1..=10_000).contains(n));
            number.ok_or_else(|| format!("{text:?} is no number of partitions; use 1 to 10000"))
        })?;
        Ok(link::Config {
            prefix: self.parse::<Prefix>(&keys::PREFIX)?.unwrap_or(default.prefix),
            partitions: partitions.unwrap_or(default.partitions),
            layout: self.parse(&keys::LAYOUT)?.unwrap_or_default(),
            ..link::Config::default()
        })
    }

    fn command_config(&self) -> Result<Option<Import>, Error> {
        let Some(path) = self.path(&keys::COMMAND_CONFIG) else { return Ok(None) };
        let refused = |problem: String| Error::Value {
            origin: self.origin(&keys::COMMAND_CONFIG),
            problem: format!("{}: {problem}", path.display()),
        };
        let text = std::fs::read_to_string(&path).map_err(|e| refused(e.to_string()))?;
        let imported = Import::read(&text).map_err(|e| refused(e.to_string()))?;
        if !imported.unknown.is_empty() {
            tracing::warn!("{}: these keys mean nothing to rk: {}", path.display(), imported.unknown.join(", "));
        }
        Ok(Some(imported))
    }

    fn tls(&self, below: Option<Tls>) -> Result<Option<Tls>, Error> {
        let (ca, cert, key) = (self.path(&keys::TLS_CA), self.path(&keys::TLS_CERT), self.path(&keys::TLS_KEY));
        if ca.is_none() && cert.is_none() && key.is_none() {
            return Ok(None);
        }
        let mut tls = below.unwrap_or_default();
        if let Some(path) = ca {
            tls.roots = Roots::Pem(Pem::File(path));
        }
        match (cert, key) {
            (None, None) => (),
            (Some(cert), key) => {
                let key = Pem::File(key.unwrap_or_else(|| cert.clone()));
                tls.client = Some(ClientCertificate { chain: Pem::File(cert), key });
            }
            (None, Some(_)) => return Err(self.missing(&keys::TLS_CERT, "a client key needs its certificate")),
        }
        Ok(Some(tls))
    }

    fn sasl(&self, below: Option<&Sasl>) -> Result<Option<Sasl>, Error> {
        let mechanism = self.parse::<Mechanism>(&keys::SASL_MECHANISM)?;
        let refused = |problem: &str| {
            Err(Error::Value { origin: self.origin(&keys::SASL_MECHANISM), problem: problem.to_owned() })
        };
        let token = match (self.path(&keys::SASL_TOKEN_FILE), self.parse::<String>(&keys::SASL_TOKEN_COMMAND)?) {
            (Some(file), _) => Some(TokenSource::File(file)),
            (None, Some(command)) => {
                Some(TokenSource::Command(command.split_whitespace().map(str::to_owned).collect()))
            }
            (None, None) => None,
        };
        if let Some(token) = token {
            return match mechanism {
                None | Some(Mechanism::OauthBearer) => Ok(Some(Sasl::OauthBearer(token))),
                Some(_) => refused("a token goes with OAUTHBEARER; give --sasl-username and --sasl-password instead"),
            };
        }
        let user = self.parse::<String>(&keys::SASL_USERNAME)?;
        let password = self.secret(&keys::SASL_PASSWORD)?;
        let known = match below {
            Some(Sasl::Plain(login) | Sasl::ScramSha256(login) | Sasl::ScramSha512(login)) => Some(login),
            Some(Sasl::OauthBearer(_)) | None => None,
        };
        if user.is_none() && password.is_none() && (mechanism.is_none() || known.is_none()) {
            return match mechanism {
                None => Ok(None),
                Some(Mechanism::OauthBearer)
                    if below.is_some_and(|sasl| sasl.mechanism() == Mechanism::OauthBearer) =>
                {
                    Ok(None)
                }
                Some(Mechanism::OauthBearer) => refused("it needs --sasl-token-file or --sasl-token-command"),
                Some(_) => Err(self.missing(&keys::SASL_USERNAME, "a login needs a user name")),
            };
        }
        let user = user.or_else(|| known.map(|login| login.user.clone()));
        let password = password.or_else(|| known.map(|login| login.password.clone()));
        let login = Login {
            user: user.ok_or_else(|| self.missing(&keys::SASL_USERNAME, "a login needs a user name"))?,
            password: password.ok_or_else(|| self.missing(&keys::SASL_PASSWORD, "a login needs a password"))?,
        };
        let mechanism = mechanism.or_else(|| below.map(Sasl::mechanism)).unwrap_or(Mechanism::ScramSha512);
        match Sasl::password(mechanism, login) {
            Ok(sasl) => Ok(Some(sasl)),
            Err(e) => refused(&e.to_string()),
        }
    }

    /// Makes TLS and login what the protocol says.
    fn obey(&self, protocol: Protocol, config: &mut Config) -> Result<(), Error> {
        match protocol.tls() {
            true => drop(config.tls.get_or_insert_default()),
            false => config.tls = None,
        }
        if !protocol.sasl() {
            config.sasl = None;
        } else if config.sasl.is_none() {
            return Err(self.missing(&keys::SASL_USERNAME, "the security protocol wants a login"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::{Environment, Given, Role};

    fn config(flags: &[(&'static str, &str)]) -> Result<Config, String> {
        let flags: Given = flags.iter().map(|(name, value)| (*name, vec![(*value).to_owned()])).collect();
        let environment = Environment::of([("PW", "secret"), ("RK_CONFIG", "/dev/null")]);
        let settings = Settings::gather(Role::Agent, flags, environment).expect("settings");
        settings.kafka("rk-agent-a".to_owned()).map_err(|e| e.to_string())
    }

    #[test]
    fn brokers_alone_are_plaintext_and_a_login_brings_tls() {
        let plain = config(&[("brokers", "a:1,b:2")]).expect("good");
        assert_eq!((plain.brokers.len(), plain.tls, plain.sasl), (2, None, None));
        let login = config(&[("brokers", "a:1"), ("sasl-username", "me"), ("sasl-password", "env:PW")]).expect("good");
        assert_eq!(login.tls, Some(Tls::default()));
        assert!(matches!(login.sasl, Some(Sasl::ScramSha512(login)) if login.user == "me"));
        let bare = [("sasl-username", "me"), ("sasl-password", "env:PW"), ("security-protocol", "SASL_PLAINTEXT")];
        assert_eq!(config(&[&[("brokers", "a:1")][..], &bare].concat()).expect("good").tls, None);
        let ca = config(&[("brokers", "a:1"), ("tls-ca", "/ca.pem")]).expect("good");
        assert_eq!(ca.tls.expect("TLS").roots, Roots::Pem(Pem::File("/ca.pem".into())));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (flags, part) in [
            (&[][..], "--brokers"),
            (&[("brokers", "a")], "host:port"),
            (&[("brokers", "a:1"), ("sasl-username", "me")], "--sasl-password"),
            (&[("brokers", "a:1"), ("sasl-password", "env:PW")], "--sasl-username"),
            (&[("brokers", "a:1"), ("sasl-mechanism", "PLAIN")], "--sasl-username"),
            (&[("brokers", "a:1"), ("sasl-mechanism", "OAUTHBEARER")], "--sasl-token-file"),
            (&[("brokers", "a:1"), ("sasl-mechanism", "GSSAPI")], "SCRAM-SHA-512"),
            (&[("brokers", "a:1"), ("security-protocol", "SASL_SSL")], "--sasl-username"),
            (&[("brokers", "a:1"), ("tls-key", "/key.pem")], "--tls-cert"),
            (&[("command-config", "/no/such/file")], "/no/such/file"),
        ] {
            let e = config(flags).expect_err(part);
            assert!(e.contains(part), "{flags:?}: {e}");
        }
    }

    #[test]
    fn our_flags_win_over_kafkas_own_file() {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(
            b"bootstrap.servers=a:1\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
              sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
              username=\"u\" password=\"p\";\n",
        )
        .expect("written");
        let path = file.path().to_str().expect("UTF-8");
        let below = config(&[("command-config", path)]).expect("good");
        assert_eq!((below.brokers, below.tls), (vec!["a:1".to_owned()], None));
        let above = config(&[("command-config", path), ("brokers", "b:2"), ("sasl-mechanism", "SCRAM-SHA-256")]);
        let above = above.expect("good");
        assert_eq!((above.brokers, above.tls), (vec!["b:2".to_owned()], None));
        assert!(matches!(above.sasl, Some(Sasl::ScramSha256(login)) if login.user == "u"));
    }
}
