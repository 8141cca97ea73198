//! A job's output, whatever happens to the connection or the controller on its way.

use std::{collections::VecDeque, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Client, ClientError, jobs::LogReceiver, place::Place, retry::Retry};
use crate::api::logs::{LogItem, LogQuery};

/// An answer that lived for so long was a good one, even if it said nothing: the controller was not away.
const LIVED: Duration = Duration::from_secs(5);

/// What comes of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next item.
    Item(LogItem),
    /// The controller is away, for this reason. It is asked again.
    Away(String),
    /// It answers again.
    Back,
}

/// Reads a job's log to its end. When an answer breaks it asks again for the rest: no byte comes twice, and none is left
/// out without a [gap](LogItem::Gap).
#[derive(Debug)]
pub struct LogFollower {
    client: Client,
    id: String,
    place: Place,
    retry: Retry,
    receiver: Option<(LogReceiver, Instant)>,
    ask_at: Option<Instant>,
    told_away: bool,
    ready: VecDeque<Followed>,
    done: bool,
}

impl LogFollower {
    /// Reads what `query` asks for of the job `id`, and bears it if the controller is away for up to `patience`. Nothing is
    /// sent yet.
    pub fn new(client: Client, id: impl Into<String>, query: LogQuery, patience: Duration) -> Self {
        Self {
            client,
            id: id.into(),
            place: Place::new(query),
            retry: Retry::new(patience),
            receiver: None,
            ask_at: None,
            told_away: false,
            ready: VecDeque::new(),
            done: false,
        }
    }

