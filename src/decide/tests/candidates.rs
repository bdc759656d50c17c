//! Steps 3 and 4: who might die, and who must not.

use super::fixture::*;
use crate::decide::verdict::Strike;
use crate::policy::model::{EventKind, RankKey, Rule, Victim};
use crate::units::Bytes;

const OOM: EventKind = EventKind::Oom;

/// The verdict for `text` by `rule` on a notice that needs no confirmation.
fn verdict(text: &str, rule: Rule) -> String {
    tree(text).judge(rule, event(OOM))
}

#[test]
fn the_subject_dies_whole_and_all_its_processes_are_seen_first() {
    let mut case = tree(
        "
         tenants
           a subject
             web 30
             db 40
           b 500",
    );
    assert_eq!(case.judge(subject_rule(), event(OOM)), "kill /tenants/a");
    assert_eq!(case.asked(), ["/tenants/a", "/tenants/a/web", "/tenants/a/db"]);
}

#[test]
fn of_groups_that_contain_one_another_only_the_leaves_are_candidates() {
    let text = "
        batch
          job among
            step among 10
              helper among 4
            other among 20
          single among 15
            part 15
        else 900";
    assert_eq!(verdict(text, among_rule()), "kill /batch/job/other | then /batch/single | then /batch/job/step/helper");
}

#[test]
fn a_named_group_stays_whole_if_what_is_named_below_is_empty_or_no_memory_group() {
    let text = "
        a among 10
          gone among empty
        b among 9
          thread among threaded
        c among 8
          plain among nomem";
    assert_eq!(verdict(text, among_rule()), "kill /a | then /b | then /c");
}

/// Who owns a group may make groups in it: empty ones, or such without a memory controller, take nothing away from the group.
#[test]
fn groups_that_hold_nothing_hide_nobody() {
    for below in ["x empty", "x nomem", "x threaded", "x empty\n            y empty", "x empty\n          y empty"] {
        let text = format!(
            "
        a among 50
          {below}
        b among 40"
        );
        for rule in [among_rule(), leaves_rule()] {
            let told = verdict(&text.replace("x ", "x among ").replace("y ", "y among "), rule.clone());
            assert!(told.starts_with("kill /a | then /b"), "{below}: {told}");
            let told = verdict(&text, rule);
            assert!(told.starts_with("kill /a | then /b"), "{below}: {told}");
        }
    }
}

#[test]
fn a_unit_is_not_split() {
    let text = "
        a among unit
          b among 10
          c among 20
        d among 25";
    assert_eq!(verdict(text, among_rule()), "kill /a | then /d");
    let text = "
        a
          b unit
            c 10
            d 10
          e 15";
    assert_eq!(verdict(text, leaves_rule()), "kill /a/b | then /a/e");
}

#[test]
fn leaves_are_those_below_the_subject_or_itself() {
    let text = "
        a subject
          b 10
          c
            d 20
            e 5
            f empty
        g 500";
    assert_eq!(verdict(text, leaves_rule()), "kill /a/c/d | then /a/b | then /a/c/e | not /a/c/f: Empty");
    assert_eq!(verdict("a subject 10", leaves_rule()), "kill /a");
    assert_eq!(verdict("a 10\nb 20", leaves_rule()), "kill /b | then /a");
}

#[test]
fn among_looks_at_the_whole_tree_and_not_only_below_the_subject() {
    let text = "
        a subject 500
        b among 10
        c 900";
    assert_eq!(verdict(text, among_rule()), "kill /b");
}

#[test]
fn a_group_without_memory_of_its_own_is_never_subject_nor_candidate() {
    assert_eq!(verdict("a subject threaded 10", subject_rule()), "no victim | not /a: NotMemcg");
    assert_eq!(verdict("a subject nomem 10", subject_rule()), "no victim | not /a: NotMemcg");
    assert_eq!(verdict("a subject nomem 10", leaves_rule()), "no victim | not /a: NotMemcg");
    assert_eq!(verdict("a subject threaded 10\nb among 20", among_rule()), "no victim | not /a: NotMemcg");
    assert_eq!(verdict("a among threaded 10\nb among 20", among_rule()), "kill /b | not /a: NotMemcg");
}

#[test]
fn the_root_is_never_killed() {
    assert_eq!(verdict("a 10", subject_rule()), "no victim | not /: Root");
    assert_eq!(verdict("/ among\na 10", among_rule()), "no victim | not /: Root");
    assert_eq!(verdict("/ unit\na 10\nb 20", leaves_rule()), "kill /b | then /a");
    let mut case = tree("/ 100");
    assert_eq!(case.judge(leaves_rule(), event(OOM)), "no victim | not /: Root");
}

#[test]
fn an_excluded_group_lives_and_all_below_it() {
    let text = "
        db excluded=3 among
          pg among 500
            worker among excluded=3 400
        web among 10";
    assert_eq!(verdict(text, among_rule()), "kill /web | not /db/pg/worker: Excluded(3)");
    // even if the class of a group below has not caught up
    assert_eq!(verdict("db excluded=3\n  pg among 500", among_rule()), "no victim | not /db/pg: Excluded(3)");
}

