//! Memory that counts as available and that nobody can have does not keep the machine's shortage from being a shortage: the policy
//! decides who dies, and not the kernel.

use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, handler, short_of_memory, short_of_memory_beside, signal};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, State};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;

/// How much is to count as available for nothing: well above the floor, and above level `kill`.
const PINNED: u64 = 80;

/// An ordinary user makes many empty files with long names in a tmpfs. Names and inodes count as reclaimable and stay as long as the files.
pub fn names_of_files_are_not_memory_to_be_had() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let tenant = Group::new("tenant")?;
    let place = system::tmpfs_of_any_number_of_files("files")?;
    let before = facts::meminfo_mib("MemAvailable")?;
    let reclaimable = facts::meminfo_mib("SReclaimable")?;
    let mut files = 0;
    while facts::meminfo_mib("SReclaimable")? < reclaimable + PINNED {
        files += 10_000;
        Work::start(&tenant, &format!("files at={} from={files} count=10000 uid=65534", place.display()))?.must_exit_with(0)?;
    }
    println!("{MEASURED}{files} files: MemAvailable {before} to {} MiB", facts::meminfo_mib("MemAvailable")?);
    policy_decides(PINNED)
}

/// A group reads files below its memory.min, which reclaim never touches.
pub fn protected_cache_is_not_memory_to_be_had() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let (above, tenant) = (Group::new("protected")?, Group::new("protected/tenant")?);
    for group in [&above, &tenant] {
        group.set("memory.min", &((PINNED + 20) * MIB).to_string())?;
    }
    let _reader = Work::start(&tenant, &format!("page-cache mib={PINNED} then=hold"))?;
    tenant.wait_usage(PINNED * MIB)?;
    policy_decides(PINNED)
}

/// A greedy process in one group, which the kernel would choose, a cheap one in the other, which the policy does: by turns the handler and its table.
fn policy_decides(pinned: u64) -> Outcome {
    let floor = State::now()?.number("floor_kb")?;
    // More than twice of what is wanted: 6.12 keeps much of what a victim gives back in the lists of single processors.
    const CHEAP: u64 = 80;
    short_of_memory_beside(pinned + CHEAP - 40, ROUNDS, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        let mut cheap = Work::holding(&victim, CHEAP)?;
        let how = match round % 2 {
            0 => format!("answer=never ms=100 kill={}", victim.id()?),
            _ => format!("answer=kill victim={}", victim.directory().display()),
        };
        let _handler = handler(&format!("{how} adj=-1000"))?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&other, "lms-want more=30")?;
        cheap.must_be_killed()?;
        called(&greedy, SATISFIED)?;
        greedy.must_run("it has what it wants")?;
        ensure!(before.kernel_kills()? == 0, "the kernel chose");
        ensure!(before.of("holds")? == 1, "not one hold");
        ensure!(before.of("table_kills")? == u64::from(round % 2 == 0), "not whom the policy chose");
        let available = State::now()?.number("oom_available_kb")?;
        ensure!(available > floor, "{available} kB were available: not what this is about");
        Ok(())
    })
}

/// Cache that could not be had is dropped in a hold that nobody answers: as much is available as before, but now it can be had, and the hold is over.
pub fn pages_that_are_free_again_end_a_hold() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let (above, tenant) = (Group::new("protected")?, Group::new("protected/tenant")?);
    for group in [&above, &tenant] {
        group.set("memory.min", &((PINNED + 20) * MIB).to_string())?;
    }
    let mut reader = Some(Work::start(&tenant, &format!("page-cache mib={PINNED} then=hold"))?);
    tenant.wait_usage(PINNED * MIB)?;
    short_of_memory_beside(PINNED, 3, |round| {
        if reader.is_none() {
            reader = Some(Work::start(&tenant, &format!("page-cache mib={PINNED} then=hold"))?);
            tenant.wait_usage(PINNED * MIB)?;
        }
        comes_back(round, || {
            // The last who has it open takes its pages along.
            reader = None;
            Ok(())
        })
    })
}

/// Swap is given back, and next to no memory: reclaim can go on with that, and the hold is over.
pub fn swap_that_is_free_again_ends_a_hold() -> Outcome {
    const SWAP: u64 = 80;
    system::zram_swap(SWAP)?;
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(3, |round| {
        let swapped = fresh("swapped", round)?.high(MIB)?;
        let mut sleeper = Work::start(&swapped, &format!("hog mib={SWAP} then=hold"))?;
        wait::until("it is on swap", 2 * SOON, || Ok(swapped.number("memory.swap.current")? > (SWAP - 6) * MIB))?;
        comes_back(round, || {
            signal(&sleeper, Signal::SIGKILL)?;
            sleeper.must_be_killed()
        })
    })
}

/// Something comes back in a hold that nobody answers: it is over long before its time, and nobody dies.
fn comes_back(round: u32, give: impl FnOnce() -> Outcome) -> Outcome {
    let other = fresh("other", round)?;
    let _handler = handler("answer=never ms=2000 adj=-1000")?;
    let before = Counters::now()?;
    let mut greedy = Work::start(&other, "lms-want more=5")?;
    wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
    give()?;
    called(&greedy, SATISFIED)?;
    wait::until("the hold is over", SOON, || Ok(State::now()?.level() != "oom"))?;
    greedy.must_run("it has what it wants")?;
    ensure!(before.of("holds_resolved")? == 1 && before.of("holds_expired")? == 0, "not by what came back: {}", before.story());
    ensure!(before.kernel_kills()? == 0, "the kernel killed: {}", before.story());
    Ok(())
}
