//! `rk setup compose agents`: waits for the controller, then makes the agents that it shall know, and a join token for all others.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::demo_agents;
use crate::{
    api::{
        AddAgent, Client, ClientError, Code,
        client::patiently,
        enrol::{CreateToken, MAX_TTL_MS, MAX_USES},
    },
    cli::{Failure, flags::ClientFlags, output, session},
    config::Environment,
    id::AgentName,
};

/// How long one question may take.
const TRY: Duration = Duration::from_secs(20);

/// Make agents and a join token, once the controller serves
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// Where the services' volumes are, a folder each
    #[arg(long, value_name = "DIR", default_value = "/volumes")]
    dir: PathBuf,
    /// Agents that the controller shall know
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_values_t = demo_agents(), hide_default_value = true)]
    agents: Vec<AgentName>,
    /// How long the controller is waited for
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = crate::config::duration)]
    wait: Duration,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Makes what is missing.
pub async fn run(args: AgentsArgs, environment: &Environment) -> Result<u8, Failure> {
    let AgentsArgs { dir, agents, wait, flags } = args;
    let client = session::open(flags, environment)?.client.with_timeout(TRY);
    let away = |e: &ClientError| output::say(&format!("rk: {e}; trying again for {}", output::duration(wait)));
    patiently(wait, async || client.status().await, away).await?;
    let mut made = Vec::new();
    for agent in agents {
        let file = dir.join(agent.as_str()).join("credential");
        if !file.exists() {
            add(&client, &agent, &file).await?;
            made.push(format!("made     agent {agent}\n"));
        }
    }
    if token(&client, &dir.join("join").join("token")).await? {
        made.push("made     a join token\n".to_owned());
    }
    if made.is_empty() {
        output::say("rk: agents and join token are as they have to be");
    }
    output::print(&made.concat())?;
    Ok(0)
}

/// Adds the agent. One that is known and whose credential nobody has is of a run that ended in the middle.
async fn add(client: &Client, agent: &AgentName, file: &Path) -> Result<(), Failure> {
    let request =
        AddAgent { name: agent.clone(), labels: [("demo".to_owned(), "yes".to_owned())].into(), layout: None };
    let added = match client.add_agent(&request).await {
        Err(ClientError::Api(error)) if error.code == Code::AgentExists => {
            client.remove_agent(agent).await?;
            client.add_agent(&request).await?
        }
        added => added?,
    };
    session::write_secret(file, added.pass().trim_end(), "start again: a new one is made")?;
    Ok(())
}

/// Makes the join token, if its file is missing. It lasts a year.
async fn token(client: &Client, file: &Path) -> Result<bool, Failure> {
    if file.exists() {
        return Ok(false);
    }
    let request = CreateToken {
        uses: MAX_USES,
        ttl_ms: MAX_TTL_MS,
        labels: [("demo".to_owned(), "yes".to_owned())].into(),
        name_prefix: String::new(),
    };
    let created = client.create_token(&request).await?;
    session::write_secret(file, &created.token, &format!("`rk tokens revoke {}`", created.info.id))?;
    Ok(true)
}
