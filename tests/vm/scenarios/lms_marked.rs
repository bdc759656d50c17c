//! Who marked itself to die first where memory runs out: swapoff, and the end of KSM's merging. The
//! kernel ends them, and nobody else dies.

use std::path::Path;

use super::lms_common::{Counters, EXCITABLE, fresh, handler, leave_available, rounds_wanted};
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, Notifier};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::guest::{places, system};
use crate::outcome::{Doing, Outcome};
use crate::workload::merged::RUN;

/// Rounds at the most; the kernel's part in each takes its time, so there are half as many as
/// elsewhere.
const ROUNDS: u32 = 25;

/// Swap that does not fit into memory, switched off beside a handler or, each other round, beside a
/// table.
pub fn swapoff_that_does_not_fit_is_what_ends() -> Outcome {
    const ON_SWAP: u64 = 200;
    system::zram_swap(ON_SWAP + 60)?;
    let swapped = Group::new("swapped")?.high(40 * MIB)?;
    let _fat = Work::start(&swapped, &format!("hog mib={} then=hold", ON_SWAP + 40))?;
    swap_out(&swapped, ON_SWAP)?;
    let _ballast = leave_available(60)?;
    marked_ends(&format!("enter -- {} swapoff /dev/zram0", places::BUSYBOX), || swap_out(&swapped, ON_SWAP))
}

/// Waits until so much of a group is on swap, and then lets it have its memory back.
fn swap_out(group: &Group, mib: u64) -> Outcome {
    group.set("memory.high", &(40 * MIB).to_string())?;
    wait::until("most is on swap", 2 * SOON, || Ok(group.number("memory.swap.current")? >= (mib - 10) * MIB))?;
    group.set("memory.high", "max")
}

/// Pages that were merged, and no memory for them to be single again.
pub fn end_of_merging_that_does_not_fit_is_what_ends() -> Outcome {
    const MERGED: u64 = 150;
    if !Path::new(RUN).exists() {
        return Ok(());
    }
    system::set("/sys/kernel/mm/ksm/pages_to_scan", "20000")?;
    let group = Group::new("merged")?.no_swap()?;
    let _merged = Work::start(&group, &format!("merged mib={MERGED}"))?;
    merge(MERGED)?;
    let _ballast = leave_available(100)?;
    marked_ends("unmerge mib=30", || merge(MERGED))
}

/// Waits until so much is merged.
fn merge(mib: u64) -> Outcome {
    system::set(RUN, "1")?;
    wait::until("equal pages are merged", 2 * SOON, || {
        let pages = std::fs::read_to_string("/sys/kernel/mm/ksm/pages_sharing").doing("ask what is merged")?;
        Ok(pages.trim().parse::<u64>().doing("understand what is merged")? * 4096 >= (mib - 5) * MIB)
    })
}

/// Runs `what`, which marks itself and takes too much, in rounds; `again` makes that possible once
/// more.
fn marked_ends(what: &str, again: impl Fn() -> Outcome) -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    for round in 1..=(rounds_wanted() / 2).clamp(2, ROUNDS) {
        again()?;
        let by_table = round % 2 == 0;
        let chosen = fresh("chosen", round)?;
        let mut bystander = Work::start(&chosen, "sleep")?;
        let (writer, mut asked);
        if by_table {
            writer = Some(Notifier::open()?);
            asked = None;
            let table = format!("table keep 60\nkill {}", chosen.id()?);
            writer.iter().try_for_each(|writer| writer.command(&table))?;
        } else {
            writer = None;
            asked = Some(handler(&format!("answer=kill adj=-1000 victim={}", chosen.directory().display()))?);
        }
        let before = Counters::now()?;
        let mut marked = Work::start(&fresh("marked", round)?, what)?;
        let status = marked.end(SOON)?;
        let story = || format!("round {round}, table {by_table}: {what} ended with {status}; {}", before.story());
        ensure!(!status.success(), "it had the memory that it needed: {}", story());
        ensure!(before.of("holds")? == 0 && before.of("table_kills")? == 0, "not the module's business: {}", story());
        ensure!(before.kernel_kills()? == 1, "not the kernel's doing: {}", story());
        bystander.must_run("it did nothing").map_err(|why| format!("{why}; {}", story()))?;
        asked.iter_mut().try_for_each(|handler| handler.must_run("nobody asked it"))?;
        drop(writer);
        let swaps = std::fs::read_to_string("/proc/swaps").doing("read /proc/swaps")?;
        ensure!(!what.contains("swapoff") || swaps.contains("zram0"), "swap was switched off: {}", story());
    }
    Ok(())
}
