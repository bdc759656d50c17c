//! Whether the trouble is over before the last rung.

use std::time::Duration;

use super::fixture::*;
use crate::decide::recovery::{ScopeFacts, recovered};
use crate::decide::verdict::Notice;
use crate::policy::model::{Condition, EventKind, Level, Rule, Trigger, UsageOf, UsageTest};
use crate::units::{Bytes, Share};

const NO_TIME: Duration = Duration::ZERO;

/// The facts of a tree whose scope is `scope`.
fn facts(text: &str, scope: &str) -> ScopeFacts {
    let case = tree(text);
    ScopeFacts::of(&case.groups, &case.node, case.subject, case.at(scope)).unwrap()
}

fn available(mib: u64) -> ScopeFacts {
    let mut facts = facts("a subject 10", "/");
    facts.node.available_bytes = Some(mib * MIB);
    facts
}

fn level(percent: u16) -> Level {
    Level { share: Some(Share::percent(percent)), at_most: None }
}

#[test]
fn a_group_has_room_again() {
    let group = |mib: u64| facts(&format!("a subject {mib} max=100 high=200"), "/a");
    for notice in [PSI, event(EventKind::High), event(EventKind::Max), event(EventKind::Oom), event(EventKind::Low)] {
        for (before, now, over) in [(99, 90, true), (99, 91, false), (99, 20, true), (92, 88, false), (95, 90, true)] {
            assert_eq!(recovered(&notice, &subject_rule(), &group(before), &group(now)), over, "{notice:?} {before} -> {now}");
        }
    }
}

#[test]
fn the_scope_counts_and_not_the_subject() {
    let of = |a: u64, b: u64| facts(&format!("t max=100\n  a subject {a}\n  b {b}"), "/t");
    assert!(!recovered(&PSI, &subject_rule(), &of(50, 49), &of(0, 98)));
    assert!(recovered(&PSI, &subject_rule(), &of(50, 49), &of(50, 10)));
}

#[test]
fn stall_that_goes_on_says_no() {
    let before = facts("a subject 99 max=100", "/a");
    let now = |stalled, over| ScopeFacts {
        stall: Some((Duration::from_millis(stalled), Duration::from_millis(over))),
        ..facts("a subject 50 max=100", "/a")
    };
    assert!(recovered(&PSI, &subject_rule(), &before, &now(100, 1000)));
    assert!(!recovered(&PSI, &subject_rule(), &before, &now(101, 1000)));
    assert!(recovered(&PSI, &subject_rule(), &before, &now(0, 0)));
}

#[test]
fn the_node_has_room_again() {
    let told = |rule: &Rule, before, now| recovered(&PSI, rule, &available(before), &available(now));
    // by itself: 5 % of the memory came back
    assert!(told(&subject_rule(), 50, 100));
    assert!(!told(&subject_rule(), 50, 99));
    // by the rule's level, the highest that it names
    let rule = Rule { only_if: vec![Condition::Available(level(10))], when: vec![Trigger::Available(level(5), NO_TIME)], ..subject_rule() };
    assert!(told(&rule, 50, 101));
    assert!(!told(&rule, 50, 100));
    assert!(!told(&rule, 150, 150), "nothing came back");
}

#[test]
fn a_level_is_over_when_it_or_a_condition_no_longer_holds() {
    let above_90 = Notice::Usage(UsageTest::Share(Share::percent(90), UsageOf::Max), NO_TIME);
    let group = |mib: u64| facts(&format!("a subject {mib} max=100"), "/a");
    assert!(recovered(&above_90, &subject_rule(), &group(99), &group(90)));
    assert!(!recovered(&above_90, &subject_rule(), &group(99), &group(91)));
    // the limit was lifted
    assert!(recovered(&above_90, &subject_rule(), &group(99), &facts("a subject 99", "/a")));

    let low = Notice::Available(100 * MIB, NO_TIME);
    assert!(recovered(&low, &subject_rule(), &available(50), &available(100)));
    assert!(!recovered(&low, &subject_rule(), &available(50), &available(99)));
    let rule = only_if(Condition::Usage(UsageTest::Amount(Bytes(10 * MIB))));
    assert!(recovered(&low, &rule, &available(50), &available(50)), "the subject is no longer above 10 MiB");

    // swap that is switched off meanwhile is no trouble by itself
    let swap = |total: u64, free: u64| {
        let mut facts = available(50);
        (facts.node.swap_total_bytes, facts.node.swap_free_bytes) = (total * MIB, Some(free * MIB));
        facts
    };
    let told = Notice::SwapFree(10 * MIB, NO_TIME);
    assert!(!recovered(&told, &subject_rule(), &swap(100, 1), &swap(100, 2)));
    assert!(recovered(&told, &subject_rule(), &swap(100, 1), &swap(0, 0)));
    assert!(recovered(&told, &subject_rule(), &swap(100, 1), &swap(8, 1)));
}

#[test]
fn what_could_not_be_read_is_no_recovery() {
    let before = facts("a subject 99 max=100", "/a");
    for now in ["a subject unread", "a subject 10 max=?", "a subject 10"] {
        assert!(!recovered(&PSI, &subject_rule(), &before, &facts(now, "/a")), "{now}");
    }
    let above_90 = Notice::Usage(UsageTest::Share(Share::percent(90), UsageOf::Max), NO_TIME);
    assert!(!recovered(&above_90, &subject_rule(), &before, &facts("a subject unread", "/a")));
    let mut unread = available(0);
    unread.node.available_bytes = None;
    for (before, now) in [(unread, available(900)), (available(10), unread)] {
        assert!(!recovered(&PSI, &subject_rule(), &before, &now));
    }
    assert!(!recovered(&Notice::Available(100 * MIB, NO_TIME), &subject_rule(), &available(10), &unread));
}

#[test]
fn a_group_that_the_kernel_broke_does_not_recover() {
    let (before, now) = (facts("a subject 99 max=100", "/a"), facts("a subject 1 max=100", "/a"));
    for kind in [EventKind::OomKill, EventKind::OomGroupKill] {
        assert!(!recovered(&event(kind), &subject_rule(), &before, &now));
    }
}
