//! Numbers, printed and never asserted as times: docs/performance.md quotes them. Ratios are asserted with much room.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::common::{Family, THRASH, hog, narrow};
use crate::guest::daemon::Daemon;
use crate::guest::facts::{self, Effort};
use crate::guest::group::{Group, MIB};
use crate::guest::pressure::{Events, Trigger};
use crate::guest::wait::SOON;
use crate::guest::work::Work;
use crate::outcome::Outcome;

const ROUNDS: usize = 5;

/// Of some times, in milliseconds.
pub(super) fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}

/// `psi: full 100ms/500ms`: from the first `high` event to `populated 0`, beside what it can't be faster than.
pub fn speed_of_a_psi_kill() -> Outcome {
    let mut bare = Vec::new();
    for round in 0..ROUNDS {
        let group = narrow(&format!("t/bare{round}"))?;
        let trigger = Trigger::arm(&group, "full 100000 500000")?;
        let empty = Events::open(&group, "cgroup.events")?;
        let _hog = hog(&group)?;
        trigger.fires(SOON)?;
        let began = Instant::now();
        group.kill()?;
        bare.push(empty.when("populated", SOON, |populated| populated == 0)? - began);
    }
    let daemon = Daemon::start(THRASH)?;
    let mut whole = Vec::new();
    for round in 0..ROUNDS {
        let group = narrow(&format!("t/judged{round}"))?;
        let events = Events::open(&group, "memory.events")?;
        let empty = Events::open(&group, "cgroup.events")?;
        // Armed by the time that it is known; the scrape says so.
        daemon.metrics()?;
        let _hog = hog(&group)?;
        let high = events.when("high", SOON, |count| count > 0)?;
        whole.push(empty.when("populated", SOON, |populated| populated == 0)? - high);
        daemon.killed(&group)?;
    }
    let (bare, whole) = (median(bare), median(whole));
    let floor = 100.0 + 500.0 / 5.0 + bare;
    println!(
        "{MEASURED}psi_full_100ms_500ms first_high_to_empty_ms={whole:.1} stall_plus_grid_plus_bare_kill_ms={floor:.1} bare_kill_to_empty_ms={bare:.1} ratio={:.2}",
        whole / floor
    );
    ensure!(whole < 3.0 * floor, "more than three times what it can't be faster than");
    daemon.stop()
}

/// `event: oom_kill`: from the event to `populated 0`, beside the kernel's own memory.oom.group.
pub fn speed_of_an_event_kill() -> Outcome {
    let mut bare = Vec::new();
    for round in 0..ROUNDS {
        bare.push(kernel_kills_one_of_five(&format!("t/bare{round}"), true)?);
    }
    let policy = "
version: 1
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
";
    let daemon = Daemon::start(policy)?;
    let mut whole = Vec::new();
    for round in 0..ROUNDS {
        whole.push(kernel_kills_one_of_five(&format!("t/judged{round}"), false)?);
    }
    daemon.counted("oomwarden_kills_total", &[("rule", "finish")], ROUNDS as f64)?;
    let (bare, whole) = (median(bare), median(whole));
    println!("{MEASURED}event_oom_kill event_to_empty_ms={whole:.1} bare_with_oom_group_ms={bare:.1} ratio={:.2}", whole / bare);
    ensure!(whole < 10.0 * bare.max(10.0), "far from what the kernel does by itself");
    daemon.stop()
}

/// Five processes of which the kernel kills one, and who ends the rest: from the event to the end of all.
pub(super) fn kernel_kills_one_of_five(path: &str, oom_group: bool) -> Outcome<Duration> {
    let group = Group::new(path)?.max(32 * MIB)?.no_swap()?;
    if oom_group {
        group.set("memory.oom.group", "1")?;
    }
    let events = Events::open(&group, "memory.events")?;
    let empty = Events::open(&group, "cgroup.events")?;
    let family = Family::start(&group)?;
    family.grow()?;
    let killed = events.when("oom_kill", SOON, |count| count > 0)?;
    Ok(empty.when("populated", SOON, |populated| populated == 0)?.saturating_duration_since(killed))
}

/// Verdict to delivery of a warning, to SIGTERM sent, to cgroup.kill written, with few candidates to judge.
pub fn speed_of_each_rung_with_10_candidates() -> Outcome {
    rungs(10)
}

/// The same with many.
pub fn speed_of_each_rung_with_500_candidates() -> Outcome {
    rungs(500)
}

