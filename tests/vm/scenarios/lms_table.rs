//! The table that a handler leaves for when it does not answer: who dies by it, who never does, and how long it lasts.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, ROUNDS, called, fresh, handler, rounds, spread};
use crate::guest::facts;
use crate::guest::lms::State;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;

const GREEDY: &str = "hog mib=1000 term=ignore";

/// The handler never answers. Its table's first group dies whole, whether or not it is the greedy one; spared ones live, so do others; the
/// kernel never kills. A group that is gone already is passed over.
pub fn silent_handlers_table_decides_who_dies() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, spared, other) = (fresh("victim", round)?, fresh("spared", round)?, fresh("other", round)?);
        let gone = fresh("gone", round)?;
        let stale = gone.id()?;
        gone.remove()?;
        let table = format!("kill={stale},{} spare={}", victim.id()?, spared.id()?);
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 {table}"))?;
        let mut modest = Work::start(&other, "sleep")?;
        let before = Counters::now()?;
        if round % 2 == 0 {
            let mut beside = Work::start(&victim, "sleep")?;
            let mut precious = Work::holding(&spared, 20)?;
            let mut greedy = Work::start(&victim, GREEDY)?;
            wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
            let began = Instant::now();
            greedy.must_be_killed()?;
            times.push(began.elapsed());
            ensure!(began.elapsed() < Duration::from_secs(2), "a hold of 100 ms took {:?}", began.elapsed());
            beside.must_be_killed()?;
            precious.must_run("it is spared")?;
            ensure!(before.of("table_kills")? == 2, "two processes were to be killed");
        } else {
            // The greedy one is spared, and has enough once the victim is gone.
            let mut cheap = Work::holding(&victim, 40)?;
            let mut greedy = Work::start(&spared, "lms-want more=10")?;
            cheap.must_be_killed()?;
            called(&greedy, SATISFIED)?;
            greedy.must_run("it is spared")?;
            ensure!(before.of("table_kills")? == 1, "one process was to be killed");
        }
        victim.wait_empty()?;
        ensure!(before.kernel_kills()? == 0, "the kernel killed");
        ensure!(before.of("holds_expired")? == 1, "the hold did not expire once");
        modest.must_run("it is not in the table")
    })?;
    println!("{MEASURED}beginning of a hold of 100 ms to the end of the table's victim: {}", spread(times));
    Ok(())
}

/// The handler is killed while the kernel waits for it: the table is used then, and not only at the end of the bound.
pub fn handler_killed_in_a_hold_leaves_its_table() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, spared) = (fresh("victim", round)?, fresh("spared", round)?);
        let handler = handler(&format!("answer=hear keep=60 kill={} spare={}", victim.id()?, spared.id()?))?;
        let mut precious = Work::holding(&spared, 20)?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&victim, GREEDY)?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        drop(handler);
        let began = Instant::now();
        greedy.must_be_killed()?;
        times.push(began.elapsed());
        ensure!(began.elapsed() < Duration::from_millis(1800), "the bound was waited for: {:?}", began.elapsed());
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing");
        precious.must_run("it is spared")
    })?;
    println!("{MEASURED}end of the handler in a hold of 2 s to the end of the table's victim: {}", spread(times));
    Ok(())
}

/// Nobody is registered any more; the table was to be kept, and works at once.
pub fn kept_table_stands_in_for_a_dead_handler() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, spared) = (fresh("victim", round)?, fresh("spared", round)?);
        drop(handler(&format!("answer=never keep=600 kill={} spare={}", victim.id()?, spared.id()?))?);
        wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
        let mut precious = Work::holding(&spared, 20)?;
        let before = Counters::now()?;
        Work::start(&victim, GREEDY)?.must_be_killed()?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing");
        ensure!(before.of("holds")? == 0, "a hold for nobody");
        precious.must_run("it is spared")
    })
}

