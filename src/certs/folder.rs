//! The files of a small authority in one folder: `ca.pem` and `ca.key`, and `<name>.pem` and `<name>.key` for each of
//! those that it signed. Keys are their owner's alone, and nothing is overwritten that nobody wanted renewed.

use std::{
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::KeyPair;

use super::{
    Certificate, Unreadable, Validity,
    authority::{Authority, Use},
    facts::read_pem,
};
use crate::{
    private_file::{self, PrivateFileError},
    secret::Secret,
};

/// The name of the authority's files.
const CA: &str = "ca";

/// Longer lives than this are a typing error, and no calendar holds them.
const MOST_DAYS: u32 = 36_500;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A name that no certificate can carry, or a key that can't be read.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file can't be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A key is not its owner's alone.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// A file is there.
    #[error("{path} is there, and stays as it is; renew it with --renew", path = .0.display())]
    Exists(PathBuf),
    /// There is no authority in the folder.
    #[error("there is no authority in {path}; make one with `rk certs init --out {path}`", path = .0.display())]
    NoAuthority(PathBuf),
    /// There is nothing to renew.
    #[error("{path} is not there, so nothing can be renewed; leave --renew out", path = .0.display())]
    Nothing(PathBuf),
    /// A file holds no certificate.
    #[error("{path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Unreadable,
    },
    /// A name that no file should have.
    #[error("{0:?} is no name for a certificate's files; use a-z, A-Z, 0-9, '.', '_', '-', and not ca")]
    Name(String),
    /// A life too long or too short.
    #[error("{0} days is no life for a certificate; use 1 to {MOST_DAYS}")]
    Days(u32),
    /// The authority's certificate is not good any more.
    #[error("the authority's certificate is {0}; renew it first with `rk certs init --renew`")]
    Ended(super::State),
}

/// What becomes of files that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    /// They are a reason to stop.
    Never,
    /// They get a certificate with a new end for the same key.
    SameKey,
    /// They get a new key as well.
    NewKey,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Where.
    pub files: Files,
    /// What the certificate says.
    pub certificate: Certificate,
}

/// A certificate's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, readable by its owner only.
    pub key: PathBuf,
}

/// A folder with an authority, or for one.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes an authority, or renews it: with the same key what it signed stays good.
    ///
    /// # Errors
    /// One that is there and is not to be renewed, or what cannot be written.
    pub fn init(&self, common_name: Option<&str>, days: u32, now: i64, renew: Renew) -> Result<Made, CertsError> {
        let files = self.files(CA);
        let old = existing(&files, renew)?;
        let known = old.as_ref().map(|old| old.subject.as_str());
        let name = common_name.or(known).unwrap_or("rk certificate authority");
        let authority = Authority::with_key(name, life(days, now)?, key(&files, renew)?)?;
        self.save(&files, &authority.certificate(), authority.key().expose())
    }

    /// Makes a server's certificate, or renews it. Without `names` it is for those of the one that is renewed, or for
    /// `name`.
    ///
    /// # Errors
    /// There is no authority, or files that are not to be renewed.
    pub fn server(&self, name: &str, names: &[String], days: u32, now: i64, renew: Renew) -> Result<Made, CertsError> {
        let files = self.files(checked(name)?);
        let old = existing(&files, renew)?;
        let names = match (names, old) {
            ([], Some(old)) => old.names,
            ([], None) => vec![name.to_owned()],
            (names, _) => names.to_vec(),
        };
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.sign(&files, (name, &names, Use::Server), days, now, renew)
    }

    /// Makes a client's certificate, or renews it.
    ///
    /// # Errors
    /// As those of [`server`](Self::server).
    pub fn client(&self, name: &str, days: u32, now: i64, renew: Renew) -> Result<Made, CertsError> {
        let files = self.files(checked(name)?);
        existing(&files, renew)?;
        self.sign(&files, (name, &[], Use::Client), days, now, renew)
    }

    fn sign(
        &self,
        files: &Files,
        (name, names, usage): (&str, &[&str], Use),
        days: u32,
        now: i64,
        renew: Renew,
    ) -> Result<Made, CertsError> {
        let ca = self.files(CA);
        if !ca.certificate.exists() || !ca.key.exists() {
            return Err(CertsError::NoAuthority(self.0.clone()));
        }
        let certificate = read(&ca.certificate)?;
        let authority = Authority::load(&certificate, &read_key(&ca.key)?)?;
        let limit = described(&ca.certificate, &certificate)?.validity;
        if limit.days_left(now) < 1 {
            return Err(CertsError::Ended(limit.state(now)));
        }
        // What outlives its authority would only look good.
        let mut validity = life(days, now)?;
        validity.not_after = validity.not_after.min(limit.not_after);
        let signed = authority.certify(name, names, validity, usage, key(files, renew)?)?;
        self.save(files, &signed.certificate, &signed.key)
    }

    fn save(&self, files: &Files, certificate: &str, key: &str) -> Result<Made, CertsError> {
        std::fs::create_dir_all(&self.0).map_err(|source| CertsError::File { path: self.0.clone(), source })?;
        write(&files.key, key, 0o600)?;
        write(&files.certificate, certificate, 0o644)?;
        Ok(Made { files: files.clone(), certificate: described(&files.certificate, certificate)? })
    }

    fn files(&self, name: &str) -> Files {
        Files { certificate: self.0.join(format!("{name}.pem")), key: self.0.join(format!("{name}.key")) }
    }
}

