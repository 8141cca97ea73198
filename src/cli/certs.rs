//! `rk certs`: a small authority, certificates for brokers, controllers and clients, and what certificates say.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, failure, output, output::Format};
use crate::{
    certs::{self, CertsError, Folder, Made, Renew, State},
    clock,
    private_file::PrivateFileError,
};

/// Make and show certificates: PEM files of a small CA of your own.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a CA, or renew it
    Init(InitArgs),
    /// Make the certificate of a broker, or of a controller's API
    Broker(BrokerArgs),
    /// Make a client's certificate; its name is the Kafka user
    Client(ClientArgs),
    /// Show what certificates say, and how long they last
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct Common {
    /// The CA's folder: ca.pem, ca.key and what it signs
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Replace the certificate that is there; the key stays
    #[arg(long)]
    renew: bool,
    /// With --renew: make a new key too
    #[arg(long, requires = "renew")]
    new_key: bool,
}

impl Common {
    fn renewal(&self) -> Renew {
        match (self.renew, self.new_key) {
            (false, _) => Renew::Never,
            (true, false) => Renew::SameKey,
            (true, true) => Renew::NewKey,
        }
    }
}

/// Arguments of `rk certs init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// What it is called [default: rk certificate authority]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// How long it lasts
    #[arg(long, default_value_t = 3650)]
    days: u32,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `rk certs broker`.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// What its files are called
    name: String,
    /// Host names and addresses under which it is reached [default: NAME]
    #[arg(long, value_name = "HOST,…", value_delimiter = ',')]
    san: Vec<String>,
    /// How long it lasts
    #[arg(long, default_value_t = 365)]
    days: u32,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `rk certs client`.
#[derive(Debug, Args)]
pub struct ClientArgs {
    /// What it is called: the certificate's common name, and its files
    name: String,
    /// How long it lasts
    #[arg(long, default_value_t = 365)]
    days: u32,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `rk certs show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// PEM files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// table, json, jsonl or name [default: table]
    #[arg(short, long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Runs the command.
pub async fn run(command: CertsCommand) -> Result<u8, Failure> {
    let now = now();
    let made = match &command {
        CertsCommand::Init(InitArgs { name, days, common }) => {
            Folder::new(&common.out).init(name.as_deref(), *days, now, common.renewal())?
        }
        CertsCommand::Broker(BrokerArgs { name, san, days, common }) => {
            Folder::new(&common.out).server(name, san, *days, now, common.renewal())?
        }
        CertsCommand::Client(ClientArgs { name, days, common }) => {
            Folder::new(&common.out).client(name, *days, now, common.renewal())?
        }
        CertsCommand::Show(args) => return show(args, now),
    };
    let Made { files, certificate } = made;
    output::print(&format!("{}\n{}\n", files.certificate.display(), files.key.display()))?;
    output::say(&format!("rk: {} is {}", certificate.subject, certificate.validity.state(now)));
    Ok(0)
}

#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    #[serde(flatten)]
    certificate: certs::Certificate,
    days_left: i64,
}

fn show(args: &ShowArgs, now: i64) -> Result<u8, Failure> {
    let mut all = Vec::new();
    for file in &args.files {
        let name = file.display();
        let pem = std::fs::read(file).map_err(|e| Failure::usage(format!("{name}: {e}; name a PEM file")))?;
        let read = certs::read_pem(&pem).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
        all.extend(read.into_iter().map(|certificate| Shown {
            file: file.clone(),
            days_left: certificate.validity.days_left(now),
            certificate,
        }));
    }
    match args.output {
        Format::Json => output::print_json(&all)?,
        Format::Jsonl => all.iter().try_for_each(output::print_jsonl)?,
        Format::Name => all.iter().try_for_each(|shown| output::print(&format!("{}\n", shown.certificate.subject)))?,
        Format::Table => output::print(&all.iter().map(|shown| describe(shown, now)).collect::<Vec<_>>().join("\n"))?,
    }
    for shown in &all {
        let state = shown.certificate.validity.state(now);
        if !matches!(state, State::Good(_)) {
            output::say(&format!("rk: {} in {} is {state}", shown.certificate.subject, shown.file.display()));
        }
    }
    Ok(0)
}

fn describe(shown: &Shown, now: i64) -> String {
    let Shown { file, certificate, .. } = shown;
    let (first, second) = certificate.fingerprint.split_at(certificate.fingerprint.len().min(48));
    let mut lines = vec![
        ("file", file.display().to_string()),
        ("subject", certificate.subject.clone()),
        ("issuer", certificate.issuer.clone()),
        ("for", if certificate.authority { "signing others".to_owned() } else { certificate.names.join(", ") }),
        ("valid", certificate.validity.to_string()),
        ("state", certificate.validity.state(now).to_string()),
        ("SHA-256", first.to_owned()),
        ("", second.to_owned()),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    lines.iter().map(|(what, value)| format!("{what:<8} {value}\n")).collect()
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(Duration::from_millis(clock::unix_ms()).as_secs()).unwrap_or(i64::MAX)
}

impl From<CertsError> for Failure {
    fn from(e: CertsError) -> Self {
        let code = match e {
            CertsError::Ended(_)
            | CertsError::Key(PrivateFileError::OpenToOthers { .. } | PrivateFileError::Owner { .. }) => {
                failure::REFUSED
            }
            _ => failure::USAGE,
        };
        Self::new(code, format!("{e}; `rk certs --help` shows what it takes"))
    }
}