fn rungs(candidates: usize) -> Outcome {
    let rule = |name: &str, then: &str| {
        format!(
            "  - name: {name}\n    watch: /t/{name}\n    when:\n      - event: high\n    cooldown: 10ms\n    victim: {{among: /t/*}}\n    then:\n{then}      - kill: group\n"
        )
    };
    let (warn, term) = ("      - warn: {wait: 1500ms}\n", "      - term: {wait: 50ms}\n");
    let policy = format!("version: 1\nrules:\n{}{}{}", rule("warn", warn), rule("term", term), rule("kill", ""));
    let daemon = Daemon::start(&policy)?;
    let t = Group::new("t/warn").map(|_| Group::at("/sys/fs/cgroup/t"))?;
    for at in 3..candidates {
        std::fs::create_dir(t.named(format!("g{at}")).directory()).map_err(|error| format!("mkdir {at}: {error}"))?;
    }
    let mut lines = Vec::new();
    for name in ["warn", "term", "kill"] {
        let (mut decided, mut reached) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let group = Group::new(&format!("t/{name}"))?.high(12 * MIB)?.no_swap()?;
            let mark = format!("{}/{name}{round}", crate::guest::places::FILES);
            let listener = match name {
                "warn" => Some(super::warn::listener(&group, "of=1 mib=0", &format!("{name}{round}"))?),
                _ => None,
            };
            let mut work = Work::start(&group, "hog mib=64 term=ignore")?;
            work.must_be_killed()?;
            drop(listener);
            let told = || Ok(daemon.judgements("killed")?.into_iter().filter(|line| line["rule"] == name).nth(round));
            let line = crate::guest::wait::find("the journal tells of the round", SOON, told)?;
            let number = |value: &serde_json::Value| value.as_u64().ok_or_else(|| format!("a number is missing: {line}"));
            let verdict = number(&line["latency_us"]["decide"])?;
            let at = match name {
                "warn" => delivered(&mark)?.saturating_sub(micros_of(&line)?),
                "term" => number(&crate::guest::daemon::rung(&line, "term").ok_or("no term")?["sent_us"])?,
                _ => number(&line["latency_us"]["kill"])?,
            };
            decided.push(Duration::from_micros(verdict));
            reached.push(Duration::from_micros(at.saturating_sub(verdict)));
        }
        let worst = reached.iter().max().map_or(0, Duration::as_micros);
        lines.push(format!(
            "{name}_us={:.0} worst_us={worst} notice_to_verdict_us={:.0}",
            median(reached) * 1000.0,
            median(decided) * 1000.0
        ));
    }
    println!("{MEASURED}from_the_verdict candidates={candidates} {}", lines.join(" "));
    daemon.stop()
}

/// When the first listener was told, microseconds since the epoch.
fn delivered(mark: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(mark).map_err(|error| format!("{mark}: {error}"))?;
    let line = text.lines().nth(1).ok_or("nobody was told")?;
    line.split(' ').next().and_then(|micros| micros.parse().ok()).ok_or_else(|| format!("no time in {line:?}"))
}

/// When the notice of a judgement arrived, microseconds since the epoch: seconds of its day would do, but for midnight.
fn micros_of(line: &serde_json::Value) -> Outcome<u64> {
    let time: jiff::Timestamp = line["time"].as_str().and_then(|time| time.parse().ok()).ok_or("no time")?;
    u64::try_from(time.as_microsecond()).map_err(|error| error.to_string())
}

/// Nothing happens in 10 groups: what does that cost in 10 s.
pub fn idle_with_10_groups() -> Outcome {
    idle(10)
}

/// Nothing happens in 500 groups.
pub fn idle_with_500_groups() -> Outcome {
    idle(500)
}

fn idle(groups: usize) -> Outcome {
    let policy = format!("{THRASH}      - event: oom_kill\n");
    let daemon = Daemon::start(&policy)?;
    let t = Group::new("t/g0").map(|_| Group::at("/sys/fs/cgroup/t"))?;
    for at in 1..groups {
        std::fs::create_dir(t.named(format!("g{at}")).directory()).map_err(|error| format!("mkdir {at}: {error}"))?;
    }
    let _somebody = Work::holding(&t.named("g0"), 8)?;
    let pid = daemon.pid();
    // Settled: nothing was done for a second. If that never comes the numbers below say so.
    for _ in 0..15 {
        let before = Effort::of(pid)?;
        std::thread::sleep(Duration::from_secs(1));
        if Effort::of(pid)?.since(before).switches == 0 {
            break;
        }
    }
    let before = Effort::of(pid)?;
    std::thread::sleep(Duration::from_secs(10));
    let effort = Effort::of(pid)?.since(before);
    let resident = facts::resident_kib(pid)?;
    let huge = facts::huge_kib(pid)?;
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "{MEASURED}idle groups={groups} seconds=10 wakeups={} cpu_ticks={} resident_kib={resident} huge_pages_kib={huge} threads={} build={build}",
        effort.switches,
        effort.ticks,
        std::fs::read_dir(format!("/proc/{pid}/task")).map(Iterator::count).unwrap_or(0),
    );
    ensure!(effort.switches <= 3 && effort.ticks <= 1, "{} wake-ups and {} ticks while nothing happened", effort.switches, effort.ticks);
    // 6 MiB is the aim; it is up to 7.4 MiB on 6.12.
    ensure!(groups > 10 || cfg!(debug_assertions) || resident <= 7680, "{resident} KiB resident with {groups} groups");
    daemon.stop()
}
