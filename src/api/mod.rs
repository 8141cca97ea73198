//! The controller's HTTP API: the types of its requests and answers, and a client.
//!
//! It exists so that the command line and the controller cannot disagree: both use these types, and nothing else
//! crosses between them. It knows nothing of sessions, topics or journals.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | – | [`Status`] |
//! | `GET /v1/agents?selector=…` | – | [`AgentList`] |
//! | `GET /v1/agents/{name}` | – | [`Agent`] |
//! | `POST /v1/agents` | [`AddAgent`] | [`AddedAgent`] |
//! | `DELETE /v1/agents/{name}` | – | [`RemovedAgent`] |
//! | `POST /v1/agents/{name}/rotate` | [`RotateAgent`](enrol::RotateAgent) | [`RotatedAgent`](enrol::RotatedAgent) |
//! | `POST /v1/agents/{name}/revoke` | – | [`RevokedAgent`](enrol::RevokedAgent) |
//! | `POST /v1/tokens` | [`CreateToken`](enrol::CreateToken) | [`CreatedToken`](enrol::CreatedToken) |
//! | `GET /v1/tokens` | – | [`TokenList`](enrol::TokenList) |
//! | `DELETE /v1/tokens/{id}` | – | [`Token`](enrol::Token) |
//! | `POST /v1/agents/{name}/call` | any bytes | the same bytes, from the agent |
//! | `GET /v1/agents/{name}/condition` | – | [`AgentCondition`], asked of the agent itself |
//! | `POST /v1/agents/{name}/drain`, `…/resume` | [`AskedBy`](jobs::AskedBy) | [`Agent`] |
//! | `POST /v1/agents/{name}/update` | [`UpdateAgent`](agents::UpdateAgent) | [`Agent`], when it has taken the order; its `update` tells the rest |
//! | `POST /v1/jobs` | [`SubmitJob`](jobs::SubmitJob) | [`JobInfo`](jobs::JobInfo) |
//! | `GET /v1/jobs?…` ([`JobQuery`](jobs::JobQuery)) | – | [`JobList`](jobs::JobList) |
//! | `GET /v1/jobs/{id}` | – | [`JobInfo`](jobs::JobInfo); an id may be the beginning of one |
//! | `GET /v1/jobs/{id}/wait?for_ms=…` | – | [`JobInfo`](jobs::JobInfo), when it has ended or after that time, 50 s at most |
//! | `POST /v1/jobs/{id}/cancel` | [`CancelJob`](jobs::CancelJob) | [`JobInfo`](jobs::JobInfo) |
//! | `POST /v1/jobs/{id}/retry` | [`AskedBy`](jobs::AskedBy) | the new [`JobInfo`](jobs::JobInfo) |
//! | `POST /v1/jobs/{id}/deadline` | [`SetDeadline`](jobs::SetDeadline) | [`JobInfo`](jobs::JobInfo) |
//! | `GET /v1/jobs/{id}/log?…` ([`LogQuery`](logs::LogQuery)) | – | [frames](logs) until [`Done`](logs::LogItem::Done) |
//! | `GET /v1/jobs/{id}/artifacts?…` ([`ArtifactQuery`](artifacts::ArtifactQuery)) | – | [`ArtifactList`](artifacts::ArtifactList) |
//! | `GET /v1/jobs/{id}/artifacts/{path}` | – | the file, its SHA-256 in the header `x-rk-sha256` |
//! | `GET /v1/jobs/{id}/pack?…` ([`PackQuery`](artifacts::PackQuery)) | – | [frames](artifacts) until [`Done`](artifacts::PackItem::Done) |
//! | `GET /v1/access` | – | [`AccessList`](access::AccessList) |
//! | `POST /v1/access` | [`AddAccess`](access::AddAccess) | [`AddedAccess`](access::AddedAccess) |
//! | `DELETE /v1/access/{name}` | – | [`Access`](access::Access) |
//! | `GET /v1/bundles` | – | [`BundleList`](bundles::BundleList) |
//! | `POST /v1/bundles` | [`PushBundle`](bundles::PushBundle) | [`Bundle`](bundles::Bundle) |
//! | `GET /v1/bundles/{name or digest}`, `DELETE` of it | – | [`Bundle`](bundles::Bundle) |
//! | `GET /v1/blobs/{sha256}?size=…` | – | [`Blob`](bundles::Blob): whether it is there |
//! | `PUT /v1/blobs/{sha256}?size=…` | the archive | [`Blob`](bundles::Blob), when it was read back from Kafka |
//! | `POST /v1/exec` with `Upgrade: rk-exec/1` | – | 101, then [frames](exec) both ways |
//! | `POST /v1/services` with `Upgrade: rk-service/1` | – | 101, then [frames](service) both ways |
//! | `GET /metrics` | – | numbers as Prometheus reads them |
//! | `GET /health/live`, `GET /health/ready` | – | 200, or 503 with the reason; takes no token |
//!
//! Every request but those of `/health` carries `Authorization: Bearer TOKEN`. An answer that is not 2xx or 101 has an [`ApiError`] as body.

pub mod access;
pub mod agents;
pub mod artifacts;
pub mod bundles;
pub mod client;
pub mod enrol;
mod error;
pub mod exec;
pub mod frames;
pub mod jobs;
pub mod logs;
pub mod service;
mod status;

pub use agents::{AddAgent, AddedAgent, Agent, AgentCondition, AgentList, AgentState, RemovedAgent};
pub use client::{Client, ClientError};
pub use error::{ApiError, Code};
pub use exec::{ExecEnd, ExecRequest, Fault, RefusalKind};
pub use status::{AgentCounts, JobCounts, KafkaStatus, Status};

/// Where the API listens unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:7480";

/// The name of the protocol that `POST /v1/exec` upgrades to.
pub const EXEC_PROTOCOL: &str = "rk-exec/1";

/// The name of the protocol that `POST /v1/services` upgrades to.
pub const SERVICE_PROTOCOL: &str = "rk-service/1";

/// The largest JSON body, either way: 16 MiB.
pub const MAX_JSON: usize = 16 << 20;

/// The largest body of a call, either way: 512 MiB.
pub const MAX_CALL: usize = 512 << 20;
