//! The decision as a table, and what filters find.

use super::*;
use Operation::{All, Alter, AlterConfigs, Create, Delete, Describe, DescribeConfigs, Read, Write};
use PatternType::{Literal, Prefixed};
use Permission::{Allow, Deny};
use ResourceType::{Cluster, Group, Topic};
use proptest::prelude::*;

fn binding(
    (resource, pattern, name): (ResourceType, PatternType, &str),
    (principal, host): (&str, &str),
    permission: Permission,
    operation: Operation,
) -> Binding {
    let (principal, host, name) = (principal.to_owned(), host.to_owned(), name.to_owned());
    Binding { pattern: Pattern { resource, pattern, name }, entry: Entry { principal, host, operation, permission } }
}

/// A binding for alice from everywhere.
fn alice(resource: (ResourceType, PatternType, &str), permission: Permission, operation: Operation) -> Binding {
    binding(resource, ("User:alice", "*"), permission, operation)
}

fn may(bindings: &[Binding], asker: (&str, &str), operation: Operation, kind: ResourceType, name: &str) -> bool {
    let bindings = bindings.iter().cloned().collect();
    let super_users = BTreeSet::from(["User:root".to_owned()]);
    let asker = Asker { principal: asker.0, host: asker.1 };
    decide(&bindings, &super_users, asker, operation, Resource { kind, name }) == Verdict::Allowed
}

/// What it shows; the bindings; who asks, for which operation on which topic; whether they may.
type Row<'a> = (&'a str, Vec<Binding>, (&'a str, &'a str), Operation, &'a str, bool);

#[test]
fn the_decision_follows_the_table() {
    let from = |user| (user, "10.0.0.1");
    let (a, b) = (from("User:alice"), from("User:bob"));
    let orders = (Topic, Literal, "orders");
    let ord = (Topic, Prefixed, "ord");
    let every = (Topic, Literal, "*");
    let allow = |resource, operation| alice(resource, Allow, operation);
    let deny = |resource, operation| alice(resource, Deny, operation);
    let here = |host| binding(orders, ("User:alice", host), Allow, Read);
    let all_users = binding(orders, ("User:*", "*"), Allow, Read);
    let a_group = binding(orders, ("Group:alice", "*"), Allow, Read);
    #[rustfmt::skip]
    let table: &[Row] = &[
        ("nothing found is denied", vec![], a, Read, "orders", false),
        ("a super user needs no binding", vec![], from("User:root"), Read, "orders", true),
        ("a super user is not denied", vec![binding(orders, ("User:*", "*"), Deny, All)], from("User:root"), Read, "orders", true),
        ("a literal name", vec![allow(orders, Read)], a, Read, "orders", true),
        ("a literal name is no prefix", vec![allow(orders, Read)], a, Read, "orders2", false),
        ("another user", vec![allow(orders, Read)], b, Read, "orders", false),
        ("another operation", vec![allow(orders, Read)], a, Write, "orders", false),
        ("every operation", vec![allow(orders, All)], a, AlterConfigs, "orders", true),
        ("a prefix", vec![allow(ord, Read)], a, Read, "orders", true),
        ("a prefix is its own name", vec![allow(ord, Read)], a, Read, "ord", true),
        ("shorter than the prefix", vec![allow(ord, Read)], a, Read, "or", false),
        ("a prefix between others", vec![allow((Topic, Prefixed, "orc"), Read), allow(ord, Read), allow((Topic, Prefixed, "orders-z"), Read)], a, Read, "orders-a", true),
        ("the empty prefix is every name", vec![allow((Topic, Prefixed, ""), Read), allow((Topic, Prefixed, "p"), Read)], a, Read, "q", true),
        ("a prefixed star is no wildcard", vec![allow((Topic, Prefixed, "*"), Read)], a, Read, "orders", false),
        ("every topic", vec![allow(every, Read)], a, Read, "orders", true),
        ("every topic is no group", vec![allow((Group, Literal, "*"), Read)], a, Read, "orders", false),
        ("every user", vec![all_users.clone()], b, Read, "orders", true),
        ("every user, without login", vec![all_users], from("User:ANONYMOUS"), Read, "orders", true),
        ("other kinds of principals are no users", vec![a_group], a, Read, "orders", false),
        ("this host", vec![here("10.0.0.1")], a, Read, "orders", true),
        ("another host", vec![here("10.0.0.2")], a, Read, "orders", false),
        ("deny wins over allow", vec![allow(orders, Read), deny(orders, Read)], a, Read, "orders", false),
        ("deny of a prefix wins over a literal allow", vec![allow(orders, All), deny(ord, Read)], a, Read, "orders", false),
        ("deny of every topic wins", vec![allow(orders, All), deny(every, All)], a, Read, "orders", false),
        ("deny of a literal name wins over a prefix", vec![allow(ord, All), deny(orders, Write)], a, Write, "orders", false),
        ("deny of one operation leaves the others", vec![allow(orders, All), deny(orders, Write)], a, Read, "orders", true),
        ("read implies describe", vec![allow(orders, Read)], a, Describe, "orders", true),
        ("write implies describe", vec![allow(orders, Write)], a, Describe, "orders", true),
        ("delete implies describe", vec![allow(orders, Delete)], a, Describe, "orders", true),
        ("alter implies describe", vec![allow(orders, Alter)], a, Describe, "orders", true),
        ("create does not imply describe", vec![allow(orders, Create)], a, Describe, "orders", false),
        ("describe implies nothing", vec![allow(orders, Describe)], a, Read, "orders", false),
        ("altering settings implies describing them", vec![allow(orders, AlterConfigs)], a, DescribeConfigs, "orders", true),
        ("altering settings does not imply describe", vec![allow(orders, AlterConfigs)], a, Describe, "orders", false),
        ("describing settings does not imply altering them", vec![allow(orders, DescribeConfigs)], a, AlterConfigs, "orders", false),
        ("what is denied implies nothing", vec![allow(orders, Describe), deny(orders, Read)], a, Describe, "orders", true),
    ];
    for (what, bindings, asker, operation, name, expected) in table {
        assert_eq!(may(bindings, *asker, *operation, Topic, name), *expected, "{what}");
    }
    let cluster = [alice((Cluster, Literal, CLUSTER_NAME), Allow, Alter)];
    assert!(may(&cluster, a, Alter, Cluster, CLUSTER_NAME));
    assert!(!may(&cluster, a, Alter, Topic, CLUSTER_NAME));
}

