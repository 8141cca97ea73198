//! `rk certs`: an authority and a server certificate, for a broker or a controller of one's own.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, failure, output};
use crate::certs;

/// Make a CA and a server certificate in PEM files
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "certs")]
    out: PathBuf,
    /// Names and addresses of the server
    #[arg(value_name = "HOST", default_values = certs::LOOPBACK)]
    hosts: Vec<String>,
}

/// Writes the files.
pub async fn run(args: CertsArgs) -> Result<u8, Failure> {
    let hosts: Vec<&str> = args.hosts.iter().map(String::as_str).collect();
    let files = certs::write_server(&args.out, &hosts)?;
    for path in [files.authority, files.certificate, files.key] {
        output::print(&format!("{}\n", path.display()))?;
    }
    Ok(0)
}

impl From<certs::CertsError> for Failure {
    fn from(e: certs::CertsError) -> Self {
        Self::new(failure::USAGE, format!("{e}; `rk certs --help` shows what it takes"))
    }
}
