//! What the scenarios of the low memory signal share: memory that is soon used up, and fifty rounds of it.

use std::time::Duration;

pub use super::common::called;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::MEASURED;
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, Notifier, State};
use crate::guest::places::ROUNDS as ROUNDS_WORD;
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::lms::READY;

/// Parameters with which memory is looked at often.
pub const EXCITABLE: &str = "interval_ms=50";

/// How often a scenario with a hold is repeated at the most.
pub const ROUNDS: u32 = 50;

/// What is available at the beginning of a round, in MiB: used up in a moment.
const LEFT: u64 = 85;

/// Waits until a process sleeps in poll or epoll.
pub fn asleep_in_poll(work: &Work) -> Outcome {
    let wchan = format!("/proc/{}/wchan", work.pid());
    wait::until("the reader is asleep", SOON, || Ok(std::fs::read_to_string(&wchan).doing("ask where it sleeps")?.contains("poll")))
}

/// Processes that hold memory until this is dropped.
pub struct Ballast(Vec<Work>);

/// Holds memory so that only so many MiB stay available, or a few more. Nobody's victim, and not to be swapped out.
///
/// What ended before gives its memory back bit by bit, so that more may be available than was at the first look.
pub fn leave_available(mib: u64) -> Outcome<Ballast> {
    const FEW: u64 = 5;
    let group = Group::new("ballast")?.no_swap()?;
    let mut ballast = Ballast(Vec::new());
    wait::until(&format!("no more than {mib} MiB are available"), 2 * SOON, || {
        let more = facts::meminfo_mib("MemAvailable")?.saturating_sub(mib);
        if more <= FEW {
            return Ok(true);
        }
        let before = group.usage()?;
        ballast.0.push(Work::start(&group, &format!("hog mib={more} then=hold adj=-1000"))?);
        group.wait_usage(before + more * MIB)?;
        Ok(false)
    })?;
    Ok(ballast)
}

/// Kernel kills and the module's counters, before something and after.
pub struct Counters {
    kernel_kills: u64,
    state: State,
}

impl Counters {
    /// Now.
    pub fn now() -> Outcome<Counters> {
        Ok(Counters { kernel_kills: facts::vmstat("oom_kill")?, state: State::now()? })
    }

    /// How many processes the kernel killed since.
    pub fn kernel_kills(&self) -> Outcome<u64> {
        Ok(facts::vmstat("oom_kill")? - self.kernel_kills)
    }

    /// By how much a counter of the module rose since.
    pub fn of(&self, counter: &str) -> Outcome<u64> {
        State::now()?.since(&self.state, counter)
    }

    /// Both, for messages.
    pub fn story(&self) -> String {
        let module: Vec<String> = ["holds", "holds_resolved", "holds_expired", "holds_passed", "table_kills", "passes"]
            .iter()
            .map(|counter| format!("{counter} {}", self.of(counter).map_or_else(|why| why, |number| number.to_string())))
            .collect();
        format!("oom_kill {:?}, {}", self.kernel_kills(), module.join(", "))
    }
}

/// How many rounds this machine was booted for; all of them where it does not say.
pub fn rounds_wanted() -> u32 {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().find_map(|word| word.strip_prefix(ROUNDS_WORD)?.parse().ok()).unwrap_or(u32::MAX)
}

/// Loads the module, uses most memory up, and runs `round` `number` times, or as often as this machine is for, each with fresh groups below /t and a machine that is well again.
pub fn rounds(parameters: &str, number: u32, round: impl FnMut(u32) -> Outcome) -> Outcome {
    lms::load(&format!("{EXCITABLE} {parameters}"))?;
    short_of_memory(number, round)
}

/// The same with the module as it is.
pub fn short_of_memory(number: u32, round: impl FnMut(u32) -> Outcome) -> Outcome {
    short_of_memory_beside(0, number, round)
}

/// The same where `useless` MiB more count as available.
pub fn short_of_memory_beside(useless: u64, number: u32, mut round: impl FnMut(u32) -> Outcome) -> Outcome {
    // What somebody gives back is in the zones at once, and not in lists of its processor (from 6.7 on).
    system::set(LISTS, "1000")?;
    let _ballast = leave_available(LEFT + useless)?;
    let available = facts::meminfo_mib("MemAvailable")?;
    let mut at_oom = Vec::new();
    let number = number.min(rounds_wanted());
    for at in 1..=number {
        let before = Counters::now()?;
        round(at).map_err(|why| format!("round {at} of {number}: {why} ({})", before.story()))?;
        remove_empty()?;
        at_oom.extend(State::now()?.number("oom_available_kb"));
        let well = || Ok(State::now()?.level() != "oom" && facts::meminfo_mib("MemAvailable")? + 20 > available);
        wait::until("the machine is well again", SOON, well).map_err(|why| format!("after round {at}: {why} ({})", before.story()))?;
    }
    at_oom.sort_unstable();
    let (least, most) = (at_oom.first().unwrap_or(&0), at_oom.last().unwrap_or(&0));
    println!("{MEASURED}available at an OOM: {least} to {most} kB, floor {} kB", State::now()?.number("floor_kb")?);
    Ok(())
}

/// Takes the groups of a round away: what is watched, and what is held of it, must not grow with the rounds.
fn remove_empty() -> Outcome {
    fn remove(directory: &std::path::Path) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir()) {
            remove(&entry.path());
            // Somebody may still be in it.
            drop(std::fs::remove_dir(entry.path()));
        }
    }
    remove(Group::new("t")?.directory());
    Ok(())
}

/// A group of its own for each round.
pub fn fresh(name: &str, round: u32) -> Outcome<Group> {
    Group::new(&format!("t/{name}{round}"))
}

/// A handler in a group of its own that waits for holds when this returns; `how` as the workload `lms-handler` takes it.
pub fn handler(how: &str) -> Outcome<Work> {
    let group = Group::new("handler")?;
    let work = Work::start(&group, &format!("lms-handler {how}"))?;
    called(&work, READY)?;
    Ok(work)
}

/// How much of a zone may be in the processors' lists of free pages: one part of so many; 0: as the kernel likes.
pub const LISTS: &str = "/proc/sys/vm/percpu_pagelist_high_fraction";

/// Looks at the module's file without taking any memory from now on, in a shortage that nobody but
/// the scenario itself can end.
pub fn watch_without_memory() -> Outcome<Notifier> {
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE).doing("lock memory")?;
    let notifier = Notifier::open()?;
    notifier.state()?;
    Ok(notifier)
}

/// Sends a process a signal.
pub fn signal(work: &Work, signal: Signal) -> Outcome {
    let pid = i32::try_from(work.pid()).doing("understand a process id")?;
    nix::sys::signal::kill(Pid::from_raw(pid), signal).doing(format_args!("send {signal}"))
}

/// Durations in a line for people.
pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0, Duration::as_millis);
    format!("{} / {} / {} ms (least, median, most of {})", ms(0), ms(times.len() / 2), ms(times.len().saturating_sub(1)), times.len())
}
