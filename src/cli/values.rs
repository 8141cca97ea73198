//! Values of flags that several commands take. Each refusal says what would do.

use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::api::jobs::LogFormat;

pub use crate::config::size;

/// Reads a signal: `TERM`, `SIGTERM` or `15`. Its number on Linux.
pub fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>()
        && (1..=64).contains(&number)
    {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal = Signal::from_str(&name);
    signal.map(|signal| signal as i32).map_err(|_| format!("{text:?} is no signal; use one like TERM, INT, KILL or 15"))
}

/// Reads how output is written into the topic.
pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "sealed" => Ok(LogFormat::Sealed),
        "open" => Ok(LogFormat::Open),
        _ => Err(format!("{text:?} is no format of logs; use sealed or open")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64K", 65_536), ("10MiB", 10 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "1.5G", "10MB", "1iB", "99999999T", "10 G"] {
            assert!(size(bad).expect_err(bad).contains("10G"), "{bad}");
        }
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("TERM", 15), ("sigint", 2), ("SIGKILL", 9), ("64", 64), ("1", 1)] {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "-9", "TREM"] {
            assert!(signal(bad).expect_err(bad).contains("TERM"), "{bad}");
        }
    }

    #[test]
    fn a_log_is_sealed_or_open() {
        assert_eq!((log_format("sealed"), log_format("open")), (Ok(LogFormat::Sealed), Ok(LogFormat::Open)));
        assert!(log_format("Open").is_err());
    }
}
