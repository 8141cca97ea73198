//! Bundles as the API takes and shows them.
//!
//! An archive is uploaded by `PUT /v1/blobs/{sha256}?size=N`, with its bytes as the body, unless `GET` of the same says that it
//! is there; then `POST /v1/bundles` makes a bundle of archives.

use serde::{Deserialize, Serialize};

use crate::bundle::{
    Digest, Name, Variants,
    sign::{PublicKey, Signature},
};

/// The body of `POST /v1/bundles`. One that is there already gets the name and the signatures as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PushBundle {
    /// What it is called from now on.
    pub name: Name,
    /// Its archives, which were uploaded.
    pub variants: Variants,
    /// Who vouches for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<Signature>,
}

/// One bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// What names it for ever.
    pub digest: Digest,
    /// What it was called. Only the newest of a name is meant by it.
    pub names: Vec<Name>,
    /// Those of its names that mean it now.
    pub newest: Vec<Name>,
    /// Its archives.
    pub variants: Variants,
    /// When it was pushed last, in milliseconds since 1970.
    pub pushed_ms: u64,
    /// By whom.
    pub by: String,
    /// Who vouches for it.
    pub signed_by: Vec<PublicKey>,
}

/// The answer to `GET /v1/bundles`, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleList {
    /// All of them.
    pub bundles: Vec<Bundle>,
}

/// The answer to `GET` and `PUT /v1/blobs/{sha256}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Whether its records are in the topic.
    pub present: bool,
}
