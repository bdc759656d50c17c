use std::time::Instant;

use super::*;
use crate::policy::model::{KillWhat, WarnSignal};

const TERM: Rung = Rung::Term { wait: Duration::from_secs(3) };
const KILL: Rung = Rung::Kill(KillWhat::Group);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn ok(processes: u32) -> Done {
    Done { processes, ..Done::default() }
}

fn refused(errno: Errno) -> Done {
    Done { errno: Some(errno), ..Done::default() }
}

fn outcomes(records: &[RungRecord]) -> Vec<(RungName, RungOutcome)> {
    records.iter().map(|record| (record.name, record.outcome)).collect()
}

fn start(rungs: &[Rung]) -> (Ladder, Next, Vec<RungRecord>) {
    let mut ladder = Ladder::new(false, None);
    let next = ladder.begin(rungs, at(0));
    (ladder, next, Vec::with_capacity(16))
}

#[test]
fn kill_alone_writes_then_verifies() {
    let (mut ladder, next, mut records) = start(&[KILL]);
    assert_eq!(next, Next::Do(Deed::KillGroup { signals_first: false }));
    assert_eq!(ladder.deed_done(&[KILL], ok(0), at(2), at(3), &mut records), Next::Wait);
    assert!(ladder.is_killing());
    assert_eq!(ladder.killed_at, Some(at(2)));
    assert_eq!(ladder.gone(at(20), &mut records), Next::End(End::Gone));
    assert_eq!(outcomes(&records), [(RungName::Kill, RungOutcome::Done), (RungName::Verify, RungOutcome::Empty)]);
    assert_eq!((records[1].at, records[1].took), (at(2), at(18)));
}

#[test]
fn a_victim_that_honours_sigterm_is_never_killed() {
    let (mut ladder, next, mut records) = start(&[TERM, KILL]);
    assert_eq!(next, Next::Do(Deed::Term));
    assert_eq!(ladder.deed_done(&[TERM, KILL], ok(2), at(1), at(1), &mut records), Next::Wait);
    assert_eq!(ladder.deadline(), at(3001));
    assert!(!ladder.is_killing());
    assert_eq!(ladder.gone(at(500), &mut records), Next::End(End::Gone));
    assert_eq!(outcomes(&records), [(RungName::Term, RungOutcome::Empty)]);
    assert_eq!(ladder.killed_at, None);
}

#[test]
fn one_that_ignores_it_is_killed_after_the_grace() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.deed_done(&rungs, ok(1), at(1), at(1), &mut records);
    assert_eq!(ladder.deadline_passed(&rungs, at(3001), &mut records), Next::AskRecovered);
    assert_eq!(ladder.judged(&rungs, false, at(3001), &mut records), Next::Do(Deed::KillGroup { signals_first: false }));
    assert_eq!(outcomes(&records), [(RungName::Term, RungOutcome::Deadline)]);
}

#[test]
fn the_climb_ends_when_the_trouble_does() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.deed_done(&rungs, ok(1), at(1), at(1), &mut records);
    ladder.deadline_passed(&rungs, at(3001), &mut records);
    assert_eq!(ladder.judged(&rungs, true, at(3001), &mut records), Next::End(End::Recovered));
    assert_eq!(outcomes(&records), [(RungName::Term, RungOutcome::Recovered)]);
}

#[test]
fn a_failed_or_stuck_rung_goes_on_to_the_next() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    assert!(matches!(ladder.deed_done(&rungs, refused(Errno::PERM), at(1), at(1), &mut records), Next::Do(Deed::KillGroup { .. })));
    let (mut stuck, _, mut records_of_stuck) = start(&rungs);
    assert!(matches!(stuck.deadline_passed(&rungs, at(1000), &mut records_of_stuck), Next::Do(Deed::KillGroup { .. })));
    assert_eq!(outcomes(&records_of_stuck), [(RungName::Term, RungOutcome::Deadline)]);
}

#[test]
fn a_stuck_kill_is_tried_another_way_and_turns_to_nobody_else() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    assert_eq!(ladder.deadline_passed(&[KILL], at(1000), &mut records), Next::Do(Deed::KillProcesses));
    // What was sent may yet arrive: nobody else is killed for it.
    assert_eq!(ladder.deadline_passed(&[KILL], at(2000), &mut records), Next::Wait);
    assert_eq!(ladder.deadline(), at(7000));
    assert_eq!(ladder.deadline_passed(&[KILL], at(7000), &mut records), Next::End(End::Lingers));
    let deadline = |name| (name, RungOutcome::Deadline);
    assert_eq!(outcomes(&records), [deadline(RungName::Kill), deadline(RungName::Kill), deadline(RungName::Verify)]);
}

