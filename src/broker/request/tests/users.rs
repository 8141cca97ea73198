//! SCRAM users by request, up to logging in as one.

use super::*;
use crate::broker::scram::{Hash, tests::answer};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use std::num::NonZeroU32;

const SALT: &[u8] = b"sixteen bytes...";
const ITERATIONS: u32 = 8192;

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn upsertion(user: &str, mechanism: i8, password: &str) -> ScramCredentialUpsertion {
    use ring::pbkdf2;
    let (algorithm, length) = match mechanism {
        1 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut salted = vec![0; length];
    pbkdf2::derive(algorithm, NonZeroU32::new(ITERATIONS).unwrap(), SALT, password.as_bytes(), &mut salted);
    ScramCredentialUpsertion::default()
        .with_name(string(user))
        .with_mechanism(mechanism)
        .with_iterations(ITERATIONS.cast_signed())
        .with_salt(Bytes::from_static(SALT))
        .with_salted_password(salted.into())
}

fn deletion(user: &str, mechanism: i8) -> ScramCredentialDeletion {
    ScramCredentialDeletion::default().with_name(string(user)).with_mechanism(mechanism)
}

impl Node {
    fn alter(
        &mut self,
        deletions: Vec<ScramCredentialDeletion>,
        upsertions: Vec<ScramCredentialUpsertion>,
    ) -> Vec<(String, i16)> {
        let request = AlterUserScramCredentialsRequest::default().with_deletions(deletions).with_upsertions(upsertions);
        let results = self.call(&request, 0).results.into_iter();
        results.map(|r| (r.user.to_string(), r.error_code)).collect()
    }

    /// Whether a new connection may log in.
    fn logs_in(&mut self, hash: Hash, user: &str, password: &str) -> bool {
        let before = std::mem::replace(&mut self.auth, Auth::Expected);
        let mechanism = if hash == Hash::Sha256 { "SCRAM-SHA-256" } else { "SCRAM-SHA-512" };
        let handshake = SaslHandshakeRequest::default().with_mechanism(string(mechanism));
        assert_eq!(self.call(&handshake, 1).error_code, 0);
        let send = |bytes: String| SaslAuthenticateRequest::default().with_auth_bytes(bytes.into());
        let bare = format!("n={user},r=nonce");
        let challenge = self.call(&send(format!("n,,{bare}")), 2);
        let challenge = String::from_utf8(challenge.auth_bytes.to_vec()).unwrap();
        let verdict = self.call(&send(answer(hash, &bare, &challenge, password)), 2);
        assert_eq!(verdict.error_code == 0, matches!(self.auth, Auth::Done(_)));
        self.auth = before;
        verdict.error_code == 0
    }
}

fn node(directory: &std::path::Path) -> Node {
    let listener = ListenerConfig::plaintext().with_users(Users::default().with("filed", "in the file"));
    let mut node = Node::configured(Config { data: directory.to_owned(), listener, ..Config::default() });
    node.auth = Auth::Done(Client::user("filed", HOST));
    node
}

#[test]
fn a_user_comes_changes_and_goes_by_request() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = node(directory.path());
    assert!(!first.logs_in(Hash::Sha512, "new", "one"));
    assert_eq!(first.alter(vec![], vec![upsertion("new", 2, "one")]), [("new".to_owned(), 0)]);
    assert!(first.logs_in(Hash::Sha512, "new", "one"));
    assert!(!first.logs_in(Hash::Sha256, "new", "one"), "each mechanism has a credential of its own");
    first.alter(vec![], vec![upsertion("new", 2, "two")]);
    first.alter(vec![], vec![upsertion("new", 1, "two")]);
    assert!(!first.logs_in(Hash::Sha512, "new", "one"));
    assert!(first.logs_in(Hash::Sha512, "new", "two") && first.logs_in(Hash::Sha256, "new", "two"));
    drop(first);
    let mut second = node(directory.path());
    assert!(second.logs_in(Hash::Sha512, "new", "two"), "after a restart");
    assert_eq!(second.alter(vec![deletion("new", 2)], vec![]), [("new".to_owned(), 0)]);
    assert!(!second.logs_in(Hash::Sha512, "new", "two") && second.logs_in(Hash::Sha256, "new", "two"));
    assert!(second.logs_in(Hash::Sha512, "filed", "in the file"));
    assert_eq!(second.alter(vec![deletion("filed", 2)], vec![]), [("filed".to_owned(), 0)]);
    drop(second);
    let mut third = node(directory.path());
    assert!(!third.logs_in(Hash::Sha512, "new", "two") && !third.logs_in(Hash::Sha512, "filed", "in the file"));
}

#[test]
fn users_are_described() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = node(directory.path());
    node.alter(vec![], vec![upsertion("new", 2, "one"), upsertion("filed", 1, "x")]);
    let all = |node: &mut Node, users: Option<Vec<&str>>| {
        let users = users.map(|u| u.into_iter().map(|u| UserName::default().with_name(string(u))).collect());
        let answer = node.call(&DescribeUserScramCredentialsRequest::default().with_users(users), 0);
        let infos = answer.results.into_iter().map(|r| {
            let infos = r.credential_infos.iter().map(|i| (i.mechanism, i.iterations)).collect::<Vec<_>>();
            (r.user.to_string(), r.error_code, infos)
        });
        infos.collect::<Vec<_>>()
    };
    let filed = ("filed".to_owned(), 0, vec![(1, 8192), (2, 4096)]);
    let new = ("new".to_owned(), 0, vec![(2, 8192)]);
    assert_eq!(all(&mut node, None), [filed.clone(), new.clone()]);
    assert_eq!(all(&mut node, Some(vec![])), [filed, new.clone()]);
    let some = all(&mut node, Some(vec!["twice", "new", "absent", "twice"]));
    assert_eq!(some, [("absent".to_owned(), 91, vec![]), new, ("twice".to_owned(), 92, vec![])]);
}

#[test]
fn changes_that_cannot_be_are_refused_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = node(directory.path());
    let deletions = vec![deletion("absent", 1), deletion("twice", 1), deletion("odd", 3), deletion("", 1)];
    let upsertions = vec![
        upsertion("twice", 2, "x"),
        upsertion("few", 1, "x").with_iterations(4095),
        upsertion("good", 1, "x"),
        upsertion("long", 1, "x").with_salt(vec![0; 300].into()),
        upsertion("many", 1, "x").with_iterations(16385),
        upsertion("short", 1, "x").with_salted_password(vec![0; 31].into()),
        upsertion("unsalted", 1, "x").with_salt(Bytes::new()),
    ];
    let expected = [
        ("", 93),
        ("absent", 91),
        ("few", 93),
        ("good", 0),
        ("long", 93),
        ("many", 93),
        ("odd", 33),
        ("short", 93),
        ("twice", 92),
        ("unsalted", 93),
    ];
    assert_eq!(node.alter(deletions, upsertions), expected.map(|(user, code)| (user.to_owned(), code)));
    assert!(node.logs_in(Hash::Sha256, "good", "x") && !node.logs_in(Hash::Sha512, "twice", "x"));
}
