//! When it is the next victim's turn at the table: not while somebody ends already, not unasked, and never again for one that is no candidate any more.

use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, LISTS, ROUNDS, called, fresh, handler, rounds, short_of_memory, signal};
use super::lms_victims::{since_boot, status};
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, State};
use crate::guest::system::{self, Freezer};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};
use crate::workload::lms::SATISFIED;

/// How long one that is killed may take to be gone, in milliseconds.
const DYING_MS: u64 = 1000;

/// A process that holds `mib` and, once the file system is frozen, waits in the kernel where no signal reaches it.
fn writer(group: &Group, mib: u64, freezer: &Freezer, round: u32) -> Outcome<Work> {
    let name = group.path().replace('/', "-");
    let work = Work::start(group, &format!("write mib={mib} file={}/{name}{round}", freezer.place.display()))?;
    group.wait_usage(mib * MIB)?;
    Ok(work)
}

fn waits(work: &Work) -> Outcome {
    wait::until("the writer waits in the kernel", SOON, || Ok(status(work, "State: D (disk sleep)")))
}

/// When the time of the dying victim began, as the module counts it.
struct VictimsTime(lms::Parameter, u64);

impl VictimsTime {
    fn now() -> Outcome<VictimsTime> {
        let parameter = lms::Parameter::open("test_since_ms")?;
        let now = parameter.number()?;
        Ok(VictimsTime(parameter, now))
    }

    /// Waits for the next victim's.
    fn next(&self) -> Outcome<u64> {
        wait::find("a victim is chosen", SOON, || Ok(Some(self.0.number()?).filter(|time| *time != self.1)))
    }
}

/// Lets a process run on one processor alone.
fn pin(work: &Work, processor: usize) -> Outcome {
    let mut one = CpuSet::new();
    one.set(processor).doing("name a processor")?;
    sched_setaffinity(Pid::from_raw(work.pid() as i32), &one).doing("pin a process")
}

/// The first victim ends on one processor, whose lists take what it gives back. Somebody on another
/// one needs a part of that: it is had before a second group dies.
pub fn pages_in_a_processors_lists_cost_no_second_victim() -> Outcome {
    rounds("hold_ms=2000", ROUNDS, |round| {
        system::set(LISTS, "0")?;
        let (first, second) = (fresh("first", round)?, fresh("second", round)?);
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={},{}", first.id()?, second.id()?))?;
        let mut victim = Work::holding(&first, 25)?;
        pin(&victim, 0)?;
        let mut bystander = Work::holding(&second, 10)?;
        let before = Counters::now()?;
        let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=15")?;
        pin(&greedy, 1)?;
        victim.must_be_killed()?;
        called(&greedy, SATISFIED)?;
        bystander.must_run("the first victim was enough")?;
        greedy.must_run("it is not in the table")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 1, "not the table's doing, or not one alone");
        Ok(())
    })
}

/// One that can't die is given up after its time. Whoever wanted memory has it by then, though next to nothing came back, and asks no more: nobody else dies.
pub fn after_a_victim_that_is_stuck_nobody_dies_unasked() -> Outcome {
    let mut freezer = Freezer::new()?;
    let mut seen = 0;
    // Half of it is as much as may come back without any silence ending the shortage soon.
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000 floor_mb=64"))?;
    short_of_memory(3, |round| {
        let (first, second) = (fresh("first", round)?, fresh("second", round)?);
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={},{}", first.id()?, second.id()?))?;
        let mut stuck = writer(&first, 5, &freezer, round)?;
        freezer.freeze()?;
        let judged = unasked(round, &stuck, &second);
        // Whatever came of it: else it could not end.
        freezer.thaw()?;
        seen += u32::from(judged?);
        stuck.must_be_killed()
    })?;
    ensure!(seen > 0, "somebody asked in every round: this proves nothing");
    println!("{MEASURED}{seen} rounds in which nobody asked any more");
    Ok(())
}

/// Whether nobody asked after the victim's time.
fn unasked(round: u32, stuck: &Work, second: &Group) -> Outcome<bool> {
    waits(stuck)?;
    let other = fresh("other", round)?;
    let mut next = Work::start(second, "sleep")?;
    let comes_back = Work::holding(&other, 26)?;
    let (before, time) = (Counters::now()?, VictimsTime::now()?);
    let greedy = Work::start(&other, "lms-want more=2")?;
    let began = time.next()?;
    drop(comes_back);
    called(&greedy, SATISFIED)?;
    let asked = before.of("calls")?;
    let mut short = true;
    while since_boot()? < began + DYING_MS + 300 {
        std::thread::sleep(Duration::from_millis(20));
        short &= State::now()?.level() == "oom";
    }
    if !short || before.of("calls")? > asked {
        return Ok(false);
    }
    next.must_run("nobody asked again")?;
    ensure!(before.of("table_kills")? == 1 && before.kernel_kills()? == 0, "not one victim: {}", before.story());
    Ok(true)
}