/// Under a shortage of the node the first are signalled long before cgroup.kill can be written.
#[test]
fn the_first_sigkill_is_the_moment_of_the_kill_and_the_last_one_begins_the_wait() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    let done = Done { sent: Some(Instant::now()), ..ok(3) };
    assert_eq!(ladder.deed_done(&[KILL], done, Sent { first: at(2), last: at(700) }, at(900), &mut records), Next::Wait);
    assert_eq!((ladder.killed_at, ladder.deadline()), (Some(at(2)), at(5700)));
    ladder.gone(at(710), &mut records);
    let times: Vec<_> = records.iter().map(|rung| (rung.at, rung.took, rung.sent)).collect();
    assert_eq!(times, [(at(0), at(2), Some(at(2))), (at(2), at(708), None)]);
}

/// The first try was given up for being slow, and its actor tells in the end that it was the first.
#[test]
fn the_earliest_sigkill_counts_whichever_try_it_was_of() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    assert_eq!(ladder.deadline_passed(&[KILL], at(1000), &mut records), Next::Do(Deed::KillProcesses));
    ladder.deed_done(&[KILL], ok(2), at(1010), at(1010), &mut records);
    assert_eq!(ladder.killed_at, Some(at(1010)));
    ladder.killed_by(at(3));
    ladder.killed_by(at(2000));
    assert_eq!(ladder.killed_at, Some(at(3)));
}

#[test]
fn a_kill_that_met_nobody_killed_nobody() {
    let (mut ladder, _, mut records) = start(&[TERM, KILL]);
    ladder.deed_done(&[TERM, KILL], ok(0), at(1), at(1), &mut records);
    assert!(!ladder.was_termed());
    let (mut late, _, mut its_records) = start(&[KILL]);
    assert_eq!(late.deed_done(&[KILL], Done { nobody: true, ..ok(0) }, at(2), at(2), &mut its_records), Next::Wait);
    assert_eq!(late.killed_at, None);
    assert_eq!(late.gone(at(3), &mut its_records), Next::End(End::Gone));
}

#[test]
fn a_refused_kill_fails_with_its_errno() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    assert_eq!(ladder.deed_done(&[KILL], refused(Errno::ACCESS), at(1), at(1), &mut records), Next::Do(Deed::KillProcesses));
    let end = ladder.deed_done(&[KILL], refused(Errno::PERM), at(2), at(2), &mut records);
    assert_eq!(end, Next::End(End::Failed(Some(Errno::PERM))));
}

#[test]
fn a_victim_that_dies_slowly_is_waited_for_and_turns_to_nobody_else() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    ladder.deed_done(&[KILL], ok(0), at(1), at(1), &mut records);
    assert_eq!(ladder.deadline(), at(5001));
    assert_eq!(ladder.deadline_passed(&[KILL], at(5001), &mut records), Next::End(End::Lingers));
    assert_eq!(outcomes(&records), [(RungName::Kill, RungOutcome::Done), (RungName::Verify, RungOutcome::Deadline)]);
}

/// Memory of those that could be signalled is on its way back.
#[test]
fn a_kill_that_reached_some_is_waited_for_like_any_other() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    ladder.deed_done(&[KILL], refused(Errno::ACCESS), at(1), at(1), &mut records);
    let some = Done { processes: 3, ..refused(Errno::PERM) };
    assert_eq!(ladder.deed_done(&[KILL], some, at(2), at(2), &mut records), Next::Wait);
    assert!(ladder.is_killing());
    assert_eq!(ladder.killed_at, Some(at(2)));
    assert_eq!(ladder.deadline_passed(&[KILL], at(5002), &mut records), Next::End(End::Lingers));
}

