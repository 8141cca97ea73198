use proptest::prelude::*;

use super::*;

fn name(text: &str) -> AgentName {
    text.parse().expect("a name")
}

fn token(of: &str, byte: u8) -> Token {
    Token::new(name(of), [byte; 32])
}

fn grant(of: &str, byte: u8, role: Role) -> Grant {
    let (verbs, scope) = (BTreeSet::new(), Scope::default());
    Grant { name: name(of), hash: token(of, byte).hash(), role, verbs, scope, created_ms: 5, expires_ms: None }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_token_is_good_from_its_grant_to_its_end() {
    let mut tokens = Tokens::default();
    assert_eq!(tokens.standing(&token("a", 1), 0), Standing::Unknown);
    let mine = Grant { expires_ms: Some(100), ..grant("a", 1, Role::Viewer) };
    tokens.fold(&Event::Granted(mine.clone()));
    assert_eq!(tokens.standing(&token("a", 1), 99), Standing::Good(Arc::new(mine)));
    assert_eq!(tokens.standing(&token("a", 1), 100), Standing::Expired);
    assert_eq!(tokens.standing(&token("a", 2), 99), Standing::Unknown, "another secret");
    assert_eq!(tokens.standing(&token("b", 1), 99), Standing::Unknown, "another name");
    tokens.fold(&Event::Revoked { name: name("a") });
    assert_eq!(tokens.standing(&token("a", 1), 50), Standing::Unknown);
}

#[test]
fn the_first_of_a_name_stays() {
    let mut tokens = Tokens::default();
    tokens.fold(&Event::Granted(grant("a", 1, Role::Viewer)));
    tokens.fold(&Event::Granted(grant("a", 2, Role::Admin)));
    assert_eq!(tokens.standing(&token("a", 2), 0), Standing::Unknown);
    assert_eq!(tokens.get(&name("a")).expect("there").role, Role::Viewer);
}

#[test]
fn a_snapshot_gives_the_same_tokens() {
    let mut tokens = Tokens::default();
    for (of, role) in [("a", Role::Viewer), ("b", Role::Operator), ("c", Role::Admin)] {
        tokens.fold(&Event::Granted(grant(of, 1, role)));
    }
    tokens.fold(&Event::Revoked { name: name("b") });
    let mut again = Tokens::default();
    tokens.snapshot().for_each(|event| again.fold(&event));
    assert_eq!(again.iter().collect::<Vec<_>>(), tokens.iter().collect::<Vec<_>>());
    assert_eq!(again.iter().count(), 2);
}

#[test]
fn a_token_for_one_node_can_execute_there_and_nothing_else() {
    let scope = Scope { agents: [name("node-1")].into(), selector: Selector::default() };
    let jenkins = Grant { verbs: [Verb::Exec].into(), scope, ..grant("jenkins", 1, Role::Operator) };
    let caller = Caller::Granted(Arc::new(jenkins));
    for verb in Verb::ALL {
        assert_eq!(caller.check(verb).is_ok(), verb == Verb::Exec, "{verb}");
    }
    assert_eq!(caller.check_agent(&name("node-1"), &labels(&[])), Ok(()));
    let denied = caller.check_agent(&name("node-2"), &labels(&[])).expect_err("another node");
    assert!(denied.to_string().contains("is not for agent node-2"), "{denied}");
    assert_eq!(caller.signs("somebody else".to_owned()), "jenkins");
    assert!(caller.check_unlimited("x").is_err());
}

#[test]
fn verbs_do_not_widen_a_role_and_labels_limit_agents() {
    let scope = Scope { agents: BTreeSet::new(), selector: "zone=a".parse().expect("a selector") };
    let wide = Grant { verbs: [Verb::View, Verb::Grant].into(), scope, ..grant("w", 1, Role::Viewer) };
    let caller = Caller::Granted(Arc::new(wide));
    assert_eq!(caller.check(Verb::View), Ok(()));
    assert!(caller.check(Verb::Grant).is_err());
    assert!(caller.check_agent(&name("x"), &labels(&[("zone", "a")])).is_ok());
    assert!(caller.check_agent(&name("x"), &labels(&[("zone", "b")])).is_err());
    assert!(caller.check_agent(&name("x"), &labels(&[])).is_err());
}

#[test]
fn who_holds_the_data_directory_may_do_all() {
    for verb in Verb::ALL {
        assert_eq!(Caller::Root.check(verb), Ok(()));
    }
    assert_eq!(Caller::Root.check_agent(&name("a"), &labels(&[])), Ok(()));
    assert_eq!(Caller::Root.check_unlimited("x"), Ok(()));
    assert_eq!(Caller::Root.signs("ada@x".to_owned()), "ada@x");
}

#[test]
fn events_have_the_bytes_that_they_always_had() {
    let granted = Event::Granted(Grant {
        verbs: [Verb::Exec].into(),
        scope: Scope { agents: [name("n")].into(), selector: "a=b".parse().expect("a selector") },
        expires_ms: Some(9),
        ..grant("j", 1, Role::Operator)
    });
    let hash: Vec<u8> = token("j", 1).hash_bytes().to_vec();
    let expected = [&[0, 1, b'j'][..], &hash, &[1, 1, 2, 1, 1, b'n', 3, b'a', b'=', b'b', 5, 1, 9]].concat();
    assert_eq!(postcard::to_stdvec(&granted).expect("written"), expected);
    assert_eq!(postcard::from_bytes::<Event>(&expected).expect("read"), granted);
    let revoked = Event::Revoked { name: name("j") };
    assert_eq!(postcard::to_stdvec(&revoked).expect("written"), [1, 1, b'j']);
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        let _ = postcard::from_bytes::<Event>(&bytes);
        let _ = Token::parse(&text);
    }
}
