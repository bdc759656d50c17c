//! The main job: the right group dies whole, and nobody else.

use std::time::Duration;

use super::common::{Family, THRASH, hog, narrow, neighbour};
use crate::guest::daemon::{Daemon, rung};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A group over memory.high stalls: all of it dies, its neighbour doesn't notice, the kernel's own killer has nothing to do.
pub fn group_over_high_dies_whole_and_its_neighbour_lives() -> Outcome {
    let kernel_kills = facts::vmstat("oom_kill")?;
    let daemon = Daemon::start(THRASH)?;
    let (b, mut beside) = neighbour("t/b")?;
    let a = narrow("t/a")?;
    let mut idle = [Work::start(&a, "sleep")?, Work::start(&a, "sleep term=ignore")?];
    let mut hog = hog(&a)?;
    a.wait_empty()?;
    hog.must_be_killed()?;
    for idle in &mut idle {
        idle.must_be_killed()?;
    }
    let line = daemon.killed(&a)?;
    ensure!(line["subject"] == "/t/a" && line["rule"] == "thrash" && line["v"] == 1, "the journal tells another story: {line}");
    ensure!(line["processes_killed"] == 3, "three processes died, the journal says otherwise: {line}");
    ensure!(line["freed_bytes"].as_u64().is_some_and(|freed| freed > 16 * MIB), "freed_bytes is far from 32 MiB: {line}");
    ensure!(rung(&line, "kill").is_some(), "no kill rung: {line}");
    ensure!(line["latency_us"]["empty"].as_u64().is_some_and(|us| us > 0), "no latency: {line}");
    daemon.counted("oomwarden_kills_total", &[("rule", "thrash")], 1.0)?;
    daemon.counted("oomwarden_killed_processes_total", &[("rule", "thrash")], 3.0)?;
    daemon.counted("oomwarden_freed_bytes_total", &[("rule", "thrash")], (16 * MIB) as f64)?;
    beside.must_run("it is the neighbour")?;
    ensure!(b.populated()?, "the neighbour's group is empty");
    ensure!(facts::vmstat("oom_kill")? == kernel_kills, "the kernel killed as well");
    daemon.stop()
}

/// memory.max without swap: the kernel kills one process of five. The other four go too. The groups above inherit the event and
/// are not punished for it, although a rule watches them.
pub fn kernel_kills_one_of_five_the_rest_goes_and_no_ancestor() -> Outcome {
    let policy = "
version: 1
rules:
  - name: finish
    watch: [/t, /t/*, /t/*/*]
    when:
      - event: oom_kill
";
    let daemon = Daemon::start(policy)?;
    let (_, mut beside) = neighbour("t/tenant/b")?;
    let (_, mut cousin) = neighbour("t/other")?;
    let a = Group::new("t/tenant/a")?.max(32 * MIB)?.no_swap()?;
    let mut family = Family::start(&a)?;
    family.grow()?;
    a.wait_empty()?;
    family.first.must_be_killed()?;
    ensure!(a.event("oom_kill")? >= 1, "it was not the kernel that began: {}", a.read("memory.events")?);
    ensure!(Group::at("/sys/fs/cgroup/t").event("oom_kill")? >= 1, "the event was not inherited: the scenario proves nothing");
    daemon.killed(&a)?;
    wait::stays("the neighbours live", Duration::from_secs(1), || Ok(beside.running()? && cousin.running()?))?;
    ensure!(daemon.kills("finish")? == 1.0, "more than one group was killed: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// Two rules see the same trouble in the same group: one deed, one line.
pub fn two_rules_for_one_group_are_one_kill() -> Outcome {
    let policy = "
version: 1
rules:
  - name: first
    watch: /t/*
    when:
      - psi: full 100ms/500ms
  - name: second
    watch: /t/**
    when:
      - psi: some 100ms/500ms
      - psi: full 100ms/500ms
";
    let daemon = Daemon::start(policy)?;
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    let killed = || Ok(daemon.judgements("killed")?.len() == 1);
    wait::stays("one kill is recorded", Duration::from_millis(1500), killed)?;
    let kills = daemon.count("oomwarden_kills_total", &[])?;
    ensure!(kills == 1.0, "one group died, metrics say {kills}");
    daemon.stop()
}

/// `mode: observe` judges and records; nothing is done.
pub fn observe_does_everything_but_the_deed() -> Outcome {
    let daemon = Daemon::start(&format!("{THRASH}\nmode: observe\n"))?;
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    let line = daemon.journalled("an observed verdict", |line| line["outcome"] == "observed")?;
    ensure!(line["subject"] == "/t/a" && line["victim"] == "/t/a", "the verdict names others: {line}");
    ensure!(rung(&line, "kill").is_none_or(|kill| kill["outcome"] != "done"), "a deed is on record: {line}");
    daemon.counted("oomwarden_judgements_total", &[("rule", "thrash"), ("outcome", "observed")], 1.0)?;
    wait::stays("the hog lives", Duration::from_secs(1), || hog.running())?;
    ensure!(daemon.kills("thrash")? == 0.0, "a kill is counted");
    daemon.stop()
}

/// `kernel: oom_group`: the kernel's own kill takes the whole group along.
pub fn kernel_oom_group_is_set_where_the_policy_asks() -> Outcome {
    let daemon = Daemon::start(&format!("{THRASH}\nkernel:\n  oom_group: /t/*\n"))?;
    let a = Group::new("t/a")?;
    let elsewhere = Group::new("u/a")?;
    wait::until("memory.oom.group is set", SOON, || Ok(a.number("memory.oom.group")? == 1))?;
    ensure!(elsewhere.number("memory.oom.group")? == 0, "it is set where nobody asked");
    daemon.stop()
}
