//! Times before lines.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

use crate::clock::{self, LAST_MS};

/// A moment in milliseconds since 1970 as RFC 3339; the clock of an agent may say anything.
pub fn rfc3339(unix_ms: i64) -> String {
    clock::rfc3339(u64::try_from(unix_ms).unwrap_or(0))
}

/// Reads a moment: a time ago, like `10m`, or RFC 3339. In milliseconds since 1970.
pub fn moment(text: &str, now: SystemTime) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no moment; use a time ago like 10m, or one like 2026-01-31T12:00:00Z");
    let at = match humantime::parse_duration(text) {
        Ok(ago) => now.checked_sub(ago).unwrap_or(UNIX_EPOCH),
        Err(_) => humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?,
    };
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(LAST_MS))
}

/// Puts the time before each line of one stream. Bytes pass at once and unchanged: a line gets the time at which its first
/// byte was written.
#[derive(Debug, Default)]
pub struct Stamp {
    within_line: bool,
}

impl Stamp {
    /// `bytes`, which were written at `time_ms`, with times in them.
    pub fn add(&mut self, time_ms: i64, bytes: &[u8]) -> Bytes {
        let time = rfc3339(time_ms);
        let mut out = BytesMut::with_capacity(bytes.len() + 2 * time.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within_line {
                out.extend_from_slice(time.as_bytes());
                out.extend_from_slice(b" ");
            }
            out.extend_from_slice(line);
            self.within_line = !line.ends_with(b"\n");
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_line_gets_one_time_however_it_comes() {
        let mut stamp = Stamp::default();
        let mut out = Vec::new();
        for (time, bytes) in [(0, &b"one\ntw"[..]), (1001, b"o"), (2002, b"\n\xff\n"), (3003, b"")] {
            out.extend_from_slice(&stamp.add(time, bytes));
        }
        let expected = b"1970-01-01T00:00:00.000Z one\n1970-01-01T00:00:00.000Z two\n1970-01-01T00:00:02.002Z \xff\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn no_clock_of_an_agent_breaks_the_time() {
        assert_eq!(rfc3339(-5), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(1_769_860_800_123), "2026-01-31T12:00:00.123Z");
    }

    #[test]
    fn a_moment_is_a_time_ago_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(moment("10m", now), Ok(999_400_000));
        assert_eq!(moment("1000years", now), Ok(0));
        assert_eq!(moment("2026-01-31T12:00:00.5Z", now), Ok(1_769_860_800_500));
        for bad in ["", "yesterday", "2026-01-31", "-5s"] {
            assert!(moment(bad, now).expect_err(bad).contains("10m"), "{bad}");
        }
    }
}
