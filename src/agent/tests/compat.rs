//! Controllers of other versions: see `link::tests::compat`.

use tokio::io::AsyncWriteExt;

use super::engine::{World, next};
use crate::{
    agent::testing::*,
    frame,
    link::Lane,
    protocol::{
        Open, UNKNOWN_STREAM,
        call::{Answer, Call},
    },
};

#[tokio::test]
async fn a_stream_of_a_later_kind_is_refused_and_the_session_goes_on() {
    let text = include_str!("../../../tests/fixtures/compat/open-later.hex");
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    let bytes: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect();
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let _agent = world.start(&world.admit("a1"));
    let session = next(&mut sessions).await;
    let (mut send, mut recv) = soon(session.open_stream(Lane::Control)).await.expect("a stream");
    send.write_all(&bytes).await.expect("sent");
    let reset = soon(recv.read_to_end(10)).await.expect_err("it was reset");
    assert!(format!("{reset:?}").contains(&format!("Reset({UNKNOWN_STREAM})")), "{reset:?}");

    let (mut send, mut recv) = soon(session.open_stream(Lane::Control)).await.expect("a stream");
    frame::write(&mut send, &Open::Call(Call::Echo)).await.expect("open");
    send.finish().expect("open");
    assert_eq!(soon(frame::read::<Answer>(&mut recv)).await.expect("an answer"), Answer::Ok);
}

#[tokio::test]
async fn an_agent_whose_controller_speaks_another_version_ends_with_7_and_says_which_side_is_older() {
    let world = World::new();
    let (_listener, _sessions) = world.listen_as(1, vec!["rk/2"]).await;
    let error = world.start(&world.admit("a1")).end().await.expect_err("it cannot go on");
    assert_eq!(error.exit_code(), 7);
    assert!(error.to_string().contains("upgrade the agent"), "{error}");
}
