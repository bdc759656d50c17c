//! What keeps a rule still.

use std::sync::LazyLock;
use std::time::Duration;

use super::fixture::*;
use crate::cgroup::path::GroupPath;
use crate::decide::facts::GroupId;
use crate::decide::history::{
    Admission, DeedEnd, FORGIVEN_AFTER, History, LITTLE, LONGEST_BACK_OFF, LONGEST_RETRY, SAID_AGAIN, Subject, freed_little,
};
use crate::decide::verdict::Notice;
use crate::policy::model::{EventKind, LmsLevel, UsageTest};
use crate::units::Bytes;

/// Two groups, by identity and name.
const A: GroupId = GroupId(1);

static PATHS: LazyLock<[GroupPath; 2]> = LazyLock::new(|| [GroupPath::from_bytes(b"/a"), GroupPath::from_bytes(b"/b")]);

fn a() -> Subject<'static> {
    Subject { id: A, path: &PATHS[0] }
}

fn b() -> Subject<'static> {
    Subject { id: GroupId(2), path: &PATHS[1] }
}

/// Another group under A's name.
fn a_again() -> Subject<'static> {
    Subject { id: GroupId(3), path: &PATHS[0] }
}
const COOLDOWN: Duration = Duration::from_secs(2);
const GOOD: DeedEnd = DeedEnd::Gone { freed_little: false };
const POOR: DeedEnd = DeedEnd::Gone { freed_little: true };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A table in which rule 0 began a deed on A at 10 s and ended it at 11 s.
fn after(end: DeedEnd) -> History {
    let mut history = History::with_capacity(4);
    history.deed_began(at(10), 0, &a());
    history.deed_ended(at(11), 0, &a(), COOLDOWN, end);
    history
}

#[test]
fn a_rule_rests_for_the_subject_during_the_deed_and_its_cool_down() {
    let mut history = History::with_capacity(4);
    assert_eq!(history.admit(at(10), 0, &a(), &PSI), Admission::Judge);
    history.deed_began(at(10), 0, &a());
    assert_eq!(history.resting_until(at(10), 0, &a()), Some(Duration::MAX));
    assert_eq!(history.admit(at(9999), 0, &a(), &PSI), Admission::Dropped);
    assert_eq!(history.deed_ended(at(11), 0, &a(), COOLDOWN, GOOD), COOLDOWN);
    for (time, admission) in
        [(at(11), Admission::Dropped), (at(13) - Duration::from_nanos(1), Admission::Dropped), (at(13), Admission::Judge)]
    {
        assert_eq!(history.admit(time, 0, &a(), &PSI), admission, "{time:?}");
    }
    // other subjects and other rules are not concerned
    let mut history = after(GOOD);
    assert_eq!(history.admit(at(11), 0, &b(), &PSI), Admission::Judge);
    assert_eq!(history.admit(at(11), 1, &a(), &PSI), Admission::Judge);
}

#[test]
fn events_are_kept_and_levels_are_not() {
    let mut history = after(GOOD);
    let usage = Notice::Usage(UsageTest::Amount(Bytes(1)), Duration::ZERO);
    for notice in [PSI, usage, Notice::Available(1, Duration::ZERO), Notice::SwapFree(1, Duration::ZERO), Notice::Lms(LmsLevel::Oom)] {
        assert_eq!(history.admit(at(12), 0, &a(), &notice), Admission::Dropped);
    }
    assert_eq!(history.next_due(), None);
    assert_eq!(history.admit(at(12), 0, &a(), &Notice::Event(EventKind::OomKill, 3, 4)), Admission::Kept);
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
        history.admit(at(12), 0, &a(), &Notice::Event(kind, from, to));
    }
    assert_eq!(history.take_due(at(20)), Some((0, A, Notice::Event(EventKind::OomKill, 3, 6))));
}

#[test]
fn only_fresh_evidence_counts() {
    for (end, survives) in [(GOOD, false), (DeedEnd::Recovered, false), (DeedEnd::Failed, true)] {
        let mut history = History::with_capacity(4);
        history.deed_began(at(10), 0, &a());
        assert_eq!(history.admit(at(10), 0, &a(), &event(EventKind::OomKill)), Admission::Kept);
        assert_eq!(history.take_due(at(9999)), None, "not while the deed lasts");
        assert_eq!(history.next_due(), None);
        history.deed_ended(at(11), 0, &a(), COOLDOWN, end);
        assert_eq!(history.take_due(at(13)).is_some(), survives, "{end:?}");
    }
}

#[test]
fn kills_that_free_little_double_the_rest_until_one_is_good() {
    let mut history = History::with_capacity(4);
    let mut now = at(10);
    let mut deed = |end| {
        history.deed_began(now, 0, &a());
        let rest = history.deed_ended(now, 0, &a(), COOLDOWN, end);
        now += rest;
        rest.as_secs()
    };
    assert_eq!([POOR, POOR, POOR, POOR, POOR, POOR].map(&mut deed), [4, 8, 16, 32, 60, 60]);
    assert_eq!([DeedEnd::Failed, DeedEnd::Recovered].map(&mut deed), [60, 60]);
    assert_eq!([GOOD, POOR].map(&mut deed), [2, 4]);
    now += FORGIVEN_AFTER;
    assert_eq!(deed_after(&mut history, now), 4, "long ago is forgiven");

    // a rule that rests longer by itself is not hurried
    assert_eq!(history.deed_ended(now, 1, &a(), LONGEST_BACK_OFF * 2, POOR), LONGEST_BACK_OFF * 2);
}

