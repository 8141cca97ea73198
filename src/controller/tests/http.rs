//! The HTTP API: who is let in, what is refused.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    api::{AddAgent, AgentState, Client, ClientError, Code, ExecRequest},
    controller::{
        Error,
        testing::{Api, Site, name, soon},
    },
    frame,
    protocol::{
        Open,
        call::{Answer, Call, Condition},
    },
    secret::Secret,
    selector::{Labels, Selector},
};

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Code {
    match result {
        Err(ClientError::Api(error)) => error.code,
        other => panic!("unexpected {other:?}"),
    }
}

/// Sends a request as text and returns the answer as text.
async fn raw(api: &Api, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(api.address).await.expect("connected");
    let token = api.token.expose();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    // The controller may answer before it has read everything, and close.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn without_the_token_there_is_nothing_but_401() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    for wrong in ["", "x", &format!("{}x", api.token.expose()), &api.token.expose()[1..]] {
        let client = Client::new(&api.address.to_string(), &Secret::new(wrong.to_owned()), None).expect("client");
        assert_eq!(code(client.status().await), Code::Unauthorized, "{wrong:?}");
        assert_eq!(code(client.agent(&name("a")).await), Code::Unauthorized);
        let exec = client.exec(&ExecRequest::new(name("a"), ["true"])).await;
        assert!(matches!(exec.err(), Some(ClientError::Api(e)) if e.code == Code::Unauthorized));
    }
    assert!(soon(api.client.status()).await.is_ok());
}

#[tokio::test]
async fn agents_are_added_listed_shown_and_removed() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let _agent = world.agent("b").await;
    let api = world.serve(&site).await;
    let labels: Labels = [("zone".to_owned(), "a".to_owned())].into();
    let added = api.client.add_agent(&AddAgent { name: name("a"), labels, layout: None }).await.expect("added");
    assert!(added.credential.starts_with("rk1.a."));
    assert_eq!((added.prefix.as_str(), added.partitions), ("rk", 8));
    let again = AddAgent { name: name("a"), labels: Labels::new(), layout: None };
    assert_eq!(code(api.client.add_agent(&again).await), Code::AgentExists);

    let all = api.client.agents(&Selector::default()).await.expect("listed").agents;
    assert_eq!(all.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let some = api.client.agents(&"zone=a,!os".parse().expect("selector")).await.expect("listed").agents;
    assert_eq!((some.len(), &some[0].name, some[0].state), (1, &name("a"), AgentState::Offline));
    let b = api.client.agent(&name("b")).await.expect("shown");
    assert_eq!((b.state, b.pid, b.partition, b.round_trip_us), (AgentState::Online, Some(7), 3, Some(1500)));

    assert!(!api.client.remove_agent(&name("a")).await.expect("removed").had_session);
    assert_eq!(code(api.client.agent(&name("a")).await), Code::UnknownAgent);
    assert_eq!(code(api.client.remove_agent(&name("a")).await), Code::UnknownAgent);
    let status = api.client.status().await.expect("status");
    assert_eq!((status.agents.online, status.agents.offline, status.prefix.as_str()), (1, 0, "rk"));
}

#[tokio::test]
async fn odd_requests_get_an_error_that_programs_can_read() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    let table: [(&str, &[u8], &str, &str); 8] = [
        ("GET /", b"", "404", "not_found"),
        ("PUT /v1/status", b"", "404", "not_found"),
        ("GET /v1/agents/a.b", b"", "400", "invalid"),
        ("GET /v1/agents?selector=%3Dx", b"", "400", "invalid"),
        ("POST /v1/agents", b"{", "400", "invalid"),
        ("POST /v1/agents", b"{\"name\":\"a\",\"lables\":{}}", "400", "invalid"),
        ("POST /v1/exec", b"", "400", "invalid"),
        ("POST /v1/agents/a/call", b"x", "404", "unknown_agent"),
    ];
    for (head, body, status, code) in table {
        let answer = raw(&api, head, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{head}: {answer}");
    }
    let answer = raw(&api, "POST /v1/agents", &vec![b' '; (1 << 20) + 1]).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"), "{answer}");
    assert!(soon(api.client.status()).await.is_ok(), "it still serves");
}

