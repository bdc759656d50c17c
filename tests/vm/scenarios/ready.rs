//! The built-in policy as it is, on groups at their limits: what gets on lives, what stands still
//! dies, and nobody beside it.

use std::time::Duration;

use super::common::{hog, narrow};
use crate::guest::daemon::Daemon;
use crate::guest::group::{Group, MIB};
use crate::guest::system;
use crate::guest::wait;
use crate::guest::work::Work;
use crate::outcome::Outcome;

const DEFAULT: &str = include_str!("../../../policies/default.yaml");

/// What a group that stalls for part of the time may need to fill all of the policy's windows.
const LONG: Duration = Duration::from_secs(90);

/// A group at its limit that only reads more files than fit: it stalls again and again, and lives.
pub fn page_cache_thrash_at_the_limit_kills_nobody() -> Outcome {
    let daemon = Daemon::start(DEFAULT)?;
    let group = Group::new("t/reader")?.max(24 * MIB)?;
    let mut reader = Work::start(&group, "page-cache mib=40")?;
    wait::until("it stalls for three seconds", LONG, || Ok(group.stall("full")? > 3_000_000))?;
    println!("{}refaults {}", super::MEASURED, group.key("memory.stat", "workingset_refault_file")?);
    ensure!(group.event("max")? > 0, "it is not at its limit");
    reader.must_run("page cache is given back")?;
    nobody_died(&daemon)?;
    daemon.stop()
}

/// A group at its limit that swaps, rests, and swaps again: there is swap left, so it is no
/// standstill.
pub fn group_that_swaps_and_gets_on_lives() -> Outcome {
    system::zram_swap(256)?;
    let daemon = Daemon::start(DEFAULT)?;
    let group = Group::new("t/swapper")?.max(32 * MIB)?;
    let mut swapper = Work::start(&group, "hog mib=48 rest=1500")?;
    looked_at(&daemon, "group-at-limit")?;
    let before = group.stall("full")?;
    wait::until("it stalls for ten more seconds", LONG, || Ok(group.stall("full")? > before + 10_000_000))?;
    ensure!(group.number("memory.swap.current")? > 4 * MIB, "it does not swap");
    swapper.must_run("it gets on")?;
    nobody_died(&daemon)?;
    daemon.stop()
}

/// Memory that nobody can take, over memory.high without swap: it stands still, and dies.
pub fn standstill_over_memory_high_without_swap_dies() -> Outcome {
    let daemon = Daemon::start(DEFAULT)?;
    let (neighbour, mut bystander) = super::common::neighbour("t/bystander")?;
    let group = narrow("t/a")?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()?;
    let line = daemon.killed(&group)?;
    ensure!(line["rule"] == "group-throttled", "another rule did it: {line}");
    bystander.must_run("it has nothing to do with it")?;
    ensure!(neighbour.populated()?, "{neighbour} is empty");
    daemon.stop()
}

/// The limit is a parent's: of its children the one that holds the most dies, not all of them.
pub fn limit_of_a_parent_costs_one_child() -> Outcome {
    let daemon = Daemon::start(DEFAULT)?;
    Group::new("t")?.high(64 * MIB)?.no_swap()?;
    let (fat, small) = (Group::new("t/fat")?, Group::new("t/small")?);
    let mut sibling = Work::holding(&small, 20)?;
    let mut culprit = Work::start(&fat, "hog mib=80")?;
    culprit.must_be_killed()?;
    daemon.killed(&fat)?;
    // The memory is back: nobody else has to go.
    sibling.must_run("only one child has to go")?;
    let killed = daemon.judgements("killed")?;
    ensure!(killed.len() == 1, "more than one kill: {killed:?}");
    daemon.stop()
}

/// The rule was asked, and did not hold.
fn looked_at(daemon: &Daemon, rule: &str) -> Outcome {
    let not_confirmed = [("rule", rule), ("outcome", "not_confirmed")];
    wait::until(&format!("{rule} looks at it"), LONG, || Ok(daemon.count("oomwarden_judgements_total", &not_confirmed)? >= 1.0))
}

fn nobody_died(daemon: &Daemon) -> Outcome {
    let killed = daemon.judgements("killed")?;
    ensure!(killed.is_empty(), "somebody was killed: {killed:?}");
    Ok(())
}
