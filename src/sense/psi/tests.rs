use super::*;

fn psi(stall_ms: u64, window_ms: u64) -> Psi {
    Psi { kind: PsiKind::Full, stall: Duration::from_millis(stall_ms), window: Duration::from_millis(window_ms) }
}

fn group(id: u64) -> GroupId {
    GroupId(id)
}

fn fd() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

const NOW: Duration = Duration::from_secs(1);
const ROOT: GroupId = GroupId(1000);

/// A group's triggers stand wherever there was room, and it counts once all the same.
#[test]
fn a_group_counts_once_in_the_budget_wherever_its_triggers_stand() {
    let mut pool = Pool::new(2, ROOT);
    pool.ask(group(1), psi(100, 500), NOW);
    pool.ask(group(2), psi(100, 500), NOW);
    pool.take(|entry| entry.group == group(1), |_| {});
    pool.ask(group(3), psi(100, 500), NOW);
    pool.take(|entry| entry.group == group(2), |_| {});
    // Beside the one of group 3: in the place that group 2 left, and behind.
    pool.ask(group(3), psi(200, 500), NOW);
    pool.ask(group(3), psi(300, 500), NOW);
    assert!(pool.has_room(group(9)), "one group of two has triggers");
    pool.ask(group(4), psi(100, 500), NOW);
    assert!(!pool.has_room(group(9)));
    pool.take(|entry| entry.group == group(3) && entry.psi == psi(200, 500), |_| {});
    assert!(!pool.has_room(group(9)), "it has two left");
    pool.take(|entry| entry.group == group(3), |_| {});
    assert!(pool.has_room(group(9)));
}

/// The root stands for the node.
#[test]
fn the_root_keeps_its_trigger_whatever_the_number_of_groups() {
    let mut pool = Pool::new(2, ROOT);
    pool.ask(ROOT, psi(100, 500), NOW);
    pool.ask(group(1), psi(100, 500), NOW * 2);
    assert!(pool.has_room(group(2)), "the root takes nobody's place");
    pool.ask(group(2), psi(100, 500), NOW * 2);
    assert!(!pool.has_room(group(3)));
    assert_eq!(pool.least_troubled(NOW * 100), Some(group(1)), "the root is the longest without trouble, and stays");
    pool.take(|entry| entry.group == ROOT, |_| {});
    assert!(pool.has_room(ROOT) && !pool.has_room(group(3)));
}

/// A group without processes takes no place from those that have some.
#[test]
fn a_trigger_that_is_withdrawn_leaves_its_place() {
    let mut pool = Pool::new(1, ROOT);
    let first = pool.ask(group(1), psi(100, 500), NOW);
    let second = pool.ask(group(1), psi(200, 500), NOW);
    pool.withdraw(first, NOW);
    assert!(pool.has(group(1)) && !pool.has_room(group(2)), "the group has another trigger");
    pool.withdraw(second, NOW);
    assert!(!pool.has(group(1)) && pool.has_room(group(2)));
    assert_eq!(pool.asked(), 0, "nothing is being done, and the start is complete");
    let other = pool.ask(group(2), psi(100, 500), NOW);
    pool.withdraw(first, NOW);
    assert!(pool.find(other).is_some(), "the answer to an errand of a former owner concerns nobody");
}

/// Where PSI is off nothing is read on a timer; it is tried again, in case that it is switched on.
#[test]
fn a_trigger_without_psi_is_dead_until_it_can_be_armed() {
    let mut pool = Pool::new(2, ROOT);
    let (dead, timed) = (pool.ask(group(1), psi(100, 500), NOW), pool.ask(group(2), psi(100, 500), NOW));
    assert!(pool.hears(group(1)), "it is being armed");
    pool.refused(dead, Refused::Unreadable);
    pool.refused(timed, Refused::Readable);
    assert_eq!((pool.asked(), pool.timed(), pool.armed()), (0, 1, 0));
    assert_eq!(pool.dead().collect::<Vec<_>>(), [(group(1), psi(100, 500))]);
    assert!(pool.has(group(1)) && !pool.hears(group(1)) && pool.hears(group(2)));
    pool.tick(NOW, |id, _| (id == group(2)).then_some(0), |_, _| {});
    pool.tick(NOW * 2, |id, _| (id == group(2)).then_some(0), |_, _| panic!("nobody stalled"));
    assert_eq!(pool.retry(NOW + RETRY / 2), None);
    assert_eq!((pool.switched(group(1), NOW + SWITCHED / 2), pool.switched(group(2), NOW + SWITCHED)), (None, None));
    let switched = pool.switched(group(1), NOW + SWITCHED);
    assert_eq!(switched, Some((dead, group(1), psi(100, 500))));
    pool.refused(dead, Refused::Unreadable);
    let tried: Vec<GroupId> = std::iter::from_fn(|| pool.retry(NOW + SWITCHED + RETRY)).map(|(_, id, _)| id).collect();
    assert_eq!(tried, [group(1), group(2)]);
    assert!(pool.armed_now(dead, fd(), None, NOW + RETRY, |_| true).is_none());
    assert_eq!((pool.armed(), pool.dead().count()), (1, 0));
    assert!(pool.hears(group(1)));
}

