//! `rk bundle`: code that agents fetch when a command needs it.

mod keys;
mod push;
mod uses;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::{
    Failure,
    flags::ClientFlags,
    output::{self, Format},
    session::{self, Session},
};
use crate::{
    api::bundles::{Bundle, PushBundle},
    bundle::{Name, Target},
    clock,
    config::Environment,
};

pub use uses::Uses;

const AFTER_HELP: &str = "\
A bundle is a directory, or a file, for each kind of machine where they differ;
the same files have the same digest. `rk exec --bundle NAME` and `rk run
--bundle NAME` run commands with it: its root and its bin are in PATH, and
RK_BUNDLE says where it lies.

  rk bundle push ./tools
  rk bundle push --name tools x86_64-linux=./x86 aarch64-linux=./arm
  rk exec build-7 --bundle tools -- tool --version";

/// Push code that agents fetch when a command needs it.
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Push a bundle, if the controller does not have it
    #[command(after_help = AFTER_HELP)]
    Push(PushArgs),
    /// List bundles, the newest first
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Forget a bundle; agents that have it keep it while they have room
    Rm(RmArgs),
    /// Vouch for a bundle with a key
    Sign(SignArgs),
    /// Make a pair of keys to sign bundles with
    Keygen(KeygenArgs),
}

/// Arguments of `rk bundle push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Directories or files: for any machine, or TARGET=PATH like
    /// x86_64-linux=./x86; several, or one list with ':' between
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
    /// What it is called [default: the name of the first path]
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Vouch for it with this private key
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk bundle ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk bundle rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// A name for its newest, a digest, or the beginning of one
    bundle: String,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk bundle sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// A name for its newest, a digest, or the beginning of one
    bundle: String,
    /// The private key, as `rk bundle keygen` wrote it
    #[arg(long, value_name = "KEY")]
    key: PathBuf,
    #[command(flatten)]
    flags: ClientFlags,
}

/// Arguments of `rk bundle keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Where the private key goes; the public one goes beside it, as KEY.pub
    #[arg(value_name = "KEY")]
    key: PathBuf,
}

/// Runs the command.
pub async fn run(command: BundleCommand, environment: &Environment) -> Result<u8, Failure> {
    match command {
        BundleCommand::Push(args) => {
            let session = session::open(args.flags, environment)?;
            let key = args.sign.as_deref().map(keys::read).transpose()?;
            let parts = push::parts(&args.paths)?;
            let pushed = push::push(&session.client, &parts, args.name, key.as_ref()).await?;
            show(&pushed.bundle, &session)?;
            if !session.quiet {
                let what = if pushed.uploaded { "pushed" } else { "the controller has it already:" };
                let size = output_size(pushed.bundle.variants.values().map(|archive| archive.size).sum());
                output::say(&format!("rk: {what} {size}; `rk exec AGENT --bundle {} -- COMMAND` uses it", pushed.name));
            }
        }
        BundleCommand::Ls(args) => list(session::open(args.flags, environment)?).await?,
        BundleCommand::Rm(args) => {
            let session = session::open(args.flags, environment)?;
            let removed = session.client.remove_bundle(&args.bundle).await?;
            show(&removed, &session)?;
        }
        BundleCommand::Sign(args) => {
            let session = session::open(args.flags, environment)?;
            let key = keys::read(&args.key)?;
            let bundle = session.client.bundle(&args.bundle).await?;
            // What is signed is what the list of archives says, and not what somebody says that it is.
            let digest = crate::bundle::digest(&bundle.variants);
            let name = bundle.newest.first().or(bundle.names.first()).cloned();
            let name = name.ok_or_else(|| Failure::usage(format!("bundle {} has no name", args.bundle)))?;
            let request = PushBundle { name, variants: bundle.variants, signatures: vec![key.sign(&digest)] };
            show(&session.client.push_bundle(&request).await?, &session)?;
        }
        BundleCommand::Keygen(args) => keys::generate(&args.key)?,
    }
    Ok(0)
}

async fn list(session: Session) -> Result<(), Failure> {
    let list = session.client.bundles().await?;
    match session.format {
        Format::Json => output::print_json(&list.bundles)?,
        Format::Jsonl => {
            for bundle in &list.bundles {
                output::print_jsonl(bundle)?;
            }
        }
        Format::Name => {
            let lines: String = list.bundles.iter().map(|bundle| reference(bundle) + "\n").collect();
            output::print(&lines)?;
        }
        Format::Table if list.bundles.is_empty() => {
            if !session.quiet {
                output::say("rk: no bundles; `rk bundle push PATH` makes one");
            }
        }
        Format::Table => {
            let now = clock::unix_ms();
            let rows: Vec<_> = list.bundles.iter().map(|bundle| row(bundle, now)).collect();
            output::print(&output::table(["NAME", "DIGEST", "SIZE", "AGE", "SIGNED", "TARGETS"], &rows))?;
        }
    }
    Ok(())
}

fn row(bundle: &Bundle, now: u64) -> [String; 6] {
    let names: Vec<&str> = bundle.newest.iter().map(Name::as_str).collect();
    let targets: Vec<&str> = bundle.variants.keys().map(Target::as_str).collect();
    [
        if names.is_empty() { "-".to_owned() } else { names.join(",") },
        bundle.digest.short(),
        output_size(bundle.variants.values().map(|archive| archive.size).sum()),
        output::duration(Duration::from_millis(now.saturating_sub(bundle.pushed_ms))),
        if bundle.signed_by.is_empty() { "no" } else { "yes" }.to_owned(),
        targets.join(","),
    ]
}

/// One bundle as data.
fn show(bundle: &Bundle, session: &Session) -> Result<(), Failure> {
    match session.format {
        Format::Json => output::print_json(bundle)?,
        Format::Jsonl => output::print_jsonl(bundle)?,
        Format::Table | Format::Name => output::print(&(reference(bundle) + "\n"))?,
    }
    Ok(())
}

/// What means this bundle for ever.
fn reference(bundle: &Bundle) -> String {
    let name = bundle.newest.first().or(bundle.names.first());
    name.map(|name| format!("{name}@")).unwrap_or_default() + &format!("sha256:{}", bundle.digest)
}

fn output_size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1024.0, "KiB"),
        1_048_576..1_073_741_824 => (1_048_576.0, "MiB"),
        _ => (1_073_741_824.0, "GiB"),
    };
    format!("{:.1} {name}", bytes as f64 / unit)
}
