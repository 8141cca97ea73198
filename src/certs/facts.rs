//! What a certificate says: whom it is for, from when to when. Pure: the time is an argument, in seconds since 1970.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Serialize;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer, X509Name},
};

/// So many days ahead the end of a certificate is worth a warning.
pub const WARN_DAYS: i64 = 30;

const DAY: i64 = 24 * 60 * 60;

/// The text is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate can be read here ({0}); what is wanted is PEM, with BEGIN CERTIFICATE")]
pub struct Unreadable(String);

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Validity {
    /// The first second, since 1970.
    pub not_before: i64,
    /// The last second, since 1970.
    pub not_after: i64,
}

/// How a certificate stands at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It becomes valid after so many days, begun ones counted.
    NotYet(i64),
    /// It is good for so many whole days.
    Good(i64),
    /// It is good for so many whole days, fewer than [`WARN_DAYS`].
    Ending(i64),
    /// It ended so many whole days ago.
    Ended(i64),
}

impl Validity {
    /// From `now` on for so many days.
    pub fn days(now: i64, days: u32) -> Self {
        Self { not_before: now, not_after: now.saturating_add(i64::from(days) * DAY) }
    }

    /// Whole days that are left; negative when it has ended.
    pub fn days_left(&self, now: i64) -> i64 {
        self.not_after.saturating_sub(now).div_euclid(DAY)
    }

    /// How it stands at `now`.
    pub fn state(&self, now: i64) -> State {
        if now < self.not_before {
            return State::NotYet((self.not_before - now).div_euclid(DAY) + 1);
        }
        if now > self.not_after {
            return State::Ended((now - self.not_after).div_euclid(DAY));
        }
        match self.days_left(now) {
            days if days < WARN_DAYS => State::Ending(days),
            days => State::Good(days),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotYet(days) => write!(f, "not valid yet, for {days} days to come"),
            Self::Good(days) => write!(f, "valid, {days} days left"),
            Self::Ending(days) => write!(f, "valid, but only {days} days left"),
            Self::Ended(days) => write!(f, "expired {days} days ago"),
        }
    }
}

/// A certificate, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Whom it names: its common name, or all of its name.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Host names and addresses that it is for.
    pub names: Vec<String>,
    /// Whether it may sign others.
    pub authority: bool,
    /// From when to when.
    #[serde(flatten)]
    pub validity: Validity,
    /// SHA-256 of its DER, in hexadecimal, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
}

/// The certificates of a PEM file, in their order.
///
/// # Errors
/// It holds none, or one that cannot be read.
pub fn read_pem(pem: &[u8]) -> Result<Vec<Certificate>, Unreadable> {
    let read = CertificateDer::pem_slice_iter(pem)
        .map(|der| read_der(&der.map_err(|e| Unreadable(e.to_string()))?))
        .collect::<Result<Vec<_>, _>>()?;
    if read.is_empty() { Err(Unreadable("there is none".to_owned())) } else { Ok(read) }
}

/// When the first of a PEM file's certificates ends, and when the last of them begins: within it all are good.
///
/// # Errors
/// It holds none, or one that cannot be read.
pub fn expiry_of(pem: &[u8]) -> Result<Validity, Unreadable> {
    let all = read_pem(pem)?.into_iter().map(|certificate| certificate.validity);
    let both = |a: Validity, b: Validity| Validity {
        not_before: a.not_before.max(b.not_before),
        not_after: a.not_after.min(b.not_after),
    };
    all.reduce(both).ok_or_else(|| Unreadable("there is none".to_owned()))
}

/// What a certificate in DER says.
///
/// # Errors
/// It is none.
pub fn read_der(der: &[u8]) -> Result<Certificate, Unreadable> {
    let (_, x509) = X509Certificate::from_der(der).map_err(|e| Unreadable(e.to_string()))?;
    let alternatives = x509.subject_alternative_name().ok().flatten();
    let names = alternatives.map(|found| found.value.general_names.iter().filter_map(named).collect());
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    Ok(Certificate {
        subject: name(x509.subject()),
        issuer: name(x509.issuer()),
        names: names.unwrap_or_default(),
        authority: x509.is_ca(),
        validity: Validity {
            not_before: x509.validity().not_before.timestamp(),
            not_after: x509.validity().not_after.timestamp(),
        },
        fingerprint: digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":"),
    })
}

fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|common| common.as_str().ok());
    common.map_or_else(|| name.to_string(), str::to_owned)
}

fn named(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(core::net::IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(core::net::IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// A time as a calendar day, for people.
pub(super) fn day(seconds: i64) -> (i64, u8, u8) {
    // Howard Hinnant's "civil from days": eras of 400 years that begin in March.
    let days = seconds.div_euclid(DAY) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month as u8, day as u8)
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ((y, m, d), (year, month, date)) = (day(self.not_before), day(self.not_after));
        write!(f, "{y:04}-{m:02}-{d:02} to {year:04}-{month:02}-{date:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn thirty_days_ahead_an_end_is_worth_a_warning() {
        let ends_in = |seconds: i64| Validity { not_before: NOW - DAY, not_after: NOW + seconds }.state(NOW);
        assert_eq!(ends_in(30 * DAY), State::Good(30));
        assert_eq!(ends_in(30 * DAY - 1), State::Ending(29));
        assert_eq!(ends_in(0), State::Ending(0));
        assert_eq!(ends_in(-1), State::Ended(0));
        assert_eq!(ends_in(-3 * DAY), State::Ended(3));
        assert_eq!(Validity { not_before: NOW + 1, not_after: NOW + DAY }.state(NOW), State::NotYet(1));
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(day(0), (1970, 1, 1));
        assert_eq!(day(951_782_400), (2000, 2, 29));
        assert_eq!(day(-1), (1969, 12, 31));
        assert_eq!(Validity::days(1_767_225_600, 365).to_string(), "2026-01-01 to 2027-01-01");
    }

    #[cfg(feature = "broker")]
    #[test]
    fn a_certificate_says_what_it_was_made_with() {
        use crate::certs::Authority;

        let long = Validity::days(NOW, 3650);
        let authority = Authority::issued("my authority", long).unwrap();
        let server = authority.server_for(&["kafka.example", "10.0.0.1", "::1"], Validity::days(NOW, 90)).unwrap();
        let read = read_pem(server.certificate.as_bytes()).unwrap();
        let [leaf] = &read[..] else { panic!("one certificate: {read:?}") };
        assert_eq!((leaf.subject.as_str(), leaf.issuer.as_str()), ("kafka.example", "my authority"));
        assert_eq!(leaf.names, ["kafka.example", "10.0.0.1", "::1"]);
        assert_eq!((leaf.authority, leaf.validity.days_left(NOW)), (false, 90));
        assert_eq!(leaf.fingerprint.len(), 95);
        let both = format!("{}{}", authority.certificate(), server.certificate);
        assert_eq!(expiry_of(both.as_bytes()), Ok(Validity::days(NOW, 90)));
        assert!(read_pem(authority.certificate().as_bytes()).unwrap()[0].authority);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(expiry_of(text.as_bytes()).unwrap_err().to_string().contains("BEGIN CERTIFICATE"), "{text}");
        }
        assert!(read_der(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}
