//! Pause and circuit breaker, on a tree of ordinary files: what is not done, and what is said of it.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

mod stand_in;

use std::fs;
use std::path::Path;
use std::time::Duration;

use oomwarden::control::board::Order;
use stand_in::{CHOOSE, Machine, change, group, out_of_memory, wait};

const FINISH: &str = "
version: 1
defaults: {cooldown: 10ms}
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
";

/// A tree with the subjects /t/a and /t/b.
fn two_subjects() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    group(dir.path(), "t", 1000);
    group(dir.path(), "t/a", 1_000_000);
    group(dir.path(), "t/b", 1_000_000);
    dir
}

fn oom_kills(root: &Path, name: &str, count: u32) {
    change(&root.join(name).join("memory.events.local"), &format!("low 0\nhigh 0\nmax 0\noom 0\noom_kill {count}\n"));
}

fn obey(machine: &Machine, order: Order) {
    let ticket = machine.board.order(order);
    wait("the order is done", || machine.board.is_done(ticket));
}

fn metric(machine: &Machine, line: &str) -> bool {
    machine.metrics().lines().any(|other| other == line)
}

/// Lets the group's victim be gone, and puts it back to how it began.
fn revive(machine: &Machine, name: &str) {
    let lines = machine.lines().len();
    change(&machine.root.join(name).join("cgroup.events"), "populated 0\n");
    wait("the end of the ladder", || machine.lines().len() > lines);
    fs::write(machine.root.join(name).join("cgroup.kill"), "").unwrap();
    change(&machine.root.join(name).join("cgroup.events"), "populated 1\n");
    // Past the cool-down.
    std::thread::sleep(Duration::from_millis(30));
    machine.turn();
}

