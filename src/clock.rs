//! What time it is, for people and other machines. Never for waiting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last moment that has four digits for its year.
pub const LAST_MS: u64 = 253_402_300_799_999;

/// Milliseconds since 1970; 0 if the clock stands before.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A moment in milliseconds since 1970 as RFC 3339: `2026-01-31T12:00:00.000Z`. One that has no such form is the nearest
/// that has.
pub fn rfc3339(unix_ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_MS))).to_string()
}
