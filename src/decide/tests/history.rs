//! What keeps a rule still.

use std::time::Duration;

use super::fixture::*;
use crate::decide::facts::GroupId;
use crate::decide::history::{Admission, DeedEnd, FORGIVEN_AFTER, History, LITTLE, LONGEST_BACK_OFF, conflicts, freed_little};
use crate::decide::verdict::Notice;
use crate::policy::model::{EventKind, LmsLevel, UsageTest};
use crate::units::Bytes;

const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);
const COOLDOWN: Duration = Duration::from_secs(2);
const GOOD: DeedEnd = DeedEnd::Gone { freed_little: false };
const POOR: DeedEnd = DeedEnd::Gone { freed_little: true };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A table in which rule 0 began a deed on A at 10 s and ended it at 11 s.
fn after(end: DeedEnd) -> History {
    let mut history = History::with_capacity(4);
    history.deed_began(at(10), 0, A);
    history.deed_ended(at(11), 0, A, COOLDOWN, end);
    history
}

#[test]
fn a_rule_rests_for_the_subject_during_the_deed_and_its_cool_down() {
    let mut history = History::with_capacity(4);
    assert_eq!(history.admit(at(10), 0, A, &PSI), Admission::Judge);
    history.deed_began(at(10), 0, A);
    assert_eq!(history.resting_until(at(10), 0, A), Some(Duration::MAX));
    assert_eq!(history.admit(at(9999), 0, A, &PSI), Admission::Dropped);
    assert_eq!(history.deed_ended(at(11), 0, A, COOLDOWN, GOOD), COOLDOWN);
    for (time, admission) in
        [(at(11), Admission::Dropped), (at(13) - Duration::from_nanos(1), Admission::Dropped), (at(13), Admission::Judge)]
    {
        assert_eq!(history.admit(time, 0, A, &PSI), admission, "{time:?}");
    }
    // other subjects and other rules are not concerned
    let mut history = after(GOOD);
    assert_eq!(history.admit(at(11), 0, B, &PSI), Admission::Judge);
    assert_eq!(history.admit(at(11), 1, A, &PSI), Admission::Judge);
}

#[test]
fn events_are_kept_and_levels_are_not() {
    let mut history = after(GOOD);
    let usage = Notice::Usage(UsageTest::Amount(Bytes(1)), Duration::ZERO);
    for notice in [PSI, usage, Notice::Available(1, Duration::ZERO), Notice::SwapFree(1, Duration::ZERO), Notice::Lms(LmsLevel::Oom)] {
        assert_eq!(history.admit(at(12), 0, A, &notice), Admission::Dropped);
    }
    assert_eq!(history.next_due(), None);
    assert_eq!(history.admit(at(12), 0, A, &Notice::Event(EventKind::OomKill, 3, 4)), Admission::Kept);
    assert_eq!(history.next_due(), Some(at(13)));
    assert_eq!(history.take_due(at(12)), None);
    assert_eq!(history.take_due(at(13)), Some((0, A, Notice::Event(EventKind::OomKill, 3, 4))));
    assert_eq!(history.take_due(at(13)), None);
    assert_eq!(history.next_due(), None);
}

#[test]
fn of_several_events_the_weightiest_is_kept_and_equals_become_one() {
    let mut history = after(GOOD);
    for (kind, from, to) in [(EventKind::Max, 1, 2), (EventKind::OomKill, 3, 4), (EventKind::High, 7, 9), (EventKind::OomKill, 4, 6)] {
        history.admit(at(12), 0, A, &Notice::Event(kind, from, to));
    }
    assert_eq!(history.take_due(at(20)), Some((0, A, Notice::Event(EventKind::OomKill, 3, 6))));
}

#[test]
fn only_fresh_evidence_counts() {
    for (end, survives) in [(GOOD, false), (DeedEnd::Recovered, false), (DeedEnd::Failed, true)] {
        let mut history = History::with_capacity(4);
        history.deed_began(at(10), 0, A);
        assert_eq!(history.admit(at(10), 0, A, &event(EventKind::OomKill)), Admission::Kept);
        assert_eq!(history.take_due(at(9999)), None, "not while the deed lasts");
        assert_eq!(history.next_due(), None);
        history.deed_ended(at(11), 0, A, COOLDOWN, end);
        assert_eq!(history.take_due(at(13)).is_some(), survives, "{end:?}");
    }
}

