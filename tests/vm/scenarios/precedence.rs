//! On a real kernel: who is judged first, who waits for whom, and who is spared on the way.

use std::time::Duration;

use super::common::{THRASH, narrow};
use super::ladder::term_pends;
use crate::guest::daemon::{Daemon, rung};
use crate::guest::group::{Group, MIB};
use crate::guest::system::Freezer;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A tenant's ladder waits for a minute; the node runs low meanwhile and is served at once, by another victim.
pub fn node_is_served_while_a_tenants_ladder_waits() -> Outcome {
    let policy = "
version: 1
rules:
  - name: tenant
    watch: /t/*
    when:
      - psi: full 100ms/500ms
    then:
      - term: {wait: 60s}
      - kill: group
  - name: node-low
    watch: /
    when:
      - available: {below: 45%}
    victim:
      among: [/u/*]
      rank: [usage]
";
    let daemon = Daemon::start(policy)?;
    let tenant = narrow("t/a")?;
    let mut waiting = Work::start(&tenant, "hog mib=64 term=ignore")?;
    let pid = waiting.pid();
    wait::until("SIGTERM arrives at the tenant", SOON, || term_pends(pid))?;
    let (fat, small) = (Group::new("u/fat")?, Group::new("u/small")?);
    let mut modest = Work::holding(&small, 8)?;
    let mut greedy = Work::start(&fat, "hog mib=1000 rate=100")?;
    greedy.must_be_killed()?;
    let line = daemon.killed(&fat)?;
    ensure!(line["rule"] == "node-low", "another rule did it: {line}");
    wait::stays("the tenant keeps its grace time", Duration::from_secs(1), || waiting.running())?;
    modest.must_run("it was not needed")?;
    daemon.stop()
}

/// The node's rule names the very victim that a tenant's ladder is asking: its kill does not wait for the grace time.
pub fn waiting_victim_that_the_node_needs_dies_at_once() -> Outcome {
    let policy = "
version: 1
rules:
  - name: fat
    watch: /t/*
    when:
      - usage: {above: 48MiB}
    then:
      - term: {wait: 60s}
      - kill: group
  - name: node-low
    watch: /
    when:
      - available: {below: 45%}
    victim:
      among: [/t/*]
      rank: [usage]
";
    let daemon = Daemon::start(policy)?;
    let a = Group::new("t/a")?;
    let mut greedy = Work::start(&a, "hog mib=1000 rate=50 term=ignore")?;
    greedy.must_be_killed()?;
    let line = daemon.killed(&a)?;
    ensure!(line["rule"] == "fat", "the ladder under way ends it: {line}");
    ensure!(rung(&line, "term").is_some_and(|term| term["outcome"] == "overtaken"), "its grace time was cut: {line}");
    daemon.journalled("the verdict that brought it forward", |line| line["rule"] == "node-low" && line["outcome"] == "hurried")?;
    daemon.stop()
}

/// An excluded group is made below the victim in its grace time: it lives, and with it what contains it.
pub fn excluded_group_that_comes_in_the_grace_time_lives() -> Outcome {
    let policy = format!("{THRASH}    then:\n      - term: {{wait: 5s}}\n      - kill: group\nexclude:\n  - /t/a/keep\n");
    let daemon = Daemon::start(&policy)?;
    let a = narrow("t/a")?;
    let leaf = a.child("work")?;
    let mut hog = Work::start(&leaf, "hog mib=64 term=ignore")?;
    let pid = hog.pid();
    wait::until("SIGTERM arrives", SOON, || term_pends(pid))?;
    let keep = a.child("keep")?;
    let mut kept = Work::holding(&keep, 1)?;
    daemon.journalled("that it was spared", |line| rung(line, "kill").is_some_and(|kill| kill["outcome"] == "spared"))?;
    wait::stays("the excluded group lives", Duration::from_secs(4), || kept.running())?;
    // With `victim: subject` its other children take its place.
    hog.must_be_killed()?;
    kept.must_run("it is excluded")?;
    daemon.stop()
}

/// A victim with one process that no signal reaches: its memory is back, and nobody else dies for it.
pub fn process_that_cannot_die_yet_costs_nobody_else_its_life() -> Outcome {
    let policy = "
version: 1
defaults: {cooldown: 100ms}
rules:
  - name: shared
    watch: /t
    when:
      - psi: full 100ms/500ms
    victim:
      among: [/t/*]
      rank: [usage]
";
    let mut freezer = Freezer::new()?;
    let daemon = Daemon::start(policy)?;
    Group::new("t")?.high(64 * MIB)?.no_swap()?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    let mut neighbour = Work::holding(&b, 16)?;
    freezer.freeze()?;
    let _stuck = Work::start(&a, &format!("tmpfs mib=1 at={}", freezer.place.display()))?;
    let mut hog = Work::start(&a, "hog mib=96")?;
    hog.must_be_killed()?;
    ensure!(a.populated()?, "nobody is stuck: the scenario proves nothing");
    daemon.journalled("that it is not gone in time", |line| line["outcome"] == "failed" && line["victim"] == "/t/a")?;
    let lives = wait::stays("the neighbour lives", Duration::from_secs(4), || neighbour.running());
    lives.map_err(|why| format!("{why}: {:?}", daemon.journal()))?;
    freezer.thaw()?;
    a.wait_empty()?;
    daemon.stop()
}

/// Whoever starts a group anew under its name can't have it killed more often than the cool-down allows.
pub fn cool_down_outlives_the_group() -> Outcome {
    let policy = format!("{THRASH}    cooldown: 10m\n");
    let daemon = Daemon::start(&policy)?;
    let a = narrow("t/a")?;
    let mut first = super::common::hog(&a)?;
    first.must_be_killed()?;
    daemon.killed(&a)?;
    a.wait_empty()?;
    a.remove()?;
    let again = narrow("t/a")?;
    let mut second = super::common::hog(&again)?;
    wait::until("it stalls for many windows", SOON * 2, || Ok(again.stall("full")? > 2_000_000))?;
    second.must_run("its rule rests for ten minutes")?;
    ensure!(daemon.kills("thrash")? == 1.0, "more than one kill: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}
