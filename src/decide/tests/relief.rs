//! Levels that no kill can lift.

use std::time::Duration;

use super::fixture::*;
use super::lms::lms_at;
use crate::decide::verdict::{Decision, Notice, Relief};
use crate::policy::model::{EventKind, LmsLevel, Rule, UsageOf, UsageTest};
use crate::units::{Bytes, Share};

const NO_TIME: Duration = Duration::ZERO;

/// Below so many MiB; the node has 500.
fn available(mib: u64) -> Notice {
    Notice::Available(mib * MIB, NO_TIME)
}

fn usage_above(mib: u64) -> Notice {
    Notice::Usage(UsageTest::Amount(Bytes(mib * MIB)), NO_TIME)
}

fn relief(missing: u64, could_free: Option<u64>) -> Option<Relief> {
    Some(Relief { missing: missing * MIB, could_free: could_free.map(|mib| mib * MIB) })
}

/// tmpfs that one group was charged with, and small groups.
const TMPFS: &str = "
    full among 12 shmem=438 outlives=438
    b among 12
    c among 12
    d among 12";

#[test]
fn a_node_full_of_tmpfs_kills_nobody() {
    let mut case = tree(TMPFS);
    let verdict = case.judge(among_rule(), available(549));
    assert_eq!(verdict, "no victim | not /full: InVain | not /b: InVain | not /c: InVain | not /d: InVain");
    assert_eq!(case.verdict.evidence.relief, relief(49, Some(48)));
    assert!(case.asked.is_empty(), "nobody's processes are looked at for that");
    // together they can lift it: the first of them dies, and the next is judged anew
    let mut case = tree(TMPFS);
    assert_eq!(case.judge(among_rule(), available(548)), "kill /full | then /b | then /c | then /d");
    assert_eq!(case.verdict.evidence.relief, relief(48, Some(48)));
}

#[test]
fn what_the_kernel_ends_by_itself_and_who_asks_for_the_largest_kill_all_the_same() {
    let oom = Notice::Lms(LmsLevel::Oom);
    for notice in [oom, event(EventKind::Oom), event(EventKind::OomKill)] {
        assert!(tree(TMPFS).judge(among_rule(), notice).starts_with("kill /full"), "{notice:?}");
    }
    let mut case = tree(TMPFS);
    assert!(case.judge(among_rule_or_largest(1), available(900)).starts_with("kill /full"));
    assert_eq!(case.verdict.evidence.relief, relief(400, Some(48)), "the record says so all the same");
    let mut case = tree(TMPFS);
    case.node.available_bytes = Some(50 * MIB);
    assert!(case.judge(among_rule(), PSI).starts_with("kill /full"), "stall is no level");
}

#[test]
fn who_must_live_gives_nothing_back() {
    for words in ["excluded=0", "dying", "own", "empty"] {
        let mut case = tree(&format!("a among 12\nb among 400 {words}"));
        let verdict = case.judge(among_rule(), available(600));
        assert!(verdict.starts_with("no victim | not /a: InVain | not /b: "), "{words}: {verdict}");
    }
    // by its processes, too, which are looked at before the first one dies in vain
    let mut case = tree("a among 100\nb among 12 importance=5\nc among 400 unkillable importance=9");
    assert_eq!(case.judge(among_rule(), available(700)), "no victim | not /a: InVain | not /b: InVain | not /c: Unkillable");
    assert_eq!(case.asked(), ["/a", "/b", "/c"]);
    // as few as it takes
    let mut case = tree("a among 100\nb among 12 importance=5\nc among 400 unkillable importance=9");
    assert_eq!(case.judge(among_rule(), available(600)), "kill /a | then /b | then /c");
    assert_eq!(case.asked(), ["/a"]);
    let mut failed = tree("a among 400\nb among 12");
    failed.failed = vec![failed.id("/a")];
    assert_eq!(failed.judge(among_rule(), available(600)), "no victim | not /b: InVain | not /a: Failed");
}

#[test]
fn a_value_that_is_not_known_counts_as_enough() {
    for text in ["a among 12 outlives=?\nb among 12", "a among 12 outlives=?\nb among 12 excluded=0"] {
        let mut case = tree(text);
        assert!(case.judge(among_rule(), available(900)).starts_with("kill /a"), "{text}");
        assert_eq!(case.verdict.evidence.relief, relief(400, None));
    }
}

#[test]
fn at_least_the_anonymous_memory_and_what_is_in_zram_leaves_ram() {
    // numbers that were read one after the other need not fit together
    assert_eq!(tree("a among 60 current=50 outlives=20").judge(among_rule(), available(560)), "kill /a");
    assert_eq!(tree("a among 10 swap=50").judge(among_rule(), available(560)), "kill /a");
    assert_eq!(tree("a among 10 swap=50").judge(among_rule(), available(561)), "no victim | not /a: InVain");
    // kernel memory that is charged to it goes with it, as far as one can tell
    assert_eq!(tree("a among 10 current=60 outlives=0").judge(among_rule(), available(560)), "kill /a");
}

#[test]
fn free_swap_comes_back_out_of_swap() {
    let judged = |below: u64, text: &str| {
        let mut case = tree(text);
        (case.node.swap_total_bytes, case.node.swap_free_bytes) = (1000 * MIB, Some(50 * MIB));
        case.judge(among_rule(), Notice::SwapFree(below * MIB, NO_TIME))
    };
    assert_eq!(judged(100, "a among 500 swap=20\nb among 30 swap=30"), "kill /a | then /b");
    assert_eq!(judged(101, "a among 500 swap=20\nb among 30 swap=30"), "no victim | not /a: InVain | not /b: InVain");
}

