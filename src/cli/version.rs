//! `rk version`.

use clap::Args;

use super::{
    Failure,
    output::{self, Format},
};

/// Arguments of `rk version`.
#[derive(Debug, Args)]
pub struct VersionArgs {
    /// How it is printed: table, or json with what it speaks
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    output: Format,
}

/// Prints the version.
pub fn run(args: &VersionArgs) -> Result<u8, Failure> {
    match args.output {
        Format::Table | Format::Name => output::print(concat!("rk ", env!("CARGO_PKG_VERSION"), "\n"))?,
        #[cfg(feature = "agent")]
        Format::Json | Format::Jsonl => output::print_jsonl(&crate::agent::update::About::us())?,
        #[cfg(not(feature = "agent"))]
        Format::Json | Format::Jsonl => {
            output::print_jsonl(&serde_json::json!({"program": "rk", "version": env!("CARGO_PKG_VERSION")}))?;
        }
    }
    Ok(0)
}