fn deed_after(history: &mut History, now: Duration) -> u64 {
    history.deed_began(now, 0, &a());
    history.deed_ended(now, 0, &a(), COOLDOWN, POOR).as_secs()
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
    history.deed_began(at(1), 0, &a());
    history.deed_ended(at(2), 0, &a(), COOLDOWN, GOOD);
    history.deed_began(at(3), 1, &a());
    // A's first rest is spent: nothing is lost
    history.deed_began(at(9), 0, &b());
    assert_eq!(history.lost(), 0);
    assert_eq!(history.resting_until(at(9), 1, &a()), Some(Duration::MAX));
    // two deeds under way: the older one has to go, and that is counted
    history.deed_began(at(10), 1, &b());
    assert_eq!((history.lost(), history.resting_until(at(10), 1, &a())), (1, None));
    assert_eq!(history.resting_until(at(10), 0, &b()), Some(Duration::MAX));
}

#[test]
fn what_is_put_off_is_said_once_and_judged_again_after_a_moment() {
    let mut history = History::with_capacity(2);
    let retry = Duration::from_millis(100);
    history.put_off(at(1), 0, &a(), &event(EventKind::Oom), retry);
    assert!(history.is_to_be_said(at(1), 0, &a()));
    assert_eq!(history.admit(at(1), 0, &a(), &PSI), Admission::Dropped);
    assert_eq!(history.next_due(), Some(at(1) + retry));
    let due = history.take_due(at(2));
    assert!(matches!(due, Some((0, A, Notice::Event(EventKind::Oom, ..)))), "an event is not lost: {due:?}");
    history.put_off(at(2), 0, &a(), &PSI, retry);
    assert!(!history.is_to_be_said(at(2), 0, &a()), "said already");
    assert_eq!(history.next_due(), None, "stall that lasts is noticed again");
    // The second rest is twice the first, and so on; the end of what is in the way ends it.
    assert_eq!(history.resting_until(at(2), 0, &a()), Some(at(2) + 2 * retry));
    for _ in 0..20 {
        history.put_off(at(3), 0, &a(), &PSI, retry);
    }
    assert_eq!(history.resting_until(at(3), 0, &a()), Some(at(3) + LONGEST_RETRY));
    assert!(history.is_put_off(0, &a()));
    history.wake(at(4));
    assert_eq!((history.resting_until(at(4), 0, &a()), history.is_put_off(0, &a())), (None, false));
    history.put_off(at(1) + SAID_AGAIN, 0, &a(), &PSI, retry);
    assert!(history.is_to_be_said(at(1) + SAID_AGAIN, 0, &a()));
    // A deed of its own ends that, and is not cut short.
    history.deed_began(at(70), 0, &a());
    history.put_off(at(70), 0, &a(), &PSI, retry);
    assert_eq!(history.resting_until(at(99), 0, &a()), Some(Duration::MAX));
}

/// A unit that its supervisor starts anew is a new group under the old name.
#[test]
fn a_cool_down_holds_for_a_name_and_a_kept_notice_for_a_group() {
    let mut history = after(GOOD);
    history.admit(at(12), 0, &a(), &event(EventKind::OomKill));
    history.forget(A);
    assert_eq!(history.next_due(), None, "what was noticed concerns the dead");
    assert_eq!(history.resting_until(at(12), 0, &a_again()), Some(at(13)));
    assert_eq!(history.admit(at(12), 0, &a_again(), &PSI), Admission::Dropped);
    // Without word of the removal.
    let mut history = after(GOOD);
    history.admit(at(12), 0, &a(), &event(EventKind::OomKill));
    assert_eq!(history.admit(at(12), 0, &a_again(), &event(EventKind::Max)), Admission::Kept);
    let due = history.take_due(at(13));
    assert!(matches!(due, Some((0, GroupId(3), Notice::Event(EventKind::Max, ..)))), "its own: {due:?}");
    // Nor does a back-off end with the group.
    let mut history = after(POOR);
    history.forget(A);
    history.deed_began(at(20), 0, &a_again());
    assert_eq!(history.deed_ended(at(20), 0, &a_again(), COOLDOWN, POOR), COOLDOWN * 4);
}

#[test]
fn groups_go_and_policies_change() {
    let mut history = after(GOOD);
    history.deed_began(at(11), 1, &b());
    history.renumber(|rule| (rule == 0).then_some(5));
    assert_eq!(history.resting_until(at(11), 5, &a()), Some(at(13)));
    assert_eq!(history.resting_until(at(11), 1, &b()), None);
    history.admit(at(12), 5, &a(), &event(EventKind::Oom));
    history.drop_pending(|id, kind| id == A && kind == EventKind::OomKill);
    assert!(history.next_due().is_some());
    history.drop_pending(|id, kind| id == A && kind == EventKind::Oom);
    assert_eq!(history.next_due(), None);
}
