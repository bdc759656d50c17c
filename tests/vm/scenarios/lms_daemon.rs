//! The whole node runs out at once and oomwarden answers the hold: its victim dies, the kernel's killer is never called.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, ROUNDS, fresh, spread};
use super::lms_daemon_common::{NODE_OOM, all_over, answered, handling, hold_begins, leaves_a_table, on_time, rounds_with};
use crate::guest::daemon::rung;
use crate::guest::facts;
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::system;
use crate::guest::wait;
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// Asked to end first, and given three seconds for it, by whoever sees level kill; a hold has no time for that.
const WITH_GRACE: &str = "
version: 1
exclude: [\"/t/spared*\"]
rules:
  - name: node-oom
    watch: /
    when: [lms: kill, lms: oom]
    cooldown: 50ms
    victim: {among: [\"/t/*\"], at_least: 8MiB, rank: [usage]}
    then:
      - term: {wait: 3s}
      - kill: group
kernel: {hold: 2s}
";

/// Nobody but the greedy group dies, although it is in nobody's way but the excluded one's.
pub fn hog_without_swap_is_answered() -> Outcome {
    let mut times = Vec::new();
    rounds_with(NODE_OOM, ROUNDS, |round, daemon| {
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let mut precious = Work::holding(&spared, 20)?;
        times.push(answered(daemon, &greedy, "hog mib=1000")?);
        let resolved = State::now()?.number("holds_resolved")? as f64;
        daemon.counted("oomwarden_lms_holds_total", &[("outcome", "resolved")], resolved)?;
        precious.must_run("it is excluded")
    })?;
    println!("{MEASURED}beginning of the hold to the end of oomwarden's victim: {}", spread(times));
    Ok(())
}

/// The hold does not wait for a grace time, whether that has begun at level kill or would begin now.
pub fn hog_that_ignores_sigterm_gets_no_grace_time() -> Outcome {
    let (mut times, mut overtaken) = (Vec::new(), 0);
    rounds_with(WITH_GRACE, ROUNDS, |round, daemon| {
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let mut precious = Work::holding(&spared, 20)?;
        times.push(answered(daemon, &greedy, "hog mib=1000 term=ignore")?);
        let line = daemon.killed(&greedy)?;
        match rung(&line, "term") {
            Some(term) if term["outcome"] == "overtaken" => overtaken += 1,
            Some(_) => return Err(format!("the grace time was not overtaken: {line}")),
            None => {}
        }
        ensure!(rung(&line, "kill").is_some(), "no kill rung: {line}");
        precious.must_run("it is excluded")
    })?;
    let worst = times.iter().max().copied().unwrap_or_default();
    println!("{MEASURED}the same with a grace time of 3 s: {}, overtaken {overtaken} times", spread(times));
    ensure!(worst < Duration::from_secs(3), "the grace time was waited for: {worst:?}");
    Ok(())
}

/// A little swap is full before memory is.
pub fn hog_with_zram_is_answered() -> Outcome {
    hog_beside_zram(48, ROUNDS)
}

/// Swap that takes its room from the memory that it is to relieve: the end comes with most of it free. The level of samples stays
/// `ok` then, because swap is free; the hold looks at available memory alone.
pub fn hog_with_zram_larger_than_memory_is_answered() -> Outcome {
    hog_beside_zram(1024, 10)
}

fn hog_beside_zram(mib: u64, number: u32) -> Outcome {
    system::zram_swap(mib)?;
    let (mut times, mut free, mut helped) = (Vec::new(), Vec::new(), 0);
    rounds_with(NODE_OOM, number, |round, daemon| {
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let mut precious = Work::holding(&spared, 20)?;
        let mut known = Work::holding(&greedy, 12)?;
        leaves_a_table(1)?;
        let before = Counters::now()?;
        let mut hog = Work::start(&greedy, "hog mib=1000 term=ignore")?;
        free.push(hold_begins(&before)?.number("swap_free_kb")? >> 10);
        let began = Instant::now();
        hog.must_be_killed()?;
        times.push(began.elapsed());
        known.must_be_killed()?;
        if all_over(&before)? {
            daemon.killed(&greedy)?;
        } else {
            helped += 1;
        }
        precious.must_run("it is excluded")
    })?;
    let rounds = times.len();
    println!(
        "{MEASURED}the same with zram of {mib} MiB: {}, with the table's help {helped} times; free swap then {:?} to {:?} MiB",
        spread(times),
        free.iter().min(),
        free.iter().max()
    );
    on_time(helped, rounds)
}

/// A node of two runs out, the machine does not: the kernel kills its own victim, and nobody of ours dies.
pub fn shortage_of_one_node_is_not_ours() -> Outcome {
    lms::load("interval_ms=50 hold_ms=2000")?;
    let daemon = handling(NODE_OOM)?;
    let (bound, fat) = (Group::new("t/bound")?, Group::new("t/fat")?);
    let mut bystander = Work::holding(&fat, 40)?;
    for _ in 0..5 {
        let before = Counters::now()?;
        Work::start(&bound, "hog mib=1000 node=1")?.must_be_killed()?;
        let available = facts::meminfo_mib("MemAvailable")?;
        ensure!(available > 150, "the machine was short itself: {available} MiB available");
        ensure!(before.kernel_kills()? >= 1 && before.of("holds")? == 0 && before.of("table_kills")? == 0, "{}", before.story());
        bystander.must_run("the shortage is elsewhere")?;
    }
    ensure!(daemon.judgements("killed")?.is_empty(), "oomwarden killed: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// Somebody at the console has the kernel kill: its victim dies, and the group that oomwarden would have taken lives.
pub fn sysrq_f_takes_the_kernels_victim_only() -> Outcome {
    lms::load("interval_ms=50 hold_ms=2000")?;
    let daemon = handling(NODE_OOM)?;
    let (fat, pet) = (Group::new("t/fat")?, Group::new("t/pet")?);
    let mut fattest = Work::holding(&fat, 100)?;
    let mut kernels = Work::start(&pet, "hog mib=10 then=hold adj=900")?;
    pet.wait_usage(10 << 20)?;
    let before = Counters::now()?;
    std::fs::write("/proc/sysrq-trigger", "f").doing("ask for a kill")?;
    kernels.must_be_killed()?;
    ensure!(before.kernel_kills()? == 1 && before.of("holds")? == 0 && before.of("table_kills")? == 0, "{}", before.story());
    wait::stays("the fattest group lives", Duration::from_millis(500), || fattest.running())?;
    ensure!(daemon.judgements("killed")?.is_empty(), "oomwarden killed: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}
