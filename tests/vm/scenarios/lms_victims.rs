//! Whom the table kills, and whom it spares, while victims dump their cores, can't die, come back or were not needed in the end.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{
    Counters, EXCITABLE, ROUNDS, called, fresh, handler, rounds, short_of_memory, signal, spread, watch_without_memory,
};
use crate::guest::facts;
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::system::{self, Freezer};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::lms::SATISFIED;

const GREEDY: &str = "hog mib=1000 term=ignore";

/// Whether a process's status has this line.
pub fn status(work: &Work, line: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", work.pid())).unwrap_or_default();
    status.lines().any(|known| known.split_whitespace().eq(line.split_whitespace()))
}

/// A victim that writes its core to somebody who takes it slowly looks as if it died, and keeps its memory. It is sent SIGKILL, which ends the dump, once;
/// the next group lives. A dump that finds no page for its pipe ends by itself, without anybody's doing.
pub fn victim_that_dumps_its_core_is_cut_short() -> Outcome {
    // Byte by byte.
    system::set("/proc/sys/kernel/core_pattern", "|/bin/busybox dd bs=1 of=/dev/null")?;
    let (mut times, mut cut_short) = (Vec::new(), 0);
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, next) = (fresh("victim", round)?, fresh("next", round)?);
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={},{}", victim.id()?, next.id()?))?;
        let mut dumping = Work::holding(&victim, 50)?;
        let mut precious = Work::holding(&next, 5)?;
        signal(&dumping, Signal::SIGQUIT)?;
        wait::until("it dumps its core", SOON, || Ok(status(&dumping, "CoreDumping: 1")))?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=5")?;
        // Or a dump that ended by itself made an end of it.
        let ended = || Ok(before.of("holds_expired")? + before.of("holds_resolved")? > 0);
        wait::until("the hold has ended", SOON, ended)?;
        let began = Instant::now();
        dumping.end(SOON)?;
        times.push(began.elapsed());
        called(&greedy, SATISFIED)?;
        greedy.must_run("it is not in the table")?;
        precious.must_run("the first victim was enough")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? <= 1, "the kernel's doing, or more than once");
        cut_short += before.of("table_kills")?;
        Ok(())
    })?;
    ensure!(cut_short > 0, "each dump ended by itself: this proves nothing");
    println!("{MEASURED}end of a hold to the end of a victim that dumps its core: {}", spread(times));
    Ok(())
}

/// A process whose first thread has ended was moved since: its live threads are in another group, which is spared.
pub fn group_of_a_live_thread_counts() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, spared) = (fresh("victim", round)?, fresh("spared", round)?);
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={} spare={}", victim.id()?, spared.id()?))?;
        let mut moved = Work::start(&victim, "headless mib=5")?;
        wait::until("its first thread has ended", SOON, || Ok(status(&moved, "State: Z (zombie)")))?;
        std::fs::write(spared.directory().join("cgroup.procs"), moved.pid().to_string()).doing("move it")?;
        let before = Counters::now()?;
        Work::start(&victim, GREEDY)?.must_be_killed()?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        moved.must_run("it is in a spared group")
    })
}

/// Somebody's memory comes back after a victim was chosen, and before it is sent anything: it lives.
pub fn nobody_dies_when_memory_came_back() -> Outcome {
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(3, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        drop(handler(&format!("answer=never keep=600 kill={}", victim.id()?))?);
        wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
        let mut three: Vec<Work> = (0..3).map(|_| Work::start(&victim, "sleep")).collect::<Outcome<_>>()?;
        let comes_back = Work::holding(&other, 60)?;
        let before = Counters::now()?;
        // While nobody can die, whoever asks for a page waits for what is done here.
        let module = watch_without_memory()?;
        lms::set("test_delay_ms", 2 * SOON.as_millis())?;
        let greedy = Work::start(&other, "lms-want more=5")?;
        wait::until("the shortage begins", SOON, || Ok(module.state()?.level() == "oom"))?;
        drop(comes_back);
        wait::until("it is over", SOON, || Ok(module.state()?.level() != "oom"))?;
        // What was about to happen to the chosen ones happens now.
        lms::set("test_delay_ms", 0)?;
        called(&greedy, SATISFIED)?;
        wait::stays("the chosen live", Duration::from_millis(200), || {
            three.iter_mut().try_fold(true, |all, one| Ok(all && one.running()?))
        })?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 0, "somebody died");
        Ok(())
    })
}

