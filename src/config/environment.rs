//! The process's environment, read once: the only place of the library that looks at it.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::keys::Key;
use crate::secret::Secret;

/// Secrets by the number of their descriptor.
type ReadUp = Arc<Mutex<BTreeMap<u32, Secret<String>>>>;

/// What the environment held when the program started.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    root: bool,
    /// What was read from file descriptors where it cannot be read again.
    read_up: ReadUp,
}

impl Environment {
    /// Reads the environment of this process.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn read() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            root: nix::unistd::geteuid().is_root(),
            read_up: ReadUp::default(),
        }
    }

    /// An environment that a test made up.
    pub fn of<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, root: false, read_up: ReadUp::default() }
    }

    /// A variable that is set, not empty, and UTF-8.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(OsStr::new(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// All variables, as a child process may get them.
    pub fn variables(&self) -> Vec<(OsString, OsString)> {
        self.variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// The variable of a setting.
    pub fn setting(&self, key: &Key) -> Option<&str> {
        self.value(&key.variable())
    }

    /// A descriptor was read to its end.
    pub(super) fn note_read_up(&self, number: u32, secret: &Secret<String>) {
        self.read_up.lock().unwrap_or_else(PoisonError::into_inner).insert(number, secret.clone());
    }

    /// What was read from descriptors where it cannot be read again, with their numbers.
    pub fn read_up(&self) -> Vec<(u32, Secret<String>)> {
        let read_up = self.read_up.lock().unwrap_or_else(PoisonError::into_inner);
        read_up.iter().map(|(number, secret)| (*number, secret.clone())).collect()
    }

    /// Whether this process is a new version of an agent on trial.
    #[cfg(feature = "agent")]
    pub fn on_trial(&self) -> bool {
        self.value(crate::agent::update::TRIAL).is_some()
    }

    /// Whether colours are unwanted: <https://no-color.org>.
    pub fn no_color(&self) -> bool {
        self.value("NO_COLOR").is_some()
    }

    /// Where the configuration file is looked for, in this order.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let user = self.value("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(self.home()?.join(".config")));
        user.into_iter()
            .map(|dir| dir.join("rk"))
            .chain([PathBuf::from("/etc/rk")])
            .map(|dir| dir.join("config.yaml"))
            .collect()
    }

    /// Where state lives if nobody says: `/var/lib/rk` for root, else `$XDG_STATE_HOME/rk` or `~/.local/state/rk`.
    pub fn data_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/var/lib/rk"));
        }
        let state = self.value("XDG_STATE_HOME").map(PathBuf::from);
        Some(state.or_else(|| Some(self.home()?.join(".local/state")))?.join("rk"))
    }

    fn home(&self) -> Option<PathBuf> {
        self.value("HOME").map(PathBuf::from)
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_struct("Environment").field("names", &self.variables.keys()).field("root", &self.root).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_and_settings_live_where_xdg_says() {
        let home = Environment::of([("HOME", "/home/me")]);
        assert_eq!(home.data_dir(), Some("/home/me/.local/state/rk".into()));
        let files = home.config_files();
        assert_eq!(files, [PathBuf::from("/home/me/.config/rk/config.yaml"), "/etc/rk/config.yaml".into()]);
        let xdg = Environment::of([("XDG_STATE_HOME", "/s"), ("XDG_CONFIG_HOME", "/c"), ("HOME", "/home/me")]);
        assert_eq!(xdg.data_dir(), Some("/s/rk".into()));
        assert_eq!(xdg.config_files()[0], PathBuf::from("/c/rk/config.yaml"));
        assert_eq!(Environment { root: true, ..home }.data_dir(), Some("/var/lib/rk".into()));
        assert_eq!(Environment::default().data_dir(), None);
    }
}