/// What is there and will be renewed.
fn existing(files: &Files, renew: Renew) -> Result<Option<Certificate>, CertsError> {
    let there = [&files.certificate, &files.key].into_iter().find(|path| path.exists());
    match (renew, there) {
        (Renew::Never, Some(path)) => Err(CertsError::Exists(path.clone())),
        (Renew::Never, None) => Ok(None),
        (_, None) => Err(CertsError::Nothing(files.certificate.clone())),
        (..) => described(&files.certificate, &read(&files.certificate)?).map(Some),
    }
}

fn key(files: &Files, renew: Renew) -> Result<KeyPair, CertsError> {
    Ok(match renew {
        Renew::SameKey => KeyPair::from_pem(read_key(&files.key)?.expose())?,
        Renew::Never | Renew::NewKey => KeyPair::generate()?,
    })
}

fn life(days: u32, now: i64) -> Result<Validity, CertsError> {
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(CertsError::Days(days));
    }
    // A machine whose clock is a little behind takes it too.
    let life = Validity::days(now, days);
    Ok(Validity { not_before: now - 3600, ..life })
}

fn checked(name: &str) -> Result<&str, CertsError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match !name.is_empty() && name != CA && !name.starts_with(['.', '-']) && name.chars().all(fits) {
        true => Ok(name),
        false => Err(CertsError::Name(name.to_owned())),
    }
}

fn described(path: &Path, pem: &str) -> Result<Certificate, CertsError> {
    let unreadable = |source| CertsError::Unreadable { path: path.to_owned(), source };
    Ok(read_pem(pem.as_bytes()).map_err(unreadable)?.swap_remove(0))
}

fn read(path: &Path) -> Result<String, CertsError> {
    std::fs::read_to_string(path).map_err(|source| CertsError::File { path: path.to_owned(), source })
}

/// Reads a key. One that others can read is theirs as well: it is told, and not used.
fn read_key(path: &Path) -> Result<Secret<String>, CertsError> {
    let pem = private_file::read(path)?;
    // What is no text is no PEM either, and is told as that.
    Ok(Secret::new(String::from_utf8_lossy(&pem).into_owned()))
}

/// Where the files of a server are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The authority's certificate, for clients.
    pub authority: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key, readable by its owner only.
    pub key: PathBuf,
}