#[test]
fn paused_it_judges_and_records_and_does_nothing() {
    let dir = two_subjects();
    let machine = Machine::start(dir.path(), FINISH, || {});
    assert!(metric(&machine, "oomwarden_paused 0"));
    obey(&machine, Order::Pause(Duration::from_secs(60)));
    assert!(metric(&machine, "oomwarden_paused 1") && machine.board.standing().paused_until.is_some());
    oom_kills(dir.path(), "t/a", 1);
    wait("the journal's line", || machine.lines().len() == 1);
    let lines = machine.lines();
    assert!(lines[0].contains(r#""outcome":"paused""#) && lines[0].contains(r#""victim":"/t/a""#), "{lines:?}");
    assert!(lines[0].contains(r#""rungs":[]"#) && !machine.killed("t/a"));
    obey(&machine, Order::Resume);
    assert!(metric(&machine, "oomwarden_paused 0") && machine.board.standing().paused_until.is_none());
    oom_kills(dir.path(), "t/a", 2);
    wait("the kill", || machine.killed("t/a"));
    machine.stop();
}

#[test]
fn a_pause_ends_by_itself_and_another_replaces_it() {
    let dir = two_subjects();
    let machine = Machine::start(dir.path(), FINISH, || {});
    obey(&machine, Order::Pause(Duration::from_secs(3600)));
    obey(&machine, Order::Pause(Duration::from_millis(50)));
    wait("the end of the pause", || metric(&machine, "oomwarden_paused 0"));
    oom_kills(dir.path(), "t/a", 1);
    wait("the kill", || machine.killed("t/a"));
    machine.stop();
}

#[test]
fn a_pause_in_the_middle_of_a_ladder_begins_no_further_rung() {
    let dir = two_subjects();
    let text = format!("{FINISH}    then:\n      - term: {{wait: 1h}}\n      - kill: group\n");
    let machine = Machine::start(dir.path(), &text, || {});
    oom_kills(dir.path(), "t/a", 1);
    machine.turn();
    assert!(machine.lines().is_empty(), "the ladder is under way: {:?}", machine.lines());
    obey(&machine, Order::Pause(Duration::from_secs(60)));
    wait("the journal's line", || machine.lines().len() == 1);
    let lines = machine.lines();
    assert!(lines[0].contains(r#""outcome":"paused""#) && lines[0].contains(r#""name":"term","outcome":"paused""#), "{lines:?}");
    assert!(!machine.killed("t/a"));
    machine.stop();
}

#[test]
fn a_kill_that_was_written_before_the_pause_is_seen_to_its_end() {
    let dir = two_subjects();
    let machine = Machine::start(dir.path(), FINISH, || {});
    oom_kills(dir.path(), "t/a", 1);
    wait("the kill", || machine.killed("t/a"));
    obey(&machine, Order::Pause(Duration::from_secs(60)));
    change(&dir.path().join("t/a/cgroup.events"), "populated 0\n");
    wait("the journal's line", || machine.lines().len() == 1);
    assert!(machine.lines()[0].contains(r#""outcome":"killed""#), "{:?}", machine.lines());
    machine.stop();
}

#[test]
fn paused_a_victim_that_does_not_die_is_no_reason_to_turn_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    group(root, "t", 1000);
    for (name, anon) in [("t/a", 3_000_000), ("t/b", 2_000_000)] {
        group(root, name, anon);
    }
    let machine = Machine::start(root, CHOOSE, || {});
    out_of_memory(root);
    wait("the kill", || machine.killed("t/a"));
    obey(&machine, Order::Pause(Duration::from_secs(60)));
    // It never gets empty: the verification runs into its deadline.
    wait("the end of the ladder", || !machine.lines().is_empty());
    assert!(machine.lines()[0].contains(r#""outcome":"failed""#), "{:?}", machine.lines());
    machine.turn();
    assert!(!machine.killed("t/b"), "{:?}", machine.lines());
    machine.stop();
}

#[test]
fn the_breaker_opens_for_one_subject_and_the_other_is_still_dealt_with() {
    let dir = two_subjects();
    let root = dir.path();
    let machine = Machine::start(root, &format!("{FINISH}limits: {{kills: 2 per 1h}}\n"), || {});
    for count in 1..=2 {
        oom_kills(root, "t/a", count);
        wait("the kill", || machine.killed("t/a"));
        revive(&machine, "t/a");
    }
    wait("the breaker opens", || metric(&machine, "oomwarden_breaker_open 1"));
    oom_kills(root, "t/a", 3);
    wait("the third line", || machine.lines().len() == 3);
    let lines = machine.lines();
    assert!(lines[2].contains(r#""outcome":"breaker""#) && lines[2].contains(r#""victim":"/t/a""#), "{lines:?}");
    assert!(!machine.killed("t/a"));
    oom_kills(root, "t/b", 1);
    wait("the other's kill", || machine.killed("t/b"));
    let named: Vec<_> = machine.board.standing().breakers.iter().map(|open| open.subject.to_string()).collect();
    assert_eq!(named, ["/t/a"]);
    machine.stop();
}

#[test]
fn a_subject_that_is_made_anew_under_its_name_does_not_escape_the_breaker() {
    let dir = two_subjects();
    let root = dir.path();
    let machine = Machine::start(root, &format!("{FINISH}limits: {{kills: 1 per 1h}}\n"), || {});
    oom_kills(root, "t/a", 1);
    wait("the kill", || machine.killed("t/a"));
    fs::remove_dir_all(root.join("t/a")).unwrap();
    wait("the breaker opens", || metric(&machine, "oomwarden_breaker_open 1"));
    group(root, "t/a", 1_000_000);
    // Ordinary files come one after the other, and the first look may have been before the last: until the group has settled.
    std::thread::sleep(Duration::from_millis(300));
    machine.turn();
    oom_kills(root, "t/a", 1);
    wait("the second line", || machine.lines().len() == 2);
    assert!(machine.lines()[1].contains(r#""outcome":"breaker""#), "{:?}", machine.lines());
    assert!(!machine.killed("t/a"));
    machine.stop();
}

#[test]
fn the_breaker_closes_by_itself() {
    let dir = two_subjects();
    let root = dir.path();
    let machine = Machine::start(root, &format!("{FINISH}limits: {{kills: 1 per 1s}}\n"), || {});
    oom_kills(root, "t/a", 1);
    wait("the kill", || machine.killed("t/a"));
    revive(&machine, "t/a");
    wait("the breaker closes", || metric(&machine, "oomwarden_breaker_open 0") && machine.board.standing().breakers.is_empty());
    oom_kills(root, "t/a", 2);
    wait("the second kill", || machine.killed("t/a"));
    machine.stop();
}

#[test]
fn without_limits_there_is_no_breaker_and_a_reload_that_brings_them_starts_to_count() {
    let dir = two_subjects();
    let root = dir.path();
    let machine = Machine::start(root, FINISH, || {});
    for count in 1..=3 {
        oom_kills(root, "t/a", count);
        wait("the kill", || machine.killed("t/a"));
        revive(&machine, "t/a");
    }
    assert!(metric(&machine, "oomwarden_breaker_open 0"));
    machine.reload(&format!("{FINISH}limits: {{kills: 1 per 1h}}\n"));
    oom_kills(root, "t/a", 4);
    wait("the kill", || machine.killed("t/a"));
    revive(&machine, "t/a");
    wait("the breaker opens", || metric(&machine, "oomwarden_breaker_open 1"));
    machine.reload(FINISH);
    wait("no limits, no breaker", || metric(&machine, "oomwarden_breaker_open 0"));
    machine.stop();
}