#[test]
fn no_ancestor_of_an_excluded_group_dies_and_its_other_children_take_its_place() {
    let text = "
        a subject
          keep excluded=0 500
          b
            keep excluded=1 300
            c 50
            d 20
          e 40";
    assert_eq!(
        verdict(text, subject_rule()),
        "kill /a/b/c | then /a/e | then /a/b/d \
         | not /a: ContainsSpared(2) | not /a/keep: Excluded(0) | not /a/b: ContainsSpared(4) | not /a/b/keep: Excluded(1)"
    );
}

#[test]
fn the_other_children_of_an_oom_group_that_contains_an_excluded_group_can_be_killed() {
    let text = "
        a subject unit
          keep excluded=0 5
          b 50
          c unit
            d 20
            e 30";
    assert_eq!(verdict(text, subject_rule()), "kill /a/b | then /a/c | not /a: ContainsSpared(2) | not /a/keep: Excluded(0)");
    assert_eq!(verdict(text, leaves_rule()), "kill /a/b | then /a/c | not /a/keep: Excluded(0)");
    // With our own group in it, and with a process that must live, just the same.
    assert_eq!(verdict("a subject unit\n  us own 5\n  b 50", subject_rule()), "kill /a/b | not /a: ContainsSpared(2) | not /a/us: Own");
    let text = "
        a subject unit
          sshd unkillable 5
          b 50";
    assert_eq!(verdict(text, subject_rule()), "kill /a/b | not /a: ContainsSpared(2) | not /a/sshd: Unkillable");
}

#[test]
fn of_an_oom_group_that_contains_an_excluded_group_only_named_children_are_candidates() {
    let text = "
        a among unit
          keep excluded=0 5
          b among 50
          c 70";
    assert_eq!(verdict(text, among_rule()), "kill /a/b");
    // Where nothing below it is named, its children stand for it, as for any other group.
    let text = "
        a among unit
          keep excluded=0 5
          c 70";
    assert_eq!(verdict(text, among_rule()), "kill /a/c | not /a: ContainsSpared(2) | not /a/keep: Excluded(0)");
}

#[test]
fn an_empty_excluded_group_still_protects_what_contains_it() {
    let text = "
        a subject
          keep excluded=0 empty
          b 50";
    assert_eq!(verdict(text, subject_rule()), "kill /a/b | not /a: ContainsSpared(2) | not /a/keep: Excluded(0)");
}

#[test]
fn the_excluded_group_inside_the_fattest_lives_while_its_sibling_dies() {
    let text = "
        fat among
          excluded excluded=0 400
          sibling 300
        thin among 100";
    assert_eq!(
        verdict(text, among_rule()),
        "kill /fat/sibling | then /thin | not /fat: ContainsSpared(2) | not /fat/excluded: Excluded(0)"
    );
}

#[test]
fn a_comm_excludes_the_group_that_holds_it_and_what_contains_that() {
    let text = "
        db
          a among
            pg comm=2 runs=2 50
            log 30
          b among 60";
    assert_eq!(verdict(text, among_rule()), "kill /db/b | then /db/a/log | not /db/a: ContainsSpared(3) | not /db/a/pg: ExcludedByComm(2)");
}

#[test]
fn a_comm_counts_only_where_the_exclusion_covers_the_group() {
    // anybody can take a name
    assert_eq!(verdict("a among runs=2 50\nb among comm=3 runs=2 40", among_rule()), "kill /a | then /b");
    assert_eq!(verdict("a among comm=2 runs=2 50\nb among comm=2 40", among_rule()), "kill /b | not /a: ExcludedByComm(2)");
}

#[test]
fn what_must_live_is_struck_with_its_reason() {
    for (words, strike) in [
        ("own", Strike::Own),
        ("init", Strike::Init),
        ("unkillable", Strike::Unkillable),
        ("unknown", Strike::Unknown),
        ("unreadable", Strike::Unknown),
        ("unread", Strike::Unknown),
        ("empty", Strike::Empty),
        ("dying", Strike::Dying),
        ("excluded=7", Strike::Excluded(7)),
        ("comm=1 runs=1", Strike::ExcludedByComm(1)),
        ("threaded", Strike::NotMemcg),
        ("nomem", Strike::NotMemcg),
    ] {
        assert_eq!(verdict(&format!("a among {words} 50\nb among 1"), among_rule()), format!("kill /b | not /a: {strike:?}"));
    }
}

#[test]
fn a_rule_may_overrule_an_unkillable_process_but_neither_init_nor_oomwarden_nor_an_exclusion() {
    let rule = || Rule { spare_unkillable: false, ..among_rule() };
    assert_eq!(verdict("a among unkillable 50\nb among shielded unkillable 90", rule()), "kill /a | then /b");
    assert_eq!(verdict("a among 50\n  b unkillable 10\nc among 5", rule()), "kill /a | then /c");
    for (words, strike) in [
        ("unkillable init", Strike::Init),
        ("unkillable own", Strike::Own),
        ("unkillable unknown", Strike::Unknown),
        ("unkillable excluded=7", Strike::Excluded(7)),
        ("unkillable comm=1 runs=1", Strike::ExcludedByComm(1)),
    ] {
        assert_eq!(verdict(&format!("a among {words} 50\nb among 1"), rule()), format!("kill /b | not /a: {strike:?}"));
    }
}

