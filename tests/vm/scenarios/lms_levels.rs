//! The low memory signal's levels and notices.

use std::time::Duration;

use super::MEASURED;
use super::lms_common::{EXCITABLE, leave_available};
use crate::guest::facts;
use crate::guest::group::Group;
use crate::guest::lms::{self, Notifier};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// Waits for a notice and then for a level.
fn level_becomes(notifier: &Notifier, level: &str) -> Outcome {
    wait::until(&format!("the level is {level}"), SOON, || {
        notifier.notice(Duration::from_millis(200))?;
        Ok(notifier.state()?.level() == level)
    })
}

/// Below a fifth of memory `warn`, below a tenth `kill`, and back the same way; each change is a notice, and nothing else is.
pub fn levels_follow_a_hog_down_and_up_again() -> Outcome {
    lms::load(EXCITABLE)?;
    let notifier = Notifier::open()?;
    let start = notifier.state()?;
    let total = start.number("mem_total_kb")? / 1024;
    ensure!(start.level() == "ok", "not ok at the start: {start}");
    let group = Group::new("t/hog")?;
    let first = leave_available(total * 15 / 100)?;
    level_becomes(&notifier, "warn")?;
    let warned = notifier.state()?;
    ensure!(warned.number("mem_available_kb")? < warned.number("warn_kb")?, "warned above the threshold: {warned}");
    let second = Work::holding(&group, total * 8 / 100)?;
    level_becomes(&notifier, "kill")?;
    let low = notifier.state()?;
    ensure!(low.number("mem_available_kb")? < low.number("kill_kb")?, "kill above the threshold: {low}");
    drop(second);
    level_becomes(&notifier, "warn")?;
    drop(first);
    level_becomes(&notifier, "ok")?;
    let end = notifier.state()?;
    println!(
        "{MEASURED}levels of {total} MiB: warn at {} kB, kill at {} kB; {} changes",
        end.number("warn_kb")?,
        end.number("kill_kb")?,
        end.since(&start, "seq")?
    );
    ensure!(end.since(&start, "seq")? == 4, "four changes should count four: {end}");
    ensure!(!notifier.notice(Duration::from_millis(300))?, "a notice of nothing");
    ensure!(end.since(&start, "holds")? == 0 && end.since(&start, "passes")? == 0, "more than levels: {end}");
    Ok(())
}

/// Thresholds are taken over at once, in shares and in absolute caps.
pub fn thresholds_follow_their_parameters() -> Outcome {
    lms::load("interval_ms=10000")?;
    let notifier = Notifier::open()?;
    let total = notifier.state()?.number("mem_total_kb")?;
    let _ballast = leave_available(total / 1024 * 40 / 100)?;
    ensure!(notifier.state()?.level() == "ok", "not ok at the start: {}", notifier.state()?);
    lms::set("warn_percent", 60)?;
    level_becomes(&notifier, "warn")?;
    lms::set("kill_percent", 55)?;
    level_becomes(&notifier, "kill")?;
    let state = notifier.state()?;
    ensure!(state.number("warn_percent")? == 60 && state.number("kill_percent")? == 55, "not told: {state}");
    ensure!(state.number("warn_kb")?.abs_diff(total * 60 / 100) < 16, "warn_kb is not 60 %: {state}");
    lms::set("kill_max_mb", 20)?;
    level_becomes(&notifier, "warn")?;
    lms::set("warn_max_mb", 30)?;
    level_becomes(&notifier, "ok")?;
    let state = notifier.state()?;
    ensure!(state.number("kill_kb")? == 20 << 10 && state.number("warn_kb")? == 30 << 10, "the caps are not in force: {state}");
    lms::set("floor_mb", 77)?;
    ensure!(notifier.state()?.number("floor_kb")? == 77 << 10, "the floor is not in force: {}", notifier.state()?);
    Ok(())
}

/// A notice is taken back by reading, for that open file alone.
pub fn each_open_file_has_its_own_notice() -> Outcome {
    lms::load("interval_ms=10000")?;
    let total = Notifier::open()?.state()?.number("mem_total_kb")? / 1024;
    let _ballast = leave_available(total * 40 / 100)?;
    let (a, b) = (Notifier::open()?, Notifier::open()?);
    ensure!(!a.notice(Duration::ZERO)? && !b.notice(Duration::ZERO)?, "a notice without a change");
    lms::set("warn_percent", 60)?;
    ensure!(a.notice(SOON)? && b.notice(SOON)?, "a change without a notice");
    ensure!(a.notice(Duration::ZERO)?, "poll alone took the notice back");
    a.state()?;
    ensure!(!a.notice(Duration::ZERO)?, "reading did not take the notice back");
    ensure!(b.notice(Duration::ZERO)?, "another file's reading took the notice back");
    let late = Notifier::open()?;
    ensure!(!late.notice(Duration::ZERO)?, "a notice of what was before opening");
    b.state()?;
    lms::set("warn_percent", 20)?;
    for file in [&a, &b, &late] {
        ensure!(file.notice(SOON)?, "the second change without a notice");
        ensure!(file.state()?.level() == "ok", "not ok: {}", file.state()?);
        ensure!(!file.notice(Duration::ZERO)?, "reading did not take the notice back");
    }
    Ok(())
}

/// Memory that is low beside plenty of free swap is no shortage; without the swap it is.
pub fn free_swap_keeps_the_level_up() -> Outcome {
    system::zram_swap(300)?;
    lms::load(EXCITABLE)?;
    let notifier = Notifier::open()?;
    let told = notifier.state()?;
    ensure!(told.number("swap_free_kb")?.abs_diff(facts::meminfo_mib("SwapFree")? << 10) < 4096, "free swap is not told: {told}");
    notifier.command("handler")?;
    notifier.command("swap_total 307196")?;
    ensure!(notifier.state()?.number("swap_total_kb")? == 307_196, "total swap is not taken over: {}", notifier.state()?);
    let _ballast = leave_available(told.number("mem_total_kb")? / 1024 * 15 / 100)?;
    wait::stays("the level is ok", Duration::from_secs(1), || {
        let state = notifier.state()?;
        let low = state.number("mem_available_kb")? < state.number("warn_kb")?;
        // Reclaim may have helped for a moment; what counts is that it never is warn.
        Ok(state.level() == "ok" && (low || state.number("swap_free_kb")? < 307_000))
    })?;
    system::busybox(&["swapoff", "/dev/zram0"])?;
    level_becomes(&notifier, "warn")
}
