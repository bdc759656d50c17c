//! The ladder: grace, its end, and what can happen meanwhile.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::{THRASH, narrow};
use crate::guest::daemon::{Daemon, rung};
use crate::guest::group::{Group, MIB};
use crate::guest::pressure::Trigger;
use crate::guest::system::Freezer;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

fn with_grace(wait: &str) -> String {
    format!("{THRASH}    then:\n      - term: {{wait: {wait}}}\n      - kill: group\n")
}

/// Whether SIGTERM has arrived at a process that holds it off.
pub fn term_pends(pid: u32) -> Outcome<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pending = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("ShdPnd:")?.trim(), 16).ok());
    Ok(pending.is_some_and(|pending| pending & (1 << (Signal::SIGTERM as i32 - 1)) != 0))
}

/// Who goes at SIGTERM, within the grace time, gets no SIGKILL.
pub fn sigterm_honoured_in_the_grace_time_is_the_end_of_it() -> Outcome {
    let daemon = Daemon::start(&with_grace("15s"))?;
    let a = narrow("t/a")?;
    let mut hog = Work::start(&a, "hog mib=64 term=exit")?;
    hog.must_exit_with(42)?;
    let line = daemon.journalled("the end of the ladder", |line| line["subject"] == "/t/a" && line["rungs"].is_array())?;
    ensure!(rung(&line, "term").is_some(), "no term rung: {line}");
    ensure!(rung(&line, "kill").is_none(), "SIGKILL was sent to who went by itself: {line}");
    ensure!(line["outcome"] == "ended", "who went by itself has ended, not {}: {line}", line["outcome"]);
    ensure!(line["processes_killed"] == 0 && line["processes_ended"] == 1 && line["latency_us"]["kill"].is_null(), "{line}");
    ensure!(daemon.kills("thrash")? == 0.0, "a kill was counted");
    daemon.stop()
}

/// Who ignores SIGTERM is killed when the grace time is over, not before.
pub fn sigterm_ignored_is_followed_by_sigkill() -> Outcome {
    let daemon = Daemon::start(&with_grace("1500ms"))?;
    let a = narrow("t/a")?;
    let mut hog = Work::start(&a, "hog mib=64 term=ignore")?;
    hog.must_be_killed()?;
    let line = daemon.killed(&a)?;
    let term = rung(&line, "term").ok_or_else(|| format!("nobody was asked: {line}"))?;
    ensure!(term["outcome"] == "deadline" && term["took_us"].as_u64() >= Some(1_500_000), "the grace time was cut: {term}");
    ensure!(rung(&line, "kill").is_some(), "a rung is missing: {line}");
    daemon.stop()
}

