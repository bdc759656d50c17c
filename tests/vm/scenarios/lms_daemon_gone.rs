//! The module stays when oomwarden stops, hangs, dies, or may only look on.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, leave_available, rounds, spread};
use super::lms_daemon_common::{NODE_OOM, Prepared, handling, hold_begins, rounds_with};
use crate::guest::daemon::Daemon;
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const GREEDY: &str = "hog mib=1000 term=ignore";

/// Stopped, it answers nothing: when the hold is over its table decides. After that nobody waits for it until it goes on.
pub fn stopped_oomwardens_table_decides() -> Outcome {
    let mut times = Vec::new();
    rounds_with(&NODE_OOM.replace("hold: 2s", "hold: 100ms"), ROUNDS, |round, daemon| {
        let Prepared { greedy, mut known, mut precious } = Prepared::new(round)?;
        daemon.signal(Signal::SIGSTOP)?;
        let before = Counters::now()?;
        let mut hog = Work::start(&greedy, GREEDY)?;
        hold_begins(&before)?;
        let began = Instant::now();
        hog.must_be_killed()?;
        times.push(began.elapsed());
        known.must_be_killed()?;
        greedy.wait_empty()?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 2, "not the table's doing: {}", before.story());
        ensure!(before.of("holds_expired")? == 1, "the hold did not expire once: {}", before.story());
        precious.must_run("it is excluded")?;
        daemon.signal(Signal::SIGCONT)
    })?;
    println!("{MEASURED}beginning of a hold of 100 ms to the end of the victim of a stopped oomwarden's table: {}", spread(times));
    Ok(())
}

/// Killed while the kernel waits for it: the table that it left takes over at once.
pub fn oomwarden_killed_in_a_hold_leaves_its_table() -> Outcome {
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let daemon = handling(NODE_OOM)?;
        let Prepared { greedy, mut known, mut precious } = Prepared::new(round)?;
        daemon.signal(Signal::SIGSTOP)?;
        let before = Counters::now()?;
        let mut hog = Work::start(&greedy, GREEDY)?;
        hold_begins(&before)?;
        drop(daemon);
        let began = Instant::now();
        hog.must_be_killed()?;
        times.push(began.elapsed());
        known.must_be_killed()?;
        ensure!(began.elapsed() < Duration::from_millis(1800), "the bound was waited for: {:?}", began.elapsed());
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 2, "not the table's doing: {}", before.story());
        precious.must_run("it is excluded")
    })?;
    println!("{MEASURED}end of oomwarden in a hold of 2 s to the end of its table's victim: {}", spread(times));
    Ok(())
}

/// Rules for level kill and for holds, which do or only say.
fn policy(mode: &str) -> String {
    let rule = |name: &str, level: &str| {
        format!("  - name: {name}\n    watch: /\n    when: [lms: {level}]\n    victim: {{among: [\"/t/*\"], at_least: 8MiB}}\n")
    };
    format!("version: 1\nmode: {mode}\nexclude: [/t/spared]\nrules:\n{}{}", rule("low", "kill"), rule("out", "oom"))
}

/// Nobody is the handler, the table is empty.
fn module_is_free() -> Outcome<bool> {
    let state = State::now()?;
    Ok(["handler_pid", "table_rules", "table_spares", "table_kill_ids", "table_spare_ids"].iter().all(|key| state.number(key) == Ok(0)))
}

/// Nothing is held and nobody killed but by the kernel, though the module is loaded.
fn kernel_is_alone(group: &str) -> Outcome {
    let before = Counters::now()?;
    Work::start(&Group::new(group)?, GREEDY)?.must_be_killed()?;
    let alone = before.kernel_kills()? == 1 && before.of("holds")? == 0 && before.of("table_kills")? == 0;
    ensure!(alone && module_is_free()?, "not the kernel's doing alone: {}", before.story());
    Ok(())
}

/// It says what it would do, and leaves the module alone.
pub fn observe_leaves_the_module_alone() -> Outcome {
    leaves_the_module_alone(&policy("observe"))
}

/// Each rule may observe by itself.
pub fn rules_that_observe_leave_the_module_alone() -> Outcome {
    leaves_the_module_alone(&policy("enforce").replace("    watch: /\n", "    watch: /\n    mode: observe\n"))
}

