//! `rk jenkins-agent`: what a Jenkins controller, or one of its family, launches as the command of a node whose machine only
//! Kafka reaches.
//!
//! Stdout and stdin are the channel between the two Java programs and carry nothing else; whatever we have to say goes to
//! stderr, which the node's log shows.

mod channel;
mod deliver;
mod jar;

use std::time::Duration;

use clap::Args;

use super::{
    Failure, client,
    exec::{Signals, milliseconds},
    flags::JenkinsFlags,
    log,
};
use crate::{
    api::{Client, ExecRequest, exec::Resumable},
    config::{Environment, keys},
    id::{AgentName, ExecId},
};

use jar::Jar;

/// How long the agent's Java waits for us, unless told otherwise: longer than Jenkins itself waits for the answer to a ping, which
/// is four minutes. After that the channel is of no use to it.
const RESUME: Duration = Duration::from_secs(300);

/// The command of a Jenkins node: bring its agent.jar to an agent and run it there
#[derive(Debug, Args)]
#[command(after_help = "\
In Jenkins: New Node, Launch method \"Launch agent via execution of command on
the controller\", with this as the command. Nothing but Java is needed on the
agent. A token for this node alone:
  rk access add jenkins --role operator --verb exec --agent NAME

Our own words go to stderr, which the node's log shows. Exit codes: those of
Java there, or ours. See docs/jenkins.md.")]
pub struct JenkinsArgs {
    /// The agent
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// How long the agent's Java waits for us when the connection, the controller or the agent's process is gone [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = crate::config::duration)]
    resume: Option<Duration>,
    #[command(flatten)]
    flags: JenkinsFlags,
}

/// The agent on which all of it happens.
struct Host {
    client: Client,
    agent: AgentName,
    patience: Duration,
}

impl Host {
    /// A request of its own id that runs `argv`, with stdin, and waits for us.
    fn request(&self, argv: &[&str]) -> ExecRequest {
        let resume = Resumable { id: ExecId::random(), patience_ms: milliseconds(self.patience) };
        ExecRequest { stdin: true, resume: Some(resume), ..ExecRequest::new(self.agent.clone(), argv.iter().copied()) }
    }
}

/// Runs the command.
pub async fn run(args: JenkinsArgs, environment: &Environment) -> Result<u8, Failure> {
    let settings = args.flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let java = settings.parse::<String>(&keys::JAVA)?.unwrap_or_else(|| "java".to_owned());
    let options = settings.convert(&keys::JAVA_OPTS, words)?.unwrap_or_default();
    let jar = match settings.path(&keys::JAR) {
        Some(path) => Jar::read(&path).map_err(|problem| Failure::usage(format!("--jar {problem}")))?,
        None => Jar::find(environment)?,
    };
    let host = Host { client: client::connect(&settings)?, agent: args.name, patience: args.resume.unwrap_or(RESUME) };
    // Before anything runs there: Jenkins may have enough of us at any time.
    let mut signals = Signals::listen()?;
    let path = tokio::select! {
        path = deliver::bring(&host, &jar) => path?,
        caught = signals.next() => return Err(Failure::silent(128 + caught.number as u8)),
    };
    let argv: Vec<&str> =
        [&*java].into_iter().chain(options.iter().map(String::as_str)).chain(["-jar", &path]).collect();
    channel::run(&host, &argv, signals).await
}

/// Splits options at blanks; what stands in quotes is one word with what it touches.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{text:?} has a quote that is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_at_blanks_and_quotes_hold_them_together() {
        for (text, expected) in [
            ("", &[][..]),
            (" -Xmx1g  -Da=b ", &["-Xmx1g", "-Da=b"]),
            (r#"-Da='b c' "-Dd=e'f""#, &["-Da=b c", "-Dd=e'f"]),
            ("''", &[""]),
        ] {
            assert_eq!(words(text).expect(text), expected, "{text}");
        }
        assert!(words("-Da='b").expect_err("open").contains("not closed"));
    }

    #[test]
    fn java_waits_longer_than_jenkins() {
        assert!(RESUME > Duration::from_secs(240));
    }
}
