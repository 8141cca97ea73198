//! Before anything else, even a look at the command line: the processes that an agent starts of its own program. Many of
//! them run on a machine, and each is as small as what it touches.

use std::ffi::OsString;

use clap::Parser;

use super::{failure::Failure, refusal};

/// Parses `arguments`, has `start` do what they say, and returns the exit code. What went wrong is told on stderr.
pub fn run<Cli: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    start: impl FnOnce(Cli, &[OsString]) -> Result<u8, Failure>,
) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(code) = serve(&arguments) {
        return code;
    }
    let result = match Cli::try_parse_from(&arguments) {
        Ok(cli) => start(cli, &arguments),
        Err(e) => refusal::refuse(&e),
    };
    result.unwrap_or_else(|failure| failure.tell())
}

/// Serves as the process that `arguments`, those of this process, make of it, and returns its exit code; `None` if they are for
/// people.
fn serve(arguments: &[OsString]) -> Option<u8> {
    #[cfg(feature = "agent")]
    if let [_, subcommand, rest @ ..] = arguments
        && subcommand == crate::agent::shim::SUBCOMMAND
    {
        return Some(crate::agent::shim::run(rest));
    }
    #[cfg(feature = "agent")]
    if let [_, subcommand, rest @ ..] = arguments
        && subcommand == crate::agent::files::SUBCOMMAND
    {
        return Some(crate::agent::files::run(rest));
    }
    #[cfg(feature = "wasm")]
    if let [_, subcommand, rest @ ..] = arguments
        && subcommand == crate::agent::wasm::SUBCOMMAND
    {
        return Some(crate::agent::wasm::run(rest, &crate::config::Environment::read().variables()));
    }
    #[cfg(not(feature = "agent"))]
    let _ = arguments;
    None
}