#[test]
fn a_right_on_some_topic_is_found_unless_all_of_it_is_denied() {
    let some = |bindings: &[Binding]| {
        let asker = Asker { principal: "User:alice", host: "::1" };
        decide_any(&bindings.iter().cloned().collect(), &BTreeSet::new(), asker, Write, Topic) == Verdict::Allowed
    };
    let (orders, ord, every) = ((Topic, Literal, "orders"), (Topic, Prefixed, "ord"), (Topic, Literal, "*"));
    assert!(!some(&[]));
    assert!(!some(&[alice(orders, Allow, Read)]), "another operation");
    assert!(!some(&[alice((Group, Literal, "*"), Allow, All)]), "another kind");
    assert!(some(&[alice(orders, Allow, Write)]));
    assert!(!some(&[alice(orders, Allow, Write), alice(orders, Deny, Write)]));
    assert!(!some(&[alice(orders, Allow, Write), alice(ord, Deny, All)]));
    assert!(!some(&[alice(ord, Allow, Write), alice(every, Deny, Write)]));
    assert!(some(&[alice(ord, Allow, Write), alice(orders, Deny, Write)]), "other names of the prefix are left");
    assert!(some(&[alice(every, Allow, Write), alice(ord, Deny, Write)]), "other topics are left");
    assert!(!some(&[alice(orders, Allow, Write), alice((Topic, Prefixed, ""), Deny, Write)]));
}

fn filter(pattern: PatternFilter, name: Option<&str>) -> Filter {
    Filter {
        resource: None,
        pattern,
        name: name.map(str::to_owned),
        principal: None,
        host: None,
        operation: None,
        permission: None,
    }
}

