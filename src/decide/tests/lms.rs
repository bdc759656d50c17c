//! The kernel module's levels: what starts a judgement, and when the trouble is over.

use std::time::Duration;

use proptest::prelude::*;

use super::fixture::*;
use crate::decide::facts::{LmsFacts, NodeFacts};
use crate::decide::recovery::{ScopeFacts, recovered};
use crate::decide::verdict::{Decision, Notice};
use crate::policy::model::LmsLevel::{Kill, Oom, Warn};
use crate::policy::model::{Condition, Level, LmsLevel, Rule};
use crate::units::Share;

const LEVELS: [LmsLevel; 3] = [Warn, Kill, Oom];

/// What the module could say on a node with 1000 MiB. Its thresholds are independent parameters: they may cross.
pub(super) fn lms() -> impl Strategy<Value = LmsFacts> {
    (prop::option::of(prop::sample::select(LEVELS.to_vec())), 0u64..1000, 0u64..1000).prop_map(|(level, warn, kill)| LmsFacts {
        level,
        warn_bytes: warn * MIB,
        kill_bytes: kill * MIB,
    })
}

/// This level, and the thresholds 200 and 100 MiB.
pub(super) fn lms_at(level: LmsLevel) -> LmsFacts {
    LmsFacts { level: Some(level), warn_bytes: 200 * MIB, kill_bytes: 100 * MIB }
}

/// A node of 1000 MiB with so much available and the thresholds 200 and 100 MiB.
fn at(level: Option<LmsLevel>, available_mib: u64) -> NodeFacts {
    let lms = LmsFacts { level, ..lms_at(LmsLevel::Warn) };
    NodeFacts { available_bytes: Some(available_mib * MIB), lms: Some(lms), ..node() }
}

fn below(percent: u16) -> Condition {
    Condition::Available(Level { share: Some(Share::percent(percent)), at_most: None })
}

fn confirmed(node: NodeFacts, rule: Rule, level: LmsLevel) -> bool {
    let mut case = tree("a 300");
    case.node = node;
    case.decide(rule, Notice::Lms(level));
    case.verdict.decision != Decision::NotConfirmed
}

fn over(level: LmsLevel, rule: &Rule, now: NodeFacts) -> bool {
    let case = tree("a 300");
    let facts = |node| ScopeFacts::of(&case.groups, &node, 0, 0).unwrap();
    recovered(&Notice::Lms(level), rule, &facts(at(Some(Oom), 0)), &facts(now))
}

#[test]
fn a_level_must_still_stand_or_a_worse_one() {
    for (level, now, stands) in [
        (Kill, Some(Kill), true),
        (Kill, Some(Oom), true),
        (Kill, Some(Warn), false),
        (Kill, None, false),
        (Oom, Some(Oom), true),
        (Oom, Some(Kill), false),
        (Oom, None, false),
        (Warn, Some(Warn), true),
        (Warn, Some(Oom), true),
        (Warn, None, false),
    ] {
        assert_eq!(confirmed(at(now, 50), leaves_rule(), level), stands, "{level:?} {now:?}");
    }
}

#[test]
fn the_last_levels_need_no_other_word_and_the_first_does() {
    // plenty is available, as far as /proc/meminfo goes: the kernel's own word counts
    assert!(confirmed(at(Some(Oom), 900), leaves_rule(), Oom));
    assert!(confirmed(at(Some(Kill), 900), leaves_rule(), Kill));
    assert!(!confirmed(at(Some(Warn), 100), leaves_rule(), Warn));
    assert!(confirmed(at(Some(Warn), 99), leaves_rule(), Warn));
    // the rule's own level takes the place of ours
    let own = || Rule { only_if: vec![below(20)], ..leaves_rule() };
    assert!(confirmed(at(Some(Warn), 199), own(), Warn));
    assert!(!confirmed(at(Some(Warn), 200), own(), Warn));
    // and is asked of every level
    assert!(!confirmed(at(Some(Oom), 200), own(), Oom));
}

#[test]
fn what_the_module_told_stands_until_it_takes_it_back() {
    let unread = NodeFacts { lms: None, ..at(None, 50) };
    for level in LEVELS {
        assert!(confirmed(unread, leaves_rule(), level), "{level:?}");
        assert!(!over(level, &leaves_rule(), unread), "{level:?}");
    }
}

#[test]
fn the_shortage_is_the_nodes() {
    let mut case = tree("a subject 95 max=100");
    case.node = at(Some(Oom), 10);
    assert_eq!(case.judge(subject_rule(), Notice::Lms(Oom)), "kill /a");
    assert_eq!(case.verdict.scope, 0);
    assert_eq!(case.verdict.evidence.node, at(Some(Oom), 10));
}

#[test]
fn it_is_over_when_the_module_says_so() {
    for (level, now, expected) in [
        (Warn, None, true),
        (Warn, Some(Warn), false),
        (Warn, Some(Kill), false),
        (Kill, None, true),
        (Kill, Some(Warn), true),
        (Kill, Some(Kill), false),
        (Oom, None, true),
        (Oom, Some(Warn), true),
        // nobody asks at the moment: that alone gave nothing back
        (Oom, Some(Kill), false),
        (Oom, Some(Oom), false),
    ] {
        // its word counts swap in, so the available memory has nothing to add
        for mib in [0, 900] {
            assert_eq!(over(level, &leaves_rule(), at(now, mib)), expected, "{level:?} -> {now:?} {mib}");
        }
    }
    let rule = Rule { only_if: vec![below(30)], ..leaves_rule() };
    assert!(over(Oom, &rule, at(Some(Oom), 300)), "a condition of the rule no longer holds");
    assert!(!over(Oom, &rule, at(Some(Oom), 299)));
}

proptest! {
    #[test]
    fn what_is_over_starts_nothing(
        facts in prop::option::of(lms()),
        available in prop::option::of(0u64..1000),
        limit in prop::option::of(1u16..100),
        notice in prop_oneof![
            prop::sample::select(LEVELS.to_vec()).prop_map(Notice::Lms),
            (0u64..1000).prop_map(|mib| Notice::Available(mib * MIB, Duration::ZERO)),
        ],
    ) {
        let rule = || Rule { only_if: limit.map(below).into_iter().collect(), ..leaves_rule() };
        let mut case = tree("a 300");
        case.node = NodeFacts { available_bytes: available.map(|mib| mib * MIB), lms: facts, ..node() };
        let now = ScopeFacts::of(&case.groups, &case.node, 0, 0).unwrap();
        let is_over = recovered(&notice, &rule(), &now, &now);
        case.decide(rule(), notice);
        prop_assert!(!is_over || case.verdict.decision == Decision::NotConfirmed);
    }

    #[test]
    fn a_worse_level_never_takes_a_judgement_back(
        facts in lms(),
        available in 0u64..1000,
        level in prop::sample::select(LEVELS.to_vec()),
        worse in prop::sample::select(LEVELS.to_vec()),
    ) {
        let told = |level| {
            let lms = Some(LmsFacts { level, ..facts });
            NodeFacts { available_bytes: Some(available * MIB), lms, ..node() }
        };
        let worse = facts.level.max(Some(worse));
        prop_assert!(!confirmed(told(facts.level), leaves_rule(), level) || confirmed(told(worse), leaves_rule(), level));
        prop_assert!(!over(level, &leaves_rule(), told(worse)) || over(level, &leaves_rule(), told(facts.level)));
    }
}
