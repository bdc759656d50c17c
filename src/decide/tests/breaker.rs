//! The circuit breaker: what opens it, what closes it, and whom it does not concern.

use std::time::Duration;

use proptest::prelude::*;

use super::super::breaker::{Breaker, EVERY_RULE, Limits};
use crate::cgroup::path::GroupPath;
use crate::policy::model::KillLimit;

const LIMIT: KillLimit = KillLimit { kills: 3, per: Duration::from_secs(60) };
const LIMITS: Limits = Limits { each: Some(LIMIT), node: None };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn path(name: &str) -> GroupPath {
    GroupPath::from_bytes(name.as_bytes())
}

#[test]
fn the_kill_that_fills_the_limit_opens_it_and_time_closes_it() {
    let (mut breaker, a) = (Breaker::with_capacity(16), path("/a"));
    assert!(!breaker.killed(at(0), &LIMITS, 0, &a));
    assert!(!breaker.killed(at(10), &LIMITS, 0, &a));
    assert!(breaker.killed(at(20), &LIMITS, 0, &a), "the third in a minute");
    for (now, until) in [(20, Some(60)), (59, Some(60)), (60, None), (1000, None)] {
        assert_eq!(breaker.open_until(at(now), &LIMIT, 0, &a), until.map(at), "at {now} s");
    }
    // Two of them still count: one more is enough, and then it waits for the second.
    assert!(breaker.killed(at(61), &LIMITS, 0, &a));
    assert_eq!(breaker.open_until(at(61), &LIMIT, 0, &a), Some(at(70)));
}

#[test]
fn other_subjects_and_other_rules_are_not_concerned() {
    let (mut breaker, a, b) = (Breaker::with_capacity(16), path("/a"), path("/b"));
    for second in 0..3 {
        breaker.killed(at(second), &LIMITS, 0, &a);
    }
    breaker.killed(at(3), &LIMITS, 1, &a);
    breaker.killed(at(4), &LIMITS, 0, &b);
    let open = |rule, subject| breaker.open_until(at(5), &LIMIT, rule, subject).is_some();
    assert_eq!([open(0, &a), open(1, &a), open(0, &b)], [true, false, false]);
    let all: Vec<_> = breaker.open(at(5), &LIMITS).map(|open| (open.rule, open.subject.to_string(), open.until)).collect();
    assert_eq!(all, [(0, "/a".to_owned(), at(60))]);
}

#[test]
fn a_reload_keeps_what_counts_for_rules_of_the_same_name() {
    let (mut breaker, a) = (Breaker::with_capacity(16), path("/a"));
    for second in 0..3 {
        breaker.killed(at(second), &LIMITS, 0, &a);
        breaker.killed(at(second), &LIMITS, 1, &a);
    }
    breaker.renumber(|rule| (rule == 1).then_some(0));
    assert_eq!(breaker.open(at(5), &LIMITS).count(), 1);
    assert!(breaker.open_until(at(5), &LIMIT, 0, &a).is_some() && breaker.open_until(at(5), &LIMIT, 1, &a).is_none());
    // Another limit is answered from the same kills.
    assert!(breaker.open_until(at(5), &KillLimit { kills: 4, ..LIMIT }, 0, &a).is_none());
}

#[test]
fn a_full_memory_forgets_the_oldest() {
    let (mut breaker, a) = (Breaker::with_capacity(4), path("/a"));
    breaker.killed(at(0), &LIMITS, 0, &a);
    for (second, name) in [(1, "/b"), (2, "/c"), (3, "/d"), (4, "/e")] {
        breaker.killed(at(second), &LIMITS, 0, &path(name));
    }
    breaker.killed(at(5), &LIMITS, 0, &a);
    assert!(!breaker.killed(at(6), &LIMITS, 0, &a), "the first was forgotten");
    assert!(breaker.killed(at(7), &LIMITS, 0, &a));
}

