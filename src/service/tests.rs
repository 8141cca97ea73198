//! Channels on pipes in memory, and the services that ride on them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
    time::timeout,
};

use super::{
    Budget, Channel, Context, Ending, Failure, Outcome, Refusal, Services, accepted,
    json::{self, LIST, Listed, Methods},
    opened,
};
use crate::{protocol::service::Start, tagged::TaggedWriter};

const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it happens in time")
}

fn start(service: &str, about: &str) -> Start {
    Start { service: service.to_owned(), caller: "me".to_owned(), deadline: None, about: about.to_owned() }
}

/// A stream to `services`, and the task that serves it.
fn open(services: &Services, start: Start) -> (Channel, Ending, JoinHandle<Option<Outcome>>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (services, budget) = (services.clone(), Budget::new(64 << 20));
    let (far_read, far_write) = tokio::io::split(far);
    let task = tokio::spawn(async move {
        let (channel, serving) = accepted(far_read, far_write, &budget);
        serving.finish(services.serve(start, channel)).await.0
    });
    let (read, write) = tokio::io::split(near);
    let (channel, ending) = opened(read, write, &Budget::new(64 << 20));
    (channel, ending, task)
}

/// Sends back what comes.
async fn echo(_: Context, mut channel: Channel) -> Result<(), Failure> {
    tokio::io::copy(&mut channel.reader, &mut channel.writer).await?;
    Ok(channel.writer.shutdown().await?)
}

