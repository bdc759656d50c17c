//! Rules on the module's levels, long before anybody must be held back, and what oomwarden says of the module.

use std::process::Command;
use std::time::{Duration, Instant};

use super::MEASURED;
use super::ladder::term_pends;
use super::lms_common::{Counters, EXCITABLE, leave_available};
use super::lms_daemon_common::handling;
use crate::guest::daemon::{Daemon, rung};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::{self, Notifier, State};
use crate::guest::places;
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// Level warn is only talked about; at level kill the fattest goes.
const BY_LEVEL: &str = "
version: 1
defaults: {cooldown: 1m}
rules:
  - name: early
    mode: observe
    watch: /
    when: [lms: warn]
    only_if: [available: {below: 21%}]
    victim: {among: [\"/t/*\"], at_least: 8MiB}
  - name: late
    watch: /
    when: [lms: kill]
    victim: {among: [\"/t/*\"], at_least: 8MiB}
";

/// What the gauges say of the level.
fn told(daemon: &Daemon) -> Outcome<Vec<f64>> {
    let metrics = daemon.metrics()?;
    let level = |level| metrics.sample("oomwarden_lms_state", &[("level", level)]).unwrap_or(f64::NAN);
    Ok(["ok", "warn", "kill", "oom"].into_iter().map(level).collect())
}

/// A hog that grows at a rate is noticed at one level and killed at the next; there is no OOM.
pub fn growing_hog_is_killed_by_its_level() -> Outcome {
    lms::load(EXCITABLE)?;
    let daemon = Daemon::start(BY_LEVEL)?;
    ensure!(daemon.count("oomwarden_lms_loaded", &[])? == 1.0, "the module is loaded, the gauge says otherwise");
    let told_is = |what: [f64; 4]| wait::until(&format!("the level is told as {what:?}"), SOON, || Ok(told(&daemon)? == what));
    told_is([1.0, 0.0, 0.0, 0.0])?;
    let before = Counters::now()?;
    let _ballast = leave_available(150)?;
    let (greedy, beside) = (Group::new("t/greedy")?, Group::new("t/beside")?);
    let mut modest = Work::holding(&beside, 10)?;
    // Below level warn and above level kill, for as long as it takes to be told.
    let level = State::now()?;
    let (available, warn, kill) = (level.number("mem_available_kb")?, level.number("warn_kb")?, level.number("kill_kb")?);
    let first = Work::holding(&greedy, (available - (warn + kill) / 2) >> 10)?;
    told_is([0.0, 1.0, 0.0, 0.0])?;
    let line = daemon.journalled("what would be done at level warn", |line| line["rule"] == "early")?;
    ensure!(line["outcome"] == "observed" && line["victim"] == "/t/greedy", "the journal tells another story: {line}");
    drop(first);
    told_is([1.0, 0.0, 0.0, 0.0])?;
    Work::start(&greedy, "hog mib=1000 rate=60 term=ignore")?.must_be_killed()?;
    let line = daemon.killed(&greedy)?;
    ensure!(line["rule"] == "late" && line["evidence"]["lms_level"] == "kill", "the journal tells another story: {line}");
    told_is([1.0, 0.0, 0.0, 0.0])?;
    for outcome in ["resolved", "expired", "passed"] {
        let held = daemon.metrics()?.sample("oomwarden_lms_holds_total", &[("outcome", outcome)]);
        ensure!(held == Some(0.0), "nothing was held, the counter of {outcome} says {held:?}");
    }
    ensure!(before.kernel_kills()? == 0 && before.of("holds")? == 0 && before.of("passes")? == 0, "an OOM: {}", before.story());
    modest.must_run("it is not the fattest")?;
    daemon.stop()
}

/// What `oomwarden doctor` finds about the module.
fn doctor() -> Outcome<String> {
    let output = Command::new(places::OOMWARDEN).arg("doctor").output().doing("run oomwarden doctor")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find(|line| line.contains("lms")).map(str::to_owned).ok_or_else(|| format!("not a word on lms: {text}"))
}

/// Without the module, with it, and as its handler: gauges and doctor tell.
pub fn gauge_and_doctor_tell_whether_it_is_loaded() -> Outcome {
    let daemon = Daemon::start(BY_LEVEL)?;
    ensure!(daemon.count("oomwarden_lms_loaded", &[])? == 0.0, "not loaded, the gauge says otherwise");
    ensure!(told(&daemon)?.iter().all(|level| *level == 0.0), "a level without a module: {:?}", told(&daemon)?);
    ensure!(doctor()?.contains("not loaded"), "doctor says {:?}", doctor()?);
    daemon.stop()?;
    lms::load("hold_ms=700")?;
    let loaded = doctor()?;
    ensure!(loaded.contains("loaded, level ok") && loaded.contains("held for up to 700ms"), "doctor says {loaded:?}");
    let daemon = handling(&BY_LEVEL.replace("lms: kill", "lms: oom"))?;
    let handled = doctor()?;
    ensure!(handled.contains("loaded, level ok") && !handled.contains("is its handler"), "doctor says {handled:?}");
    daemon.stop()
}

/// SIGTERM at level warn with five seconds for it, then SIGKILL.
const ASK_THEN_KILL: &str = "
version: 1
rules:
  - name: low-memory
    watch: /
    when: [lms: warn]
    only_if: [available: {below: 21%}]
    victim: {among: [\"/t/*\"], at_least: 8MiB}
    then:
      - term: {wait: 5s}
      - kill: group
";

/// The demonstration: memory falls through 20 % and 10 %, the consumer is asked, does not hear, and is killed; memory comes back and the
/// kernel's killer was never called. Each step is printed and checked.
pub fn consumer_that_ignores_sigterm_is_asked_then_killed() -> Outcome {
    asked_then_killed()
}

/// The same with swap in compressed memory, of which less is free than the thresholds say: the levels follow available memory
/// then as if there were none.
pub fn consumer_with_zram_that_ignores_sigterm_is_asked_then_killed() -> Outcome {
    system::zram_swap(192)?;
    let swapped = Group::new("swapped")?;
    let _swapped = Work::start(&swapped, "hog mib=160 then=hold adj=-1000")?;
    swapped.wait_usage(160 * MIB)?;
    wait::until("swap is nearly full", SOON, || {
        let more = facts::meminfo_mib("SwapFree")?.saturating_sub(40);
        // Some of it may refuse to go: what counts is what the kernel says afterwards.
        drop(swapped.set("memory.reclaim", &format!("{more}M")));
        Ok(facts::meminfo_mib("SwapFree")? <= 40)
    })?;
    asked_then_killed()
}

fn asked_then_killed() -> Outcome {
    lms::load(EXCITABLE)?;
    let daemon = Daemon::start(ASK_THEN_KILL)?;
    let _ballast = leave_available(160)?;
    let (consumer, beside) = (Group::new("t/consumer")?, Group::new("t/beside")?);
    let mut modest = Work::holding(&beside, 10)?;
    let before = Counters::now()?;
    let notifier = Notifier::open()?;
    let start = notifier.state()?;
    let began = Instant::now();
    let mut line = 0;
    let mut say = |state: &State, what: &str| -> Outcome {
        let (at, available, total) = (began.elapsed().as_secs_f64(), state.number("mem_available_kb")?, state.number("mem_total_kb")?);
        line += 1;
        let share = available as f64 * 100.0 / total as f64;
        let swap = match state.number("swap_free_kb")? {
            0 => String::new(),
            free => format!(", {:2} MiB of swap free", free >> 10),
        };
        println!(
            "{MEASURED}{line}. {at:5.2} s  level {:4}  {:4} MiB ({share:4.1} %) available{swap}  {what}",
            state.level(),
            available >> 10
        );
        Ok(())
    };
    ensure!(start.level() == "ok", "not ok at the start: {start}");
    // It stops below level kill, with enough left for everybody, so that each level lasts until it is seen.
    let most = (start.number("mem_available_kb")? - start.number("kill_kb")? * 6 / 10) >> 10;
    say(&start, &format!("a consumer begins to allocate 25 MiB a second, up to {most} MiB; it ignores SIGTERM"))?;
    let mut work = Work::start(&consumer, &format!("hog mib={most} rate=25 then=hold term=ignore"))?;

    let level = |level: &str| {
        wait::find(&format!("the level is {level}"), SOON, || {
            notifier.notice(Duration::from_millis(100))?;
            Some(notifier.state()).transpose().map(|state| state.filter(|state| state.level() == level))
        })
    };
    let warned = level("warn")?;
    say(&warned, "below a fifth of memory: the module reports warn")?;
    ensure!(warned.number("mem_available_kb")? < warned.number("warn_kb")?, "warned too early: {warned}");
    let pid = work.pid();
    wait::until("SIGTERM arrives", SOON, || term_pends(pid))?;
    say(&notifier.state()?, "oomwarden has sent SIGTERM, which stays unheard; five seconds for it to end")?;
    let low = level("kill")?;
    say(&low, "below a tenth: the module reports kill")?;
    ensure!(low.number("mem_available_kb")? < low.number("kill_kb")?, "kill was reported too early: {low}");
    work.must_run("SIGTERM is ignored and the grace time not over")?;
    work.must_be_killed()?;
    say(&notifier.state()?, "the grace time is over: oomwarden has killed the consumer by SIGKILL")?;
    let journal = daemon.killed(&consumer)?;
    let whole = |term: &serde_json::Value| term["outcome"] == "deadline" && term["took_us"].as_u64() >= Some(5_000_000);
    ensure!(rung(&journal, "term").is_some_and(whole), "no term rung to its end: {journal}");
    ensure!(rung(&journal, "kill").is_some_and(|kill| kill["outcome"] == "done"), "no kill rung: {journal}");
    // Told as soon as the thresholds allow, with the kernel still giving the rest back.
    level("ok")?;
    let (before_it, mut end) = (start.number("mem_available_kb")?, notifier.state()?);
    wait::until("memory is back", SOON, || {
        end = notifier.state()?;
        Ok(end.number("mem_available_kb")? * 5 > before_it * 4)
    })?;
    say(&end, "memory is back: the module reports ok")?;
    let called = before.of("holds")? + before.of("passes")? + before.of("calls")?;
    ensure!(before.kernel_kills()? == 0 && called == 0, "the kernel's killer was called: {}", before.story());
    println!("{MEASURED}{}  the kernel's killer was never called, and nobody else died", " ".repeat(10));
    modest.must_run("it has done nothing")?;
    daemon.stop()
}