/// What was armed anew after a deed and found nobody may stand beside the old trigger for a while.
#[test]
fn that_a_group_had_triggers_is_remembered_for_a_while() {
    let mut pool = Pool::new(2, ROOT);
    let (new, renewed) = (pool.ask(group(1), psi(100, 500), NOW), pool.ask_anew(group(2), psi(100, 500), NOW));
    pool.withdraw(new, NOW);
    pool.withdraw(renewed, NOW);
    assert!(!pool.had_triggers(group(1), NOW) && pool.had_triggers(group(2), NOW + CLOSED / 2));
    assert!(!pool.had_triggers(group(2), NOW + CLOSED));
    for id in 0..1000 {
        let key = pool.ask_anew(group(10 + id), psi(100, 500), NOW);
        pool.withdraw(key, NOW);
    }
    assert!(pool.renewed.len() == REMEMBERED && pool.had_triggers(group(1009), NOW), "bounded, the last remembered");
}

/// Its owner may write the switch as often as it likes.
#[test]
fn a_switch_is_looked_at_once_a_second() {
    let mut pool = Pool::new(2, ROOT);
    let looks = (0..2000).filter(|at| pool.may_look_at_switch(group(1), NOW + Duration::from_millis(*at))).count();
    assert_eq!(looks, 2);
    let looks = (0..1000).filter(|id| pool.may_look_at_switch(group(100 + id), NOW + Duration::from_millis(2000))).count();
    assert!(looks < REMEMBERED + 1, "however many groups it has: {looks}");
}

#[test]
fn refused_windows_widen_and_keep_their_ratio() {
    let tried = |stall, window| attempts(psi(stall, window)).map(|psi| (psi.stall.as_millis(), psi.window.as_millis())).collect::<Vec<_>>();
    assert_eq!(tried(100, 200), [(100, 200), (250, 500), (1000, 2000)]);
    assert_eq!(tried(100, 500), [(100, 500), (400, 2000)]);
    assert_eq!(tried(150, 1000), [(150, 1000), (300, 2000)]);
    assert_eq!(tried(1500, 3000), [(1500, 3000), (2000, 4000)]);
    assert_eq!(tried(1000, 2000), [(1000, 2000)]);
}

#[test]
fn the_kernel_gets_microseconds_and_a_nul() {
    assert_eq!(text(psi(100, 500)), "full 100000 500000\0");
}

#[test]
fn a_trigger_armed_for_a_group_that_left_comes_back() {
    let mut pool = Pool::new(2, ROOT);
    let key = pool.ask(group(1), psi(100, 500), NOW);
    assert_eq!((pool.asked(), pool.armed()), (1, 0));
    pool.take(|entry| entry.group == group(1), |_| panic!("nothing was armed"));
    assert!(pool.armed_now(key, fd(), None, NOW, |_| true).is_some());
    // The slot's next owner is not mistaken for the old one.
    let other = pool.ask(group(2), psi(100, 500), NOW);
    assert_eq!(other.slot, key.slot);
    assert!(pool.armed_now(key, fd(), None, NOW, |_| true).is_some());
    assert!(pool.armed_now(other, fd(), None, NOW, |_| true).is_none());
    assert_eq!(pool.armed(), 1);
    let mut closed = 0;
    pool.take(|_| true, |_| closed += 1);
    assert_eq!((closed, pool.armed()), (1, 0));
    assert!(pool.find(other).is_none());
}

#[test]
fn the_budget_counts_groups_and_names_the_one_to_leave() {
    let mut pool = Pool::new(2, ROOT);
    pool.ask(group(1), psi(100, 500), NOW);
    pool.ask(group(1), psi(200, 500), NOW);
    assert!(pool.has_room(group(9)));
    pool.ask(group(2), psi(100, 500), NOW + NOW);
    assert!(!pool.has_room(group(9)));
    assert_eq!(pool.least_troubled(NOW * 2), None, "all in trouble a moment ago: nobody leaves before a window is over");
    assert_eq!(pool.least_troubled(NOW * 3), Some(group(1)));
    pool.touch(group(1), NOW * 3);
    assert_eq!(pool.least_troubled(NOW * 9), Some(group(2)));
}

#[test]
fn a_refused_trigger_is_tried_again_after_a_while() {
    let mut pool = Pool::new(2, ROOT);
    let key = pool.ask(group(1), psi(100, 500), NOW);
    pool.refused(key, Refused::Readable);
    assert_eq!(pool.retry(NOW * 5), None);
    assert_eq!(pool.retry(NOW * 20), Some((key, group(1), psi(100, 500))));
    assert_eq!(pool.retry(NOW * 20), None, "once");
}