#[tokio::test]
async fn bytes_go_both_ways_in_any_amount_and_end() {
    let services = Services::new().with("echo", echo);
    let blob: Vec<u8> = (0..20_000_000u32).map(|i| (i / 7) as u8).collect();
    let (mut channel, mut ending, task) = open(&services, start("echo", ""));
    let mut got = Vec::new();
    soon(async {
        let send = async {
            channel.writer.write_all(&blob).await.expect("sent");
            channel.writer.shutdown().await.expect("ended");
        };
        tokio::join!(send, async { channel.reader.read_to_end(&mut got).await.expect("read") });
    })
    .await;
    assert!(got == blob, "what came is what was sent");
    assert_eq!(soon(ending.outcome()).await, Outcome::Done);
    assert_eq!(soon(task).await.expect("served"), Some(Outcome::Done));
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_back_its_sender_and_nothing_else() {
    let services = Services::new().with("flood", async |_: Context, mut channel: Channel| {
        let mut said = String::new();
        let flood = async {
            loop {
                if channel.writer.write_all(&[7; 10_000]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = flood => (),
            read = channel.reader.read_to_string(&mut said) => drop(read?),
        }
        assert_eq!(said, "enough");
        Ok(())
    });
    let (mut channel, mut ending, _task) = open(&services, start("flood", ""));
    // Nobody reads; our own direction goes on all the same.
    soon(channel.writer.write_all(b"enough")).await.expect("sent");
    soon(channel.writer.shutdown()).await.expect("ended");
    assert_eq!(soon(ending.outcome()).await, Outcome::Done);
    let mut got = Vec::new();
    let broken = soon(channel.reader.read_to_end(&mut got)).await.expect_err("it broke off");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(!got.is_empty() && got.len() <= 256 << 10, "what came before stays, and is bounded: {}", got.len());
}

#[tokio::test]
async fn whoever_serves_is_dropped_when_the_opener_goes_away() {
    struct Told(Arc<AtomicBool>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicBool::new(false));
    let seen = dropped.clone();
    let services = Services::new().with("sleep", move |_: Context, mut channel: Channel| {
        let told = Told(seen.clone());
        async move {
            let _told = told;
            channel.writer.write_all(b"here").await?;
            std::future::pending::<Result<(), Failure>>().await
        }
    });
    let (mut channel, ending, task) = open(&services, start("sleep", ""));
    let mut here = [0; 4];
    soon(channel.reader.read_exact(&mut here)).await.expect("it serves");
    drop((channel, ending));
    assert_eq!(soon(task).await.expect("served"), None);
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn bytes_without_an_end_are_an_error_and_unread_ones_a_broken_pipe() {
    let services = Services::new()
        .with("part", async |_: Context, mut channel: Channel| {
            channel.writer.write_all(b"part").await?;
            Err(Failure::new("no more"))
        })
        .with("deaf", async |_: Context, channel: Channel| {
            drop(channel.reader);
            std::future::pending().await
        });
    let (mut channel, mut ending, _task) = open(&services, start("part", ""));
    let mut got = Vec::new();
    soon(channel.reader.read_to_end(&mut got)).await.expect_err("it broke off");
    assert_eq!((got, soon(ending.outcome()).await), (b"part".to_vec(), Outcome::Failed("no more".to_owned())));

    let (mut channel, _ending, _task) = open(&services, start("deaf", ""));
    let broken = soon(async {
        loop {
            if let Err(error) = channel.writer.write_all(&[1; 1000]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(broken.await.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_way_that_breaks_and_a_peer_that_breaks_the_rules_are_no_answer() {
    let pipe = || {
        let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(near);
        (opened(read, write, &Budget::new(0)), far)
    };
    let ((mut channel, mut ending), far) = pipe();
    drop(far);
    assert!(matches!(soon(ending.outcome()).await, Outcome::NoAnswer(_)));
    assert!(soon(channel.reader.read_u8()).await.is_err() && channel.writer.write_all(b"x").await.is_err());

    for (kind, payload, why) in [(99, &b""[..], "not known"), (4, b"x", "another size"), (6, b"\xff", "protocol")] {
        let ((_channel, mut ending), far) = pipe();
        TaggedWriter::new(far).write(kind, payload).await.expect("written");
        let Outcome::NoAnswer(text) = soon(ending.outcome()).await else { panic!("{kind}") };
        assert!(text.contains(why), "{text}");
    }
    // More than was allowed.
    let ((_channel, mut ending), far) = pipe();
    let mut far = TaggedWriter::new(far);
    for _ in 0..5 {
        let _ = far.write(1, &[0; 60 << 10]).await;
    }
    assert!(matches!(soon(ending.outcome()).await, Outcome::NoAnswer(text) if text.contains("allowed")));
}

fn calculator() -> Methods {
    #[derive(serde::Deserialize)]
    struct Pair {
        a: i64,
        b: i64,
    }
    Methods::new("sums")
        .method("add", "a + b", async |_, Pair { a, b }: Pair| Ok(a + b))
        .method("div", "a / b", async |_, Pair { a, b }: Pair| {
            a.checked_div(b).ok_or_else(|| Failure::new("a cannot be divided by zero"))
        })
        .method("who", "the caller", async |context: Context, (): ()| Ok(context.caller))
        .method("never", "ends never", async |_, _: serde_json::Value| std::future::pending::<Result<(), _>>().await)
}

#[tokio::test]
async fn methods_are_called_and_each_call_ends_in_one_way() {
    let services = Services::new().with("calculator", calculator());
    let call = async |about: &str, deadline, params: serde_json::Value| {
        let start = Start { deadline, ..start("calculator", about) };
        let (channel, ending, _task) = open(&services, start);
        soon(json::call(channel, ending, &params)).await
    };
    let pair = |a, b| serde_json::json!({ "a": a, "b": b });
    assert_eq!(call("add", None, pair(2, 3)).await, Ok(5.into()));
    assert_eq!(call("who", None, serde_json::Value::Null).await, Ok("me".into()));
    assert_eq!(call("div", None, pair(2, 0)).await, Err(Outcome::Failed("a cannot be divided by zero".to_owned())));
    let Err(Outcome::Refused(Refusal::Invalid, text)) = call("add", None, serde_json::json!({ "a": 1 })).await else {
        panic!("refused")
    };
    assert!(text.contains("missing field `b`"), "{text}");
    let Err(Outcome::Refused(Refusal::Invalid, text)) = call("sub", None, pair(1, 2)).await else { panic!("refused") };
    assert!(text.contains("add, div, never, who"), "{text}");
    assert_eq!(call("never", Some(Duration::from_millis(30)), pair(1, 2)).await, Err(Outcome::TimedOut));
    let blob = serde_json::json!({ "a": "x".repeat(json::MAX_DOCUMENT) });
    assert!(matches!(call("add", None, blob).await, Err(Outcome::Refused(Refusal::Invalid, _))));
}

#[tokio::test]
async fn the_list_tells_services_and_methods() {
    let services = Services::new().with("calculator", calculator()).with("echo", echo);
    let (channel, ending, _task) = open(&services, start(LIST, ""));
    let listed = soon(json::call(channel, ending, &serde_json::Value::Null)).await.expect("a list");
    let listed: Vec<Listed> = serde_json::from_value(listed).expect("lines");
    let names: Vec<_> = listed.iter().map(|service| (service.name.as_str(), service.described.methods.len())).collect();
    assert_eq!(names, [("calculator", 4), ("echo", 0)]);
    let (channel, ending, _task) = open(&services, start("other", ""));
    let Err(Outcome::Refused(Refusal::NoService, text)) = soon(json::call(channel, ending, &().into())).await else {
        panic!("refused")
    };
    assert!(text.contains("--list"), "{text}");
}

#[cfg(feature = "rmi")]
mod rmi {
    use super::*;
    use crate::service::rmi;
    use rmi::remoc::{self, prelude::*};

    #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
    #[error("it is odd")]
    struct Odd;

    #[rtc::remote]
    trait Halves {
        async fn half(&self, n: u32) -> Result<u32, rmi::Error<Odd>>;
        async fn stuck(&self, told: rch::oneshot::Sender<()>) -> Result<(), rmi::Error<Odd>>;
        async fn each(&self, n: u32, seen: rch::mpsc::Sender<u32>) -> Result<(), rmi::Error<Odd>>;
        async fn back(&self, ask: rfn::RFn<(u32,), Result<u32, rfn::CallError>>) -> Result<u32, rmi::Error<Odd>>;
    }

    struct Halver(Arc<AtomicBool>);

    impl Halves for Halver {
        async fn half(&self, n: u32) -> Result<u32, rmi::Error<Odd>> {
            if n.is_multiple_of(2) { Ok(n / 2) } else { Err(rmi::Error::Remote(Odd)) }
        }

        async fn stuck(&self, told: rch::oneshot::Sender<()>) -> Result<(), rmi::Error<Odd>> {
            struct Cancelled(Arc<AtomicBool>);
            impl Drop for Cancelled {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::SeqCst);
                }
            }
            let _cancelled = Cancelled(self.0.clone());
            let _ = told.send(());
            std::future::pending().await
        }

        async fn each(&self, n: u32, seen: rch::mpsc::Sender<u32>) -> Result<(), rmi::Error<Odd>> {
            for i in 0..n {
                seen.send(i).await.map_err(|e| rmi::Error::NoAnswer(e.to_string()))?;
            }
            Ok(())
        }

        async fn back(&self, ask: rfn::RFn<(u32,), Result<u32, rfn::CallError>>) -> Result<u32, rmi::Error<Odd>> {
            ask.call(20).await.map_err(|e| rmi::Error::NoAnswer(e.to_string()))
        }
    }

    fn services(cancelled: &Arc<AtomicBool>) -> Services {
        let cancelled = cancelled.clone();
        Services::new().with(
            "halves",
            rmi::service(move |_| {
                let (server, client) =
                    HalvesServerShared::<_, remoc::codec::Default>::new(Arc::new(Halver(cancelled.clone())), 16);
                (client, async move { drop(server.serve(true).await) })
            }),
        )
    }

    #[tokio::test]
    async fn remote_traits_channels_and_callbacks_work_and_calls_end_in_one_way() {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (channel, ending, task) = open(&services(&cancelled), start("halves", ""));
        let remote = soon(rmi::connect::<HalvesClient>(channel, ending)).await.expect("a client");
        let client = remote.client.clone();
        assert_eq!(soon(client.half(10)).await, Ok(5));
        assert_eq!(soon(client.half(9)).await, Err(rmi::Error::Remote(Odd)));
        let (seen, mut sees) = rch::mpsc::channel(4);
        let collect = async {
            let mut all = Vec::new();
            while let Ok(Some(i)) = sees.recv().await {
                all.push(i);
            }
            all
        };
        let (done, all) = soon(async { tokio::join!(client.each(10, seen), collect) }).await;
        assert_eq!((done, all), (Ok(()), (0..10).collect::<Vec<_>>()));
        let ask = rfn::RFn::new_1(async |n: u32| Ok::<_, rfn::CallError>(n + 1));
        assert_eq!(soon(client.back(ask)).await, Ok(21));

        let (told, tells) = rch::oneshot::channel();
        let mut stuck = Box::pin(rmi::within(Duration::from_secs(5), client.stuck(told)));
        soon(async {
            tokio::select! {
                _ = tells => (),
                ended = &mut stuck => panic!("{ended:?}"),
            }
        })
        .await;
        assert_eq!(rmi::within(Duration::ZERO, stuck).await, Err(rmi::Error::Cancelled));
        soon(async {
            while !cancelled.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(soon(client.half(4)).await, Ok(2), "a cancelled call harms no other");
        drop((client, remote));
        // The service ended because its clients are gone, or was dropped because the stream was: both are ends.
        soon(task).await.expect("served");
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_refused_and_a_broken_stream_is_no_answer() {
        let services = services(&Arc::default());
        let (channel, ending, _task) = open(&services, start("other", ""));
        let refused = soon(rmi::connect::<HalvesClient>(channel, ending)).await.err();
        assert!(matches!(refused, Some(Outcome::Refused(Refusal::NoService, _))), "{refused:?}");

        let (channel, ending, task) = open(&services, start("halves", ""));
        let remote = soon(rmi::connect::<HalvesClient>(channel, ending)).await.expect("a client");
        task.abort();
        let (told, _tells) = rch::oneshot::channel();
        let ended = soon(remote.client.stuck(told)).await;
        assert!(matches!(ended, Err(rmi::Error::NoAnswer(_))), "{ended:?}");
    }
}
