//! Who asks, and whether they may: nothing behind this is reached without both answers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get},
};

use super::{
    From,
    routes::{Answer, Failure, agent_name, internal, json, read_json},
};
use crate::{
    api::{ApiError, Code, access::Verb},
    controller::{
        Handle,
        access::{Caller, Standing, Token},
        audit::Entry,
        limiter::Limited,
    },
    secret::Secret,
};

/// The longest life of a token: what is longer is for ever.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What the gate looks at.
#[derive(Clone)]
pub struct Gate {
    handle: Handle,
    root: Arc<Secret<String>>,
}

impl Gate {
    /// The gate of a controller whose own token is `root`.
    pub fn new(handle: Handle, root: Secret<String>) -> Self {
        Self { handle, root: Arc::new(root) }
    }

    /// Who shows this, if it may ask now.
    fn caller(&self, shown: &[u8], from: Option<IpAddr>) -> Result<Caller, Refusal> {
        let shared = self.handle.shared();
        let now = shared.directory.now();
        shared.limiter.look(now, from).map_err(Refusal::Limited)?;
        let caller = self.known(shown).map_err(|error| {
            shared.limiter.failed(now, from);
            Refusal::Unknown(error)
        })?;
        if let Caller::Granted(grant) = &caller {
            shared.limiter.ask(now, &grant.name).map_err(Refusal::Limited)?;
        }
        Ok(caller)
    }

    /// Who shows this.
    fn known(&self, shown: &[u8]) -> Result<Caller, ApiError> {
        let refuse = |message: &str| Err(ApiError::new(Code::Unauthorized, message));
        let Some(shown) = shown.strip_prefix(b"Bearer ") else {
            return refuse("no token was shown; the controller's own is in api.token in its data directory");
        };
        // Compared as secrets: how long it takes tells nothing of where they differ.
        if Secret::new(shown) == Secret::new(self.root.expose().as_bytes()) {
            return Ok(Caller::Root);
        }
        let token = std::str::from_utf8(shown).ok().and_then(Token::parse);
        match token.map(|token| self.handle.standing(&token)) {
            Some(Standing::Good(grant)) => Ok(Caller::Granted(grant)),
            Some(Standing::Expired) => refuse("this token has expired; ask an admin for another (`rk access add`)"),
            Some(Standing::Unknown) => {
                refuse("this token is not known, or was revoked; ask an admin for another (`rk access add`)")
            }
            None => refuse("this is not the controller's token; that is in api.token in its data directory"),
        }
    }
}

/// Why somebody is not let in.
enum Refusal {
    /// It showed no token that is good.
    Unknown(ApiError),
    /// It asks too often.
    Limited(Limited),
}

/// Lets in who shows a token, whatever the path is.
pub async fn identify(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let error = match gate.caller(shown, from(&request).map(|from| from.ip())) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            return next.run(request).await;
        }
        Err(Refusal::Unknown(error)) => error,
        // Counted and not noted: a flood would fill the audit log.
        Err(Refusal::Limited(limited)) => return later(limited),
    };
    gate.handle.count_unauthorized();
    let (from, what) = (from(&request), what(&request));
    let status = StatusCode::UNAUTHORIZED.as_u16();
    let entry = Entry { who: None, from, verb: "", request: &what, detail: None, status };
    gate.handle.audit().note(entry).await;
    let mut response = Failure::from(error).into_response();
    // Each guess costs a connection.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn later(Limited { after, error }: Limited) -> Response {
    let mut response = Failure::from(error).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Routes for those who may `verb`. What they ask for is noted, unless they only look.
pub fn can(verb: Verb, routes: MethodRouter<Handle>) -> MethodRouter<Handle> {
    routes.layer(middleware::from_fn(move |caller: Caller, asked: Asked, request: Request, next: Next| {
        Box::pin(async move {
            let what = what(&request);
            let response = match caller.check(verb) {
                Ok(()) => next.run(request).await,
                Err(denied) => Failure::from(ApiError::from(denied)).into_response(),
            };
            let refused = response.status() == StatusCode::FORBIDDEN;
            // An execution is noted when it is known what it is.
            if refused || verb != Verb::View && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let (who, status) = (Some(caller.name()), response.status().as_u16());
                let detail = response.extensions().get::<Detail>().map(|detail| detail.0.clone());
                let entry = Entry { who, from: asked.from, verb: verb.as_str(), request: &what, detail, status };
                asked.handle.audit().note(entry).await;
            }
            response
        })
    }))
}

/// What of an answer is noted: an extension of it.
#[derive(Clone)]
pub struct Detail(pub String);

/// What noting needs.
pub struct Asked {
    handle: Handle,
    from: Option<SocketAddr>,
}

impl FromRequestParts<()> for Asked {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &()) -> Result<Self, Failure> {
        let handle = parts.extensions.get::<Handle>().cloned();
        let handle = handle.ok_or_else(|| Failure::from(ApiError::new(Code::Internal, "nobody answers")))?;
        Ok(Self { handle, from: parts.extensions.get::<From>().map(|from| from.0) })
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Failure::from(ApiError::new(Code::Unauthorized, "no token was shown")))
    }
}

pub fn from(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<From>().map(|from| from.0)
}

fn what(request: &Request) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

/// The paths about tokens.
pub fn router() -> Router<Handle> {
    Router::new()
        .route("/v1/access", can(Verb::Grant, get(list).post(add)))
        .route("/v1/access/{name}", can(Verb::Grant, delete(revoke)))
}

async fn list(State(handle): State<Handle>) -> Response {
    json(StatusCode::OK, &handle.access())
}

async fn add(State(handle): State<Handle>, caller: Caller, body: Body) -> Answer<Response> {
    // A limited one could give away what it does not have.
    caller.check_unlimited("only one that is not can make others").map_err(ApiError::from)?;
    let request: crate::api::access::AddAccess = read_json(body).await?;
    if request.ttl_ms.is_some_and(|ttl| u128::from(ttl) > LONGEST.as_millis() || ttl == 0) {
        return Err(ApiError::new(Code::Invalid, "a token lives for 1 ms to 100 years; leave it out for ever").into());
    }
    let detail = Detail(format!("{} as {}", request.name, request.role));
    // The answer holds a secret that cannot be had again: a client that goes away meanwhile must not stop half-way.
    let added = tokio::spawn(async move { handle.add_access(request).await }).await.map_err(internal)??;
    let mut response = json(StatusCode::CREATED, &added);
    response.extensions_mut().insert(detail);
    Ok(response)
}

async fn revoke(State(handle): State<Handle>, caller: Caller, Path(name): Path<String>) -> Answer<Response> {
    caller.check_unlimited("only one that is not can revoke others").map_err(ApiError::from)?;
    let name = agent_name(&name)?;
    let revoked = tokio::spawn(async move { handle.revoke_access(&name).await }).await.map_err(internal)??;
    Ok(json(StatusCode::OK, &revoked))
}
