//! `rk call`: calls a method of a service that speaks JSON.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::{Failure, flags::ClientFlags, output, output::Format, session};
use crate::{
    api::{Client, service::OpenService},
    config::Environment,
    id::AgentName,
    service::{
        Budget, Outcome,
        json::{self, LIST, Listed},
    },
};

/// What the windows of one call may grow by.
const BUDGET: u64 = 16 << 20;

/// How long a call may take, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Call a method of a service on an agent
#[derive(Debug, Args)]
#[command(
    override_usage = "rk call [OPTIONS] AGENT SERVICE.METHOD [KEY=VALUE]…\n       rk call [OPTIONS] AGENT --list",
    after_help = "A value that is JSON is taken as such (n=5, on=true, list='[1,2]'), any other\nas text (name=Ada); n='\"5\"' is a text. The answer is printed as JSON."
)]
pub struct CallArgs {
    /// The agent
    #[arg(value_name = "AGENT")]
    agent: AgentName,
    /// The method, after the service's name and a dot
    #[arg(value_name = "SERVICE.METHOD", required_unless_present = "list", conflicts_with = "list")]
    method: Option<String>,
    /// Its parameters
    #[arg(value_name = "KEY=VALUE", conflicts_with = "list")]
    parameters: Vec<String>,
    /// Show the services of the agent and their methods
    #[arg(long)]
    list: bool,
    /// How long the call may take; the agent then stops it [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Runs the command.
pub async fn run(args: CallArgs, environment: &Environment) -> Result<u8, Failure> {
    let session = session::open(args.flags, environment)?;
    let timeout = args.timeout.unwrap_or(TIMEOUT);
    let Some(method) = args.method else {
        let listed = call(&session.client, &args.agent, LIST, "", &Value::Null, timeout).await?;
        return list(listed, session.format);
    };
    let (service, method) = method
        .rsplit_once('.')
        .filter(|(service, method)| !service.is_empty() && !method.is_empty())
        .ok_or_else(|| {
            Failure::usage(format!(
                "{method:?} is no method; write SERVICE.METHOD, as `rk call {} --list` shows them",
                args.agent
            ))
        })?;
    let parameters = parameters(&args.parameters)?;
    let answer = call(&session.client, &args.agent, service, method, &parameters, timeout).await?;
    match session.format {
        Format::Table | Format::Json => output::print_json(&answer)?,
        Format::Jsonl | Format::Name => output::print_jsonl(&answer)?,
    }
    Ok(0)
}

async fn call(
    client: &Client,
    agent: &AgentName,
    service: &str,
    method: &str,
    parameters: &Value,
    timeout: Duration,
) -> Result<Value, Failure> {
    let deadline_ms = Some(timeout.as_millis().try_into().unwrap_or(u64::MAX));
    let request = OpenService { deadline_ms, ..OpenService::new(agent.clone(), service, method) };
    let exchange = async {
        let (channel, ending) = client.open_service(&request, &Budget::new(BUDGET)).await?;
        json::call(channel, ending, parameters).await.map_err(Failure::from)
    };
    // The agent's own end is the better word: ours comes where nobody is left to say it.
    match tokio::time::timeout(timeout.saturating_add(Duration::from_secs(5)), exchange).await {
        Ok(answered) => answered,
        Err(_) => Err(Outcome::NoAnswer(format!("agent {agent} did not answer within {timeout:?}")).into()),
    }
}

impl From<Outcome> for Failure {
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome.exit_code(), outcome.to_string())
    }
}

/// The parameters of the command line as an object.
fn parameters(words: &[String]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for word in words {
        let (key, text) = word
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| Failure::usage(format!("{word:?} is no parameter; write KEY=VALUE")))?;
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        object.insert(key.to_owned(), value);
    }
    Ok(Value::Object(object))
}

fn list(listed: Value, format: Format) -> Result<u8, Failure> {
    let services: Vec<Listed> = serde_json::from_value(listed)
        .map_err(|e| Failure::from(Outcome::NoAnswer(format!("the agent lists its services in another form: {e}"))))?;
    match format {
        Format::Json => output::print_json(&services)?,
        Format::Jsonl => services.iter().try_for_each(output::print_jsonl)?,
        Format::Name => {
            output::print(&services.iter().map(|service| format!("{}\n", service.name)).collect::<String>())?
        }
        Format::Table => output::print(&lines(&services))?,
    }
    Ok(0)
}

/// A line for each service, and one below it for each of its methods.
fn lines(services: &[Listed]) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, name: &str, about: &str| {
        text.push_str(format!("{indent}{name}  {about}").trim_end());
        text.push('\n');
    };
    for Listed { name, described } in services {
        line("", name, &described.about);
        for method in &described.methods {
            line("  ", &format!("{name}.{}", method.name), &method.about);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_json_are_taken_as_such_and_others_as_text() {
        let words = ["n=5", "name=Ada", "text=\"5\"", "list=[1,2]", "empty=", "eq=a=b"].map(str::to_owned);
        let expected = serde_json::json!({
            "n": 5, "name": "Ada", "text": "5", "list": [1, 2], "empty": "", "eq": "a=b"
        });
        assert_eq!(parameters(&words).expect("parameters"), expected);
        for wrong in ["n", "=5"] {
            assert_eq!(parameters(&[wrong.to_owned()]).expect_err("no parameter").code, 64);
        }
    }
}
