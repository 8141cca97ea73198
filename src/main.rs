//! `rk`: parses, runs, and exits with a code.

use std::process::ExitCode;

#[cfg(any(feature = "agent", feature = "cli"))]
fn main() -> ExitCode {
    ExitCode::from(remoting_kafka::cli::run(std::env::args_os()))
}

#[cfg(not(any(feature = "agent", feature = "cli")))]
fn main() -> ExitCode {
    eprintln!("rk: this program was built without a command line; build it with --features cli, or agent");
    ExitCode::from(64)
}
