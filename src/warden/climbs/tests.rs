//! On ordinary directories that stand in for groups.

use std::fs;

use rustix::fs::{Mode, OFlags, open};

use super::*;
use crate::cgroup::root::Root;
use crate::metrics::counters::Counters;
use crate::record::pool::Record;
use crate::record::testing;

/// What is recorded of a ladder that a stop interrupts while an actor is at the kill.
fn interrupted(sent: bool) -> (Option<Duration>, Option<u64>, Duration) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("g")).unwrap();
    fs::write(dir.path().join("g/memory.stat"), "anon 200\nfile 0\nshmem 0\ninactive_file 0\nactive_file 0\n").unwrap();
    fs::write(dir.path().join("g/memory.swap.current"), "100\n").unwrap();
    let fd = open(dir.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = Arc::new(Root { path: dir.path().into(), dir: fd });
    let top = Arc::new(Group::open(&root, None, GroupPath::root()).unwrap());
    let victim = Arc::new(Group::open(&root, None, GroupPath::from_bytes(b"/g")).unwrap());
    let policy = Arc::new(testing::policy());
    let records = Records::new(2, 8, Counters::new().unwrap().journal_dropped());
    let mut climbs = Climbs::start(Arc::new(EventFd::new().unwrap()), 1, &policy, &top, Reach::default()).unwrap();

    let clock = Clock::start();
    let mut climb = climbs.spare.pop().unwrap();
    (climb.record, climb.victim, climb.usage) = (records.take(), victim, Some(1000));
    climb.first_kill.turn_to_next();
    let next = climb.ladder.begin(&[Rung::Kill(crate::policy::model::KillWhat::Group)], Duration::ZERO);
    assert!(matches!(next, Next::Do(Deed::KillGroup { .. })));
    (climb.begun, climb.in_flight) = (true, true);
    // What an actor does; it has not reported.
    let ticket = climb.first_kill.ticket();
    if sent {
        ticket.sent();
    }
    climbs.places[0] = Some(climb);
    let mut buffer = ReadBuf::new();
    climbs.interrupt(false, &clock, &mut buffer, &records);
    assert!(!climbs.is_idle(), "who kills is given the time that a stop grants");
    climbs.interrupt(true, &clock, &mut buffer, &records);
    assert!(climbs.is_idle());
    let Some(Record::Judgement(record)) = records.next() else { panic!("no record") };
    assert_eq!(record.outcome, Outcome::Failed);
    (record.latency.kill, record.freed_bytes, clock.now())
}

#[test]
fn a_stop_keeps_the_moment_of_a_kill_that_no_actor_has_reported() {
    let (kill, freed, now) = interrupted(true);
    assert!(kill.is_some_and(|kill| kill <= now), "{kill:?}");
    assert_eq!(freed, Some(700));
    let (kill, freed, _) = interrupted(false);
    assert_eq!((kill, freed), (None, None), "nothing was sent");
}
