//! Where a reader of a job's log stands. Pure: [`follow`](super::follow) asks.
//!
//! It promises that what comes out has no byte twice and none left out without a name, whatever the answers repeat: each
//! may begin anywhere at or before the place where the one before it broke.

use std::collections::VecDeque;

use crate::api::logs::{LogItem, LogQuery, LogStream};

/// Where a reader stands, and what it asked for.
#[derive(Debug)]
pub(super) struct Place {
    asked: LogQuery,
    /// The attempt that is being read.
    attempt: Option<u32>,
    /// Whether it is one after the first that was read: it is read from its beginning.
    later: bool,
    /// When the first chunk of the attempt was written.
    first_ms: Option<i64>,
    streams: [Stand; 3],
}

/// Where a reader stands in one stream.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    /// The next byte; unknown before the first chunk if the beginning was not asked for.
    next: Option<u64>,
    ended: bool,
}

impl Place {
    /// Before the first item.
    pub fn new(asked: LogQuery) -> Self {
        let all = asked.tail.is_none() && asked.since_ms.is_none();
        let from = [asked.from_stdout, asked.from_stderr, asked.from_system];
        let streams = from.map(|from| Stand { next: all.then_some(from), ended: false });
        Self { asked, attempt: None, later: false, first_ms: None, streams }
    }

    /// What to ask for now.
    pub fn query(&self) -> LogQuery {
        let Some(attempt) = self.attempt else { return self.asked.clone() };
        let [from_stdout, from_stderr, from_system] = self.streams.map(|stand| stand.next.unwrap_or(0));
        let mut query = LogQuery {
            attempt: Some(attempt),
            from_stdout,
            from_stderr,
            from_system,
            tail: self.asked.tail.filter(|_| !self.later && self.first_ms.is_none()),
            ..self.asked.clone()
        };
        // A stream of which nothing has come goes on where the tail began.
        if let (true, Some(first)) = (self.asked.tail.is_some() && !self.later, self.first_ms) {
            let first = u64::try_from(first).unwrap_or(0);
            query.since_ms = Some(query.since_ms.map_or(first, |since| since.max(first)));
        }
        query
    }

    /// Hands on what is new of `item`.
    pub fn take(&mut self, item: LogItem, out: &mut VecDeque<LogItem>) {
        match item {
            LogItem::Attempt(attempt) if self.attempt == Some(attempt) => (),
            LogItem::Attempt(attempt) => {
                if self.attempt.is_some() {
                    self.later = true;
                    self.first_ms = None;
                    let next = self.asked.since_ms.is_none().then_some(0);
                    self.streams = [Stand { next, ended: false }; 3];
                }
                self.attempt = Some(attempt);
                out.push_back(LogItem::Attempt(attempt));
            }
            LogItem::Chunk { stream, offset, time_ms, mut bytes } => {
                self.reach(stream, offset, out);
                let stand = self.stand(stream);
                let next = stand.next.unwrap_or(offset);
                let known = next.saturating_sub(offset).min(bytes.len() as u64);
                drop(bytes.split_to(known as usize));
                if bytes.is_empty() {
                    return;
                }
                stand.next = Some(next.saturating_add(bytes.len() as u64));
                self.first_ms.get_or_insert(time_ms);
                out.push_back(LogItem::Chunk { stream, offset: next, time_ms, bytes });
            }
            LogItem::Gap { stream, from, to, cause } => {
                self.reach(stream, from, out);
                let stand = self.stand(stream);
                let from = stand.next.unwrap_or(from).max(from);
                if from < to {
                    stand.next = Some(to);
                    out.push_back(LogItem::Gap { stream, from, to, cause });
                }
            }
            LogItem::End { stream, total, verdict } => {
                self.reach(stream, total, out);
                if !std::mem::replace(&mut self.stand(stream).ended, true) {
                    out.push_back(LogItem::End { stream, total, verdict });
                }
            }
            LogItem::Done(job) => out.push_back(LogItem::Done(job)),
            // The receiver makes an error of the latter.
            LogItem::Idle | LogItem::Failed(_) => (),
        }
    }

    /// Names what is left out before `offset`.
    fn reach(&mut self, stream: LogStream, offset: u64, out: &mut VecDeque<LogItem>) {
        let stand = self.stand(stream);
        if let Some(from) = stand.next.filter(|next| *next < offset) {
            stand.next = Some(offset);
            let cause = "the controller left them out".to_owned();
            out.push_back(LogItem::Gap { stream, from, to: offset, cause });
        }
    }

