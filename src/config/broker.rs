//! Settings of the embedded broker.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Error, Settings, keys};
use crate::{
    broker::{Config, ListenerConfig, Sync, Users},
    private_file,
};

/// Where the embedded broker listens unless told otherwise.
pub const BROKER_ADDRESS: &str = "127.0.0.1:9092";

impl Settings {
    /// The broker's settings.
    pub fn broker(&self) -> Result<Config, Error> {
        let default = Config::default();
        let advertised = self.convert(&keys::ADVERTISE, |text| {
            let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} has no port; use HOST:PORT"))?;
            let port: u16 = port.parse().map_err(|_| format!("{text:?} has a malformed port; use HOST:PORT"))?;
            Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
        })?;
        let sync = self.convert(&keys::FSYNC, |text| match text {
            "always" => Ok(Sync::Always),
            "never" => Ok(Sync::Never),
            text => super::duration(text)
                .map(Sync::Every)
                .map_err(|_| format!("{text:?} is no fsync policy; use always, never, or how often, like 1s")),
        })?;
        let retention = match self.convert(&keys::RETENTION, |text| match text {
            "forever" => Ok(None),
            text => super::duration(text).map(Some),
        })? {
            Some(retention) => retention,
            None => default.retention,
        };
        let listener = self.listener()?;
        Ok(Config {
            data: self.data_dir()?.join("broker"),
            super_users: self.super_users(&listener)?,
            listener,
            advertised_host: advertised.as_ref().map(|(host, _)| host.clone()),
            advertised_port: advertised.map(|(_, port)| port),
            retention,
            sync: sync.unwrap_or(default.sync),
            ..default
        })
    }

    fn listener(&self) -> Result<ListenerConfig, Error> {
        let listener = match (self.path(&keys::LISTEN_CERT), self.path(&keys::LISTEN_KEY)) {
            (None, None) => ListenerConfig::plaintext(),
            (Some(cert), key) => {
                let key = key.unwrap_or_else(|| cert.clone());
                let refused = |e: crate::broker::Error| Error::Value {
                    origin: self.origin(&keys::LISTEN_CERT),
                    problem: e.to_string(),
                };
                ListenerConfig::tls_from_pem(&cert, &key, None).map_err(refused)?
            }
            (None, Some(_)) => return Err(self.missing(&keys::LISTEN_CERT, "a key needs its certificate")),
        };
        Ok(match self.path(&keys::USERS) {
            Some(path) => listener.with_users(self.users(&path)?),
            None => listener,
        })
    }

    fn super_users(&self, listener: &ListenerConfig) -> Result<BTreeSet<String>, Error> {
        let names: BTreeSet<String> = self.list(&keys::SUPER_USERS).into_iter().collect();
        let refused = |problem: String| Error::Value { origin: self.origin(&keys::SUPER_USERS), problem };
        // An empty value, such as an unset variable, must not open the broker to everybody.
        if names.is_empty() && self.values(&keys::SUPER_USERS).is_some() {
            return Err(refused(
                "names nobody; name a user, or leave it away to allow everybody everything".to_owned(),
            ));
        }
        if let Some(name) = names.iter().find(|name| name.contains(':')) {
            return Err(refused(format!("{name:?} is no user's name; write it as in --users, without User:")));
        }
        if listener.sasl.is_none() && names.iter().any(|name| name != "ANONYMOUS") {
            let problem = "nobody logs in here, so nobody would be one of them; give the users with --users";
            return Err(refused(problem.to_owned()));
        }
        Ok(names)
    }

    fn users(&self, path: &Path) -> Result<Users, Error> {
        let origin = self.origin(&keys::USERS);
        let bytes = private_file::read(path).map_err(|e| super::source::refusal(origin.clone(), &e))?;
        let refused = |problem: String| Error::Value { origin: origin.clone(), problem };
        let text = String::from_utf8(bytes).map_err(|_| refused(format!("{} is no text", path.display())))?;
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let users = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
            let user = line.split_once(':').filter(|(name, password)| !name.is_empty() && !password.is_empty());
            // The line is not repeated: it may hold a password.
            user.ok_or_else(|| refused(format!("{}, line {at}: write name:password", path.display())))
        });
        users.collect()
    }
}
