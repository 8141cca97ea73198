//! Waiting at the start for a cluster that is away.
//!
//! A controller that is started while brokers restart must not need somebody who starts it again. What passes by itself is tried
//! again for a time, and told at once; what somebody has to change ends the start.

use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;

/// Makes `call` again while its error `passes`, until `wait` is over; a try that began before then may end later. The error is the
/// last one. The first is told as a warning, with how long it is tried. May be dropped at any time.
pub async fn through<T, E, F>(wait: Duration, passes: impl Fn(&E) -> bool, mut call: impl FnMut() -> F) -> Result<T, E>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let start = Instant::now();
    let mut backoff = Backoff::kafka();
    let mut told = false;
    loop {
        let error = match call().await {
            Err(error) if passes(&error) => error,
            done => return done,
        };
        let left = wait.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("{error}; trying again for {} s", wait.as_secs_f64());
        }
        sleep(backoff.next(rand::random()).min(left)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    /// Fails so often, then succeeds; how often it was called, and how it ended when.
    async fn tried(failures: u32, wait: Duration) -> (u32, Result<u32, String>, Duration) {
        let (calls, start) = (Cell::new(0), Instant::now());
        let call = async || {
            calls.set(calls.get() + 1);
            match calls.get() {
                n if n > failures => Ok(n),
                n => Err(format!("away {n}")),
            }
        };
        let ended = through(wait, |error: &String| error.starts_with("away"), call).await;
        (calls.get(), ended, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for_and_the_last_error_is_told_when_it_lasts() {
        assert_eq!(tried(0, WAIT).await, (1, Ok(1), Duration::ZERO));
        let (calls, ended, took) = tried(10, WAIT).await;
        assert_eq!((calls, ended), (11, Ok(11)));
        assert!(took < Duration::from_secs(10), "{took:?}");
        let (calls, ended, took) = tried(u32::MAX, WAIT).await;
        assert_eq!(ended, Err(format!("away {calls}")));
        assert!((WAIT..WAIT * 2).contains(&took), "{took:?}");
        assert_eq!(tried(u32::MAX, Duration::ZERO).await, (1, Err("away 1".to_owned()), Duration::ZERO));
        let long = tokio::time::timeout(WAIT, tried(u32::MAX, Duration::MAX)).await;
        assert!(long.is_err(), "no time is too long");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_has_to_change_ends_it_at_once() {
        let ended = through(WAIT, |_: &&str| false, async || Err::<(), _>("wrong password")).await;
        assert_eq!(ended, Err("wrong password"));
    }
}
