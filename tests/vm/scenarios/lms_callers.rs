//! Those in whose name the kernel runs out of memory: a balloon that gives some back, kernel threads, allocations for which the kernel
//! kills nobody.

use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, handler, rounds, short_of_memory_beside};
use crate::guest::callers;
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;

/// While somebody else gives memory back when the kernel asks, nobody needs to die; when there is none left there, the policy decides as ever.
pub fn while_a_balloon_gives_memory_back_nobody_dies() -> Outcome {
    const BALLOON: u64 = 24;
    const CHEAP: u64 = 40;
    callers::load()?;
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory_beside(BALLOON + CHEAP, ROUNDS, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        callers::command(&format!("give mib={BALLOON}"))?;
        let mut cheap = Work::holding(&victim, CHEAP)?;
        let _handler = handler(&policy(&victim, round)?)?;
        let before = Counters::now()?;
        let mut content = Work::start(&other, "lms-want until=called more=8")?;
        called(&content, SATISFIED)?;
        let left = callers::number("given_kb")?;
        ensure!(left < BALLOON * 1024 && left > 0, "the balloon has {left} kB");
        ensure!(before.kernel_kills()? == 0 && before.of("holds")? == 0, "memory was given back, but: {}", before.story());
        ensure!(before.of("calls")? == 0 && before.of("passes")? == 0, "not the module's business: {}", before.story());
        cheap.must_run("memory was given back")?;

        let mut greedy = Work::start(&other, "lms-want more=10")?;
        cheap.must_be_killed()?;
        called(&greedy, SATISFIED)?;
        ensure!(callers::number("given_kb")? == 0, "the balloon was not asked first");
        decided(&before, round)?;
        content.must_run("the policy chose another")?;
        greedy.must_run("the policy chose another")?;
        callers::command("stop")
    })
}

/// A kernel thread runs out first: it waits like anybody, and the policy decides.
pub fn kernel_thread_that_runs_out_waits_for_the_policys_choice() -> Outcome {
    who_runs_out_waits("thread")
}

/// A worker of a workqueue does, which might be sysrq f, and is not.
pub fn worker_that_runs_out_waits_for_the_policys_choice() -> Outcome {
    who_runs_out_waits("worker")
}

fn who_runs_out_waits(who: &str) -> Outcome {
    let mut ran_out = 0;
    callers::load()?;
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        let mut cheap = Work::holding(&victim, 40)?;
        // Whom the kernel would take.
        let mut fattest = Work::start(&other, "sleep adj=1000")?;
        let _handler = handler(&policy(&victim, round)?)?;
        let before = Counters::now()?;
        callers::command(&format!("eat mib=1000 more=10 by={who}"))?;
        cheap.must_be_killed()?;
        wait::until("the caller has what it wants", SOON, || Ok(callers::number("eating")? == 0))?;
        // Somebody else may have been the first to run out.
        ran_out += u32::from(callers::number("calls")? > 0);
        decided(&before, round)?;
        fattest.must_run("the policy chose another")?;
        callers::command("stop")
    })?;
    ensure!(ran_out > 0, "it never ran out");
    Ok(())
}

/// For allocations that must not enter file systems the kernel kills nobody, and so nobody is asked to.
pub fn shortage_for_which_the_kernel_kills_nobody_begins_no_hold() -> Outcome {
    let mut alone = 0;
    callers::load()?;
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        let mut cheap = Work::holding(&victim, 20)?;
        let mut modest = Work::start(&other, "sleep")?;
        let mut handler = handler(&policy(&victim, round)?)?;
        let before = Counters::now()?;
        let others = callers::number("others")?;
        let flags = if round % 2 == 0 { "nofs" } else { "noio" };
        // In this process's name; it is back when the kernel has asked so often.
        callers::command(&format!("eat mib=1000 calls=20 flags={flags}"))?;
        ensure!(callers::number("calls")? == 20, "it was not asked that often");
        // Somebody else who ran out meanwhile had a right to a hold.
        if callers::number("others")? > others {
            return callers::command("stop");
        }
        alone += 1;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 0, "somebody died: {}", before.story());
        ensure!(before.of("holds")? == 0 && before.of("calls")? == 0, "a hold for nobody: {}", before.story());
        cheap.must_run("the kernel would have killed nobody")?;
        modest.must_run("the kernel would have killed nobody")?;
        handler.must_run("nobody asked it")
    })?;
    ensure!(alone > 0, "somebody else ran out of memory in every round");
    Ok(())
}

/// The same while somebody else is held, whom nobody answers: it neither ends the hold nor costs anybody's life, and begins no other.
pub fn caller_for_whom_the_kernel_kills_nobody_ends_no_hold() -> Outcome {
    let mut seen = 0;
    callers::load()?;
    rounds("hold_ms=2000", ROUNDS, |round| {
        let (victim, other) = (fresh("victim", round)?, fresh("other", round)?);
        let mut cheap = Work::holding(&victim, 20)?;
        let _handler = handler(&format!("answer=never ms=2000 adj=-1000 kill={}", victim.id()?))?;
        let before = Counters::now()?;
        // It asks all the time, and has enough when the victim is gone.
        let greedy = Work::start(&other, "lms-want more=8")?;
        let hold = wait::find("a hold begins", SOON, || Ok(Some(State::now()?.number("hold_seq")?).filter(|hold| *hold > 0)))?;
        callers::command("eat mib=1000 calls=10 flags=nofs")?;
        // Others may have taken what it let go of, so that it was asked once more for its last page.
        ensure!(callers::number("calls")? >= 10, "it was not asked that often");
        let state = State::now()?;
        if state.number("hold_seq")? == hold {
            seen += 1;
            ensure!(before.of("holds")? == 1 && before.of("holds_resolved")? == 0, "not the one hold: {}", before.story());
            cheap.must_run("the hold has not expired")?;
        }
        ensure!(before.kernel_kills()? == 0, "the kernel killed: {}", before.story());
        drop(greedy);
        callers::command("stop")
    })?;
    ensure!(seen > 0, "every hold was over too soon");
    Ok(())
}

/// The policy is to kill `victim`: by turns the handler does, and its table.
fn policy(victim: &Group, round: u32) -> Outcome<String> {
    Ok(match by_table(round) {
        true => format!("answer=never ms=100 adj=-1000 kill={}", victim.id()?),
        false => format!("answer=kill adj=-1000 victim={}", victim.directory().display()),
    })
}

fn by_table(round: u32) -> bool {
    round.is_multiple_of(2)
}

/// The policy has decided once, and nobody else.
fn decided(before: &Counters, round: u32) -> Outcome {
    ensure!(before.kernel_kills()? == 0, "the kernel chose: {}", before.story());
    ensure!(before.of("holds")? == 1, "not one hold: {}", before.story());
    ensure!(before.of("table_kills")? == u64::from(by_table(round)), "not the policy's choice: {}", before.story());
    Ok(())
}