#[test]
fn on_a_timer_stall_within_the_window_fires_and_older_stall_does_not() {
    let mut pool = Pool::new(2, ROOT);
    let key = pool.ask(group(1), psi(100, 500), NOW);
    pool.refused(key, Refused::Readable);
    let mut at = |millis: u64, total_us: u64| {
        let mut fired = 0;
        pool.tick(Duration::from_millis(millis), |_, _| Some(total_us), |_, _| fired += 1);
        fired
    };
    assert_eq!(at(0, 5_000_000), 0, "what accrued before is not news");
    assert_eq!(at(250, 5_060_000), 0);
    assert_eq!(at(500, 5_090_000), 0, "90 ms in a window");
    assert_eq!(at(750, 5_150_000), 0, "60 ms in the next");
    assert_eq!(at(900, 5_200_000), 1, "110 ms within it");
    assert_eq!(at(1000, 5_200_000), 0);
}

#[test]
fn who_takes_anothers_place_is_made_anew_before_it_is_believed() {
    let mut pool = Pool::new(2, ROOT);
    let unread = |_: &OwnedFd, _: PsiKind| panic!("a privileged trigger has another total than the file tells");
    let first = pool.ask(group(1), psi(50, 500), NOW);
    assert!(pool.armed_now(first, fd(), None, NOW, |_| true).is_none());
    assert_eq!(pool.fired(first, NOW, unread), Firing::Own, "nobody was killed: whatever stall there was is real");
    pool.take(|_| true, drop);
    let armed = NOW * 2;
    let renewed = pool.ask_anew(group(1), psi(50, 500), armed);
    assert!(pool.armed_now(renewed, fd(), None, armed, |_| true).is_none());
    assert_eq!(pool.fired(renewed, armed, unread), Firing::Unsure, "the kernel counts in what it had not yet added up");
    let (again, _old) = pool.again(renewed, armed, |_| ()).unwrap();
    assert_eq!((pool.asked(), pool.armed()), (1, 0));
    assert_eq!(pool.fired(renewed, armed, unread), Firing::Older, "a notice of the old one that was still under way");
    assert!(pool.armed_now(again, fd(), None, armed, |_| true).is_none());
    assert_eq!(pool.fired(again, armed, unread), Firing::Own);
    let late = pool.ask_anew(group(2), psi(50, 500), armed);
    assert!(pool.armed_now(late, fd(), None, armed, |_| true).is_none());
    assert_eq!(pool.fired(late, armed + NOW, unread), Firing::Own, "two windows later nothing inherited is left");
}

#[test]
fn an_unprivileged_trigger_is_believed_what_the_total_bears_out() {
    let mut pool = Pool::new(2, ROOT);
    // What 50ms/500ms widens to.
    let armed_at = |total_us| Some(Unprivileged { armed: psi(200, 2000), total_us });
    let key = pool.ask(group(1), psi(50, 500), NOW);
    assert!(pool.armed_now(key, fd(), armed_at(1_000_000), NOW, |_| true).is_none());
    let at = |total: u64| move |_: &OwnedFd, _: PsiKind| Some(total);
    assert_eq!(pool.fired(key, NOW, at(1_190_000)), Firing::Older, "the kernel counts in all stall of the group's life");
    assert_eq!(pool.fired(key, NOW * 3, at(1_380_000)), Firing::Older, "190 ms more are no 200 ms within a window");
    assert_eq!(pool.fired(key, NOW * 5, at(1_580_000)), Firing::Own);
    assert_eq!(pool.fired(key, NOW * 5, |_, _| panic!("borne out once")), Firing::Own);
    let old = pool.ask(group(2), psi(50, 500), NOW);
    assert!(pool.armed_now(old, fd(), armed_at(7), NOW, |_| true).is_none());
    assert_eq!(pool.fired(old, NOW * 9, |_, _| panic!("windows ago")), Firing::Own);
    let unread = pool.ask(group(3), psi(50, 500), NOW);
    assert!(pool.armed_now(unread, fd(), armed_at(7), NOW, |_| true).is_none());
    assert_eq!(pool.fired(unread, NOW, |_, _| None), Firing::Own, "what can't be read makes nobody deaf");
    pool.take(|_| true, drop);
    assert_eq!(pool.fired(key, NOW, at(9_000_000)), Firing::Older, "taken down meanwhile");
}

/// What a victim stalled stands in the windows of the groups above it, too.
#[test]
fn a_trigger_above_a_victim_is_made_anew_before_it_is_believed_but_not_for_every_victim() {
    let mut pool = Pool::new(2, ROOT);
    let key = pool.ask(group(1), psi(100, 500), NOW);
    assert!(pool.armed_now(key, fd(), None, NOW, |_| true).is_none());
    pool.doubt(NOW, |group| group == GroupId(1));
    assert_eq!(pool.fired(key, NOW + Duration::from_millis(400), |_, _| None), Firing::Unsure);
    let (key, _old) = pool.again(key, NOW + Duration::from_millis(400), |_| {}).unwrap();
    assert!(pool.armed_now(key, fd(), None, NOW + Duration::from_millis(400), |_| true).is_none());
    // One victim after the other.
    pool.doubt(NOW + Duration::from_millis(500), |group| group == GroupId(1));
    assert_eq!(pool.fired(key, NOW + Duration::from_millis(900), |_, _| None), Firing::Own);
    pool.doubt(NOW * 60, |group| group == GroupId(1));
    assert_eq!(pool.fired(key, NOW * 63, |_, _| None), Firing::Own, "beyond its windows nothing of the victim is left");
}
