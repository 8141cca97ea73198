//! Why a controller can't go on: whose fault, what to do.

use std::{path::PathBuf, time::Duration};

use super::event::UnknownEvent;
use crate::{journal, link::LinkError, private_file::PrivateFileError};

/// Why a controller ended or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The journal was not read and claimed in time.
    #[error("the journal could not be taken over within {after:?}: {detail}")]
    Takeover {
        /// How long was waited.
        after: Duration,
        /// What stands in the way.
        detail: String,
    },
    /// Another controller with the same identity took over.
    #[error("superseded: another controller with this identity took over with epoch {epoch}; only one can serve")]
    Superseded {
        /// Its epoch.
        epoch: u32,
    },
    /// The journal was written by a newer version.
    #[error(transparent)]
    Event(#[from] UnknownEvent),
    /// The packet topics cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A file in the data directory cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A file in the data directory has another content than it should.
    #[error("{}: {detail}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and the cure.
        detail: String,
    },
    /// The API would be open to the network without encryption.
    #[error(
        "refusing to serve the API on {0} without TLS; listen on 127.0.0.1, or give a certificate with --listen-cert and --listen-key"
    )]
    Plaintext(std::net::SocketAddr),
    /// The socket cannot be used.
    #[error("the API's socket: {0}")]
    Socket(#[from] std::io::Error),
}