/// A kill that was slow may have been sent: that the second try finds nobody to signal is no refusal.
#[test]
fn a_slow_kill_is_waited_for_whatever_becomes_of_its_second_try() {
    let (mut ladder, _, mut records) = start(&[KILL]);
    assert_eq!(ladder.deadline_passed(&[KILL], at(1000), &mut records), Next::Do(Deed::KillProcesses));
    assert!(!ladder.was_refused());
    assert_eq!(ladder.deed_done(&[KILL], refused(Errno::OPNOTSUPP), at(1100), at(1100), &mut records), Next::Wait);
    assert_eq!(ladder.deadline_passed(&[KILL], at(6100), &mut records), Next::End(End::Lingers));
    // The same where the victim must live by the time of the second try.
    let (mut ladder, _, mut records) = start(&[KILL]);
    ladder.deadline_passed(&[KILL], at(1000), &mut records);
    assert_eq!(ladder.stand_back(at(1000), &mut records), Next::Wait);
    assert_eq!(records.last().map(|last| last.outcome), Some(RungOutcome::Spared));
    assert_eq!(ladder.deadline_passed(&[KILL], at(6000), &mut records), Next::End(End::Lingers));
}

/// A rung that had to wait for a closer look has its whole time from then on.
#[test]
fn a_rung_that_waited_for_a_look_begins_when_it_is_done() {
    let rungs = [TERM, KILL];
    let (mut ladder, next, _) = start(&rungs);
    assert_eq!((next, ladder.deadline()), (Next::Do(Deed::Term), at(1000)));
    ladder.begin_rung(at(950));
    assert_eq!(ladder.deadline(), at(1950));
}

/// Evidence from before a gap: a wait that begins after it lasts until the trouble may have been noticed again.
#[test]
fn a_wait_that_begins_after_a_gap_is_long_enough_to_notice_the_trouble_again() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.extend(at(20_000));
    assert_eq!(ladder.deed_done(&rungs, ok(1), at(1), at(15_000), &mut records), Next::Wait);
    assert_eq!(ladder.deadline(), at(20_000));
    let hook = [Rung::Hook(Arc::new(Hook { exec: vec!["/bin/true".into()], timeout: at(100) })), KILL];
    let mut ladder = Ladder::new(false, None);
    ladder.begin(&hook, at(0));
    ladder.extend(at(20_000));
    assert_eq!(ladder.hook_done(RungOutcome::Done, at(15_000), &mut records), Next::Wait);
    assert_eq!(ladder.deadline_passed(&hook, at(20_000), &mut records), Next::AskRecovered);
}

/// Who is to die alone is also asked alone.
#[test]
fn a_single_process_is_asked_and_killed_and_nobody_beside_it() {
    for kill in [Rung::Kill(KillWhat::Process), KILL] {
        let rungs = [TERM, kill];
        let mut ladder = Ladder::new(false, Some(7));
        let mut records = Vec::with_capacity(16);
        assert_eq!(ladder.begin(&rungs, at(0)), Next::Do(Deed::TermOne(7)));
        ladder.deed_done(&rungs, ok(1), at(1), at(1), &mut records);
        ladder.deadline_passed(&rungs, at(3001), &mut records);
        assert_eq!(ladder.judged(&rungs, false, at(3001), &mut records), Next::Do(Deed::KillOne(7)));
    }
}

#[test]
fn a_wait_can_be_made_longer_and_a_kill_can_not() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.deed_done(&rungs, ok(1), at(1), at(1), &mut records);
    ladder.extend(at(5000));
    assert_eq!(ladder.deadline(), at(5000));
    ladder.extend(at(4000));
    assert_eq!(ladder.deadline(), at(5000));
    ladder.hurry(&rungs, at(4500), &mut records);
    ladder.extend(at(9000));
    assert_eq!(ladder.deadline(), at(5500));
}

#[test]
fn a_single_process_whose_memory_takes_long_is_waited_for() {
    let rungs = [Rung::Kill(KillWhat::Process)];
    let mut ladder = Ladder::new(false, Some(7));
    let mut records = Vec::with_capacity(16);
    ladder.begin(&rungs, at(0));
    assert_eq!(ladder.deadline_passed(&rungs, at(1000), &mut records), Next::Wait);
    assert_eq!(ladder.gone(at(1400), &mut records), Next::End(End::Gone));
}

#[test]
fn a_single_process_that_is_gone_already_counts_as_gone() {
    let rungs = [Rung::Kill(KillWhat::Process)];
    let mut ladder = Ladder::new(true, Some(7));
    let mut records = Vec::with_capacity(16);
    assert_eq!(ladder.begin(&rungs, at(0)), Next::Do(Deed::KillOne(7)));
    assert_eq!(ladder.deed_done(&rungs, refused(Errno::SRCH), at(1), at(1), &mut records), Next::End(End::Gone));
}