/// A bad rule over many subjects must not kill in each of them.
#[test]
fn the_nodes_limit_counts_kills_in_all_subjects_and_spares_rules_about_the_node() {
    let limits = Limits { each: None, node: Some(LIMIT) };
    let (mut breaker, root) = (Breaker::with_capacity(16), GroupPath::root());
    for second in 0..5 {
        assert!(!breaker.killed(at(second), &limits, 9, &root), "the node's own shortage fills nothing");
    }
    let open = |breaker: &Breaker, now, under_way| breaker.node_open_until(at(now), &LIMIT, under_way);
    assert!(!breaker.killed(at(10), &limits, 0, &path("/a")));
    assert!(!breaker.killed(at(11), &limits, 1, &path("/b")));
    assert_eq!(open(&breaker, 12, 0), None);
    assert_eq!(open(&breaker, 12, 1), Some(at(70)), "with one on its way to a kill it is full");
    assert!(breaker.killed(at(12), &limits, 0, &path("/c")));
    assert_eq!(open(&breaker, 69, 0), Some(at(70)));
    assert_eq!(open(&breaker, 70, 0), None, "and time closes it");
    let all: Vec<_> = breaker.open(at(13), &limits).map(|open| (open.rule, open.subject.to_string(), open.until)).collect();
    assert_eq!(all, [(EVERY_RULE, "/".to_owned(), at(70))]);
    // A reload that renames the rule is no way around it.
    breaker.renumber(|_| None);
    assert_eq!(open(&breaker, 13, 0), Some(at(70)));
    assert_eq!(breaker.open(at(13), &Limits { each: Some(KillLimit { kills: 1, ..LIMIT }), node: None }).count(), 0);
    assert!(breaker.node_open_until(at(1000), &LIMIT, 3).is_some(), "as many at the same moment as it allows");
}

/// Two limits of different times are answered from the same kills.
#[test]
fn the_longer_of_two_limits_keeps_the_kills() {
    let node = KillLimit { kills: 2, per: Duration::from_secs(600) };
    let limits = Limits { each: Some(LIMIT), node: Some(node) };
    let mut breaker = Breaker::with_capacity(16);
    breaker.killed(at(0), &limits, 0, &path("/a"));
    assert!(breaker.killed(at(599), &limits, 0, &path("/b")));
    assert_eq!(breaker.node_open_until(at(599), &node, 0), Some(at(600)));
}

proptest! {
    /// Against plain counting: whoever heeds the breaker never sees more kills in any window than the limit says, and is never held
    /// back when there were fewer.
    #[test]
    fn no_window_holds_more_than_the_limit(
        kills in 1..6_u32,
        per in 1..50_u64,
        steps in proptest::collection::vec((0..20_u64, 0..3_u16, 0..3_usize), 1..200),
    ) {
        let limit = KillLimit { kills, per: at(per) };
        let limits = Limits { each: Some(limit), node: None };
        let names = ["/a", "/b", "/c"].map(path);
        let mut breaker = Breaker::with_capacity(1024);
        let mut done: Vec<(u64, u16, usize)> = Vec::new();
        let mut now = 0;
        for (pause, rule, subject) in steps {
            now += pause;
            let within = |done: &[(u64, u16, usize)]| done.iter().filter(|(t, r, s)| *r == rule && *s == subject && t + per > now).count();
            let open = breaker.open_until(at(now), &limit, rule, &names[subject]);
            prop_assert_eq!(open.is_some(), within(&done) >= kills as usize);
            if let Some(until) = open {
                prop_assert!(until > at(now) && until <= at(now + per));
                prop_assert_eq!(breaker.open_until(until, &limit, rule, &names[subject]), None);
            } else {
                done.push((now, rule, subject));
                let opened = breaker.killed(at(now), &limits, rule, &names[subject]);
                prop_assert_eq!(opened, within(&done) >= kills as usize);
            }
            let listed = breaker.open(at(now), &limits).filter(|open| open.rule == rule && open.subject == names[subject]).count();
            prop_assert_eq!(listed, usize::from(within(&done) >= kills as usize));
        }
    }
}
