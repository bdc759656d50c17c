//! Who works by the table: the module's thread alone, and nobody who could not allocate. Such a caller holds the kernel's lock for the OOM killer, may have next to
//! no share of the processors, and would keep the machine waiting.

use std::time::Instant;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, handler, rounds, short_of_memory, short_of_memory_beside, spread};
use super::lms_foreign::{limit_of, lower_and_watch};
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;

/// A table is left that names the victim, and nobody is registered.
fn left_table(victim: &Group) -> Outcome {
    drop(handler(&format!("answer=never keep=600 kill={}", victim.id()?))?);
    wait::until("the handler is forgotten", SOON, || Ok(State::now()?.number("handler_pid")? == 0))
}

/// However long the table takes, nothing of the kernel's is held meanwhile: a group's limit is enforced at once.
pub fn table_at_work_keeps_no_limit_waiting() -> Outcome {
    let mut times = Vec::new();
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory_beside(40, 3, |round| {
        let (victim, limited) = (fresh("victim", round)?, fresh("limited", round)?);
        left_table(&victim)?;
        let mut cheap = Work::holding(&victim, 60)?;
        let mut work = Work::holding(&limited, 20)?;
        let limit = limit_of(&limited)?;
        let before = Counters::now()?;
        lms::set("test_choose_us", 0)?;
        // Until it is set to 0.
        lms::set("test_delay_ms", 2 * SOON.as_millis())?;
        let chosen = lms::Parameter::open("test_choose_us")?;
        // More than the limited one gives back.
        let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=30")?;
        wait::until("a victim is chosen", SOON, || Ok(chosen.number()? > 0))?;
        let took = lower_and_watch(&limit, &mut work)?;
        cheap.must_run("its death is put off")?;
        lms::set("test_delay_ms", 0)?;
        cheap.must_be_killed()?;
        called(&greedy, SATISFIED)?;
        greedy.must_run("it is not in the table")?;
        ensure!(
            before.kernel_kills()? == 1 && before.of("table_kills")? == 1,
            "not one by the limit and one by the table: {}",
            before.story()
        );
        times.push(took);
        Ok(())
    })?;
    println!("{MEASURED}a lowered limit to its victim's end while the table is at work: {}", spread(times));
    Ok(())
}

/// The one who runs out is throttled from then on, or runs only where nobody else wants to, beside others who do: the table's victim dies as soon as ever.
pub fn throttled_caller_keeps_no_table_waiting() -> Outcome {
    let mut times = Vec::new();
    Group::new("t")?.set("cgroup.subtree_control", "+cpu")?;
    rounds("hold_ms=2000", 4, |round| {
        let (victim, greedy) = (fresh("victim", round)?, fresh("greedy", round)?);
        let _handler = handler(&format!("answer=never ms=200 adj=-1000 kill={}", victim.id()?))?;
        let mut cheap = Work::holding(&victim, 40)?;
        let before = Counters::now()?;
        // It has enough when the victim is gone.
        let _greedy = Work::start(&greedy, "lms-want adj=-1000 more=20")?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        let began = Instant::now();
        let _busy = if round % 2 == 0 {
            greedy.set("cpu.max", "1000 1000000")?;
            None
        } else {
            greedy.set("cpu.idle", "1")?;
            Some([Work::start(&fresh("busy", round)?, "spin")?, Work::start(&fresh("busy", round)?, "spin")?])
        };
        cheap.must_be_killed()?;
        let took = began.elapsed();
        // Or its own end would take for ever.
        greedy.set("cpu.max", "max")?;
        times.push(took);
        ensure!(before.of("table_kills")? == 1, "not the table's doing: {}", before.story());
        Ok(())
    })?;
    println!("{MEASURED}beginning of a hold of 200 ms to the end of the table's victim, by a throttled caller: {}", spread(times));
    Ok(())
}

/// Where the thread gets nowhere the kernel goes ahead, in bounded time.
pub fn thread_that_is_stuck_leaves_it_to_the_kernel() -> Outcome {
    let mut times = Vec::new();
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(2, |round| {
        let victim = fresh("victim", round)?;
        left_table(&victim)?;
        let mut named = Work::start(&victim, "sleep")?;
        let before = Counters::now()?;
        lms::set("test_stuck", 1)?;
        let began = Instant::now();
        let greedy = Work::start(&fresh("greedy", round)?, "hog mib=1000 term=ignore").and_then(|mut greedy| greedy.must_be_killed());
        times.push(began.elapsed());
        lms::set("test_stuck", 0)?;
        greedy?;
        ensure!(before.kernel_kills()? == 1 && before.of("table_kills")? == 0, "not the kernel's doing: {}", before.story());
        named.must_run("nobody worked by the table")
    })?;
    println!("{MEASURED}start of a greedy process to the kernel's kill while the thread is stuck: {}", spread(times));
    Ok(())
}

/// Tables are written all the time, in a shortage too: the thread comes to its turns, and the kernel has no need to kill.
pub fn writers_of_tables_keep_no_table_waiting() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let victim = fresh("victim", round)?;
        let mut cheap = Work::holding(&victim, 30)?;
        let _writers = [(); 2]
            .map(|()| Work::start(&fresh("writers", round)?, &format!("lms-writer adj=-1000 id={}", victim.id()?)))
            .into_iter()
            .collect::<Outcome<Vec<_>>>()?;
        wait::until("a table is written", SOON, || Ok(State::now()?.number("table_kill_ids")? > 0))?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=5")?;
        wait::until("the shortage begins", SOON, || Ok(before.of("calls")? > 0))?;
        let began = Instant::now();
        cheap.must_be_killed()?;
        times.push(began.elapsed());
        called(&greedy, SATISFIED)?;
        greedy.must_run("it is not in the table")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing: {}", before.story());
        Ok(())
    })?;
    println!("{MEASURED}beginning of a shortage to the end of the table's victim while tables are written: {}", spread(times));
    Ok(())
}