    fn stand(&mut self, stream: LogStream) -> &mut Stand {
        &mut self.streams[stream as usize]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::api::logs::Digest;
    use LogStream::{Stderr, Stdout};

    fn chunk(stream: LogStream, offset: u64, text: &'static str) -> LogItem {
        LogItem::Chunk { stream, offset, time_ms: 1000 + offset as i64, bytes: Bytes::from_static(text.as_bytes()) }
    }

    fn gap(from: u64, to: u64, cause: &str) -> LogItem {
        LogItem::Gap { stream: Stdout, from, to, cause: cause.to_owned() }
    }

    fn take(place: &mut Place, items: impl IntoIterator<Item = LogItem>) -> Vec<LogItem> {
        let mut out = VecDeque::new();
        items.into_iter().for_each(|item| place.take(item, &mut out));
        out.into()
    }

    #[test]
    fn what_is_repeated_comes_once_and_what_is_left_out_gets_a_name() {
        let mut place = Place::new(LogQuery::default());
        let first = [LogItem::Attempt(1), chunk(Stdout, 0, "abc"), chunk(Stderr, 0, "x")];
        assert_eq!(take(&mut place, first.clone()), first);
        let query = place.query();
        assert_eq!((query.attempt, query.from_stdout, query.from_stderr, query.from_system), (Some(1), 3, 1, 0));
        let again = take(&mut place, [LogItem::Attempt(1), chunk(Stdout, 1, "bcde"), chunk(Stdout, 5, "f")]);
        assert_eq!(
            again,
            [
                LogItem::Chunk { stream: Stdout, offset: 3, time_ms: 1001, bytes: Bytes::from_static(b"de") },
                chunk(Stdout, 5, "f")
            ]
        );
        let gaps = take(&mut place, [gap(6, 10, "retention"), gap(6, 10, "retention"), chunk(Stdout, 12, "m")]);
        assert_eq!(
            gaps,
            [gap(6, 10, "retention"), gap(10, 12, "the controller left them out"), chunk(Stdout, 12, "m")]
        );
        let end = LogItem::End { stream: Stdout, total: 13, verdict: Digest::Right };
        assert_eq!(take(&mut place, [end.clone(), end.clone()]), [end]);
    }

    #[test]
    fn a_later_attempt_begins_at_its_own_beginning() {
        let mut place = Place::new(LogQuery { tail: Some(5), ..LogQuery::default() });
        take(&mut place, [LogItem::Attempt(1), chunk(Stdout, 100, "abc")]);
        let second = [LogItem::Attempt(2), chunk(Stdout, 0, "a")];
        assert_eq!(take(&mut place, second.clone()), second);
        let query = place.query();
        assert_eq!((query.attempt, query.from_stdout, query.tail, query.since_ms), (Some(2), 1, None, None));
    }

    #[test]
    fn a_tail_that_broke_goes_on_where_it_was_and_not_with_another_tail() {
        let mut place = Place::new(LogQuery { tail: Some(5), ..LogQuery::default() });
        assert_eq!(place.query().tail, Some(5));
        take(&mut place, [LogItem::Attempt(1)]);
        assert_eq!(place.query().tail, Some(5));
        assert_eq!(take(&mut place, [chunk(Stdout, 100, "abc")]).len(), 1);
        let query = place.query();
        assert_eq!((query.from_stdout, query.from_stderr, query.tail, query.since_ms), (103, 0, None, Some(1100)));
        assert_eq!(take(&mut place, [chunk(Stderr, 50, "x")]).len(), 1);
    }

    proptest! {
        /// Answers that begin anywhere before the reader's place and break anywhere.
        #[test]
        fn however_answers_break_the_bytes_are_the_job_s(
            cuts in prop::collection::vec((0usize..40, 1usize..60, 1usize..9), 1..30),
        ) {
            let log: Vec<u8> = (0..200).collect();
            let mut place = Place::new(LogQuery::default());
            let mut got = Vec::new();
            for (back, length, size) in cuts {
                let from = (place.query().from_stdout as usize).saturating_sub(back);
                let to = (from + length).min(log.len());
                let mut items = vec![LogItem::Attempt(1)];
                for (i, piece) in log[from..to].chunks(size).enumerate() {
                    let offset = (from + i * size) as u64;
                    items.push(LogItem::Chunk { stream: Stdout, offset, time_ms: 0, bytes: Bytes::copy_from_slice(piece) });
                }
                for item in take(&mut place, items) {
                    match item {
                        LogItem::Chunk { offset, bytes, .. } => {
                            prop_assert_eq!(offset as usize, got.len());
                            got.extend_from_slice(&bytes);
                        }
                        LogItem::Attempt(1) => (),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(&got[..], &log[..got.len()]);
        }

        #[test]
        fn no_numbers_of_a_controller_make_it_panic(
            items in prop::collection::vec((any::<u64>(), any::<u64>(), 0u8..4), 0..20),
        ) {
            let mut place = Place::new(LogQuery::default());
            for (a, b, kind) in items {
                take(&mut place, [match kind {
                    0 => LogItem::Chunk { stream: Stdout, offset: a, time_ms: b as i64, bytes: Bytes::from_static(b"x") },
                    1 => gap(a, b, "x"),
                    2 => LogItem::End { stream: Stdout, total: a, verdict: Digest::Unknown },
                    _ => LogItem::Attempt(a as u32),
                }]);
                place.query();
            }
        }
    }
}
