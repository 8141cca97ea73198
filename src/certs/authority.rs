//! A private authority, and what it signs.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::{Validity, folder::CertsError};
use crate::secret::Secret;

/// Names under which a broker on this machine is reached.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A certificate authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

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

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Server,
    Client,
}

impl Authority {
    /// A new authority with a fresh key that outlives everybody.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn new(common_name: &str) -> Result<Self, CertsError> {
        Self::make(named(common_name, &[], None)?, KeyPair::generate()?)
    }

    /// A new authority with a fresh key.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn issued(common_name: &str, validity: Validity) -> Result<Self, CertsError> {
        Self::with_key(common_name, validity, KeyPair::generate()?)
    }

    /// A certificate of an authority for this key.
    pub(super) fn with_key(common_name: &str, validity: Validity, key: KeyPair) -> Result<Self, CertsError> {
        Self::make(named(common_name, &[], Some(validity))?, key)
    }

    /// The authority whose certificate and key these are.
    pub(super) fn load(certificate: &str, key: &Secret<String>) -> Result<Self, CertsError> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key.expose())?)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    fn make(mut params: CertificateParams, key: KeyPair) -> Result<Self, CertsError> {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's certificate, as PEM: what clients trust.
    pub fn certificate(&self) -> String {
        self.certificate.clone()
    }

    /// The authority's key, as PEM.
    pub(super) fn key(&self) -> Secret<String> {
        Secret::new(self.issuer.key().serialize_pem())
    }

    /// A server's certificate for these host names and addresses.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn server(&self, names: &[&str]) -> Result<Signed, CertsError> {
        self.sign(named(first(names), names, None)?, Use::Server, KeyPair::generate()?)
    }

    /// A server's certificate for these host names and addresses, good for a time.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn server_for(&self, names: &[&str], validity: Validity) -> Result<Signed, CertsError> {
        self.sign(named(first(names), names, Some(validity))?, Use::Server, KeyPair::generate()?)
    }

    /// A client's certificate.
    ///
    /// # Errors
    /// A name that no certificate can carry.
    pub fn client(&self, common_name: &str) -> Result<Signed, CertsError> {
        self.sign(named(common_name, &[], None)?, Use::Client, KeyPair::generate()?)
    }

    /// A certificate for this key.
    pub(super) fn certify(
        &self,
        common_name: &str,
        names: &[&str],
        validity: Validity,
        usage: Use,
        key: KeyPair,
    ) -> Result<Signed, CertsError> {
        self.sign(named(common_name, names, Some(validity))?, usage, key)
    }

    fn sign(&self, mut params: CertificateParams, usage: Use, key: KeyPair) -> Result<Signed, CertsError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Signed { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn first<'a>(names: &[&'a str]) -> &'a str {
    names.first().copied().unwrap_or("server")
}

fn named(common_name: &str, names: &[&str], validity: Option<Validity>) -> Result<CertificateParams, CertsError> {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, "rk");
    if let Some(Validity { not_before, not_after }) = validity {
        let at = |seconds: i64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.max(0).unsigned_abs());
        (params.not_before, params.not_after) = (at(not_before), at(not_after));
    }
    Ok(params)
}
