//! `rk setup compose files`: certificates, passwords and settings, a folder for each service, which sees no other's.
//!
//! All files are their owner's alone; all services run as the user that ran this.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;

use super::{
    demo_agents,
    settings::{self, Door, Pair, USERS},
};
use crate::{
    certs::{CertsError, Folder, Renew},
    cli::{Failure, certs::now, failure, output},
    id::AgentName,
    private_file::{self, PrivateFileError},
    secret,
};

/// How long certificates last: as long as the volumes that they are in, more or less.
const DAYS: u32 = 3650;
/// What stays with the setup: the authority's key, the passwords.
const AUTHORITY: &str = "authority";
/// Where agents that join find their settings.
const JOIN: &str = "join";

/// Make certificates, passwords and the settings of all services
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// Where the services' volumes are, a folder each
    #[arg(long, value_name = "DIR", default_value = "/volumes")]
    dir: PathBuf,
    /// How many brokers there are
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    brokers: u16,
    /// Agents that the controller knows before they start
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_values_t = demo_agents(), hide_default_value = true)]
    agents: Vec<AgentName>,
    /// Brokers without TLS, passwords and rights: to try things out
    #[arg(long)]
    no_auth: bool,
}

/// Makes what is missing.
pub fn run(args: &FilesArgs) -> Result<u8, Failure> {
    let mut folder = Volumes { dir: args.dir.clone(), changed: Vec::new() };
    make(args, &mut folder)?;
    output::print(&folder.changed.iter().map(|what| format!("made     {what}\n")).collect::<String>())?;
    if folder.changed.is_empty() {
        output::say("rk: all files are as they have to be");
    }
    Ok(0)
}

fn make(args: &FilesArgs, volumes: &mut Volumes) -> Result<(), Failure> {
    let FilesArgs { brokers, agents, no_auth, .. } = args;
    let brokers = *brokers;
    volumes.same_door(*no_auth)?;
    let cluster = volumes.random("authority/cluster", || URL_SAFE_NO_PAD.encode(secret::random::<16>()))?;
    let passwords = |volumes: &mut Volumes| -> Result<Vec<(&str, String)>, Failure> {
        // Hexadecimal digits pass through every quoting.
        let new = || secret::random::<24>().iter().map(|byte| format!("{byte:02x}")).collect();
        USERS.iter().map(|user| Ok((*user, volumes.random(&format!("{AUTHORITY}/{user}.password"), new)?))).collect()
    };
    let passwords = passwords(volumes)?;
    let names = |name: &str| [name, "localhost", "127.0.0.1"].map(str::to_owned);
    volumes.authority()?;
    // The API is open to a network, and has TLS whatever the brokers have.
    let (certificate, key) = volumes.certificate("controller", &names("controller"))?;
    let authority = volumes.read("authority/ca.pem")?;
    volumes.write("controller/api.pem", &certificate)?;
    volumes.write("controller/api.key", &key)?;
    volumes.write("controller/ca.pem", &authority)?;

    let door = |user: &str| match passwords.iter().find(|(name, _)| *name == user) {
        Some((_, password)) if !no_auth => Door::Secured { authority: &authority, password },
        _ => Door::Open,
    };
    for number in 1..=brokers {
        let name = settings::broker(number);
        let (certificate, key) = volumes.certificate(&name, &names(&name))?;
        let pair = (!no_auth).then_some(Pair { certificate: &certificate, key: &key });
        volumes.write(&format!("{name}/node.properties"), &settings::node(number, brokers, door("broker"), pair))?;
        volumes.write(&format!("{name}/cluster"), &format!("{cluster}\n"))?;
        let users = passwords.iter().filter(|_| !no_auth).map(|(user, password)| settings::scram(user, password));
        volumes.write(&format!("{name}/users"), &users.collect::<String>())?;
    }
    let clients = [("admin", "admin"), ("controller", "controller"), (JOIN, "agent")];
    let agents = agents.iter().map(|agent| (agent.as_str(), "agent"));
    for (volume, user) in clients.into_iter().chain(agents) {
        volumes.write(&format!("{volume}/kafka.properties"), &settings::client(user, brokers, door(user)))?;
    }
    volumes.write("ui/application.yml", &settings::ui("ui", brokers, door("ui")))
}

/// The folders of the services, and what was changed in them.
struct Volumes {
    dir: PathBuf,
    changed: Vec<String>,
}