/// The handler is dead, a child of it still has the file: its table is used without a hold, and ends with its time as if the file were closed.
pub fn table_of_a_dead_handler_ends_though_its_child_has_the_file() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, beside) = (fresh("victim", round)?, fresh("beside", round)?);
        let kept = round % 2 == 0;
        let keep = if kept { 600 } else { 1 };
        drop(handler(&format!("answer=never heir=yes keep={keep} kill={}", victim.id()?))?);
        ensure!(Group::new("handler")?.populated()?, "nobody has the file");
        let before = Counters::now()?;
        if kept {
            Work::start(&victim, GREEDY)?.must_be_killed()?;
            ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing");
        } else {
            wait::stays("the child has the file", Duration::from_millis(1200), || Group::new("handler")?.populated())?;
            let mut named = Work::start(&victim, "sleep")?;
            Work::start(&beside, GREEDY)?.must_be_killed()?;
            ensure!(before.kernel_kills()? == 1 && before.of("table_kills")? == 0, "not the kernel's doing");
            named.must_run("the time of the table that named it is over")?;
        }
        ensure!(before.of("holds")? == 0, "a hold for nobody");
        let heirs = Group::new("handler")?;
        heirs.kill()?;
        heirs.wait_empty()
    })
}

/// The first group is gone, the second is killed and can't die yet. Somebody comes into the first again: he lives while the second has its time.
pub fn higher_group_that_refills_waits_for_the_dying_one() -> Outcome {
    let mut freezer = Freezer::new()?;
    let mut seen = 0;
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(ROUNDS, |round| {
        let second = fresh("second", round)?;
        let mut stuck = Work::start(&second, &format!("write mib=5 file={}/file{round}", freezer.place.display()))?;
        second.wait_usage(5 << 20)?;
        freezer.freeze()?;
        let refilled = refill(round, &second, &stuck);
        // Whatever came of it: else it could not end.
        freezer.thaw()?;
        seen += u32::from(refilled?);
        stuck.must_be_killed()
    })?;
    ensure!(seen > 0, "no round was quick enough: this proves nothing");
    println!("{MEASURED}{seen} rounds were quick enough to see it");
    Ok(())
}

/// Milliseconds of the monotonic clock.
pub fn since_boot() -> Outcome<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).doing("read the clock")?;
    u64::try_from(now.tv_sec() * 1000 + now.tv_nsec() / 1_000_000).doing("understand the clock")
}

/// Whether it was seen: whoever looks is kept waiting by the shortage himself, and may come too late.
fn refill(round: u32, second: &Group, stuck: &Work) -> Outcome<bool> {
    const TIME_MS: u64 = 900;
    let (first, other) = (fresh("first", round)?, fresh("other", round)?);
    let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={},{}", first.id()?, second.id()?))?;
    wait::until("the writer waits in the kernel", SOON, || Ok(status(stuck, "State: D (disk sleep)")))?;
    let mut gone = Work::holding(&first, 5)?;
    // Started beforehand, because that takes its time in a shortage.
    let mut again = Work::start(&other, "sleep")?;
    let before = Counters::now()?;
    let _greedy = Work::start(&other, GREEDY)?;
    gone.must_be_killed()?;
    wait::until("the second is killed", SOON, || Ok(before.of("table_kills")? >= 2))?;
    // As the module counts it: whoever kills may be kept from going on for a while.
    let began: u64 = lms::parameter("test_since_ms")?.parse().doing("understand when the second's time began")?;
    std::fs::write(first.directory().join("cgroup.procs"), again.pid().to_string()).doing("refill the first group")?;
    let mut looks = 0;
    while since_boot()? < began + TIME_MS {
        let lives = again.running()?;
        let now = since_boot()?;
        if now < began + TIME_MS {
            ensure!(lives, "the newcomer died {} ms after the second's time began", now - began);
            looks += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(looks > 5)
}

/// Three services that are started anew whenever they die, and hold next to nothing, stand before the group that helps: they are not taken for stuck, after
/// which the kernel would choose, and that group has its turn.
pub fn services_that_restart_are_not_stuck() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS.min(2), |round| {
        let services = [fresh("one", round)?, fresh("two", round)?, fresh("three", round)?];
        let (victim, supervisors) = (fresh("victim", round)?, fresh("supervisors", round)?);
        let ids: Vec<String> = services.iter().chain([&victim]).map(|group| Ok(group.id()?.to_string())).collect::<Outcome<_>>()?;
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={}", ids.join(",")))?;
        let start = |group: &Group| Work::start(&supervisors, &format!("restart times=8 adj=-1000 at={}", group.directory().display()));
        let _supervisors: Vec<Work> = services.iter().map(start).collect::<Outcome<_>>()?;
        for service in &services {
            wait::until("the service runs", SOON, || service.populated())?;
        }
        let mut helps = Work::holding(&victim, 60)?;
        let before = Counters::now()?;
        let began = Instant::now();
        // More than all services together give back.
        let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=20")?;
        helps.must_be_killed()?;
        times.push(began.elapsed());
        called(&greedy, SATISFIED)?;
        greedy.must_run("it is not in the table")?;
        ensure!(before.kernel_kills()? == 0, "the kernel killed");
        ensure!(before.of("table_kills")? > 4, "no service came back: the scenario proves nothing");
        println!(
            "{MEASURED}{} processes killed by the table, {} MiB available",
            before.of("table_kills")?,
            facts::meminfo_mib("MemAvailable")?
        );
        Ok(())
    })?;
    println!("{MEASURED}past three services that restart: {}", spread(times));
    Ok(())
}