/// Makes an authority and a server certificate for `names` in `directory`: `ca.pem`, `server.pem` and `server.key`.
/// The authority's key is dropped: nothing else can be signed in its name. Files that are there are replaced.
///
/// # Errors
/// A name that no certificate can carry, or a directory that can't be written.
pub fn write_server(directory: &Path, names: &[&str]) -> Result<ServerFiles, CertsError> {
    let authority = Authority::new("rk broker authority")?;
    let server = authority.server(names)?;
    let files = ServerFiles {
        authority: directory.join("ca.pem"),
        certificate: directory.join("server.pem"),
        key: directory.join("server.key"),
    };
    std::fs::create_dir_all(directory).map_err(|source| CertsError::File { path: directory.to_owned(), source })?;
    write(&files.authority, &authority.certificate(), 0o644)?;
    write(&files.certificate, &server.certificate, 0o644)?;
    write(&files.key, &server.key, 0o600)?;
    Ok(files)
}

/// Writes a PEM file that has these rights from its first byte on. One that is there is replaced in one step.
///
/// # Errors
/// The file can't be written.
pub fn write(path: &Path, pem: &str, mode: u32) -> Result<(), CertsError> {
    let failed = |source| CertsError::File { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // One that a crash left would keep its rights.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new);
    let written = file.and_then(|mut file| {
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&new, path)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::LOOPBACK;
    use std::os::unix::fs::PermissionsExt;

    const NOW: i64 = 1_800_000_000;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_key_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let files = write_server(directory.path(), &LOOPBACK).unwrap();
        write_server(directory.path(), &LOOPBACK).unwrap();
        assert_eq!(mode(&files.key), 0o600);
        assert!(std::fs::read_to_string(&files.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }

    #[test]
    fn nothing_is_overwritten_unless_it_is_to_be_renewed_and_then_the_key_stays() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path());
        let names = ["kafka.example".to_owned(), "10.0.0.1".to_owned()];
        let early = folder.server("kafka", &names, 90, NOW, Renew::Never);
        assert!(matches!(early, Err(CertsError::NoAuthority(_))), "{early:?}");
        assert!(matches!(folder.init(None, 10, NOW, Renew::SameKey), Err(CertsError::Nothing(_))));
        let ca = folder.init(Some("mine"), 3650, NOW, Renew::Never).unwrap();
        let made = folder.server("kafka", &names, 90, NOW, Renew::Never).unwrap();
        assert_eq!((mode(&made.files.key), mode(&ca.files.key), mode(&made.files.certificate)), (0o600, 0o600, 0o644));
        assert_eq!((made.certificate.issuer.as_str(), &made.certificate.names[..]), ("mine", &names[..]));
        for again in [
            folder.init(None, 10, NOW, Renew::Never),
            folder.server("kafka", &names, 90, NOW, Renew::Never),
            folder.client("kafka", 90, NOW, Renew::Never),
        ] {
            assert!(matches!(again, Err(CertsError::Exists(_))), "{again:?}");
        }
        let key = std::fs::read(&made.files.key).unwrap();
        let later = NOW + 80 * 86_400;
        let renewed = folder.server("kafka", &[], 90, later, Renew::SameKey).unwrap();
        assert_eq!(renewed.certificate.names, names);
        assert_eq!(renewed.certificate.validity.days_left(later), 90);
        assert_eq!(std::fs::read(&made.files.key).unwrap(), key);
        folder.server("kafka", &[], 90, later, Renew::NewKey).unwrap();
        assert_ne!(std::fs::read(&made.files.key).unwrap(), key);
        let ca = folder.init(None, 3650, later, Renew::SameKey).unwrap();
        assert_eq!(ca.certificate.subject, "mine");
    }

    #[test]
    fn nothing_outlives_its_authority_and_lives_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::new(directory.path());
        folder.init(None, 30, NOW, Renew::Never).unwrap();
        let made = folder.client("web-1", 365, NOW, Renew::Never).unwrap();
        assert_eq!(made.certificate.validity.days_left(NOW), 30);
        let late = folder.client("web-2", 365, NOW + 31 * 86_400, Renew::Never);
        assert!(matches!(late, Err(CertsError::Ended(_))), "{late:?}");
        assert!(matches!(folder.client("web-2", 0, NOW, Renew::Never), Err(CertsError::Days(0))));
        for name in ["", "ca", "../x", "a/b", ".x", "-x"] {
            assert!(matches!(folder.client(name, 1, NOW, Renew::Never), Err(CertsError::Name(_))), "{name}");
        }
    }
}
