//! Shortages that the module can't judge: it does nothing, and holds nobody up.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, fresh, handler, leave_available, rounds, spread};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, Notifier, State};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A process that may use the small node only fills it, with plenty of memory on the other.
pub fn shortage_of_one_node_is_left_to_the_kernel() -> Outcome {
    let group = Group::new("t/bound")?;
    shortage_elsewhere(&group, "hog mib=1000 node=1")
}

/// The same by way of cpuset.mems.
pub fn shortage_of_one_cpuset_is_left_to_the_kernel() -> Outcome {
    system::hand_down("cpuset")?;
    Group::new("t")?.set("cgroup.subtree_control", "+cpuset")?;
    let group = Group::new("t/bound")?;
    group.set("cpuset.mems", "1")?;
    shortage_elsewhere(&group, "hog mib=1000")
}

/// The same where only a stretch of the process's memory is bound.
pub fn shortage_of_one_mapping_is_left_to_the_kernel() -> Outcome {
    let group = Group::new("t/bound")?;
    shortage_elsewhere(&group, "bound mib=1000 node=1")
}

/// `what` runs out in `group`, the machine does not: the kernel kills it at once, the handler is not asked, its table not used.
fn shortage_elsewhere(group: &Group, what: &str) -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let named = Group::new("t/named")?;
    let mut bystander = Work::holding(&named, 20)?;
    let mut handler = handler(&format!("answer=never adj=-1000 kill={}", named.id()?))?;
    for _ in 0..5 {
        let before = Counters::now()?;
        let mut bound = Work::start(group, what)?;
        bound.must_be_killed()?;
        let available = facts::meminfo_mib("MemAvailable")?;
        ensure!(available > 150, "the machine was short itself: {available} MiB available");
        ensure!(before.kernel_kills()? >= 1 && before.of("passes")? >= 1, "not the kernel's doing: {}", before.story());
        ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "not the module's business: {}", before.story());
    }
    bystander.must_run("the shortage is elsewhere")?;
    handler.must_run("nobody asked it")
}

/// Somebody at the console asks the kernel to kill: it does, and nobody is asked.
pub fn sysrq_f_is_left_to_the_kernel() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let (fat, named) = (Group::new("t/fat")?, Group::new("t/named")?);
    let mut bystander = Work::holding(&named, 10)?;
    let mut handler = handler(&format!("answer=never adj=-1000 kill={}", named.id()?))?;
    let mut fattest = Work::holding(&fat, 100)?;
    let before = Counters::now()?;
    std::fs::write("/proc/sysrq-trigger", "f").map_err(|error| format!("could not ask for a kill: {error}"))?;
    fattest.must_be_killed()?;
    ensure!(before.kernel_kills()? == 1 && before.of("passes")? >= 1, "not the kernel's doing: {}", before.story());
    ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "not the module's business: {}", before.story());
    bystander.must_run("it is not the fattest")?;
    handler.must_run("nobody asked it")
}

/// The same where no more than the floor is available, though nobody is in want of any, and in the middle of a hold: neither is anybody asked for that, nor is the hold's
/// time over.
pub fn sysrq_f_in_a_shortage_is_left_to_the_kernel() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let named = Group::new("t/named")?;
    let mut bystander = Work::holding(&named, 5)?;
    let register = || handler(&format!("answer=never ms=2000 adj=-1000 kill={}", named.id()?));
    let mut registered = register()?;
    let ask = || std::fs::write("/proc/sysrq-trigger", "f").map_err(|error| format!("could not ask for a kill: {error}"));
    let mut seen = 0;
    for round in 0..4 {
        let mut fattest = Work::holding(&fresh("fat", round)?, 40)?;
        let ballast = leave_available(24)?;
        let before = Counters::now()?;
        ask()?;
        fattest.must_be_killed()?;
        // Somebody in want has a right to a hold.
        if before.of("calls")? == 0 {
            seen += 1;
            ensure!(before.kernel_kills()? == 1 && before.of("passes")? >= 1, "not the kernel's doing: {}", before.story());
            ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "not the module's business: {}", before.story());
        }
        drop(ballast);
        wait::until("memory is back", SOON, || Ok(facts::meminfo_mib("MemAvailable")? > 100 && State::now()?.level() != "oom"))?;
    }
    ensure!(seen > 0, "somebody ran out in every round");
    bystander.must_run("it is not the fattest")?;
    registered.must_run("it does nothing")?;
    drop(registered);

    // On a machine that is slow enough the hold may be over first, and the table be used: that shows nothing.
    for round in 5..10 {
        // One that let a hold expire is not asked again.
        let _registered = register()?;
        let mut bystander = Work::holding(&named, 5)?;
        let mut fattest = Work::start(&fresh("fat", round)?, "hog mib=1000 term=ignore")?;
        let before = Counters::now()?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0 || State::now()?.number("hold_seq")? > 0))?;
        ask()?;
        fattest.must_be_killed()?;
        if before.of("holds_expired")? == 0 {
            ensure!(before.of("table_kills")? == 0, "not the kernel's doing: {}", before.story());
            return bystander.must_run("it is not the fattest");
        }
        wait::until("memory is back", SOON, || Ok(facts::meminfo_mib("MemAvailable")? > 100 && State::now()?.level() != "oom"))?;
    }
    Err("the kernel killed nobody before the end of each hold".to_owned())
}

/// A group's own limit is enforced within a moment although the machine's shortage is being held: a hold is a state, not a lock.
pub fn limit_reached_elsewhere_is_not_kept_waiting_by_a_hold() -> Outcome {
    let (mut alone, mut held, mut late) = (Vec::new(), Vec::new(), 0);
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (limited, greedy) = (fresh("limited", round)?, fresh("greedy", round)?);
        let _handler = handler("answer=never adj=-1000")?;
        let mut work = Work::holding(&limited, 30)?;
        let limit = limit_of(&limited)?;
        let notifier = Notifier::open()?;
        let before = notifier.state()?;
        if round % 5 == 0 {
            alone.push(lower_and_watch(&limit, &mut work)?);
            return Ok(());
        }
        let _greedy = Work::start(&greedy, "hog mib=1000")?;
        // By the count, which stays: the hold itself may be over before this process gets a processor.
        wait::until("a hold begins", SOON, || Ok(notifier.state()?.since(&before, "holds")? > 0))?;
        let took = lower_and_watch(&limit, &mut work)?;
        // Nobody answers, so the hold that was open all the while ends by expiring, after its victim.
        match notifier.state()?.since(&before, "holds_expired")? {
            0 => held.push(took),
            _ => late += 1,
        }
        Ok(())
    })?;
    let waited = format!("{late} of {} waited for the end of the hold", held.len() + late);
    println!("{MEASURED}a lowered limit to its victim's end: {} alone, {} during a hold; {waited}", spread(alone), spread(held.clone()));
    // All do where a hold keeps others waiting; one does where a slow machine was late.
    ensure!(late <= held.len() / 4, "{waited}");
    Ok(())
}

/// A group's memory.max, open: whoever opens a file in a shortage may be kept waiting himself.
pub fn limit_of(group: &Group) -> Outcome<File> {
    OpenOptions::new().write(true).open(group.directory().join("memory.max")).doing("open memory.max")
}

/// The kernel kills for memory.max in the name of whoever lowers it.
pub fn lower_and_watch(mut limit: &File, work: &mut Work) -> Outcome<Duration> {
    let began = Instant::now();
    limit.write_all((12 * MIB).to_string().as_bytes()).doing("lower memory.max")?;
    work.must_be_killed()?;
    Ok(began.elapsed())
}
