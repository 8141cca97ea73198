use kafka_protocol::messages::{
    ListOffsetsRequest, ListOffsetsResponse, api_versions_response::ApiVersion,
    sasl_handshake_request::SaslHandshakeRequest, sasl_handshake_response::SaslHandshakeResponse,
};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// The other end of a connection: what a broker would read and write.
struct Broker(DuplexStream);

impl Broker {
    /// The next request: API key, version, correlation id.
    async fn request(&mut self) -> (i16, i16, i32) {
        let length = self.0.read_u32().await.expect("a frame");
        let mut frame = vec![0; length as usize];
        self.0.read_exact(&mut frame).await.expect("all of it");
        let mut frame = &frame[..];
        (frame.get_i16(), frame.get_i16(), frame.get_i32())
    }

    async fn answer<T: Encodable>(&mut self, id: i32, version: i16, response: &T) {
        let mut body = BytesMut::new();
        body.put_i32(id);
        response.encode(&mut body, version).expect("encoded");
        self.0.write_u32(body.len() as u32).await.expect("written");
        self.0.write_all(&body).await.expect("written");
    }

    async fn offer(&mut self, key: ApiKey, versions: std::ops::RangeInclusive<i16>) {
        let (_, version, id) = self.request().await;
        let offered = ApiVersion::default()
            .with_api_key(key as i16)
            .with_min_version(*versions.start())
            .with_max_version(*versions.end());
        self.answer(id, version, &ApiVersionsResponse::default().with_api_keys(vec![offered])).await;
    }
}

fn address() -> Address {
    "broker:9092".parse().expect("an address")
}

/// A connection to a broker that knows SaslHandshake 0 and 1: a request with a short answer.
async fn connected() -> (Connection, Broker) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut broker = Broker(theirs);
    let start = Connection::start(Box::new(ours), address(), "rk-test", LIMIT);
    let (connection, ()) = tokio::join!(start, broker.offer(ApiKey::SaslHandshake, 0..=1));
    (connection.expect("connected"), broker)
}

fn answer_of(mechanism: &'static str) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_mechanisms(vec![StrBytes::from_static_str(mechanism)])
}

#[tokio::test(start_paused = true)]
async fn an_old_broker_is_asked_for_its_versions_again_in_the_oldest_one() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let mut broker = Broker(theirs);
    let serve = async {
        let (_, version, id) = broker.request().await;
        assert_eq!(version, 3);
        broker.answer(id, 0, &ApiVersionsResponse::default().with_error_code(35)).await;
        broker.offer(ApiKey::SaslHandshake, 0..=0).await;
    };
    let (connection, ()) = tokio::join!(Connection::start(Box::new(ours), address(), "rk", LIMIT), serve);
    let connection = connection.expect("connected");
    assert_eq!(connection.version(ApiKey::SaslHandshake, 0..=1).expect("both know it"), 0);
    let error = connection.version(ApiKey::SaslHandshake, 1..=1).expect_err("too new");
    assert!(error.to_string().contains("versions 0 to 0, and we speak 1 to 1"), "{error}");
    let error = connection.call(&ListOffsetsRequest::default(), LIMIT).await.map(|_: ListOffsetsResponse| ());
    assert!(matches!(error, Err(Error::Refused { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_on_the_way_together_and_each_gets_its_own_answer() {
    let (connection, mut broker) = connected().await;
    let request = SaslHandshakeRequest::default();
    let serve = async {
        let (_, version, first) = broker.request().await;
        let (_, _, second) = broker.request().await;
        broker.answer(first, version, &answer_of("ONE")).await;
        broker.answer(second, version, &answer_of("TWO")).await;
    };
    let (one, two, ()) = tokio::join!(connection.call(&request, LIMIT), connection.call(&request, LIMIT), serve);
    assert_eq!(one.expect("answered").mechanisms[0].as_str(), "ONE");
    assert_eq!(two.expect("answered").mechanisms[0].as_str(), "TWO");
    assert!(connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_answered_in_time_ends_the_connection_for_all() {
    let (connection, _broker) = connected().await;
    let request = SaslHandshakeRequest::default();
    let (one, two) = tokio::join!(
        connection.call(&request, Duration::from_secs(1)),
        connection.call(&request, Duration::from_secs(60)),
    );
    for error in [one.expect_err("late"), two.expect_err("behind it")] {
        assert!(error.to_string().contains("no answer to SaslHandshake within 1s"), "{error}");
    }
    assert!(!connection.is_usable());
    assert!(connection.call(&request, LIMIT).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_stops_waiting_harms_nobody() {
    let (connection, mut broker) = connected().await;
    let request = SaslHandshakeRequest::default();
    let given_up = tokio::time::timeout(Duration::from_millis(10), connection.call(&request, LIMIT)).await;
    assert!(given_up.is_err());
    let serve = async {
        for mechanism in ["FOR NOBODY", "FOR US"] {
            let (_, version, id) = broker.request().await;
            broker.answer(id, version, &answer_of(mechanism)).await;
        }
    };
    let (answer, ()) = tokio::join!(connection.call(&request, LIMIT), serve);
    assert_eq!(answer.expect("answered").mechanisms[0].as_str(), "FOR US");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_in_the_middle_of_a_frame_ends_the_connection() {
    let (ours, theirs) = tokio::io::duplex(64);
    let mut broker = Broker(theirs);
    let start = Connection::start(Box::new(ours), address(), "rk-test", LIMIT);
    let (connection, ()) = tokio::join!(start, broker.offer(ApiKey::SaslHandshake, 0..=1));
    let connection = connection.expect("connected");
    let large = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_string("x".repeat(1000)));
    let given_up = tokio::time::timeout(Duration::from_millis(10), connection.call(&large, LIMIT)).await;
    assert!(given_up.is_err());
    assert!(!connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_another_question_ends_the_connection() {
    let (connection, mut broker) = connected().await;
    let request = SaslHandshakeRequest::default();
    let serve = async {
        let (_, version, id) = broker.request().await;
        broker.answer(id + 7, version, &answer_of("X")).await;
    };
    let (answer, ()) = tokio::join!(connection.call(&request, LIMIT), serve);
    let error = answer.expect_err("not ours");
    assert!(error.to_string().contains("nobody asked for"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_hangs_up_at_the_first_question_gives_a_hint() {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    drop(theirs);
    let error = Connection::start(Box::new(ours), address(), "rk", LIMIT).await.err().expect("hung up");
    assert!(matches!(error, Error::Unreachable { hop: Hop::Request, .. }), "{error}");
    assert!(error.to_string().contains("does this listener want TLS, or a login?"), "{error}");
}