#[test]
fn hurried_out_of_the_grace_time_it_kills_at_once() {
    let rungs = [TERM, KILL];
    let (mut ladder, next, mut records) = start(&rungs);
    assert_eq!(next, Next::Do(Deed::Term));
    assert_eq!(ladder.deed_done(&rungs, ok(2), at(1), at(1), &mut records), Next::Wait);
    assert_eq!(ladder.hurry(&rungs, at(500), &mut records), Next::Do(Deed::KillGroup { signals_first: false }));
    assert_eq!(outcomes(&records), [(RungName::Term, RungOutcome::Overtaken)]);
    assert_eq!(ladder.hurry(&rungs, at(501), &mut records), Next::Wait, "twice is once");
}

#[test]
fn hurried_while_sigterm_is_being_sent_it_kills_and_late_news_change_nothing() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    assert_eq!(ladder.hurry(&rungs, at(5), &mut records), Next::Do(Deed::KillGroup { signals_first: false }));
    assert!(ladder.is_killing());
}

#[test]
fn kill_can_be_the_first_rung() {
    let mut ladder = Ladder::new(true, None);
    assert_eq!(ladder.begin_with_kill(&[TERM, KILL], at(0)), Next::Do(Deed::KillGroup { signals_first: true }));
    assert!(ladder.is_killing());
}

const WARN: Rung = Rung::Warn { signal: Some(WarnSignal::USR1), wait: Duration::from_secs(1) };

fn hook() -> Rung {
    Rung::Hook(Arc::new(Hook { exec: vec!["/bin/true".to_owned()], timeout: at(500) }))
}

fn told(processes: u32, listeners: u32) -> Done {
    Done { processes, listeners, sent: Some(std::time::Instant::now()), ..Done::default() }
}

#[test]
fn who_frees_memory_when_warned_is_spared() {
    let rungs = [WARN, TERM, KILL];
    let (mut ladder, next, mut records) = start(&rungs);
    assert_eq!(next, Next::Do(Deed::Warn(Some(WarnSignal::USR1))));
    assert_eq!(ladder.deed_done(&rungs, told(2, 3), at(1), at(2), &mut records), Next::Wait);
    assert_eq!(ladder.deadline(), at(1001));
    assert_eq!(ladder.deadline_passed(&rungs, at(1001), &mut records), Next::AskRecovered);
    assert_eq!(ladder.judged(&rungs, true, at(1001), &mut records), Next::End(End::Recovered));
    assert_eq!(outcomes(&records), [(RungName::Warn, RungOutcome::Recovered)]);
    assert_eq!((records[0].processes, records[0].listeners, records[0].sent), (Some(2), Some(3), Some(at(1))));
}

