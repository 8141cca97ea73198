//! Asking again while the controller is away: bounded, with growing pauses.

use std::time::Duration;

use hyper::{Response, StatusCode, header};
use tokio::time::Instant;

use super::ClientError;
use crate::{backoff::Backoff, secret};

/// How long one asks again, and when next. The time is counted from the first failure after the last success.
#[derive(Debug)]
pub struct Retry {
    limit: Duration,
    since: Option<Instant>,
    backoff: Backoff,
}

impl Retry {
    /// Asks again for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { limit, since: None, backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)) }
    }

    /// When to ask again after this failure. The error comes back if it will not pass, or the time is up.
    pub fn after(&mut self, error: ClientError) -> Result<Instant, ClientError> {
        let now = Instant::now();
        let until = self.until(now);
        if !error.may_pass() || now >= until {
            return Err(error);
        }
        Ok((now + self.backoff.next(u64::from_le_bytes(secret::random()))).min(until))
    }

    /// The time counts anew from the next failure.
    pub fn reset(&mut self) {
        self.since = None;
        self.backoff.reset();
    }

    fn until(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since.checked_add(self.limit).unwrap_or(since + Duration::from_secs(10 * 365 * 86_400))
    }
}

/// The longest that is waited for because an answer says so.
const LONGEST: u64 = 3600;

/// When to ask again, of an answer that says that it was asked too often. Some time is added, so that those who were told the same
/// do not come together.
pub(super) fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let after = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok()?;
    let random = u64::from(u16::from_le_bytes(secret::random()) % 500);
    Some(Duration::from_secs(after.min(LONGEST)) + Duration::from_millis(random))
}

/// Asks until there is an answer or an error that will not pass, for `limit` at most. What is asked must be such that it
/// does no harm twice. `away` hears of the first failure.
#[cfg(any(feature = "cli", test))]
pub async fn patiently<T>(
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
    mut away: impl FnMut(&ClientError),
) -> Result<T, ClientError> {
    let mut retry = Retry::new(limit);
    let until = retry.until(Instant::now());
    let mut last = None;
    loop {
        let error = match tokio::time::timeout_at(until, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => return Err(last.unwrap_or(ClientError::Silent { after: limit })),
        };
        if error.may_pass() && last.is_none() {
            away(&error);
        }
        let text = error.clone();
        tokio::time::sleep_until(retry.after(error)?).await;
        last = Some(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ApiError, Code};

    fn broken() -> ClientError {
        ClientError::Broken { address: "a".to_owned(), detail: "gone".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_patient_gets_the_answer_and_says_once_that_the_controller_is_away() {
        let (mut asked, mut told) = (0, 0);
        let ask = async || {
            asked += 1;
            if asked < 5 { Err(broken()) } else { Ok(asked) }
        };
        assert_eq!(patiently(Duration::from_secs(60), ask, |_| told += 1).await.expect("answered"), 5);
        assert_eq!(told, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_in_time_whether_the_controller_refuses_or_says_nothing() {
        let start = Instant::now();
        let error = patiently::<()>(Duration::from_secs(60), async || Err(broken()), |_| ()).await.expect_err("away");
        assert!(matches!(error, ClientError::Broken { .. }), "{error}");
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        let silent = patiently::<()>(Duration::from_secs(7), async || std::future::pending().await, |_| ()).await;
        assert_eq!(silent.expect_err("silent").exit_code(), 69);
        assert_eq!(start.elapsed(), Duration::from_secs(67));
    }

    #[test]
    fn only_an_answer_that_says_when_is_waited_for() {
        let of = |status: u16, after: Option<&str>| {
            let response = Response::builder().status(status);
            let response = after.into_iter().fold(response, |response, after| response.header("Retry-After", after));
            retry_after(&response.body(()).expect("a response")).map(|after| after.as_secs())
        };
        assert_eq!(of(429, Some("7")), Some(7));
        assert_eq!(of(429, Some("99999999999")), Some(LONGEST));
        for (status, after) in [(503, Some("7")), (429, None), (429, Some("soon"))] {
            assert_eq!(of(status, after), None);
        }
    }

    #[tokio::test]
    async fn what_will_not_pass_is_not_asked_again() {
        let mut asked = 0;
        let ask = async || {
            asked += 1;
            Err::<(), _>(ApiError::new(Code::Invalid, "no").into())
        };
        let error = patiently(Duration::from_secs(60), ask, |_| panic!("it is not away")).await.expect_err("refused");
        assert_eq!((error.exit_code(), asked), (64, 1));
    }
}