#[test]
fn usage_of_a_subject_comes_back_within_it() {
    let of_max = |percent| Notice::Usage(UsageTest::Share(Share::percent(percent), UsageOf::Max), NO_TIME);
    // 60 of 64 MiB, most of it tmpfs
    let text = "t subject current=60 max=64\n  a among 5 current=50 tmpfs=45\n  b among 5";
    assert_eq!(tree(text).judge(among_rule(), of_max(85)), "kill /t/a | then /t/b", "5.6 MiB are missing, 10 can go");
    assert_eq!(tree(text).judge(leaves_rule(), of_max(50)), "no victim | not /t/a: InVain | not /t/b: InVain");
    // who stands elsewhere can't help, however large
    let text = "t subject current=60 max=64\n  a among 5 current=50 tmpfs=45\nelse among 400";
    let mut case = tree(text);
    assert_eq!(case.judge(among_rule(), usage_above(50)), "no victim | not /else: InVain | not /t/a: InVain");
    assert_eq!(case.verdict.evidence.relief, relief(10, Some(5)));
    // what is not written yet can be reclaimed once nobody dirties it
    assert_eq!(tree("t subject 5 current=60 outlives=50 file=5").judge(subject_rule(), usage_above(50)), "kill /t");
    // the subject itself, and who contains it
    assert_eq!(tree("t subject 5 current=60 tmpfs=55").judge(subject_rule(), usage_above(50)), "no victim | not /t: InVain");
    assert_eq!(tree("t subject 50 current=60 tmpfs=10").judge(subject_rule(), usage_above(50)), "kill /t");
    assert_eq!(tree("s among\n  t subject 50 current=60 tmpfs=10").judge(among_rule(), usage_above(50)), "kill /s");
    // of the node
    let of_node = Notice::Usage(UsageTest::Share(Share::percent(40), UsageOf::Node), NO_TIME);
    assert_eq!(tree("a among 100").judge(among_rule(), of_node), "kill /a");
    assert_eq!(tree("a among 99").judge(among_rule(), of_node), "no victim | not /a: InVain");
}

#[test]
fn subjects_that_could_help_each_other_are_not_counted_alone() {
    assert_eq!(tree("a subject 12\nb 400").judge(subject_rule(), available(600)), "kill /a");
    assert_eq!(tree("a subject 12\nb 400").judge(leaves_rule(), available(600)), "kill /a");
    let leaves_of_node: Rule = leaves_rule();
    assert_eq!(tree("a 12\nb 30").judge(leaves_of_node, available(600)), "no victim | not /b: InVain | not /a: InVain");
}

#[test]
fn levels_of_the_kernel_module_below_oom() {
    let judged = |level, swap: (u64, u64), text: &str| {
        let mut case = tree(text);
        (case.node.available_bytes, case.node.lms) = (Some(60 * MIB), Some(lms_at(level)));
        (case.node.swap_total_bytes, case.node.swap_free_bytes) = (swap.0 * MIB, Some(swap.1 * MIB));
        case.judge(among_rule(), Notice::Lms(level))
    };
    let (warn, kill) = (LmsLevel::Warn, LmsLevel::Kill);
    // warn below 200, kill below 100
    assert_eq!(judged(warn, (0, 0), "a among 140"), "kill /a");
    assert_eq!(judged(warn, (0, 0), "a among 139"), "no victim | not /a: InVain");
    assert_eq!(judged(kill, (0, 0), "a among 40"), "kill /a");
    assert_eq!(judged(kill, (0, 0), "a among 39"), "no victim | not /a: InVain");
    // free swap would do as well, and how much of it is not known
    assert_eq!(judged(kill, (500, 0), "a among 20 swap=1"), "kill /a");
    assert_eq!(judged(kill, (500, 0), "a among 20"), "no victim | not /a: InVain");
}

#[test]
fn groups_that_hold_memory_without_a_process_are_named_largest_first() {
    let text = "
        a among 12
        left among empty current=300
          below empty current=200
        b among 10
          c 10
          d empty current=30
        e empty current=40
        f empty current=20
        tiny empty current=0";
    let mut case = tree(text);
    assert!(case.judge(among_rule(), available(600)).starts_with("no victim"));
    let named = |case: &Case| -> Vec<(String, u64)> {
        case.verdict.emptied.iter().flatten().map(|(at, bytes)| (case.groups[*at as usize].path.to_string(), bytes / MIB)).collect()
    };
    assert_eq!(named(&case), [("/left".to_owned(), 300), ("/e".to_owned(), 40), ("/b/d".to_owned(), 30)]);
    // a level of the subject's own: what stands elsewhere holds nothing of it
    let mut case = tree("t subject current=60 max=64\n  a 5\n  left empty current=50\nelse empty current=90");
    assert_eq!(case.judge(leaves_rule(), usage_above(50)), "no victim | not /t/a: InVain | not /t/left: Empty");
    assert_eq!(named(&case), [("/t/left".to_owned(), 50)]);
    // and of a verdict that kills nothing is said
    case.decide(leaves_rule(), event(EventKind::Oom));
    assert_eq!((case.verdict.decision, named(&case).len()), (Decision::Kill(case.at("/t/a")), 0));
}