#[test]
fn a_warning_in_vain_is_followed_by_the_next_rung() {
    let rungs = [WARN, TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.deed_done(&rungs, told(1, 0), at(1), at(1), &mut records);
    ladder.deadline_passed(&rungs, at(1001), &mut records);
    assert_eq!(ladder.judged(&rungs, false, at(1001), &mut records), Next::Do(Deed::Term));
    assert_eq!(outcomes(&records), [(RungName::Warn, RungOutcome::Deadline)]);
}

#[test]
fn a_warning_that_nobody_hears_waits_for_nobody() {
    let rungs = [WARN, KILL];
    for (done, outcome) in [(ok(0), RungOutcome::Nobody), (refused(Errno::PERM), RungOutcome::Errno(libc::EPERM))] {
        let (mut ladder, _, mut records) = start(&rungs);
        assert!(matches!(ladder.deed_done(&rungs, done, at(1), at(1), &mut records), Next::Do(Deed::KillGroup { .. })));
        assert_eq!(outcomes(&records), [(RungName::Warn, outcome)]);
    }
}

#[test]
fn a_stuck_warning_goes_on_in_time_and_its_late_news_change_nothing() {
    let rungs = [WARN, TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    assert_eq!(ladder.deadline_passed(&rungs, at(1000), &mut records), Next::Do(Deed::Term));
    assert_eq!(outcomes(&records), [(RungName::Warn, RungOutcome::Deadline)]);
}

#[test]
fn each_rung_fails_in_turn_and_the_kill_ends_it() {
    let rungs = [WARN, hook(), TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    let next = ladder.deed_done(&rungs, refused(Errno::PERM), at(1), at(1), &mut records);
    assert!(matches!(next, Next::Run(ref hook) if hook.timeout == at(500)), "{next:?}");
    assert_eq!(ladder.hook_done(RungOutcome::Exit(3), at(20), &mut records), Next::AskRecovered);
    assert_eq!(ladder.judged(&rungs, false, at(20), &mut records), Next::Do(Deed::Term));
    let next = ladder.deed_done(&rungs, refused(Errno::PERM), at(21), at(21), &mut records);
    assert_eq!(next, Next::Do(Deed::KillGroup { signals_first: false }));
    assert_eq!(ladder.deed_done(&rungs, refused(Errno::BUSY), at(22), at(22), &mut records), Next::Do(Deed::KillProcesses));
    assert_eq!(ladder.deed_done(&rungs, ok(1), at(23), at(23), &mut records), Next::Wait);
    assert_eq!(ladder.gone(at(30), &mut records), Next::End(End::Gone));
    let errno = |errno: Errno| RungOutcome::Errno(errno.raw_os_error());
    assert_eq!(
        outcomes(&records),
        [
            (RungName::Warn, errno(Errno::PERM)),
            (RungName::Hook, RungOutcome::Exit(3)),
            (RungName::Term, errno(Errno::PERM)),
            (RungName::Kill, errno(Errno::BUSY)),
            (RungName::Kill, RungOutcome::Done),
            (RungName::Verify, RungOutcome::Empty)
        ]
    );
}

#[test]
fn a_hook_that_ended_the_trouble_ends_the_climb() {
    let rungs = [hook(), KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.hook_done(RungOutcome::Done, at(20), &mut records);
    assert_eq!(ladder.judged(&rungs, true, at(20), &mut records), Next::End(End::Recovered));
    assert_eq!(outcomes(&records), [(RungName::Hook, RungOutcome::Done)]);
}

#[test]
fn a_hook_of_which_nothing_is_heard_is_left_behind() {
    let rungs = [hook(), KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    assert_eq!(ladder.deadline(), at(500) + HOOK_SLACK);
    assert_eq!(ladder.deadline_passed(&rungs, at(750), &mut records), Next::AskRecovered);
    assert!(matches!(ladder.judged(&rungs, false, at(750), &mut records), Next::Do(Deed::KillGroup { .. })));
    assert_eq!(ladder.hook_done(RungOutcome::Done, at(800), &mut records), Next::Wait, "late news");
    assert_eq!(outcomes(&records), [(RungName::Hook, RungOutcome::Deadline)]);
}

#[test]
fn a_kernel_that_waits_overtakes_warning_and_hook() {
    for (rung, name) in [(WARN, RungName::Warn), (hook(), RungName::Hook)] {
        let rungs = [rung, TERM, KILL];
        let (mut ladder, _, mut records) = start(&rungs);
        assert_eq!(ladder.hurry(&rungs, at(5), &mut records), Next::Do(Deed::KillGroup { signals_first: false }));
        assert_eq!(outcomes(&records), [(name, RungOutcome::Overtaken)]);
        assert_eq!(ladder.hook_done(RungOutcome::Done, at(6), &mut records), Next::Wait);
    }
}

/// The victim may be gone before its actor has reported: the kill is done all the same, at the moment that the actor told of.
#[test]
fn a_kill_that_was_sent_is_done_though_its_actor_has_not_reported() {
    let rungs = [TERM, KILL];
    let (mut ladder, _, mut records) = start(&rungs);
    ladder.deed_done(&rungs, ok(1), at(1), at(1), &mut records);
    assert_eq!(ladder.deadline_passed(&rungs, at(4000), &mut records), Next::AskRecovered);
    assert!(matches!(ladder.judged(&rungs, false, at(4000), &mut records), Next::Do(Deed::KillGroup { .. })));
    ladder.killed_by(at(4002));
    assert_eq!(ladder.gone(at(4030), &mut records), Next::End(End::Gone));
    assert_eq!(
        outcomes(&records),
        [(RungName::Term, RungOutcome::Deadline), (RungName::Kill, RungOutcome::Done), (RungName::Verify, RungOutcome::Empty)]
    );
    assert_eq!(records[1].sent, Some(at(4002)));
}
