//! Victims that need memory to come to their end, when the kernel no longer helps them: they have
//! let go of their memory, and close their files.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, handler, short_of_memory_beside, spread};
use crate::guest::group::Group;
use crate::guest::lms::{self, Notifier};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;
use crate::workload::lms::SATISFIED;
use crate::workload::open_files::OPEN;

/// Processes in the victim, files that each of them has open, and MiB that each has in files.
const VICTIMS: u64 = 4;
const FILES: u64 = 5000;
const IN_FILES: u64 = 12;

/// Each closed file is an event for somebody who does not listen, which takes memory, and only at
/// the very end the victim gives memory back. Killed by a handler and, each other round, by the
/// table: in either case nobody else dies, and the hold is no failure.
pub fn end_that_takes_memory_costs_no_bystander() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let place = system::tmpfs("closed", 8)?;
    let (mut by_handler, mut by_table) = (Vec::new(), Vec::new());
    short_of_memory_beside(VICTIMS * (IN_FILES + 8) + 20, ROUNDS, |round| {
        let listener = Work::start(&Group::new("listener")?, &format!("watch adj=-1000 at={}", place.display()))?;
        called(&listener, OPEN)?;
        let (victim, beside) = (fresh("victim", round)?, fresh("beside", round)?);
        let what = format!("open-files of={FILES} mib={IN_FILES} at={} nofile={}", place.display(), 2 * FILES);
        let mut dying = Vec::new();
        for _ in 0..VICTIMS {
            let process = Work::start(&victim, &what)?;
            called(&process, OPEN)?;
            dying.push(process);
        }
        let mut bystanders = [Work::holding(&beside, 8)?, Work::holding(&beside, 4)?];
        let times = if round % 2 == 1 { &mut by_handler } else { &mut by_table };
        times.push(end_of(&victim, &beside, round)?);
        for process in &mut dying {
            process.must_be_killed()?;
        }
        bystanders.iter_mut().try_for_each(|bystander| bystander.must_run("it did nothing"))?;
        for file in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            std::fs::remove_file(file.path()).map_err(|error| format!("could not remove a file: {error}"))?;
        }
        Ok(())
    })?;
    println!("{MEASURED}kill to the victim's end: {} by a handler, {} by the table", spread(by_handler), spread(by_table));
    Ok(())
}

/// Brings a shortage about in which the victim is killed; how long it takes from the kill to its
/// end.
fn end_of(victim: &Group, beside: &Group, round: u32) -> Outcome<Duration> {
    let by_handler = round % 2 == 1;
    let (mut answering, mut writer) = (None, None);
    if by_handler {
        answering = Some(handler(&format!("answer=kill adj=-1000 victim={}", victim.directory().display()))?);
    } else {
        let owner = Notifier::open()?;
        owner.command(&format!("table keep 60\nkill {}\nspare {}", victim.id()?, beside.id()?))?;
        writer = Some(owner);
    }
    let before = Counters::now()?;
    let greedy = Work::start(&fresh("greedy", round)?, "lms-want adj=-1000 more=15")?;
    let begun = if by_handler { "holds" } else { "table_kills" };
    wait::until("the victim is killed", SOON, || Ok(before.of(begun)? > 0))?;
    let began = Instant::now();
    victim.wait_empty()?;
    let took = began.elapsed();
    called(&greedy, SATISFIED)?;
    ensure!(before.kernel_kills()? == 0, "the kernel killed");
    ensure!(before.of("holds_expired")? == 0 && before.of("table_kills")? == if by_handler { 0 } else { VICTIMS }, "not as it was to be");
    drop((answering, writer));
    Ok(took)
}
