//! What a module's process is told, and how that stands on its command line. Pure.
//!
//! ```text
//! wasm-run [--dir HOST=GUEST[:ro]]… [--env NAME[=VALUE]]… [--memory SIZE] [--fuel N] [--name NAME] MODULE [-- ARGUMENT…]
//! ```
//!
//! Everybody on the machine can read a command line: a variable's value, which may be a secret, is not written there. `--env NAME`
//! takes it from the process's own environment.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::Limits;
use crate::size;

/// All that a module is granted and told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The directories that it may touch; nothing else of the machine's files is there for it.
    pub folders: Vec<Folder>,
    /// Its whole environment: names, and values where they do not come from the process's own.
    pub variables: Vec<(OsString, Option<OsString>)>,
    pub limits: Limits,
    /// What it is called, its argument 0; the module's file where nobody says.
    pub name: Option<OsString>,
    /// The module's file.
    pub module: PathBuf,
    /// Its further arguments.
    pub arguments: Vec<OsString>,
}

/// A granted directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub host: PathBuf,
    /// What it is called in the module.
    guest: OsString,
    pub writable: bool,
}

/// What ends the name of a directory that may only be read.
const READ_ONLY: &[u8] = b":ro";

impl Folder {
    /// A directory under another name; nothing if that name cannot be written on a command line.
    pub fn new(host: &Path, guest: &Path, writable: bool) -> Option<Self> {
        let guest = guest.as_os_str();
        let plain = !guest.is_empty() && !guest.as_bytes().contains(&b'=') && !guest.as_bytes().ends_with(READ_ONLY);
        (plain && !host.as_os_str().is_empty()).then(|| Self {
            host: host.to_owned(),
            guest: guest.to_owned(),
            writable,
        })
    }

    /// What it is called in the module.
    pub fn guest(&self) -> &Path {
        Path::new(&self.guest)
    }

    fn word(&self) -> OsString {
        let mut word = self.host.clone().into_os_string();
        word.push("=");
        word.push(&self.guest);
        if !self.writable {
            word.push(OsStr::from_bytes(READ_ONLY));
        }
        word
    }

    fn parse(word: &OsStr) -> Option<Self> {
        let bytes = word.as_bytes();
        let (bytes, writable) = match bytes.strip_suffix(READ_ONLY) {
            Some(bytes) => (bytes, false),
            None => (bytes, true),
        };
        // A host's name may hold the sign, the other may not.
        let at = bytes.iter().rposition(|byte| *byte == b'=')?;
        let path = |bytes| Path::new(OsStr::from_bytes(bytes));
        Self::new(path(&bytes[..at]), path(&bytes[at + 1..]), writable)
    }
}