#[test]
fn kills_that_free_little_double_the_rest_until_one_is_good() {
    let mut history = History::with_capacity(4);
    let mut now = at(10);
    let mut deed = |end| {
        history.deed_began(now, 0, A);
        let rest = history.deed_ended(now, 0, A, COOLDOWN, end);
        now += rest;
        rest.as_secs()
    };
    assert_eq!([POOR, POOR, POOR, POOR, POOR, POOR].map(&mut deed), [4, 8, 16, 32, 60, 60]);
    assert_eq!([DeedEnd::Failed, DeedEnd::Recovered].map(&mut deed), [60, 60]);
    assert_eq!([GOOD, POOR].map(&mut deed), [2, 4]);
    now += FORGIVEN_AFTER;
    assert_eq!(deed_after(&mut history, now), 4, "long ago is forgiven");

    // a rule that rests longer by itself is not hurried
    assert_eq!(history.deed_ended(now, 1, A, LONGEST_BACK_OFF * 2, POOR), LONGEST_BACK_OFF * 2);
}

fn deed_after(history: &mut History, now: Duration) -> u64 {
    history.deed_began(now, 0, A);
    history.deed_ended(now, 0, A, COOLDOWN, POOR).as_secs()
}

#[test]
fn what_little_is() {
    let little = |usage, freed| freed_little(&PSI, usage, freed);
    assert!(little(Some(100 * MIB), Some(9 * MIB)));
    assert!(!little(Some(100 * MIB), Some(10 * MIB)));
    assert!(little(Some(2 * MIB), Some(LITTLE - 1)));
    assert!(!little(Some(2 * MIB), Some(LITTLE)));
    assert!(little(Some(0), Some(0)), "nothing but tmpfs in it");
    assert!(!little(None, Some(0)));
    assert!(!little(Some(100 * MIB), None));
    // a shortage of the node is judged by what came back, whoever told of it
    for level in [LmsLevel::Warn, LmsLevel::Kill, LmsLevel::Oom] {
        assert!(freed_little(&Notice::Lms(level), Some(100 * MIB), Some(9 * MIB)));
        assert!(!freed_little(&Notice::Lms(level), Some(100 * MIB), Some(10 * MIB)));
    }
    assert!(!freed_little(&event(EventKind::OomKill), Some(100 * MIB), Some(0)), "the kernel had freed it already");
}

#[test]
fn a_full_table_lets_go_of_what_is_needed_least() {
    let mut history = History::with_capacity(2);
    history.deed_began(at(1), 0, A);
    history.deed_ended(at(2), 0, A, COOLDOWN, GOOD);
    history.deed_began(at(3), 1, A);
    // A's first rest is spent: nothing is lost
    history.deed_began(at(9), 0, B);
    assert_eq!(history.lost(), 0);
    assert_eq!(history.resting_until(at(9), 1, A), Some(Duration::MAX));
    // two deeds under way: the older one has to go, and that is counted
    history.deed_began(at(10), 1, B);
    assert_eq!((history.lost(), history.resting_until(at(10), 1, A)), (1, None));
    assert_eq!(history.resting_until(at(10), 0, B), Some(Duration::MAX));
}

#[test]
fn resting_without_a_deed() {
    let mut history = History::with_capacity(2);
    history.rest(at(1), 0, A, at(5));
    assert_eq!(history.admit(at(2), 0, A, &PSI), Admission::Dropped);
    assert_eq!(history.admit(at(6), 0, A, &PSI), Admission::Judge);
    history.deed_began(at(7), 0, A);
    history.rest(at(7), 0, A, at(1));
    assert_eq!(history.resting_until(at(99), 0, A), Some(Duration::MAX), "a deed is not cut short");
}

#[test]
fn groups_go_and_policies_change() {
    let mut history = after(GOOD);
    history.deed_began(at(11), 1, B);
    history.renumber(|rule| (rule == 0).then_some(5));
    assert_eq!(history.resting_until(at(11), 5, A), Some(at(13)));
    assert_eq!(history.resting_until(at(11), 1, B), None);
    history.forget(A);
    assert_eq!(history.resting_until(at(11), 5, A), None);
}

#[test]
fn ladders_conflict_along_a_line_and_nowhere_else() {
    let line = |ids: &[u64]| ids.iter().map(|id| GroupId(*id)).collect::<Vec<_>>();
    for (a, b, conflict) in [
        (&[1, 2][..], &[1, 2][..], true),
        (&[1, 2], &[1, 2, 3], true),
        (&[1], &[1, 2, 3], true),
        (&[1, 2, 4], &[1, 2, 3], false),
        (&[1, 2], &[1, 3, 2], false),
        (&[], &[1], true),
    ] {
        assert_eq!(conflicts(&line(a), &line(b)), conflict, "{a:?} {b:?}");
        assert_eq!(conflicts(&line(b), &line(a)), conflict, "{b:?} {a:?}");
    }
}
