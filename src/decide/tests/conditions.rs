//! Steps 1 and 2: rule and subject, conditions on fresh facts, scope and evidence.

use std::time::Duration;

use super::fixture::*;
use crate::decide::facts::{Limit, NodeFacts};
use crate::decide::verdict::{Decision, Notice};
use crate::decide::{Judge, Step};
use crate::policy::model::{Condition, EventKind, Level, Rule, UsageOf, UsageTest};
use crate::units::{Bytes, Share};

const NO_TIME: Duration = Duration::ZERO;

fn share(percent: u16, of: UsageOf) -> UsageTest {
    UsageTest::Share(Share::percent(percent), of)
}

fn level(percent: u16) -> Level {
    Level { share: Some(Share::percent(percent)), at_most: None }
}

fn confirmed(case: &mut Case, rule: Rule, notice: Notice) -> bool {
    case.decide(rule, notice);
    case.verdict.decision != Decision::NotConfirmed
}

#[test]
fn usage_against_the_smallest_limit_along_the_ancestors() {
    let above_90 = || only_if(Condition::Usage(share(90, UsageOf::Max)));
    for (text, holds) in [
        ("a subject 91 max=100", true),
        ("a subject 90 max=100", false),
        ("t max=50\n  a subject 46 max=100", true),
        ("t max=200\n  a subject 91 max=100", true),
        ("t max=200\n  a subject 91", false),
        // no limit anywhere: a share of it is never reached
        ("a subject 900", false),
        // one that could not be read
        ("t max=?\n  a subject 91 max=100", false),
        ("a subject 91 max=?", false),
        ("a subject unread", false),
        // memory.high is another limit
        ("a subject 91 high=100", false),
        // easily reclaimed cache does not count
        ("a subject 20 current=95 file=70 max=100", false),
        ("a subject 20 current=95 file=4 max=100", true),
    ] {
        assert_eq!(confirmed(&mut tree(text), above_90(), PSI), holds, "{text}");
        let notice = Notice::Usage(share(90, UsageOf::Max), NO_TIME);
        assert_eq!(confirmed(&mut tree(text), subject_rule(), notice), holds, "as a notice: {text}");
    }
    let of_high = only_if(Condition::Usage(share(90, UsageOf::High)));
    assert!(confirmed(&mut tree("a subject 91 high=100 max=500"), of_high, PSI));
}

#[test]
fn usage_of_the_node_and_in_bytes() {
    let of_node = || only_if(Condition::Usage(share(40, UsageOf::Node)));
    assert!(confirmed(&mut tree("a subject 401"), of_node(), PSI));
    assert!(!confirmed(&mut tree("a subject 400"), of_node(), PSI));
    let mut case = tree("a subject 401");
    case.node.total_bytes = 0;
    assert!(!confirmed(&mut case, of_node(), PSI), "a node of no size is one that could not be read");

    let amount = |mib| only_if(Condition::Usage(UsageTest::Amount(Bytes(mib * MIB))));
    assert!(confirmed(&mut tree("a subject 401"), amount(400), PSI));
    assert!(!confirmed(&mut tree("a subject 401"), amount(401), PSI));
}

#[test]
fn on_the_root_usage_is_the_nodes_and_limits_do_not_exist() {
    let oom = event(EventKind::Oom);
    let judged = |test: UsageTest| confirmed(&mut tree("a 10"), only_if(Condition::Usage(test)), oom);
    assert!(judged(share(49, UsageOf::Node)));
    assert!(!judged(share(50, UsageOf::Node)));
    assert!(judged(UsageTest::Amount(Bytes(499 * MIB))));
    assert!(!judged(share(1, UsageOf::Max)));
    assert!(!judged(share(1, UsageOf::High)));
    let mut case = tree("a 10");
    case.node.available_bytes = None;
    assert!(!confirmed(&mut case, only_if(Condition::Usage(share(1, UsageOf::Node))), oom));
}

#[test]
fn available_and_swap_free() {
    let of = |total: u64, free: Option<u64>| NodeFacts {
        swap_total_bytes: total * MIB,
        swap_free_bytes: free.map(|mib| mib * MIB),
        available_bytes: free.map(|mib| mib * MIB),
        ..node()
    };
    let with = |node: NodeFacts, rule: Rule, notice: Notice| {
        let mut case = tree("a subject 10");
        case.node = node;
        confirmed(&mut case, rule, notice)
    };
    for (node, available, swap_free, swap_tells) in [
        (of(1000, Some(99)), true, true, true),
        (of(1000, Some(100)), false, false, false),
        (of(1000, None), false, false, false),
        // without swap there is none that could help, and that it is not there is no trouble
        (of(0, Some(0)), true, true, false),
        (of(0, None), false, true, false),
    ] {
        assert_eq!(with(node, only_if(Condition::Available(level(10))), PSI), available, "{node:?}");
        assert_eq!(with(node, only_if(Condition::SwapFree(level(10))), PSI), swap_free, "{node:?}");
        let (available_notice, swap_notice) = (Notice::Available(100 * MIB, NO_TIME), Notice::SwapFree(100 * MIB, NO_TIME));
        assert_eq!(with(node, subject_rule(), available_notice), available, "{node:?}");
        assert_eq!(with(node, subject_rule(), swap_notice), swap_tells, "{node:?}");
    }
    let both = Level { share: Some(Share::percent(10)), at_most: Some(Bytes(50 * MIB)) };
    assert!(!with(of(0, Some(60)), only_if(Condition::Available(both)), PSI), "the smaller of the two counts");
}