#[tokio::test]
async fn calls_stream_through_and_an_agent_tells_its_condition() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let api = world.serve(&site).await;
    let blob = Bytes::from((0..3_000_000u32).map(|i| (i / 7) as u8).collect::<Vec<_>>());
    let echo = async {
        let (open, mut stream) = agent.accept().await;
        assert_eq!(open, Open::Call(Call::Echo));
        frame::write(&mut stream.send, &Answer::Ok).await.expect("answered");
        tokio::io::copy(&mut stream.recv, &mut stream.send).await.expect("copied");
        drop(stream);
    };
    let a = name("a");
    let call = api.client.echo(&a, blob.clone());
    let (answer, ()) = soon(async { tokio::join!(call, echo) }).await;
    assert!(answer.expect("answered") == blob);

    let condition = async {
        let (open, mut stream) = agent.accept().await;
        assert_eq!(open, Open::Call(Call::Condition));
        frame::write(&mut stream.send, &Answer::Ok).await.expect("answered");
        let body = postcard::to_stdvec(&Condition { running: 3, uptime: 9 }).expect("encoded");
        stream.send.write_all(&body).await.expect("written");
        drop(stream);
    };
    let (answer, ()) = soon(async { tokio::join!(api.client.condition(&a), condition) }).await;
    assert_eq!(answer.map(|c| (c.running, c.uptime)).expect("answered"), (3, 9));

    let failing = async {
        let (_, mut stream) = agent.accept().await;
        frame::write(&mut stream.send, &Answer::Failed("no disk".to_owned())).await.expect("answered");
        drop(stream);
    };
    let (answer, ()) = soon(async { tokio::join!(api.client.condition(&a), failing) }).await;
    assert_eq!(code(answer), Code::AgentFailed);
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_tls() {
    let site = Site::new();
    let mut world = site.controller().await.expect("started");
    let listener = TcpListener::bind("0.0.0.0:0").await.expect("bind");
    let (_keep, stop) = tokio::sync::mpsc::channel(1);
    let controller = world.controller.take().expect("not served");
    let error = soon(controller.serve(site.config.clone(), listener, stop)).await.expect_err("refused");
    assert!(matches!(error, Error::Plaintext(_)) && error.to_string().contains("--listen-cert"), "{error}");
}

#[tokio::test]
async fn more_connections_than_there_is_room_for_wait() {
    let mut site = Site::new();
    site.config.max_connections = 1;
    let mut world = site.controller().await.expect("started");
    let api = world.serve(&site).await;
    let first = TcpStream::connect(api.address).await.expect("connected");
    let hurried = api.client.clone().with_timeout(Duration::from_millis(300));
    // The first connection's place may be taken a moment after its connect.
    soon(async { while hurried.status().await.is_ok() {} }).await;
    drop(first);
    soon(api.client.status()).await.expect("there is room again");
}

#[cfg(feature = "broker")]
#[tokio::test]
async fn with_a_certificate_the_api_speaks_tls_and_executions_run_over_it() {
    use std::sync::Arc;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use crate::{
        api::{ExecEnd, frames::ToClient},
        protocol::exec::{Event, Outcome},
    };

    let provider = || Arc::new(rustls::crypto::ring::default_provider());
    let authority = crate::certs::Authority::new("test").expect("authority");
    let signed = authority.server(&["localhost", "127.0.0.1"]).expect("certificate");
    let chain = vec![CertificateDer::from_pem_slice(signed.certificate.as_bytes()).expect("pem")];
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("pem");
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("server");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("pem")).expect("added");
    let trusting = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("client")
        .with_root_certificates(roots)
        .with_no_client_auth();

    let mut site = Site::new();
    site.config.tls = Some(Arc::new(server));
    let mut world = site.controller().await.expect("started");
    let mut agent = world.agent("a").await;
    let api = world.serve(&site).await;
    let address = format!("https://127.0.0.1:{}", api.address.port());
    let client = Client::new(&address, &api.token, Some(Arc::new(trusting))).expect("client");
    assert_eq!(soon(client.status()).await.expect("status").agents.online, 1);
    assert!(soon(api.client.status()).await.is_err(), "plain text is not understood");

    let request = ExecRequest::new(name("a"), ["true"]);
    let blob = vec![5; 1 << 20];
    let serve = async {
        let mut process = agent.exec().await;
        process.tell(Event::Started { pid: 1 }).await;
        process
    };
    let (opened, process) = soon(async { tokio::join!(client.exec(&request), serve) }).await;
    let (_sender, mut receiver) = opened.expect("opened");
    let finish = process.finish(&blob, b"", Event::Exited(Outcome::Code(0)));
    let collect = async {
        let mut got = 0;
        loop {
            match receiver.next().await.expect("a frame").expect("an end first") {
                ToClient::Stdout(bytes) => got += bytes.len(),
                ToClient::Exit(end) => return (got, end),
                _ => (),
            }
        }
    };
    let ((), ended) = soon(async { tokio::join!(finish, collect) }).await;
    assert_eq!(ended, (1 << 20, ExecEnd::Exited { code: 0 }));
}
