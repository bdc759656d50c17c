//! The table that oomwarden leaves with the module says what its policy says, and is written when there is something to write.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, leave_available, spread};
use super::lms_daemon_common::handling;
use crate::guest::facts::{self, Effort};
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// The young one before the old among equals of importance; holds of 100 ms.
const ORDERED: &str = "
version: 1
exclude: [\"/t/spared*\"]
importance:
  - {group: /t/first, value: -10}
  - {group: /t/last, value: 10}
rules:
  - name: node-oom
    watch: /
    when: [lms: oom]
    victim: {among: [\"/t/*\"], at_least: 8MiB, rank: [usage]}
kernel: {hold: 100ms}
";

/// Waits until the table holds so many lines of each kind; how long that took.
fn table_has(kills: u64, spares: u64) -> Outcome<Duration> {
    let began = Instant::now();
    wait::until(&format!("the table kills {kills} and spares {spares}"), SOON, || {
        let state = State::now()?;
        Ok(state.number("table_kill_ids")? == kills && state.number("table_spare_ids")? == spares)
    })?;
    Ok(began.elapsed())
}

/// The greedy one is excluded, so others die for it in the table's order: by importance, however small, then by size; who is spared lives.
pub fn table_kills_by_importance_then_rank() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let daemon = handling(ORDERED)?;
    let _ballast = leave_available(200)?;
    // Not in the order of their deaths.
    let names = [("last", 60), ("third", 12), ("first", 10), ("second", 25)];
    let mut works = Vec::new();
    for (name, mib) in names {
        works.push((name, Work::holding(&Group::new(&format!("t/{name}"))?, mib)?));
    }
    let spared = Group::new("t/spared")?;
    let mut precious = Work::holding(&spared, 30)?;
    let tiny = Group::new("t/tiny")?;
    let mut modest = Work::holding(&tiny, 2)?;
    table_has(4, 2)?;
    daemon.signal(Signal::SIGSTOP)?;
    let before = Counters::now()?;
    // Enough for the first three, and a little of the last.
    let need = facts::meminfo_mib("MemAvailable")? + 10 + 25 + 12 + 30;
    let mut greedy = Work::start(&spared, &format!("hog mib={need} rate=60 then=hold"))?;
    for expected in ["first", "second", "third", "last"] {
        let died = wait::find(&format!("{expected} dies"), SOON, || {
            let mut died = None;
            for (name, work) in &mut works {
                if !work.running()? {
                    died = Some(*name);
                    break;
                }
            }
            Ok(died)
        })?;
        ensure!(died == expected, "{died} died, and {expected} should have: {}", before.story());
        works.retain(|(name, _)| *name != died);
    }
    spared.wait_usage((need + 30) << 20)?;
    greedy.must_run("it is spared")?;
    precious.must_run("it is spared")?;
    modest.must_run("its death would free too little")?;
    ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 4, "not the table's doing: {}", before.story());
    daemon.signal(Signal::SIGCONT)?;
    daemon.stop()
}

/// Groups that come, grow and go are in the table within about a second; while nothing changes oomwarden is not even woken.
pub fn table_follows_the_groups_and_rests() -> Outcome {
    lms::load("hold_ms=2000")?;
    let daemon = handling(ORDERED)?;
    let own = 1;
    table_has(0, own)?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let a = Group::new("t/a")?;
        let work = Work::holding(&a, 12)?;
        times.push(table_has(1, own)?);
        let spared = Group::new("t/spared")?;
        times.push(table_has(1, own + 1)?);
        drop(work);
        a.wait_empty()?;
        times.push(table_has(0, own + 1)?);
        a.remove()?;
        spared.remove()?;
        times.push(table_has(0, own)?);
    }
    let worst = times.iter().max().copied().unwrap_or_default();
    println!("{MEASURED}a group comes or goes until the table says so: {}", spread(times));
    ensure!(worst < Duration::from_secs(3), "{worst:?} until the table was up to date");
    let _living = Work::holding(&Group::new("t/a")?, 12)?;
    table_has(1, own)?;
    let pid = daemon.pid();
    let effort = |time: Duration| {
        let before = Effort::of(pid)?;
        wait::stays("the table is as it was", time, || Ok(table_has(1, own)? < SOON))?;
        Ok::<_, String>(Effort::of(pid)?.since(before))
    };
    wait::until("oomwarden rests", SOON, || Ok(effort(Duration::from_secs(1))?.switches == 0))?;
    let rest = effort(Duration::from_secs(5))?;
    println!("{MEASURED}five seconds without a change: {} wake-ups", rest.switches);
    // It is looked at after one second, two and four; a look may be interrupted.
    ensure!(rest.switches <= 6, "{} wake-ups while nothing changed", rest.switches);
    daemon.stop()
}

/// Nothing tells of a group that merely grows, as long as there is memory; the table learns of it all the same.
pub fn table_learns_of_a_group_that_grows() -> Outcome {
    lms::load("hold_ms=2000")?;
    let daemon = handling(ORDERED)?;
    let own = 1;
    table_has(0, own)?;
    let growing = Group::new("t/a")?;
    let mut work = Work::start(&growing, "hog mib=14 rate=3 then=hold")?;
    wait::until("it has begun to grow", SOON, || Ok(growing.usage()? > MIB))?;
    let took = table_has(1, own)?;
    ensure!(State::now()?.level() == "ok", "the level told of it: {}", State::now()?);
    println!("{MEASURED}a group grows until the table says so: {} ms", took.as_millis());
    work.must_run("nobody is short of memory")?;
    daemon.stop()
}
