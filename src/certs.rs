//! Certificates for a broker's TLS: a private authority and what it signs, as PEM.
//!
//! For the demo, tests and small set-ups; who has an authority of their own uses that. It knows nothing of brokers or
//! Kafka: the files are what any TLS server takes.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names under which a broker on this machine is reached.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

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
}

/// A certificate authority with its key.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Signed {
    /// The certificate, followed by nothing: the authority's own certificate is what the other side trusts.
    pub certificate: String,
    /// The key, PKCS#8. A secret.
    pub key: String,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("certificate", &self.certificate).field("key", &"***").finish()
    }
}

impl Authority {
    /// A new authority with a fresh key.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn new(common_name: &str) -> Result<Self, CertsError> {
        let mut params = named(common_name, Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// The authority's certificate, as PEM: what clients trust.
    pub fn certificate(&self) -> String {
        self.0.as_ref().pem()
    }

    /// A server's certificate for these host names and addresses.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn server(&self, names: &[&str]) -> Result<Signed, CertsError> {
        let common_name = names.first().copied().unwrap_or("server");
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        self.sign(named(common_name, names)?, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn client(&self, common_name: &str) -> Result<Signed, CertsError> {
        self.sign(named(common_name, Vec::new())?, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Signed, CertsError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn named(common_name: &str, names: Vec<String>) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "rk");
    Ok(params)
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

/// Writes a PEM file that has these rights from its first byte on.
///
/// # Errors
/// The file can't be written.
pub fn write(path: &Path, pem: &str, mode: u32) -> Result<(), CertsError> {
    let failed = |source| CertsError::File { path: path.to_owned(), source };
    // A file that is there would keep its rights.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(pem.as_bytes())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let files = write_server(directory.path(), &LOOPBACK).unwrap();
        write_server(directory.path(), &LOOPBACK).unwrap();
        assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&files.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE"));
    }
}
