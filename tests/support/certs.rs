//! The files of a test cluster's certificates, in the shapes that Kafka and `rk` want.

use remoting_kafka::certs::{self, Signed, Validity, write};
use std::fs;
use std::path::{Path, PathBuf};

/// A certificate authority whose files lie in one folder.
pub struct Authority {
    authority: certs::Authority,
    folder: PathBuf,
}

impl Authority {
    /// Makes an authority and writes `ca.pem`.
    pub fn new(folder: &Path) -> Authority {
        fs::create_dir_all(folder).unwrap();
        let authority =
            Authority { authority: certs::Authority::new("test authority").unwrap(), folder: folder.to_owned() };
        write(&authority.ca(), &authority.authority.certificate(), 0o644).unwrap();
        authority
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Writes `<name>.crt` and `<name>.key` for a server known under `hosts`, and both in one `<name>.pem`, which is
    /// returned: private key first, as Kafka's PEM key store wants it.
    pub fn server(&self, name: &str, hosts: &[&str]) -> PathBuf {
        self.files(name, &self.authority.server(hosts).unwrap())
    }

    /// The same, good for a time only.
    pub fn server_for(&self, name: &str, hosts: &[&str], validity: Validity) -> PathBuf {
        self.files(name, &self.authority.server_for(hosts, validity).unwrap())
    }

    /// The same for a client, whose principal at Kafka's MUTUAL listener is `User:<name>`.
    pub fn client(&self, name: &str) -> PathBuf {
        self.files(name, &self.authority.client(name).unwrap())
    }

    fn files(&self, name: &str, signed: &Signed) -> PathBuf {
        let both = self.folder.join(format!("{name}.pem"));
        write(&both, &format!("{}{}", signed.key, signed.certificate), 0o600).unwrap();
        write(&both.with_extension("key"), &signed.key, 0o600).unwrap();
        write(&both.with_extension("crt"), &signed.certificate, 0o644).unwrap();
        both
    }
}
