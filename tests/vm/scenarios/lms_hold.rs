//! Out of memory with the module loaded: when the kernel is held, for how long, and when not at all.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, fresh, handler, leave_available, rounds, rounds_wanted, spread};
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A process that takes all that is left, and more. How it is ended is the scenario's matter.
const GREEDY: &str = "hog mib=1000 term=ignore";

/// Starts a greedy process and says how long it lived.
fn lifetime_of_a_greedy_process(group: &Group) -> Outcome<Duration> {
    let began = Instant::now();
    Work::start(group, GREEDY)?.must_be_killed()?;
    Ok(began.elapsed())
}

/// Nobody registered, no table: no hold, no delay, the kernel's own choice.
pub fn without_handler_and_table_the_kernel_acts_at_once() -> Outcome {
    let (mut bare, mut with_module) = (Vec::new(), Vec::new());
    rounds("", ROUNDS, |round| {
        // By turns, for times that can be compared.
        if round % 5 == 0 {
            lms::unload().doing("unload the module")?;
            bare.push(lifetime_of_a_greedy_process(&fresh("bare", round)?)?);
            return lms::load(EXCITABLE);
        }
        let before = Counters::now()?;
        with_module.push(lifetime_of_a_greedy_process(&fresh("greedy", round)?)?);
        ensure!(before.kernel_kills()? == 1 && before.of("passes")? >= 1, "not the kernel's doing");
        ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "a hold for nobody");
        Ok(())
    })?;
    println!("{MEASURED}start to the kernel's kill: {} without the module, {} with it", spread(bare), spread(with_module));
    Ok(())
}

/// A handler that kills and acks: the kernel never kills, and who is left goes on at once.
pub fn handler_that_kills_spares_the_kernel_the_choice() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (greedy, beside) = (fresh("greedy", round)?, fresh("beside", round)?);
        let _handler = handler(&format!("answer=kill adj=-1000 victim={}", greedy.directory().display()))?;
        let mut modest = Work::start(&beside, "churn mib=2")?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&greedy, GREEDY)?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        let began = Instant::now();
        greedy.must_be_killed()?;
        times.push(began.elapsed());
        wait::until("the hold is over", SOON, || Ok(before.of("holds_resolved")? == 1))?;
        ensure!(before.kernel_kills()? == 0, "the kernel killed");
        ensure!(before.of("holds")? == 1 && before.of("holds_expired")? == 0, "more than one hold, or it expired");
        modest.must_run("it did nothing")
    })?;
    println!("{MEASURED}beginning of the hold to the end of the handler's victim: {}", spread(times));
    Ok(())
}

/// An ack that was not earned buys the bound and no more.
pub fn ack_without_a_kill_ends_with_the_bound() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let _handler = handler("answer=ack ms=150 adj=-1000")?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&fresh("greedy", round)?, GREEDY)?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        let began = Instant::now();
        greedy.must_be_killed()?;
        times.push(began.elapsed());
        ensure!(before.kernel_kills()? == 1 && before.of("holds_expired")? == 1, "not the kernel's doing after the bound");
        ensure!(before.of("table_kills")? == 0, "a table that nobody wrote");
        Ok(())
    })?;
    println!("{MEASURED}hold of 150 ms with an empty ack, to the kernel's kill: {}", spread(times));
    Ok(())
}

/// A handler that passes does not keep the kernel waiting for the bound.
pub fn pass_lets_the_kernel_go_ahead() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let _handler = handler("answer=pass adj=-1000")?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&fresh("greedy", round)?, GREEDY)?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        let began = Instant::now();
        greedy.must_be_killed()?;
        times.push(began.elapsed());
        ensure!(before.kernel_kills()? == 1 && before.of("holds_expired")? == 0, "the hold went on after the pass");
        Ok(())
    })?;
    println!("{MEASURED}beginning of the hold to the kernel's kill after a pass: {}", spread(times));
    Ok(())
}

/// The one who can't allocate is the handler: waiting for itself it would wait for ever.
pub fn handler_that_runs_out_itself_waits_for_nobody() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let beside = fresh("beside", round)?;
        let mut modest = Work::start(&beside, "sleep")?;
        let began = Instant::now();
        let before = Counters::now()?;
        let group = fresh("handler", round)?;
        let mut handler = Work::start(&group, &format!("lms-handler fill=1000 spare={}", beside.id()?))?;
        handler.must_be_killed()?;
        times.push(began.elapsed());
        ensure!(before.kernel_kills()? == 1, "not the kernel's doing");
        modest.must_run("it is spared and small")
    })?;
    println!("{MEASURED}start to end of a handler that fills memory: {}", spread(times));
    Ok(())
}

/// Nobody has the file open while the kernel asks the module: it can be unloaded even then, and the kernel goes on alone.
pub fn unload_in_the_middle_of_a_shortage() -> Outcome {
    let _ballast = leave_available(110)?;
    for round in 0..rounds_wanted().min(ROUNDS) {
        lms::load(EXCITABLE)?;
        let start = State::now()?;
        let victim = fresh("victim", round)?;
        // Somebody who is named in the table and can't be killed by it keeps the module busy.
        let _protected = Work::start(&victim, "sleep adj=-1000")?;
        {
            let writer = lms::Notifier::open()?;
            writer.command(&format!("table keep 60\nkill {}", victim.id()?))?;
        }
        let mut greedy = Work::start(&victim, GREEDY)?;
        // At another moment each time.
        // By the count of changes: the level itself may be back before anybody looks.
        wait::until("memory is short", SOON, || Ok(State::now()?.since(&start, "seq")? > 0))?;
        std::thread::sleep(Duration::from_millis(u64::from(round) * 3 % 150));
        wait::until("the module goes", SOON, || Ok(lms::unload().is_ok()))?;
        greedy.must_be_killed()?;
    }
    Ok(())
}
