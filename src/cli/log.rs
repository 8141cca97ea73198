//! What is logged, and how it looks: on stderr, with RK_LOG or --log as the filter.

use std::io::IsTerminal;

use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::Failure;
use crate::config::{Settings, keys};

/// Who runs for long tells what happens.
#[cfg(any(feature = "agent", feature = "controller", feature = "broker"))]
pub const SERVICE: &str = "warn,remoting_kafka=info,quinn=warn,quinn_proto=warn";
/// A command that ends soon speaks through its result.
#[cfg(feature = "cli")]
pub const COMMAND: &str = "warn,quinn=off,quinn_proto=off";

/// Starts logging; `default` holds if nobody says what to log.
pub fn start(settings: &Settings, default: &str) -> Result<(), Failure> {
    let filter = settings.convert(&keys::LOG, |text| {
        text.parse::<Targets>().map_err(|e| format!("{e}; use one like info, or debug,quinn=info"))
    })?;
    let filter = filter.unwrap_or_else(|| default.parse().expect("it is one of ours"));
    let colours = std::io::stderr().is_terminal() && !settings.environment().no_color();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colours);
    // A second start, as in tests that run commands in one process, keeps the first's.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    Ok(())
}
