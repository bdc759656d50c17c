//! What may and what may not count as evidence.

use std::time::Duration;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{Daemon, Setup, candidate};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A neighbour that stalled because of the culprit is not the next victim once the culprit is gone.
pub fn stale_pressure_spares_the_neighbour_that_did_nothing() -> Outcome {
    let policy = "
version: 1
defaults: {cooldown: 1ms}
rules:
  - name: shared
    watch: [/t, /t/*]
    when:
      - psi: full 50ms/500ms
      - psi: some 50ms/500ms
    victim:
      among: [/t/*]
      rank: [usage]
";
    let daemon = Daemon::start(policy)?;
    Group::new("t")?.high(64 * MIB)?.no_swap()?;
    let b = Group::new("t/b")?;
    let a = Group::new("t/a")?;
    let mut neighbour = Work::start(&b, "churn mib=4")?;
    wait::until("the neighbour is at work", SOON, || Ok(b.usage()? > MIB))?;
    let mut culprit = Work::start(&a, "hog mib=128")?;
    culprit.must_be_killed()?;
    let stall = b.stall("some")?;
    daemon.killed(&a)?;
    println!("{}the neighbour had stalled for {} ms at the culprit's death", super::MEASURED, stall / 1000);
    // Several windows.
    wait::stays("the neighbour lives", Duration::from_secs(3), || neighbour.running())?;
    ensure!(daemon.kills("shared")? == 1.0, "more than one kill: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// Page cache that comes and goes is pressure; with plenty of memory free nobody dies for it under the node's rule.
pub fn page_cache_thrash_with_free_memory_kills_nobody() -> Outcome {
    let policy = "
version: 1
defaults: {cooldown: 1ms}
rules:
  - name: node-low
    watch: /
    when:
      - psi: some 50ms/500ms
    only_if:
      - available: {below: 10%}
    victim:
      among: [/t/*]
      rank: [usage]
";
    let daemon = Daemon::start(policy)?;
    let group = Group::new("t/reader")?.max(24 * MIB)?;
    let (_, mut bystander) = super::common::neighbour("t/bystander")?;
    let mut reader = Work::start(&group, "page-cache mib=40")?;
    let not_confirmed = [("rule", "node-low"), ("outcome", "not_confirmed")];
    daemon.counted("oomwarden_judgements_total", &not_confirmed, 2.0)?;
    wait::until("the reader thrashes", SOON, || Ok(group.key("memory.stat", "workingset_refault_file")? > 1000))?;
    reader.must_run("memory is plentiful")?;
    bystander.must_run("memory is plentiful")?;
    ensure!(daemon.kills("node-low")? == 0.0, "somebody was killed");
    daemon.stop()
}

/// Somebody reads memory.pressure in a tight loop, which blinds `total`: the trouble is noticed all the same.
pub fn tight_reader_of_pressure_blinds_nobody() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let elsewhere = Group::new("u/readers")?;
    let a = narrow("t/a")?;
    let reading = format!("read-pressure of={}", a.directory().display());
    let _readers = [Work::start(&elsewhere, &reading)?, Work::start(&elsewhere, &reading)?];
    let mut hog = hog(&a)?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    daemon.stop()
}

/// Kernels up to 6.12 at least count all stall that a group ever had as a new unprivileged trigger's own: a group that was in trouble once and
/// stalls a little is not killed for it.
pub fn unprivileged_trigger_does_not_bring_the_past_up() -> Outcome {
    let policy = "
version: 1
rules:
  - name: patient
    watch: /t/*
    when:
      - psi: full 1500ms/2s
";
    let group = narrow("t/a")?;
    let past = hog(&group)?;
    wait::until("it stalls", SOON, || Ok(group.stall("full")? > 2_000_000))?;
    drop(past);
    let setup = Setup { enter: "without=resource".to_owned(), ..Setup::default() };
    let daemon = setup.start(policy)?;
    let before = group.stall("full")?;
    let mut present = Work::start(&group, "hog mib=32 then=hold")?;
    wait::until("it stalls a little", SOON, || Ok(group.stall("full")? > before))?;
    // The kernel looks at unprivileged triggers every two seconds.
    let lives = wait::stays("it lives", Duration::from_secs(7), || present.running());
    println!("{}it had stalled for {} ms, and for {} ms more", super::MEASURED, before / 1000, (group.stall("full")? - before) / 1000);
    lives.map_err(|why| format!("{why}: {:?}", daemon.judgements("killed")))?;
    drop(present);
    let b = narrow("t/b")?;
    let mut culprit = hog(&b)?;
    culprit.must_be_killed()?;
    daemon.killed(&b)?;
    ensure!(daemon.kills("patient")? == 1.0, "more than one kill: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// Busy processors in sibling groups dilute the parent's pressure, not the group's own.
pub fn busy_siblings_hide_nothing() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let busy = Group::new("t/busy")?;
    let mut spinners = [Work::start(&busy, "spin")?, Work::start(&busy, "spin")?, Work::start(&busy, "spin")?];
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    for spinner in &mut spinners {
        spinner.must_run("it only spins")?;
    }
    daemon.stop()
}

/// The group in trouble is oomwarden's own: it does not kill itself, and says so.
pub fn own_group_in_trouble_is_said_and_not_killed() -> Outcome {
    let own = Group::new("t/own")?.high(48 * MIB)?.no_swap()?;
    let setup = Setup { group: Some(own.clone()), ..Setup::default() };
    let mut daemon = setup.start(THRASH)?;
    let mut hog = Work::start(&own, "hog mib=96")?;
    let line = daemon.journalled("a judgement without a victim", |line| line["outcome"] == "no_victim")?;
    let reason = candidate(&line, &own)?["reason"].to_string();
    ensure!(reason.contains("oomwarden"), "the reason does not say whose group it is: {reason}");
    hog.must_run("it lives in oomwarden's group")?;
    ensure!(daemon.running()?, "oomwarden is gone");
    drop(hog);
    // Others' troubles are still its business.
    let a = narrow("t/a")?;
    let mut other = super::common::hog(&a)?;
    other.must_be_killed()?;
    daemon.stop()
}

/// A tmpfs outlives the processes of its group: that group is not chosen for memory that its death would not free.
pub fn group_full_of_tmpfs_is_not_chosen() -> Outcome {
    let place = crate::guest::system::tmpfs("filler", 200)?;
    let filled = Group::new("t/filled")?;
    let mut filler = Work::start(&filled, &format!("tmpfs mib=150 at={}", place.display()))?;
    wait::until("the tmpfs is full", SOON, || Ok(filled.key("memory.stat", "shmem")? >= 150 * MIB))?;
    let anon = Group::new("t/anon")?;
    let mut holder = Work::holding(&anon, 50)?;
    // So much is missing that the holder's death is enough.
    let available = facts::meminfo_mib("MemAvailable")?;
    let policy = format!(
        "
version: 1
rules:
  - name: node-low
    watch: /
    when:
      - available: {{below: {}MiB}}
    victim:
      among: [/t/*]
      at_least: 8MiB
      rank: [usage]
",
        available + 25
    );
    let daemon = Daemon::start(&policy)?;
    holder.must_be_killed()?;
    let line = daemon.killed(&anon)?;
    let usage = candidate(&line, &filled)?["usage_bytes"].as_u64();
    ensure!(usage.is_some_and(|usage| usage < 8 * MIB), "the tmpfs counts as usage: {line}");
    filler.must_run("its death would free nothing")?;
    daemon.stop()
}
