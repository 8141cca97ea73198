//! `rk topics`: the topics, access rules and users of an installation, compared with its cluster and made so.

mod apply;
mod delete;
mod list;
mod render;

use clap::{Args, Subcommand};

use super::{Failure, flags::TopicsFlags, kafka, log, output};
use crate::{
    config::{Environment, Settings, keys},
    kafka::{
        Admin,
        topics::{self, Depth, Desired, Difference, Found, Installation},
    },
};
#[cfg(all(feature = "controller", feature = "broker"))]
pub use apply::run as apply;
use render::Format;

/// The exit code of differences.
const DIFFERENCES: u8 = 2;

const FORMATS: &str = "\
-o also takes kafka-cli (the differences as commands of Kafka's own tools) and
strimzi (all that is wanted as resources of Strimzi, 0.49 or newer).";

/// Compare the topics and rights in Kafka with what is needed, and make them.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Print what is not as it has to be, a line each; exit 2 if anything is
    Plan(PlanArgs),
    /// Make what is missing and can be made; exit 1 if something is left
    Apply(ApplyArgs),
    /// List the topics with their sizes and what is wrong with each
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Delete the installation's topics with all that they hold
    Delete(DeleteArgs),
}

/// Arguments of `rk topics plan`.
#[derive(Debug, Args)]
#[command(after_help = FORMATS)]
pub struct PlanArgs {
    /// With -o strimzi: the name of the Kafka resource
    #[arg(long, value_name = "NAME", default_value = "my-cluster")]
    strimzi_cluster: String,
    #[command(flatten)]
    flags: TopicsFlags,
}

/// Arguments of `rk topics apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    flags: TopicsFlags,
}

/// Arguments of `rk topics ls`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    flags: TopicsFlags,
}

/// Arguments of `rk topics delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Really delete them; without it they are only listed
    #[arg(long)]
    yes: bool,
    /// Only topics of agents that are none of --per-agent
    #[arg(long)]
    orphans: bool,
    #[command(flatten)]
    flags: TopicsFlags,
}

/// What all of them work with.
pub struct Session {
    admin: Admin,
    installation: Installation,
    format: Format,
    quiet: bool,
}

/// Reads the settings. Nothing is asked yet.
pub fn open(flags: TopicsFlags, environment: &Environment) -> Result<Session, Failure> {
    let settings: Settings = flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let installation = settings.installation()?;
    let cluster = kafka::cluster(&settings, "topics", &installation.prefix.to_string())?;
    Ok(Session {
        admin: cluster.admin(),
        installation,
        format: settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default(),
        quiet: settings.switch(&keys::QUIET)?,
    })
}

impl Session {
    /// The cluster, as an administrator sees it.
    #[cfg(all(feature = "controller", feature = "broker"))]
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The prefix of the installation's topics.
    #[cfg(all(feature = "controller", feature = "broker"))]
    pub fn prefix(&self) -> &crate::kafka::Prefix {
        &self.installation.prefix
    }

    /// What is wanted, what is there, and the difference.
    async fn compare(&self) -> Result<Compared, Failure> {
        let (desired, found) = topics::look(&self.admin, &self.installation, Depth::Everything).await?;
        let (differences, warnings) =
            topics::plan(&desired, &found).into_iter().partition(|difference| difference.counts());
        Ok(Compared { desired, found, differences, warnings })
    }

    /// Says something about the result, unless nobody wants to hear it.
    fn say(&self, text: &str) {
        if !self.quiet {
            output::say(&format!("rk: {text}"));
        }
    }

    fn warn(&self, warnings: &[Difference]) {
        for warning in warnings {
            self.say(&format!("warning: {warning}"));
        }
    }
}

struct Compared {
    desired: Desired,
    found: Found,
    differences: Vec<Difference>,
    warnings: Vec<Difference>,
}

/// Runs the command.
pub async fn run(command: TopicsCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        TopicsCommand::Plan(args) => plan(&args.strimzi_cluster, &open(args.flags, environment)?).await,
        TopicsCommand::Apply(args) => apply::run(&open(args.flags, environment)?).await,
        TopicsCommand::Ls(args) => list::run(&open(args.flags, environment)?).await,
        TopicsCommand::Delete(args) => delete::run(args.yes, args.orphans, &open(args.flags, environment)?).await,
    }
}

async fn plan(strimzi_cluster: &str, session: &Session) -> Result<u8, Failure> {
    let compared = session.compare().await?;
    let Compared { desired, differences, warnings, .. } = &compared;
    session.warn(warnings);
    match session.format {
        Format::Table => {
            output::print(&render::lines(differences))?;
            session.say(&format!(
                "{} {} of disk at most, on all brokers together; journal, logs, blobs and artifacts beside that have no such \
                 bound",
                if session.installation.events { "packets and events take" } else { "packets take" },
                render::size(desired.most_bytes())
            ));
            if differences.is_empty() {
                session.say(&format!("the topics of {} are as they have to be", desired.prefix));
            }
        }
        Format::Json => output::print_json(&render::document(desired, &compared.found, differences, warnings))?,
        Format::Jsonl => {
            for difference in differences {
                output::print_jsonl(&render::item(difference))?;
            }
        }
        Format::Name => output::print(&render::names(differences))?,
        Format::KafkaCli => {
            output::print(&topics::commands::of_differences(differences, &session.admin.bootstrap()))?;
        }
        Format::Strimzi => output::print(&topics::strimzi(desired, strimzi_cluster))?,
    }
    Ok(if differences.is_empty() { 0 } else { DIFFERENCES })
}
