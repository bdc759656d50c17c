//! Step 5: the order among those that may die.

use super::fixture::*;
use crate::policy::model::{EventKind, RankKey};

fn ranked(text: &str, keys: &[(RankKey, Option<u16>)]) -> String {
    tree(text).judge(ranked_by(keys), event(EventKind::Oom))
}

#[test]
fn importance_beats_size() {
    let text = "
        a among 500
        b among 2 importance=-100
        c among 900 importance=5";
    assert_eq!(ranked(text, &[(RankKey::Usage, None)]), "kill /b | then /a | then /c");
}

#[test]
fn what_dies_with_a_group_makes_it_as_important() {
    let text = "
        a among importance=-100 500
          b importance=-100
            c importance=50
        d among 10 importance=20";
    assert_eq!(ranked(text, &[(RankKey::Usage, None)]), "kill /d | then /a");
    // but not what is empty
    let text = "
        a among importance=-100 500
          c empty importance=50
        d among 10 importance=20";
    assert_eq!(ranked(text, &[(RankKey::Usage, None)]), "kill /a | then /d");
}

#[test]
fn each_key() {
    for (key, words, order) in [
        (RankKey::Usage, ["10", "30", "20"], "kill /b | then /c | then /a"),
        (RankKey::Usage, ["10 swap=15", "20 swap=2", "10 swap=14"], "kill /a | then /c | then /b"),
        (RankKey::Swap, ["90 swap=1", "10 swap=3", "10 swap=2"], "kill /b | then /c | then /a"),
        // of whom nothing is known: not calm, but behind those who are known to move
        (RankKey::Growth, ["90 growth=-5", "10 growth=3", "50"], "kill /b | then /c | then /a"),
        (RankKey::Pressure, ["90 pressure=0", "10", "50 pressure=1"], "kill /c | then /b | then /a"),
        (RankKey::Pressure, ["90 pressure=1", "10 pressure=800", "50 pressure=90"], "kill /b | then /c | then /a"),
        (RankKey::Overage, ["90 low=80", "50 low=30", "40 low=5"], "kill /c | then /b | then /a"),
        // nobody is above its protection: equal, so the usage decides
        (RankKey::Overage, ["30 low=31", "50 low=80", "40 low=50"], "kill /b | then /c | then /a"),
        (RankKey::OomScore, ["90 score=1", "10 score=700", "50 score=600"], "kill /b | then /c | then /a"),
        // younger dies first; what was there before us is old
        (RankKey::Age, ["90", "10 age=60", "50 age=5"], "kill /c | then /b | then /a"),
    ] {
        let [a, b, c] = words;
        assert_eq!(ranked(&format!("a among {a}\nb among {b}\nc among {c}"), &[(key, None)]), order, "{key:?} {words:?}");
    }
}

#[test]
fn what_is_not_known_ranks_behind_who_moves_and_before_who_is_calm_and_by_the_next_key() {
    let text = "
        a among 10 age=1
        b among 20 age=2
        c among 90 growth=0 age=3
        d among 5 growth=1 age=4";
    assert_eq!(ranked(text, &[(RankKey::Growth, None), (RankKey::Age, None)]), "kill /d | then /a | then /b | then /c");
    // of all other keys an unknown value ranks last
    assert_eq!(ranked("a among 10\nb among 5 age=9", &[(RankKey::Age, None)]), "kill /b | then /a");
}

#[test]
fn who_holds_a_shielded_process_dies_after_all_others_of_its_importance() {
    let text = "
        a among 500 shielded
        b among 2
        c among 90
          d 90 shielded
        e among 400 importance=1";
    let mut case = tree(text);
    assert_eq!(case.judge(ranked_by(&[(RankKey::Usage, None)]), event(EventKind::Oom)), "kill /b | then /a | then /c | then /e");
    assert_eq!(case.verdict.candidates.iter().map(|candidate| candidate.shielded).collect::<Vec<_>>(), [false, true, true, false]);
    // importance is stricter
    assert_eq!(ranked("a among 9 importance=-1 shielded\nb among 90", &[(RankKey::Usage, None)]), "kill /a | then /b");
}