impl Order {
    /// The command line, without the subcommand.
    pub fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| words.extend([name.into(), value]);
        for folder in &self.folders {
            option("--dir", folder.word());
        }
        for (name, value) in &self.variables {
            let mut word = name.clone();
            if let Some(value) = value {
                word.push("=");
                word.push(value);
            }
            option("--env", word);
        }
        option("--memory", self.limits.memory.to_string().into());
        if let Some(fuel) = self.limits.fuel {
            option("--fuel", fuel.to_string().into());
        }
        if let Some(name) = &self.name {
            option("--name", name.clone());
        }
        words.extend([self.module.clone().into(), "--".into()]);
        words.extend_from_slice(&self.arguments);
        words
    }

    /// Reads it; the error says what would do.
    pub fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut order = Self {
            folders: Vec::new(),
            variables: Vec::new(),
            limits: Limits::default(),
            name: None,
            module: PathBuf::new(),
            arguments: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if !word.as_bytes().starts_with(b"--") {
                order.module = word.into();
                break;
            }
            let option = word.to_string_lossy();
            let value = words.next().ok_or_else(|| format!("{option} needs a value"))?;
            order.take(&option, value)?;
        }
        if order.module.as_os_str().is_empty() {
            return Err("no module is named; write its file behind the options".to_owned());
        }
        match words.next() {
            None => {}
            Some(word) if word == "--" => order.arguments = words.cloned().collect(),
            Some(word) => return Err(format!("{}: the module's arguments stand behind --", word.display())),
        }
        Ok(order)
    }

    fn take(&mut self, option: &str, value: &OsStr) -> Result<(), String> {
        let text = value.to_string_lossy();
        match option {
            "--dir" => {
                let wrong = || format!("--dir {text} is none; write HOST=GUEST, or HOST=GUEST:ro to let it only read");
                self.folders.push(Folder::parse(value).ok_or_else(wrong)?);
            }
            "--env" => {
                let bytes = value.as_bytes();
                let end = bytes.iter().position(|byte| *byte == b'=');
                let name = OsString::from_vec(bytes[..end.unwrap_or(bytes.len())].to_vec());
                if name.is_empty() {
                    return Err("--env needs a name; write NAME or NAME=VALUE".to_owned());
                }
                self.variables.push((name, end.map(|end| OsString::from_vec(bytes[end + 1..].to_vec()))));
            }
            "--memory" => self.limits.memory = size::parse(&text)?,
            "--fuel" => {
                let fuel = text.parse().map_err(|_| format!("--fuel {text} is no whole number"))?;
                self.limits.fuel = Some(fuel);
            }
            "--name" => self.name = Some(value.to_owned()),
            _ => return Err(format!("{option} is unknown; there are --dir, --env, --memory, --fuel and --name")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_command_line_says_what_is_granted() {
        let line =
            "--dir /a=b=. --dir /lib=/bundle:ro --env HOME --env A=b=c --memory 1M --fuel 7 --name t t.wasm -- -x --";
        let order = Order::parse(&words(line)).expect("fine");
        let folders: Vec<_> = order
            .folders
            .iter()
            .map(|folder| (folder.host.to_str(), folder.guest().to_str(), folder.writable))
            .collect();
        assert_eq!(folders, [(Some("/a=b"), Some("."), true), (Some("/lib"), Some("/bundle"), false)]);
        assert_eq!(order.variables, [("HOME".into(), None), ("A".into(), Some("b=c".into()))]);
        assert_eq!((order.limits.memory, order.limits.fuel), (1 << 20, Some(7)));
        assert_eq!((order.module.to_str(), order.arguments), (Some("t.wasm"), words("-x --")));
        let order = Order::parse(&words("t.wasm")).expect("fine");
        assert_eq!((order.limits, order.name), (Limits::default(), None));
    }

    #[test]
    fn a_wrong_one_is_refused_with_what_would_do() {
        for (line, part) in [
            ("", "no module"),
            ("--dir /a t.wasm", "HOST=GUEST"),
            ("--dir =. t.wasm", "HOST=GUEST"),
            ("--env =x t.wasm", "NAME"),
            ("--memory much t.wasm", "10G"),
            ("--fuel -1 t.wasm", "whole number"),
            ("--net on t.wasm", "--dir"),
            ("--fuel", "needs a value"),
            ("t.wasm x", "behind --"),
        ] {
            let error = Order::parse(&words(line)).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
        assert!(Folder::new(Path::new("/a"), Path::new("/a=b"), true).is_none());
        assert!(Folder::new(Path::new("/a"), Path::new("/a:ro"), true).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            hosts in prop::collection::vec(("/[a-z=:]{0,9}", "[a-z/.]{1,9}", any::<bool>()), 0..4),
            variables in prop::collection::vec(("[A-Z]{1,5}", prop::option::of(".{0,9}")), 0..4),
            memory in any::<u64>(),
            fuel in prop::option::of(any::<u64>()),
            name in prop::option::of(".{0,9}"),
            arguments in prop::collection::vec(".{0,9}", 0..4),
        ) {
            let folder = |(host, guest, writable): &(String, String, bool)| {
                Folder::new(Path::new(host), Path::new(guest), *writable)
            };
            let order = Order {
                folders: hosts.iter().filter_map(folder).collect(),
                variables: variables.into_iter().map(|(name, value)| (name.into(), value.map(Into::into))).collect(),
                limits: Limits { memory, fuel },
                name: name.map(Into::into),
                module: "/m.wasm".into(),
                arguments: arguments.into_iter().map(Into::into).collect(),
            };
            prop_assert_eq!(Order::parse(&order.words()), Ok(order));
        }
    }
}
