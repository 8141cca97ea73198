//! Before anything else, even a look at the command line: the processes that an agent starts of its own program. Many of
//! them run on a machine, and each is as small as what it touches.

use std::ffi::OsString;

/// Serves as the process that `arguments`, those of this process, make of it, and returns its exit code; `None` if they are for
/// people.
pub fn run(arguments: &[OsString]) -> Option<u8> {
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