fn leaves_the_module_alone(policy: &str) -> Outcome {
    ensure!(policy.contains("mode: observe"), "somebody would act: {policy}");
    lms::load(EXCITABLE)?;
    let daemon = Daemon::start(policy)?;
    let (fat, _spared) = (Group::new("t/fat")?, Group::new("t/spared")?);
    let mut living = Work::holding(&fat, 40)?;
    let ballast = leave_available(35)?;
    let line = daemon.journalled("what would be done at level kill", |line| line["rule"] == "low" && line["outcome"] == "observed")?;
    ensure!(line["victim"] == "/t/fat" && line["evidence"]["lms_level"] == "kill", "the journal tells another story: {line}");
    ensure!(module_is_free()?, "something was left with the module: {}", State::now()?);
    living.must_run("nothing is done")?;
    // So that it is far from the fattest.
    drop(ballast);
    kernel_is_alone("t/greedy")?;
    living.must_run("it is small")?;
    ensure!(daemon.judgements("killed")?.is_empty(), "oomwarden killed: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// Whoever stops to enforce takes back what it left with the module: by another policy, and by SIGTERM.
pub fn table_and_handler_go_with_enforce() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let daemon = Daemon::start(&policy("enforce"))?;
    let (fat, _spared) = (Group::new("t/fat")?, Group::new("t/spared")?);
    let mut living = Work::holding(&fat, 40)?;
    let pid = u64::from(daemon.pid());
    let armed = || {
        let state = State::now()?;
        // Two who must live by their path: oomwarden itself, and who is excluded.
        Ok(state.number("handler_pid")? == pid && state.number("table_rules")? == 1 && state.number("table_spares")? == 2)
    };
    wait::until("oomwarden is the handler and has a table", SOON, armed)?;
    std::fs::write(daemon.policy_file(), policy("observe")).doing("write the policy")?;
    wait::until("the module is free", SOON, module_is_free)?;
    kernel_is_alone("t/greedy")?;
    std::fs::write(daemon.policy_file(), policy("enforce")).doing("write the policy")?;
    wait::until("oomwarden is the handler again and has a table", SOON, armed)?;
    daemon.stop()?;
    ensure!(module_is_free()?, "something was left with the module: {}", State::now()?);
    kernel_is_alone("t/greedier")?;
    living.must_run("it is not the fattest")
}

/// Loaded, used, refused to go, let go, unloaded.
pub fn fifty_times_loaded_and_unloaded_under_oomwarden() -> Outcome {
    for round in 0..50 {
        lms::load(EXCITABLE)?;
        let daemon = handling(NODE_OOM)?;
        let answer = lms::unload();
        ensure!(answer == Err(Errno::EAGAIN), "round {round}: unloading under oomwarden gives {answer:?}");
        daemon.stop()?;
        wait::until("the module goes", SOON, || Ok(lms::unload().is_ok()))?;
    }
    Ok(())
}

/// Where the kernel is to panic, oomwarden leaves the module alone, from the next look on: at the start, and when it is set at run time.
pub fn panic_on_oom_leaves_the_module_alone() -> Outcome {
    const SETTING: &str = "/proc/sys/vm/panic_on_oom";
    lms::load(EXCITABLE)?;
    system::set(SETTING, "1")?;
    let daemon = Daemon::start(&policy("enforce"))?;
    let lacks = |value: f64| -> Outcome<bool> { Ok(daemon.count("oomwarden_degraded", &[("reason", "lms")])? == value) };
    wait::until("oomwarden says what it lacks", SOON, || lacks(1.0))?;
    ensure!(module_is_free()?, "something was left with the module: {}", State::now()?);
    for (value, percent) in [("0", "99"), ("2", "20"), ("0", "99"), ("1", "20")] {
        system::set(SETTING, value)?;
        // A change of the level makes it look.
        lms::set("warn_percent", percent)?;
        let pid = u64::from(daemon.pid());
        wait::until(&format!("oomwarden heeds panic_on_oom={value}"), SOON, || {
            let state = State::now()?;
            let armed = state.number("handler_pid")? == pid && state.number("table_rules")? > 0;
            Ok(if value == "0" { armed && lacks(0.0)? } else { module_is_free()? && lacks(1.0)? })
        })?;
    }
    system::set(SETTING, "0")?;
    daemon.stop()
}
