//! `rk`: parses, runs, and exits with a code.

use std::process::ExitCode;

#[cfg(feature = "cli")]
fn main() -> ExitCode {
    ExitCode::from(remoting_kafka::cli::run(std::env::args_os()))
}

#[cfg(not(feature = "cli"))]
fn main() -> ExitCode {
    eprintln!("rk: this program was built without its command line; build it with --features cli");
    ExitCode::from(64)
}