#[test]
fn filters_find_what_kafkas_find() {
    let literal = alice((Topic, Literal, "orders"), Allow, Read);
    let prefixed = alice((Topic, Prefixed, "ord"), Allow, Write);
    let exact_prefix = alice((Topic, Prefixed, "orders"), Deny, Write);
    let every = binding((Topic, Literal, "*"), ("User:bob", "10.0.0.1"), Allow, Describe);
    let group = alice((Group, Literal, "orders"), Allow, Read);
    let all: Bindings = [&literal, &prefixed, &exact_prefix, &every, &group].into_iter().cloned().collect();
    let finds = |filter: Filter, expected: &[&Binding]| {
        assert_eq!(all.matching(&filter).iter().collect::<Vec<_>>(), expected, "{filter:?}");
    };
    let topics = |pattern, name| Filter { resource: Some(Topic), ..filter(pattern, name) };
    let only = PatternFilter::Only;
    finds(filter(PatternFilter::Any, None), &[&every, &literal, &prefixed, &exact_prefix, &group]);
    finds(topics(PatternFilter::Any, Some("orders")), &[&literal, &exact_prefix]);
    finds(topics(only(Literal), Some("orders")), &[&literal]);
    finds(topics(only(Literal), None), &[&every, &literal]);
    finds(topics(only(Prefixed), Some("orders")), &[&exact_prefix]);
    finds(topics(PatternFilter::Match, Some("orders")), &[&every, &literal, &prefixed, &exact_prefix]);
    finds(topics(PatternFilter::Match, Some("or")), &[&every]);
    finds(Filter { resource: Some(Group), ..filter(PatternFilter::Match, Some("orders")) }, &[&group]);
    let any = || filter(PatternFilter::Any, None);
    finds(Filter { principal: Some("User:bob".to_owned()), ..any() }, &[&every]);
    finds(Filter { host: Some("10.0.0.1".to_owned()), ..any() }, &[&every]);
    finds(Filter { operation: Some(Write), ..any() }, &[&prefixed, &exact_prefix]);
    finds(Filter { permission: Some(Deny), ..any() }, &[&exact_prefix]);
}

#[test]
fn words_keep_their_numbers() {
    for (number, word) in (3..).zip(&Operation::EVERY[1..]) {
        assert_eq!((word.number(), Operation::from_number(number)), (number, Some(*word)));
    }
    assert!(ResourceType::EVERY.iter().all(|w| ResourceType::from_number(w.number()) == Some(*w)));
    assert!(PatternType::EVERY.iter().all(|w| PatternType::from_number(w.number()) == Some(*w)));
    assert!(Permission::EVERY.iter().all(|w| Permission::from_number(w.number()) == Some(*w)));
    for number in [i8::MIN, -1, 0, 1, 16, i8::MAX] {
        assert_eq!(Operation::from_number(number), None);
        assert_eq!(ResourceType::from_number(number), None);
        assert_eq!(PatternType::from_number(number), None);
        assert_eq!(Permission::from_number(number), None);
    }
    assert_eq!(PatternFilter::from_number(0), None);
    assert_eq!(Filter::word(1, Operation::from_number), Some(None));
    assert_eq!(Filter::word(0, Operation::from_number), None);
}

#[test]
fn bindings_are_kept_once_and_removed_whole() {
    let one = alice((Topic, Literal, "orders"), Allow, Read);
    let mut all: Bindings = [one.clone(), one.clone()].into_iter().collect();
    assert_eq!(all.len(), 1);
    all.remove(&alice((Topic, Literal, "orders"), Allow, Write));
    assert!(all.iter().eq([one.clone()]));
    all.remove(&one);
    assert_eq!(all, Bindings::default());
}

fn any_binding() -> impl Strategy<Value = Binding> {
    let name = "[ab*é]{0,4}";
    let word = proptest::sample::select(Operation::EVERY);
    let user = proptest::sample::select(&["User:alice", "User:bob", "User:*"]);
    let host = proptest::sample::select(&["*", "::1", "::2"]);
    (any::<bool>(), name, user, host, word, any::<bool>()).prop_map(|(whole, name, user, host, word, allow)| {
        let pattern = if whole { Literal } else { Prefixed };
        binding((Topic, pattern, &name), (user, host), if allow { Allow } else { Deny }, word)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The search for prefixes against looking at every binding.
    #[test]
    fn the_search_finds_what_looking_at_all_finds(
        bindings in proptest::collection::vec(any_binding(), 0..30),
        name in "[abé]{1,5}",
        operation in proptest::sample::select(Operation::EVERY),
    ) {
        let asker = Asker { principal: "User:alice", host: "::1" };
        let speaking = bindings.iter().filter(|b| match b.pattern.pattern {
            Literal => b.pattern.name == name || b.pattern.name == "*",
            Prefixed => name.starts_with(&b.pattern.name),
        });
        let speaking: Vec<_> =
            speaking.map(|b| &b.entry).filter(|e| e.is_for(asker) && e.covers(operation)).collect();
        let expected = !speaking.is_empty() && speaking.iter().all(|e| e.permission == Allow);
        prop_assert_eq!(may(&bindings, ("User:alice", "::1"), operation, Topic, &name), expected);
        let all: Bindings = bindings.iter().cloned().collect();
        let any = decide_any(&all, &BTreeSet::new(), asker, operation, Topic) == Verdict::Allowed;
        prop_assert!(any || !expected, "what is allowed on one topic is allowed on some topic");
    }
}