/// All of a group were sent SIGKILL before the table is used, and can't end yet: it is waited for, though another stands before it. By turns they stand in lines of their own
/// and in rules, and one in each.
pub fn group_that_ends_already_is_waited_for() -> Outcome {
    let mut freezer = Freezer::new()?;
    let mut seen = 0;
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(5, |round| {
        let (first, second) = (fresh("first", round)?, fresh("second", round)?);
        let mut ending = writer(&second, 40, &freezer, round)?;
        let table = match round % 3 {
            0 => "table\nrule\namong /t/first*\nrule\namong /t/second*".to_owned(),
            1 => format!("table\nkill {}\nkill {}", first.id()?, second.id()?),
            _ => format!("table\nkill {}\nrule\namong /t/second*", first.id()?),
        };
        freezer.freeze()?;
        let judged = waited_for(round, &ending, &first, &table, &mut freezer);
        freezer.thaw()?;
        seen += u32::from(judged?);
        ending.must_be_killed()
    })?;
    ensure!(seen > 0, "no round was quick enough: this proves nothing");
    println!("{MEASURED}{seen} rounds were quick enough to see it");
    Ok(())
}

/// Whether it was given back its memory before its time was over.
fn waited_for(round: u32, ending: &Work, first: &Group, table: &str, freezer: &mut Freezer) -> Outcome<bool> {
    const PLACE: &str = "/tmp/table";
    std::fs::write(PLACE, table).doing("write a table down")?;
    waits(ending)?;
    let mut lives = Work::holding(first, 5)?;
    let mut handler = handler(&format!("answer=never ms=100 adj=-1000 table={PLACE}"))?;
    signal(ending, Signal::SIGKILL)?;
    let (before, time) = (Counters::now()?, VictimsTime::now()?);
    let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=5")?;
    let began = time.next()?;
    // For some turns of the thread.
    while since_boot()? < began + DYING_MS / 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let lived = lives.running()?;
    freezer.thaw()?;
    if since_boot()? > began + DYING_MS - 100 {
        return Ok(false);
    }
    ensure!(lived, "the first of the table died while the second was ending: {}", before.story());
    called(&greedy, SATISFIED)?;
    lives.must_run("the end of the other was enough")?;
    greedy.must_run("it is not in the table")?;
    handler.must_run("it does nothing")?;
    ensure!(before.of("table_kills")? == 0 && before.kernel_kills()? == 0, "somebody was killed: {}", before.story());
    Ok(true)
}

/// However many die after one that was given up, it is not chosen again.
pub fn victim_that_was_given_up_stays_so_however_many_follow() -> Outcome {
    const OTHERS: u64 = 6;
    let mut freezer = Freezer::new()?;
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000 test_victims=3"))?;
    short_of_memory(2, |round| {
        let first = fresh("first", round)?;
        let others: Vec<Group> = (0..OTHERS).map(|at| fresh(&format!("other{at}-"), round)).collect::<Outcome<_>>()?;
        let ids: Vec<String> = std::iter::once(&first).chain(&others).map(|group| Ok(group.id()?.to_string())).collect::<Outcome<_>>()?;
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={}", ids.join(",")))?;
        let mut stuck = writer(&first, 5, &freezer, round)?;
        freezer.freeze()?;
        let judged = (|| {
            waits(&stuck)?;
            let mut small: Vec<Work> = others.iter().map(|group| Work::holding(group, 6)).collect::<Outcome<_>>()?;
            lms::set("test_chosen", 0)?;
            let before = Counters::now()?;
            // More than four of them give back.
            let mut greedy = Work::start(&fresh("greedy", round)?, "lms-want more=32")?;
            for one in &mut small[..4] {
                one.must_be_killed()?;
            }
            called(&greedy, SATISFIED)?;
            greedy.must_run("it is not in the table")?;
            let (killed, chosen) = (before.of("table_kills")?, lms::Parameter::open("test_chosen")?.number()?);
            ensure!(killed > 4, "only {killed} were killed: this proves nothing");
            ensure!(chosen == killed, "{chosen} times somebody was chosen, and {killed} processes were killed");
            ensure!(before.kernel_kills()? == 0, "the kernel killed: {}", before.story());
            Ok(())
        })();
        freezer.thaw()?;
        judged?;
        stuck.must_be_killed()
    })
}

/// Where as many were given up as can be remembered nobody else is chosen: it could be any of them again. The kernel goes ahead.
pub fn where_no_victim_can_be_forgotten_the_kernel_goes_ahead() -> Outcome {
    let mut freezer = Freezer::new()?;
    lms::load_for_tests(&format!("{EXCITABLE} hold_ms=2000 test_victims=2"))?;
    short_of_memory(1, |round| {
        let groups = [fresh("one", round)?, fresh("two", round)?, fresh("three", round)?];
        let ids: Vec<String> = groups.iter().map(|group| Ok(group.id()?.to_string())).collect::<Outcome<_>>()?;
        let _handler = handler(&format!("answer=never ms=100 adj=-1000 kill={}", ids.join(",")))?;
        let mut stuck = [writer(&groups[0], 3, &freezer, round)?, writer(&groups[1], 3, &freezer, round)?];
        freezer.freeze()?;
        let judged = (|| {
            stuck.iter().try_for_each(waits)?;
            let mut third = Work::start(&groups[2], "sleep")?;
            let before = Counters::now()?;
            Work::start(&fresh("greedy", round)?, "hog mib=1000 term=ignore")?.must_be_killed()?;
            ensure!(before.kernel_kills()? == 1 && before.of("table_kills")? == 2, "not the kernel's doing: {}", before.story());
            third.must_run("two that are stuck are all that is remembered")
        })();
        freezer.thaw()?;
        judged?;
        stuck.iter_mut().try_for_each(Work::must_be_killed)
    })
}