#[test]
fn processes_are_looked_at_until_one_without_a_shield_is_first() {
    let rule = || ranked_by(&[(RankKey::Usage, None)]);
    let mut case = tree("a among 500 shielded\nb among 400 shielded\nc among 300\nd among 200 shielded");
    assert_eq!(case.judge(rule(), event(EventKind::Oom)), "kill /c | then /d | then /a | then /b");
    assert_eq!(case.asked(), ["/a", "/b", "/c"], "nobody looks at who would not be first anyway");
    let mut case = tree("a among 500 shielded\nb among 400 shielded unkillable");
    assert_eq!(case.judge(rule(), event(EventKind::Oom)), "kill /a | not /b: Unkillable");
    // who could only be taken as the largest of the small is no exception
    let small = || among_rule_or_largest(1000);
    assert_eq!(tree("a among 500 shielded\nb among 400").judge(small(), event(EventKind::Oom)), "kill /b | not /a: TooSmall");
}

#[test]
fn a_shield_counts_once_the_whole_subtree_was_seen_whatever_the_order_of_siblings() {
    for below in ["    b 100 shielded\n    c 100 unkillable", "    c 100 unkillable\n    b 100 shielded"] {
        let mut case = tree(&format!("  a among unit\n{below}\n  d among 10"));
        let verdict = case.judge(ranked_by(&[(RankKey::Usage, None)]), event(EventKind::Oom));
        assert!(verdict.starts_with("kill /d | then /a/b | not /a: ContainsSpared"), "{verdict}");
    }
}

#[test]
fn within_calls_near_values_equal_so_that_the_next_key_decides() {
    let text = "
        a among 100 age=50
        b among 95 age=10
        c among 89 age=1";
    assert_eq!(ranked(text, &[(RankKey::Usage, Some(10)), (RankKey::Age, None)]), "kill /b | then /a | then /c");
    assert_eq!(ranked(text, &[(RankKey::Usage, None), (RankKey::Age, None)]), "kill /a | then /b | then /c");
    assert_eq!(ranked(text, &[(RankKey::Usage, Some(100)), (RankKey::Age, None)]), "kill /c | then /b | then /a");
}

#[test]
fn nearness_is_measured_from_the_leader_and_does_not_creep() {
    // each is within 10 % of its neighbour, the last is not within 10 % of the first
    let text = "
        a among 100 age=90
        b among 92 age=80
        c among 84 age=2
        d among 77 age=1";
    assert_eq!(ranked(text, &[(RankKey::Usage, Some(10)), (RankKey::Age, None)]), "kill /b | then /a | then /d | then /c");
}

#[test]
fn near_ages_and_shrinking_groups() {
    let text = "
        a among 10 age=100
        b among 20 age=95
        c among 30 age=200";
    assert_eq!(ranked(text, &[(RankKey::Age, Some(10))]), "kill /b | then /a | then /c");
    let text = "
        a among 10 growth=-100
        b among 20 growth=-95
        c among 30 growth=5";
    assert_eq!(ranked(text, &[(RankKey::Growth, Some(10))]), "kill /c | then /b | then /a");
}

#[test]
fn a_within_of_a_later_key_stays_inside_the_run_of_the_earlier() {
    let text = "
        a among 10 age=10 pressure=100
        b among 20 age=10 pressure=95
        c among 99 age=20 pressure=100";
    assert_eq!(ranked(text, &[(RankKey::Age, None), (RankKey::Pressure, Some(10))]), "kill /b | then /a | then /c");
}

#[test]
fn equals_are_ordered_by_usage_and_then_by_id() {
    assert_eq!(ranked("a among 10 age=5\nb among 20 age=5", &[(RankKey::Age, None)]), "kill /b | then /a");
    assert_eq!(ranked("a among 10 id=9\nb among 10 id=7\nc among 10 id=8", &[(RankKey::Usage, None)]), "kill /b | then /c | then /a");
}

#[test]
fn the_values_compared_are_kept_for_the_record() {
    let mut case = tree("a among 10 swap=2 growth=1 pressure=3 age=4 low=5");
    let keys = [RankKey::Age, RankKey::Pressure, RankKey::Growth, RankKey::Overage, RankKey::Swap].map(|key| (key, None));
    case.decide(ranked_by(&keys), event(EventKind::Oom));
    let mib = |mib: i64| Some(mib * MIB.cast_signed());
    assert_eq!(case.verdict.candidates[0].keys, [Some(4000), Some(3000), mib(1), mib(7)]);
    assert_eq!(case.verdict.candidates[0].usage_bytes, Some(12 * MIB));
}
