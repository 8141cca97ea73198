//! Certificates for TLS as PEM: what they say, and a small private authority for who has none.
//!
//! For the demo, tests and small set-ups; who has an authority of their own uses that. It knows nothing of brokers or
//! Kafka: the files are what any TLS server takes.

#[cfg(feature = "broker")]
mod authority;
mod facts;
#[cfg(feature = "broker")]
mod folder;

#[cfg(feature = "broker")]
pub use authority::{Authority, LOOPBACK, Signed};
pub use facts::{Certificate, State, Unreadable, Validity, WARN_DAYS, expiry_of, read_der, read_pem};
#[cfg(feature = "broker")]
pub use folder::{CertsError, Files, Folder, Made, Renew, ServerFiles, write, write_server};