#[test]
fn a_level_that_is_not_smaller_than_all_swap_starts_nothing_but_may_hold() {
    let judged = |total: u64, free: u64, below: u64, rule: Rule, is_notice: bool| {
        let mut case = tree("a subject 10 swap=10");
        (case.node.swap_total_bytes, case.node.swap_free_bytes) = (total * MIB, Some(free * MIB));
        confirmed(&mut case, rule, if is_notice { Notice::SwapFree(below * MIB, NO_TIME) } else { PSI })
    };
    let amount = |mib: u64| only_if(Condition::SwapFree(Level { share: None, at_most: Some(Bytes(mib * MIB)) }));
    for (total, free, below, tells, holds) in [
        (256, 250, 512, false, true),
        (256, 0, 512, false, true),
        (256, 250, 256, false, true),
        (256, 250, 255, true, true),
        (256, 256, 255, false, false),
        (0, 0, 512, false, true),
    ] {
        assert_eq!(judged(total, free, below, subject_rule(), true), tells, "{total} {free} {below}");
        assert_eq!(judged(total, free, below, amount(below), false), holds, "{total} {free} {below}");
    }
}

#[test]
fn all_conditions_must_hold() {
    let conditions = [Condition::Available(level(60)), Condition::Usage(share(50, UsageOf::Max))];
    let rule = || Rule { only_if: conditions.to_vec(), ..subject_rule() };
    assert!(confirmed(&mut tree("a subject 60 max=100"), rule(), PSI));
    assert!(!confirmed(&mut tree("a subject 40 max=100"), rule(), PSI));
}

#[test]
fn an_unconfirmed_verdict_asks_for_nothing_and_lists_nobody() {
    let mut case = tree("a subject 10");
    assert_eq!(case.judge(only_if(Condition::Available(level(1))), PSI), "not confirmed");
    assert!(case.asked.is_empty());
}

#[test]
fn node_psi_alone_kills_nobody() {
    let available = |mib: Option<u64>| {
        let mut case = tree("a 300");
        case.node.available_bytes = mib.map(|mib| mib * MIB);
        case
    };
    // page cache thrashes, memory is plenty
    assert_eq!(available(Some(100)).judge(leaves_rule(), PSI), "not confirmed");
    assert_eq!(available(None).judge(leaves_rule(), PSI), "not confirmed");
    assert_eq!(available(Some(99)).judge(leaves_rule(), PSI), "kill /a");
    // a swap condition is no word on memory
    let swap = || Rule { only_if: vec![Condition::SwapFree(level(10))], ..leaves_rule() };
    assert_eq!(available(Some(100)).judge(swap(), PSI), "not confirmed");
    // the rule's own level takes the place of ours
    let own_level = || Rule { only_if: vec![Condition::Available(level(20))], ..leaves_rule() };
    assert_eq!(available(Some(199)).judge(own_level(), PSI), "kill /a");
    assert_eq!(available(Some(200)).judge(own_level(), PSI), "not confirmed");
    // a group's own stall needs no such word
    assert_eq!(tree("a subject 300").judge(subject_rule(), PSI), "kill /a");
}

#[test]
fn unknown_rule_or_subject() {
    let mut case = tree("a 10");
    case.subject = 7;
    assert_eq!(case.judge(subject_rule(), PSI), "not confirmed");
    case.groups.clear();
    case.subject = 0;
    assert_eq!(case.judge(leaves_rule(), PSI), "not confirmed");
    let (mut case, policy) = (tree("a subject 10"), policy(subject_rule()));
    let step = Judge::default().judge(&policy, 1, 1, &PSI, &node(), &case.groups, &[], &mut case.verdict);
    assert_eq!((step, case.verdict.decision), (Step::Decided, Decision::NotConfirmed));
}

#[test]
fn the_scope_is_the_nearest_group_at_its_limit() {
    for (text, scope) in [
        ("t\n  a subject 90 max=100", "/t/a"),
        ("t\n  a subject 89 max=100", "/"),
        ("t 95 max=100\n  a subject 50 max=100", "/t"),
        ("t 95 high=100 max=500\n  a subject 50 max=100", "/t"),
        ("t max=?\n  a subject 500", "/"),
        // raw memory.current: the kernel's view, cache and all
        ("t\n  a subject 1 current=95 file=94 max=100", "/t/a"),
    ] {
        let mut case = tree(text);
        case.decide(subject_rule(), PSI);
        assert_eq!(case.verdict.scope, case.at(scope), "{text}");
    }
    for kind in [EventKind::OomKill, EventKind::OomGroupKill] {
        let mut case = tree("t 99 max=100\n  a subject 10");
        case.decide(subject_rule(), event(kind));
        assert_eq!(case.verdict.scope, case.at("/t/a"));
    }
}

#[test]
fn the_evidence_is_what_was_looked_at() {
    let mut case = tree("t max=50 high=40\n  a subject 20 current=95 file=70 max=100");
    case.decide(subject_rule(), PSI);
    let evidence = case.verdict.evidence;
    assert_eq!(evidence.node, node());
    assert_eq!((evidence.subject_current, evidence.subject_charged), (Some(95 * MIB), Some(25 * MIB)));
    assert_eq!((evidence.limit_max, evidence.limit_high), (Some(50 * MIB), Some(40 * MIB)));
    assert_eq!((case.verdict.rule, case.verdict.subject), (0, case.subject));
}

#[test]
fn a_limit_on_the_root_of_a_delegated_subtree_counts_for_what_is_below() {
    let mut case = tree("a subject 91");
    case.groups[0].memory.max = Some(Limit::Bytes(100 * MIB));
    assert!(confirmed(&mut case, only_if(Condition::Usage(share(90, UsageOf::Max))), PSI));
}
