//! Waiting on a condition, bounded.

use std::thread;
use std::time::{Duration, Instant};

/// Asks until `ready` says something, at most `limit` long; the last `Err` is what the failure tells.
///
/// # Panics
/// When the time is up.
pub fn until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match ready() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > limit => panic!("{what}: not after {limit:?}: {why}"),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// [`until`] for asynchronous tests.
///
/// # Panics
/// When the time is up.
pub async fn until_async<T, F>(what: &str, limit: Duration, mut ready: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match ready().await {
            Ok(value) => return value,
            Err(why) if start.elapsed() > limit => panic!("{what}: not after {limit:?}: {why}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
