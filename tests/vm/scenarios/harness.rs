//! Without oomwarden: the kernel really does what the other scenarios take for granted, and the harness sees it.

use std::time::Instant;

use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::pressure::{Events, Trigger};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A hog over memory.high without swap stalls: `high` events, full pressure, a trigger; cgroup.kill ends it and what is beside it.
pub fn a_bare_kernel_does_what_the_scenarios_assume() -> Outcome {
    let group = Group::new("t/a")?.high(32 * MIB)?.no_swap()?;
    let trigger = Trigger::arm(&group, "full 100000 500000")?;
    let mut sleeper = Work::start(&group, "sleep")?;
    let mut hog = Work::start(&group, "hog mib=64")?;
    let high = Events::open(&group, "memory.events")?.when("high", SOON, |count| count > 0)?;
    trigger.fires(SOON)?;
    println!("{}first high event to a trigger of full 100ms/500ms: {} ms", super::MEASURED, high.elapsed().as_millis());
    ensure!(group.stall("full")? >= 100_000, "the trigger fired but the stall is {} us", group.stall("full")?);
    let began = Instant::now();
    group.kill()?;
    Events::open(&group, "cgroup.events")?.when("populated", SOON, |populated| populated == 0)?;
    println!("{}cgroup.kill of 32 MiB to empty: {} ms", super::MEASURED, began.elapsed().as_millis());
    hog.must_be_killed()?;
    sleeper.must_be_killed()?;
    group.remove()
}

/// Reading more of a disk than a group may cache is pressure, with most of the node's memory free.
pub fn page_cache_thrash_is_pressure_without_shortage() -> Outcome {
    let group = Group::new("t/reader")?.max(24 * MIB)?;
    let mut reader = Work::start(&group, "page-cache mib=40")?;
    wait::until("the reader stalls", SOON, || Ok(group.stall("full")? > 300_000))?;
    let available = facts::meminfo_mib("MemAvailable")?;
    println!("{}refaults {} with {available} MiB available", super::MEASURED, group.key("memory.stat", "workingset_refault_file")?);
    ensure!(available > 200, "the node is short itself: {available} MiB available");
    ensure!(group.event("oom_kill")? == 0, "the kernel killed for page cache");
    reader.must_run("page cache can be dropped")
}