/// Not to be kept, it is gone with its handler: the kernel acts, and at once.
pub fn without_keep_nothing_stands_in() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, beside) = (fresh("victim", round)?, fresh("beside", round)?);
        drop(handler(&format!("answer=never kill={}", victim.id()?))?);
        wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
        let mut named = Work::start(&victim, "sleep")?;
        let before = Counters::now()?;
        Work::start(&beside, GREEDY)?.must_be_killed()?;
        ensure!(before.kernel_kills()? == 1 && before.of("table_kills")? == 0, "not the kernel's doing");
        ensure!(before.of("holds")? == 0, "a hold for nobody");
        named.must_run("the table that named it is gone")
    })
}

/// Kept for a second, it is gone after that second: the kernel acts, and at once.
pub fn kept_table_ends_with_its_time() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, beside) = (fresh("victim", round)?, fresh("beside", round)?);
        drop(handler(&format!("answer=never keep=1 kill={}", victim.id()?))?);
        wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))?;
        wait::stays("nobody registers", Duration::from_millis(1200), || Ok(State::now()?.number("handler_pid")? == 0))?;
        let mut named = Work::start(&victim, "sleep")?;
        let before = Counters::now()?;
        Work::start(&beside, GREEDY)?.must_be_killed()?;
        ensure!(before.kernel_kills()? == 1 && before.of("table_kills")? == 0, "not the kernel's doing");
        ensure!(before.of("holds")? == 0, "a hold for nobody");
        named.must_run("the time of the table that named it is over")
    })
}

/// The handler's victim was enough for everybody, though memory stays scarce: when the bound is over nobody asks any more, and nobody dies by the table.
pub fn victim_that_was_enough_is_the_only_one() -> Outcome {
    let mut left = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, named, greedy) = (fresh("victim", round)?, fresh("named", round)?, fresh("greedy", round)?);
        // What is available afterwards is above the floor and below level kill, or (6.1) about the floor. Much less is not enough: 6.12
        // raises its watermarks in a shortage, and others would ask again.
        let mut cheap = Work::holding(&victim, if round % 2 == 0 { 45 } else { 30 })?;
        let mut precious = Work::holding(&named, 5)?;
        let _handler = handler(&format!("answer=kill ms=600 adj=-1000 victim={} kill={}", victim.directory().display(), named.id()?))?;
        let before = Counters::now()?;
        let mut work = Work::start(&greedy, "lms-want more=8")?;
        cheap.must_be_killed()?;
        called(&work, SATISFIED)?;
        left.push(facts::meminfo_mib("MemAvailable")?);
        let calm = || Ok(precious.running()? && work.running()?);
        // Beyond the hold's bound, at which there would be somebody in the table.
        wait::stays("everybody else lives", Duration::from_millis(800), calm)?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 0, "another victim");
        Ok(())
    })?;
    println!("{MEASURED}MiB available after a victim that was enough: {:?} to {:?}", left.iter().min(), left.iter().max());
    Ok(())
}

/// A group of many processes dies by the table as a whole, its children's groups too, while others make and remove groups all the time.
pub fn herd_of_processes_dies_whole_while_groups_come_and_go() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, storms) = (fresh("victim", round)?, fresh("storms", round)?);
        let below = victim.child("below")?;
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={} spare={}", victim.id()?, storms.id()?))?;
        let mut storm = Vec::new();
        for at in 0..2 {
            let place = storms.child(format!("s{at}"))?;
            storm.push(Work::start(&storms.child(format!("w{at}"))?, &format!("storm groups=20 at={}", place.directory().display()))?);
        }
        let before = Counters::now()?;
        let mut herd = Work::start(&below, "herd of=8 mib=40")?;
        herd.must_be_killed()?;
        below.wait_empty()?;
        ensure!(before.kernel_kills()? == 0, "the kernel killed");
        ensure!(before.of("table_kills")? >= 3, "hardly anybody was killed by the table");
        for one in &mut storm {
            one.must_run("it is spared")?;
        }
        Ok(())
    })
}