    /// What comes next; `None` after [`LogItem::Done`]. Cancel-safe. An error is the end: it will not pass, or did not
    /// within the patience.
    pub async fn next(&mut self) -> Result<Option<Followed>, ClientError> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(Some(followed));
            }
            if self.done {
                return Ok(None);
            }
            let Some((receiver, _)) = &mut self.receiver else {
                self.open().await?;
                continue;
            };
            match receiver.next().await {
                Ok(Some(item)) => self.take(item),
                Ok(None) => self.done = true,
                Err(error) => self.broken(error)?,
            }
        }
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        if let Some(at) = self.ask_at {
            sleep_until(at).await;
        }
        match self.client.job_log(&self.id, &self.place.query()).await {
            Ok(receiver) => {
                self.receiver = Some((receiver, Instant::now()));
                if std::mem::take(&mut self.told_away) {
                    self.ready.push_back(Followed::Back);
                }
            }
            Err(error) => {
                let reason = error.to_string();
                self.ask_at = Some(self.retry.after(error)?);
                // Not of an answer that only broke: the next one may come at once.
                if !std::mem::replace(&mut self.told_away, true) {
                    self.ready.push_back(Followed::Away(reason));
                }
            }
        }
        Ok(())
    }

    fn broken(&mut self, error: ClientError) -> Result<(), ClientError> {
        let opened = self.receiver.take().map(|(_, opened)| opened);
        if opened.is_some_and(|opened| opened.elapsed() >= LIVED) {
            self.retry.reset();
        }
        self.ask_at = Some(self.retry.after(error)?);
        Ok(())
    }

    fn take(&mut self, item: LogItem) {
        let mut new = VecDeque::new();
        self.place.take(item, &mut new);
        if !new.is_empty() {
            self.retry.reset();
        }
        self.ready.extend(new.into_iter().map(Followed::Item));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::{Bytes, BytesMut};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::{
        api::{ApiError, Code, logs::LogStream},
        frame,
        secret::Secret,
    };

    /// What the controller does with one request.
    enum Turn {
        /// Sends these items and closes the connection, in the middle of another item if `torn`.
        Items { items: Vec<LogItem>, torn: bool },
        /// Closes the connection without an answer.
        Hangs,
        /// Refuses.
        Refuses(Code),
    }

    /// A controller that answers one request after the other as `turns` say, and the requests' first lines.
    async fn serve(turns: Vec<Turn>) -> (Client, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = asked.clone();
        tokio::spawn(async move {
            for turn in turns {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a request"));
                }
                let head = String::from_utf8(head).expect("text");
                requests.lock().expect("lock").push(head.lines().next().unwrap_or_default().to_owned());
                let mut answer = BytesMut::new();
                match turn {
                    Turn::Hangs => continue,
                    Turn::Refuses(code) => {
                        let body = serde_json::to_string(&ApiError::new(code, "no")).expect("JSON");
                        let status = code.http_status();
                        answer.extend_from_slice(format!("HTTP/1.1 {status} X\r\n\r\n{body}").as_bytes());
                    }
                    Turn::Items { items, torn } => {
                        answer.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
                        items.iter().for_each(|item| frame::encode(item, &mut answer).expect("encoded"));
                        if torn {
                            answer.extend_from_slice(&[200, 0, 0, 0, 1, 2]);
                        }
                    }
                }
                stream.write_all(&answer).await.expect("written");
            }
        });
        (Client::new(&address, &Secret::new("t".to_owned()), None).expect("client"), asked)
    }

    fn chunk(offset: u64, text: &'static str) -> LogItem {
        LogItem::Chunk { stream: LogStream::Stdout, offset, time_ms: 0, bytes: Bytes::from_static(text.as_bytes()) }
    }

    async fn all(follower: &mut LogFollower) -> Result<Vec<Followed>, ClientError> {
        let mut all = Vec::new();
        while let Some(followed) = timeout(Duration::from_secs(60), follower.next()).await.expect("it does not hang")? {
            all.push(followed);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_controller_that_breaks_in_the_middle_costs_no_byte_and_repeats_none() {
        let turns = vec![
            Turn::Items { items: vec![LogItem::Attempt(1), chunk(0, "abc")], torn: true },
            Turn::Hangs,
            Turn::Refuses(Code::Superseded),
            Turn::Items { items: vec![LogItem::Attempt(1), chunk(2, "cd"), LogItem::Idle], torn: false },
            Turn::Items {
                items: vec![LogItem::Attempt(2), chunk(0, "x"), LogItem::Done("{}".to_owned())],
                torn: false,
            },
        ];
        let (client, asked) = serve(turns).await;
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut follower = LogFollower::new(client, "0abc", query, Duration::from_secs(60));
        let mut items = all(&mut follower).await.expect("read");
        let away = items.iter().position(|item| matches!(item, Followed::Away(_))).expect("told");
        items.remove(away);
        let expected = [
            Followed::Item(LogItem::Attempt(1)),
            Followed::Item(chunk(0, "abc")),
            Followed::Back,
            Followed::Item(chunk(3, "d")),
            Followed::Item(LogItem::Attempt(2)),
            Followed::Item(chunk(0, "x")),
            Followed::Item(LogItem::Done("{}".to_owned())),
        ];
        assert_eq!((away, &items[..]), (2, &expected[..]));
        assert!(follower.next().await.expect("ended").is_none());
        let asked = asked.lock().expect("lock").clone();
        assert_eq!(asked.len(), 5);
        assert!(asked[0].starts_with("GET /v1/jobs/0abc/log?follow=true&from_stderr=0&from_stdout=0"), "{}", asked[0]);
        assert!(asked[3].contains("attempt=1") && asked[3].contains("from_stdout=3"), "{}", asked[3]);
        assert!(asked[4].contains("from_stdout=4"), "{}", asked[4]);
    }

    #[tokio::test]
    async fn a_job_that_is_not_there_is_told_at_once() {
        let (client, asked) = serve(vec![Turn::Refuses(Code::NotFound)]).await;
        let mut follower = LogFollower::new(client, "0", LogQuery::default(), Duration::from_secs(60));
        assert_eq!(all(&mut follower).await.expect_err("none").exit_code(), 64);
        assert_eq!(asked.lock().expect("lock").len(), 1);
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let (client, _) = serve(vec![Turn::Items { items: vec![chunk(0, "a")], torn: false }]).await;
        let mut follower = LogFollower::new(client, "0", LogQuery::default(), Duration::from_millis(300));
        assert_eq!(all(&mut follower).await.expect_err("away").exit_code(), 69);
    }
}
