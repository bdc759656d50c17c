//! Victims of the kernel's own killer that still have their memory: while there is one the kernel
//! kills nobody else, and nor does anybody in its stead.

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, fresh, handler, short_of_memory};
use crate::guest::lms::{self, Notifier};
use crate::guest::system::Freezer;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::guest::{facts, group::MIB};
use crate::outcome::{Doing, Outcome};

/// The kernel's victim can't end, so that its memory comes back when the kernel's reaper takes it,
/// two seconds later. Somebody who needs it asks before that: nobody else dies for him, neither by a
/// table nor, each other round, by a handler.
pub fn victim_of_the_kernel_is_enough() -> Outcome {
    const MEMORY: u64 = 40;
    const MORE: u64 = 10;
    let mut freezer = Freezer::new()?;
    let mut seen = 0;
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    short_of_memory(ROUNDS.min(20), |round| {
        let (stuck, chosen, other) = (fresh("stuck", round)?, fresh("chosen", round)?, fresh("other", round)?);
        let mut bystander = Work::start(&chosen, "sleep")?;
        let (table, mut asked) = if round % 2 == 0 {
            (None, Some(handler(&format!("answer=kill adj=-1000 victim={}", chosen.directory().display()))?))
        } else {
            let table = Notifier::open()?;
            table.command(&format!("table keep 60\nkill {}", chosen.id()?))?;
            (Some(table), None)
        };
        let file = freezer.place.join(format!("file{round}"));
        // It fills memory, and comes as far as to create the file.
        freezer.freeze()?;
        let mut victim = Work::start(&stuck, &format!("write mib={MEMORY} adj=1000 file={}", file.display()))?;
        let state = format!("/proc/{}/status", victim.pid());
        let waits =
            || Ok(std::fs::read_to_string(&state).is_ok_and(|status| status.contains("State:\tD")) && stuck.usage()? >= MEMORY * MIB);
        let needs_it = wait::until("the writer waits in the kernel", SOON, waits).and_then(|()| {
            let kills = Counters::now()?;
            let wanted = facts::meminfo_mib("MemAvailable")? + MORE;
            std::fs::write("/proc/sysrq-trigger", "f").doing("ask for a kill")?;
            wait::until("the kernel has chosen it", SOON, || Ok(kills.kernel_kills()? == 1))?;
            let before = Counters::now()?;
            // With what is taken from the victim there is enough, whenever that is.
            let needs_it = Work::holding(&other, wanted)?;
            seen += u32::from(before.of("calls")? > 0);
            Ok((before, needs_it))
        });
        // Whatever came of it: else it could not end.
        freezer.thaw()?;
        let (before, mut needs_it) = needs_it?;
        victim.must_be_killed()?;
        needs_it.must_run("there was enough for it")?;
        bystander.must_run("a victim was on its way")?;
        asked.iter_mut().try_for_each(|handler| handler.must_run("nobody asked it"))?;
        drop(table);
        ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "a shortage began beside the kernel's victim");
        ensure!(before.kernel_kills()? == 0, "the kernel chose another");
        Ok(())
    })?;
    ensure!(seen > 0, "nobody asked before the memory was back: this proves nothing");
    println!("{MEASURED}{seen} rounds in which somebody asked before the memory was back");
    Ok(())
}
