//! Services that speak JSON: one request, one answer. What `rk call` calls.
//!
//! The stream's `about` is the method. The request is the parameters, an object; the answer is any value. Both are
//! whole documents of at most [`MAX_DOCUMENT`] bytes.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Channel, Context, Ending, Failure, Outcome, Refusal, Service};

pub use super::registry::LIST;

/// The largest request and the largest answer: 8 MiB.
pub const MAX_DOCUMENT: usize = 8 << 20;

/// What people are told of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// What it is for, in a few words. Empty if it does not say.
    #[serde(default)]
    pub about: String,
    /// What can be called; none if it does not speak JSON.
    #[serde(default)]
    pub methods: Vec<Method>,
}

/// What people are told of a method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// What it does with which parameters, in a few words.
    #[serde(default)]
    pub about: String,
}

/// One line of the list of services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The service's name.
    pub name: String,
    /// What people are told of it.
    #[serde(flatten)]
    pub described: Described,
}

type Handler = Arc<dyn Fn(Context, Value) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// A service of methods.
#[derive(Clone, Default)]
pub struct Methods {
    about: String,
    methods: BTreeMap<String, (String, Handler)>,
}

impl Methods {
    /// One without methods, `about` which people are told this.
    pub fn new(about: impl Into<String>) -> Self {
        Self { about: about.into(), methods: BTreeMap::new() }
    }

    /// These methods and one more. Parameters that are not what it takes are refused before it is called.
    pub fn method<P, A, F, W>(mut self, name: &str, about: &str, handler: F) -> Self
    where
        P: DeserializeOwned + Send + 'static,
        A: Serialize + Send + 'static,
        F: Fn(Context, P) -> W + Send + Sync + 'static,
        W: Future<Output = Result<A, Failure>> + Send + 'static,
    {
        let called = name.to_owned();
        let handler: Handler = Arc::new(move |context, params| {
            let work = serde_json::from_value(params)
                .map_err(|e| Failure::refused(Refusal::Invalid, format!("the parameters of {called} are wrong: {e}")))
                .map(|params| handler(context, params));
            async move {
                let answer = work?.await?;
                serde_json::to_value(answer).map_err(|e| Failure::new(format!("the answer cannot be written: {e}")))
            }
            .boxed()
        });
        self.methods.insert(name.to_owned(), (about.to_owned(), handler));
        self
    }
}

impl Service for Methods {
    fn serve(&self, context: Context, mut channel: Channel) -> BoxFuture<'static, Result<(), Failure>> {
        let handler = self.methods.get(&context.about).map(|(_, handler)| handler.clone());
        let known = self.methods.keys().cloned().collect::<Vec<_>>().join(", ");
        async move {
            let Some(handler) = handler else {
                let text = format!("there is no method {:?}; this service has {known}", context.about);
                return Err(Failure::refused(Refusal::Invalid, text));
            };
            let request = document(&mut channel.reader).await?;
            let params = serde_json::from_slice(&request)
                .map_err(|e| Failure::refused(Refusal::Invalid, format!("the request is no JSON: {e}")))?;
            let value = handler(context, params).await?;
            answer(channel, value).await
        }
        .boxed()
    }

    fn described(&self) -> Described {
        let method =
            |(name, (about, _)): (&String, &(String, Handler))| Method { name: name.clone(), about: about.clone() };
        Described { about: self.about.clone(), methods: self.methods.iter().map(method).collect() }
    }
}

/// Answers with one document.
pub(super) async fn answer(mut channel: Channel, value: Value) -> Result<(), Failure> {
    let text = serde_json::to_vec(&value).map_err(|e| Failure::new(e.to_string()))?;
    if text.len() > MAX_DOCUMENT {
        return Err(Failure::new(format!("an answer of {} bytes is above the limit of {MAX_DOCUMENT}", text.len())));
    }
    channel.writer.write_all(&text).await?;
    Ok(channel.writer.shutdown().await?)
}

/// Calls a method: the whole exchange on a stream that was opened for it. `Err` is never [`Outcome::Done`].
pub async fn call(mut channel: Channel, mut ending: Ending, params: &Value) -> Result<Value, Outcome> {
    let text = serde_json::to_vec(params).map_err(|e| Outcome::Refused(Refusal::Invalid, e.to_string()))?;
    if text.len() > MAX_DOCUMENT {
        let text = format!("parameters of {} bytes are above the limit of {MAX_DOCUMENT}", text.len());
        return Err(Outcome::Refused(Refusal::Invalid, text));
    }
    // A service that refuses reads no parameters; why is told by the outcome, as is what broke.
    let sent = async {
        channel.writer.write_all(&text).await?;
        channel.writer.shutdown().await
    };
    let (_, answered) = tokio::join!(sent, document(&mut channel.reader));
    match (ending.outcome().await, answered) {
        (Outcome::Done, Ok(answer)) => serde_json::from_slice(&answer)
            .map_err(|e| Outcome::NoAnswer(format!("the service answered what is no JSON: {e}"))),
        (Outcome::Done, Err(failure)) => Err(Outcome::NoAnswer(format!("the answer broke off: {failure}"))),
        (outcome, _) => Err(outcome),
    }
}

/// Reads one whole document.
async fn document(reader: &mut super::Reader) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    reader.take(MAX_DOCUMENT as u64 + 1).read_to_end(&mut text).await?;
    if text.len() > MAX_DOCUMENT {
        let text = format!("a document is above the limit of {MAX_DOCUMENT} bytes");
        return Err(Failure::refused(Refusal::Invalid, text));
    }
    Ok(text)
}