impl Volumes {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Refuses to change whether one logs in at the brokers: users are made when a broker's disk is formatted, and never after.
    fn same_door(&mut self, open: bool) -> Result<(), Failure> {
        let wanted = if open { "open" } else { "secured" };
        let found = self.random("authority/door", || wanted.to_owned())?;
        if found == wanted {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} holds an installation whose brokers are {found}, and {wanted} ones are wanted; remove it with `make down`, then \
             start again",
            self.dir.display()
        )))
    }

    /// The content of a file that is made once.
    fn random(&mut self, name: &str, new: impl FnOnce() -> String) -> Result<String, Failure> {
        let path = self.folder_of(name)?;
        let (bytes, made) =
            private_file::read_or_create(&path, || (new() + "\n").into_bytes()).map_err(|e| refused(&e))?;
        if made {
            self.changed.push(name.to_owned());
        }
        let text = String::from_utf8(bytes).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        text.ok_or_else(|| {
            Failure::usage(format!("{} is empty or no text; remove it, then start again", path.display()))
        })
    }

    fn authority(&mut self) -> Result<(), Failure> {
        let folder = Folder::new(self.path(AUTHORITY));
        self.made("authority/ca.pem", folder.init(Some("rk compose authority"), DAYS, now(), Renew::Never).map(drop))
    }

    /// A server's certificate and key, made once.
    fn certificate(&mut self, name: &str, names: &[String]) -> Result<(String, String), Failure> {
        let folder = Folder::new(self.path(AUTHORITY));
        let (certificate, key) = (format!("{AUTHORITY}/{name}.pem"), format!("{AUTHORITY}/{name}.key"));
        self.made(&certificate, folder.server(name, names, DAYS, now(), Renew::Never).map(drop))?;
        Ok((self.read(&certificate)?, self.read(&key)?))
    }

    fn made(&mut self, name: &str, result: Result<(), CertsError>) -> Result<(), Failure> {
        match result {
            Ok(()) => self.changed.push(name.to_owned()),
            Err(CertsError::Exists(_)) => (),
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }

    /// Brings a file to this content.
    fn write(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let path = self.folder_of(name)?;
        match private_file::read(&path) {
            Ok(found) if found == text.as_bytes() => return Ok(()),
            Ok(_) | Err(PrivateFileError::Missing { .. }) => (),
            Err(e) => return Err(refused(&e)),
        }
        private_file::replace(&path, text.as_bytes()).map_err(|e| refused(&e))?;
        self.changed.push(name.to_owned());
        Ok(())
    }

    fn read(&self, name: &str) -> Result<String, Failure> {
        let path = self.path(name);
        fs::read_to_string(&path).map_err(|e| unusable(&path, &e))
    }

    /// The file's path; the folder that it is in is made.
    fn folder_of(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(|e| unusable(parent, &e))?;
        }
        Ok(path)
    }
}

fn refused(e: &PrivateFileError) -> Failure {
    let code = match e {
        PrivateFileError::OpenToOthers { .. } | PrivateFileError::Owner { .. } => failure::REFUSED,
        _ => failure::USAGE,
    };
    Failure::new(code, e.to_string())
}

fn unusable(path: &Path, e: &io::Error) -> Failure {
    Failure::usage(format!("{}: {e}; the volumes have to belong to the user that runs this", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

    use super::*;

    fn args(dir: &Path, no_auth: bool) -> FilesArgs {
        FilesArgs { dir: dir.to_owned(), brokers: 3, agents: demo_agents(), no_auth }
    }

    fn all(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for folder in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                found.insert(file.clone(), fs::read(file).unwrap());
            }
        }
        found
    }

    fn make_in(dir: &Path, no_auth: bool) -> Result<Vec<String>, Failure> {
        let mut volumes = Volumes { dir: dir.to_owned(), changed: Vec::new() };
        make(&args(dir, no_auth), &mut volumes).map(|()| volumes.changed)
    }

    #[test]
    fn a_second_run_changes_nothing_and_a_file_that_is_lost_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert!(make_in(dir.path(), false).unwrap().contains(&"broker-3/node.properties".to_owned()));
        let before = all(dir.path());
        assert_eq!(make_in(dir.path(), false).unwrap(), Vec::<String>::new());
        assert!(all(dir.path()) == before);
        fs::remove_file(dir.path().join("agent-1/kafka.properties")).unwrap();
        assert_eq!(make_in(dir.path(), false).unwrap(), ["agent-1/kafka.properties"]);
        assert!(all(dir.path()) == before);
    }

    #[test]
    fn no_service_finds_what_is_anothers() {
        let dir = tempfile::tempdir().unwrap();
        make_in(dir.path(), false).unwrap();
        let password = |user: &str| fs::read_to_string(dir.path().join(format!("authority/{user}.password"))).unwrap();
        for (file, text) in all(dir.path()).iter().filter(|(file, _)| !file.starts_with(dir.path().join(AUTHORITY))) {
            let text = String::from_utf8_lossy(text);
            let name = file.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned();
            assert_eq!(
                text.contains(password("admin").trim()),
                name == "admin/kafka.properties" || name.ends_with("/users"),
                "{name}"
            );
            assert_eq!(
                text.contains(password("agent").trim()),
                name.starts_with("agent-") || name.starts_with("join/") || name.ends_with("/users"),
                "{name}"
            );
            if name != "controller/api.pem" && name != "controller/ca.pem" {
                assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            }
        }
    }

    #[test]
    fn an_installation_stays_open_or_secured() {
        let dir = tempfile::tempdir().unwrap();
        make_in(dir.path(), true).unwrap();
        let users = fs::read_to_string(dir.path().join("broker-1/users")).unwrap();
        assert_eq!(users, "");
        let refused = make_in(dir.path(), false).unwrap_err();
        assert_eq!(refused.code, failure::USAGE);
        assert!(
            refused.message.contains("brokers are open") && refused.message.contains("make down"),
            "{}",
            refused.message
        );
    }

    #[test]
    fn a_volume_of_somebody_elses_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("authority"), "a file").unwrap();
        let refused = make_in(dir.path(), false).unwrap_err();
        assert!(refused.message.contains("volumes have to belong"), "{}", refused.message);
    }
}