#[test]
fn what_must_live_protects_what_contains_it() {
    for words in ["own", "init", "unkillable", "unknown", "unreadable", "excluded=7", "comm=1 runs=1"] {
        let told = verdict(&format!("a subject\n  b 50\n  c {words} 10"), subject_rule());
        assert!(told.starts_with("kill /a/b | not /a: ContainsSpared(3) | not /a/c: "), "{words}: {told}");
    }
    for words in ["empty", "dying", "threaded", "nomem", "unread"] {
        assert_eq!(verdict(&format!("a subject\n  b 50\n  c {words}"), subject_rule()), "kill /a", "{words}");
    }
}

#[test]
fn what_is_below_a_dying_group_is_dying() {
    assert_eq!(verdict("a dying\n  b among 50\nc among 10", among_rule()), "kill /c | not /a/b: Dying");
}

#[test]
fn a_group_that_could_not_be_killed_makes_way_for_the_next() {
    let mut case = tree("a among 50\nb among 40\nc among 30");
    case.failed = vec![case.id("/a")];
    assert_eq!(case.judge(among_rule(), event(OOM)), "kill /b | then /c | not /a: Failed");
    case.failed = vec![case.id("/a"), case.id("/b"), case.id("/c")];
    assert_eq!(case.judge(among_rule(), event(OOM)), "no victim | not /a: Failed | not /b: Failed | not /c: Failed");
}

#[test]
fn processes_are_asked_for_only_where_they_decide() {
    let mut case = tree(
        "
         a among
           x 50
           y init 20
           z empty
         b among 40
         c among 30",
    );
    assert_eq!(
        case.judge(among_rule(), event(OOM)),
        "kill /a/x | then /b | then /c | not /a: ContainsSpared(3) | not /a/y: Init | not /a/z: Empty"
    );
    assert_eq!(case.asked(), ["/a", "/a/x", "/a/y"]);
    // struck by what is known without them: nobody is asked about
    let mut case = tree("a among excluded=1 50\nb among own 40");
    case.judge(among_rule(), event(OOM));
    assert!(case.asked.is_empty());
}

#[test]
fn too_small_is_not_worth_killing() {
    let text = "a among 50\nb among 40\nc among 2";
    let at_least = |mib: u64, or_largest: bool| {
        let mut rule = among_rule();
        if let Victim::Among(among) = &mut rule.victim {
            (among.at_least, among.or_largest) = (Bytes(mib * MIB), or_largest);
        }
        rule
    };
    assert_eq!(verdict(text, at_least(41, false)), "kill /a | not /b: TooSmall | not /c: TooSmall");
    assert_eq!(verdict(text, at_least(51, false)), "no victim | not /a: TooSmall | not /b: TooSmall | not /c: TooSmall");
    assert_eq!(verdict(text, at_least(51, true)), "kill /a | not /b: TooSmall | not /c: TooSmall");
    // also when others are struck for other reasons, and when the largest turns out to be one that must live
    assert_eq!(
        verdict("a among init 50\nb among 40\nc among 45 excluded=0", at_least(51, true)),
        "kill /b | not /a: Init | not /c: Excluded(0)"
    );
    // strict importance does not end where groups are small
    assert_eq!(verdict("a among 50\nb among 40 importance=-1", at_least(51, true)), "kill /b | not /a: TooSmall");
}

#[test]
fn a_subject_may_be_small() {
    assert_eq!(verdict("a subject 0", subject_rule()), "kill /a");
}

#[test]
fn what_dies_with_a_group_is_anon_and_swap_not_tmpfs_nor_cache() {
    let text = "
        tmpfs among 1 shmem=400
        cache among 2 current=500 file=490
        zram among 10 swap=140
        plain among 60";
    assert_eq!(verdict(text, among_rule()), "kill /zram | then /plain | then /cache | then /tmpfs");
}

#[test]
fn oom_score_needs_the_processes_of_all_that_may_die_but_of_no_others() {
    let mut case = tree(
        "
         a among 50 score=10
         b among
           c 10 score=900
         d among 40 excluded=0
         e among 5 score=20",
    );
    assert_eq!(case.judge(ranked_by(&[(RankKey::OomScore, None)]), event(OOM)), "kill /b | then /e | then /a | not /d: Excluded(0)");
    assert_eq!(case.asked(), ["/a", "/b", "/b/c", "/e"]);
}

/// A comm that is excluded covers the group that holds it and everything below, wherever the rule looks for its victim.
#[test]
fn a_name_in_a_group_above_the_candidate_spares_it() {
    for above in ["comm=0 runs=0", "comm=0"] {
        let mut case = tree(&format!("  a {above}\n    b 90 among comm=0\n  c 10 among"));
        let spared = above.contains("runs");
        let verdict = case.judge(among_rule(), event(EventKind::Oom));
        assert!(verdict.starts_with(if spared { "kill /c" } else { "kill /a/b" }), "{verdict}");
    }
}
