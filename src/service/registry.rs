//! Services by name.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Channel, Outcome, Refusal,
    json::{self, Described},
};
use crate::protocol::service::Start;

/// The service that tells which others there are. It is always there.
pub const LIST: &str = "rk.services";

/// Who asked for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The name of whoever asked the controller, as that knows it.
    pub caller: String,
    /// What the caller said that it is about: its form is the service's own.
    pub about: String,
    /// How long it may take. Whoever serves is dropped when it has passed.
    pub deadline: Option<Duration>,
}

/// Why a service could not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    refusal: Option<Refusal>,
    text: String,
}

/// What serves streams of one name. It is dropped when its caller goes away or its deadline passes.
pub trait Service: Send + Sync + 'static {
    /// Serves one stream.
    fn serve(&self, context: Context, channel: Channel) -> BoxFuture<'static, Result<(), Failure>>;

    /// What people are told of it.
    fn described(&self) -> Described {
        Described::default()
    }
}

impl<F, W> Service for F
where
    F: Fn(Context, Channel) -> W + Send + Sync + 'static,
    W: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn serve(&self, context: Context, channel: Channel) -> BoxFuture<'static, Result<(), Failure>> {
        self(context, channel).boxed()
    }
}

impl Failure {
    /// It could not be done.
    pub fn new(text: impl Into<String>) -> Self {
        Self { refusal: None, text: text.into() }
    }

    /// It was not begun.
    pub fn refused(refusal: Refusal, text: impl Into<String>) -> Self {
        Self { refusal: Some(refusal), text: text.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure.refusal {
            None => Self::Failed(failure.text),
            Some(refusal) => Self::Refused(refusal, failure.text),
        }
    }
}

/// The services of an agent. Clones share them.
#[derive(Clone, Default)]
pub struct Services(Arc<BTreeMap<String, Arc<dyn Service>>>);

impl Services {
    /// None but the list of all.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more. A later one of the same name replaces an earlier one.
    pub fn with(mut self, name: impl Into<String>, service: impl Service) -> Self {
        Arc::make_mut(&mut self.0).insert(name.into(), Arc::new(service));
        self
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Serves one stream to its outcome.
    pub async fn serve(&self, start: Start, channel: Channel) -> Outcome {
        let context = Context { caller: start.caller, about: start.about, deadline: start.deadline };
        let work = match self.0.get(&start.service) {
            Some(service) => service.serve(context, channel),
            None if start.service == LIST => json::answer(channel, self.list()).boxed(),
            None => {
                let text =
                    format!("the agent has no service {:?}; `rk call AGENT --list` shows those it has", start.service);
                return Outcome::Refused(Refusal::NoService, text);
            }
        };
        let served = match start.deadline {
            None => work.await,
            Some(deadline) => match tokio::time::timeout(deadline, work).await {
                Ok(served) => served,
                Err(_) => return Outcome::TimedOut,
            },
        };
        served.map_or_else(Outcome::from, |()| Outcome::Done)
    }

    fn list(&self) -> serde_json::Value {
        let entry = |(name, service): (&String, &Arc<dyn Service>)| {
            let described = service.described();
            serde_json::json!({ "name": name, "about": described.about, "methods": described.methods })
        };
        self.0.iter().map(entry).collect()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