/// Processes that are gone before anybody can signal them, and fork: the group ends up empty, and stays so.
pub fn forking_faster_than_pids_can_be_walked_helps_nobody() -> Outcome {
    let policy = "
version: 1
rules:
  - name: fat
    watch: /t/*
    when:
      - usage: {above: 8MiB}
    then:
      - term: {wait: 300ms}
      - kill: group
";
    let daemon = Daemon::start(policy)?;
    let a = Group::new("t/a")?;
    a.set("pids.max", "200")?;
    let mut relay = Work::start(&a, "relay mib=16 runners=8")?;
    a.wait_empty()?;
    relay.must_be_killed()?;
    daemon.killed(&a)?;
    wait::stays("the group is empty", Duration::from_millis(500), || Ok(!a.populated()?))?;
    daemon.stop()
}

/// The group that was judged is removed while its grace time runs, and another comes up under its name: the new one lives.
pub fn group_made_anew_under_its_name_is_another_group() -> Outcome {
    // Long enough for a slow machine to see SIGTERM and do the rest within it.
    let daemon = Daemon::start(&with_grace("5s"))?;
    let old = narrow("t/a")?;
    let mut hog = Work::start(&old, "hog mib=64 term=ignore")?;
    let (pid, id) = (hog.pid(), old.id()?);
    wait::until("SIGTERM arrives", SOON, || term_pends(pid))?;
    old.kill()?;
    hog.must_be_killed()?;
    old.remove()?;
    let new = Group::new("t/a")?;
    let mut fresh = Work::start(&new, "sleep")?;
    ensure!(new.id()? != id, "the same identity: the scenario proves nothing");
    // Beyond the end of the old one's grace time.
    wait::stays("the new group lives", Duration::from_secs(6), || fresh.running())?;
    daemon.stop()
}

/// The same in a race: the scenario kills, removes and makes anew just when oomwarden's trigger fires.
pub fn group_made_anew_between_trigger_and_verdict_lives() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    for round in 0..6 {
        let old = narrow("t/a")?;
        let trigger = Trigger::arm(&old, &format!("full {} 500000", 80_000 + 5_000 * round))?;
        let hog = super::common::hog(&old)?;
        trigger.fires(SOON)?;
        old.kill()?;
        drop(hog);
        old.wait_empty()?;
        old.remove()?;
        let new = Group::new("t/a")?;
        let mut fresh = Work::start(&new, "sleep")?;
        wait::stays(&format!("the new group of round {round} lives"), Duration::from_millis(400), || fresh.running())?;
        drop(fresh);
        new.wait_empty()?;
        new.remove()?;
    }
    daemon.stop()
}

/// SIGTERM to oomwarden while a grace time runs: it goes within seconds, in good order, kills nobody any more, and has recorded it.
pub fn sigterm_to_oomwarden_on_the_ladder_ends_it_in_order() -> Outcome {
    let mut daemon = Daemon::start(&with_grace("20s"))?;
    let a = narrow("t/a")?;
    let mut hog = Work::start(&a, "hog mib=64 term=ignore")?;
    let pid = hog.pid();
    wait::until("SIGTERM arrives", SOON, || term_pends(pid))?;
    daemon.signal(Signal::SIGTERM)?;
    let status = daemon.end(Duration::from_secs(8))?;
    ensure!(status.code() == Some(0), "the exit status is {status}");
    wait::stays("the victim lives", Duration::from_secs(1), || hog.running())?;
    let line = daemon.journalled("the interrupted ladder", |line| line["subject"] == "/t/a")?;
    ensure!(rung(&line, "term").is_some() && rung(&line, "kill").is_none(), "the rungs tell another story: {line}");
    Ok(())
}

/// The fattest waits in the kernel for a frozen file system, where SIGKILL does not reach it. The level that the rule is about lasts: then
/// the next one dies, by a judgement of its own.
pub fn victim_that_cannot_die_is_followed_by_the_next() -> Outcome {
    let policy = "
version: 1
rules:
  - name: fat
    watch: /t
    when:
      - usage: {above: 12MiB}
    victim:
      among: /t/*
      rank: usage
";
    let mut freezer = Freezer::new()?;
    let fat = Group::new("t/fat")?;
    let mut stuck = Work::start(&fat, &format!("write mib=40 file={}/file", freezer.place.display()))?;
    fat.wait_usage(40 * MIB)?;
    freezer.freeze()?;
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", stuck.pid())).unwrap_or_default();
    wait::until("the writer waits in the kernel", SOON, || Ok(state().contains(") D ")))?;
    let (_next, mut next) = (Group::new("t/next")?, Work::holding(&Group::new("t/next")?, 20)?);
    let daemon = Daemon::start(policy)?;
    next.must_be_killed()?;
    let failed = daemon.journalled("the one that could not die", |line| line["outcome"] == "failed" && line["victim"] == "/t/fat")?;
    ensure!(rung(&failed, "verify").is_some_and(|verify| verify["outcome"] == "deadline"), "its end was not waited for: {failed}");
    // The level lasts, which is new evidence; nobody dies on the old one.
    let line = daemon.journalled("the second victim", |line| line["outcome"] == "killed" && line["victim"] == "/t/next")?;
    let reason = crate::guest::daemon::candidate(&line, &fat)?["reason"].to_string();
    ensure!(reason.contains("is dying already"), "the reason is {reason}");
    freezer.thaw()?;
    stuck.must_be_killed()?;
    daemon.stop()
}

/// Rules on a group and on the one above it, whose triggers fire at the same moment: one ladder, one kill.
pub fn nested_rules_at_the_same_moment_are_one_ladder() -> Outcome {
    let policy = "
version: 1
defaults: {cooldown: 1s}
rules:
  - name: inner
    watch: /t/a
    when:
      - psi: full 100ms/500ms
    then:
      - term: {wait: 500ms}
      - kill: group
  - name: outer
    watch: /t
    when:
      - psi: full 100ms/500ms
    victim:
      among: /t/*
    then:
      - term: {wait: 500ms}
      - kill: group
";
    let daemon = Daemon::start(policy)?;
    let _t = Group::new("t")?.high(48 * MIB)?.no_swap()?;
    let b = Group::new("t/b")?;
    let mut beside = Work::holding(&b, 8)?;
    let a = narrow("t/a")?;
    let mut hog = Work::start(&a, "hog mib=96 term=ignore")?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    wait::stays("the neighbour lives", Duration::from_millis(1500), || beside.running())?;
    let lines = daemon.judgements("killed")?;
    ensure!(lines.len() == 1, "{} kills for one trouble: {lines:?}", lines.len());
    let kills = daemon.kills("inner")? + daemon.kills("outer")?;
    ensure!(kills == 1.0, "{kills} kills were counted");
    daemon.stop()
}
