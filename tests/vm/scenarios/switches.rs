//! The on-call's switches: pause, circuit breaker, and what is left of both, and of the policy, over a restart.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{THRASH, hog, narrow};
use super::lms_common::{Counters, EXCITABLE};
use super::lms_daemon_common::NODE_OOM;
use crate::guest::daemon::{ADDRESS, Daemon, Setup, ask, rung};
use crate::guest::group::Group;
use crate::guest::http;
use crate::guest::lms::{self, State};
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A group that thrashes is asked to end, and is given time for it.
const GRACE: &str = "
version: 1
rules:
  - name: thrash
    watch: /t/*
    when:
      - psi: full 100ms/500ms
    then:
      - term: {wait: 5m}
      - kill: group
";

fn status() -> Outcome<Value> {
    serde_json::from_str(&ask(&["status", "--json"])?).doing("understand the status")
}

/// Waits until the rule's trigger has fired, which begins its ladder.
fn climbing(daemon: &Daemon) -> Outcome {
    daemon.counted("oomwarden_trigger_events_total", &[("rule", "thrash"), ("trigger", "psi: full 100ms/500ms")], 1.0)
}

fn paused(daemon: &Daemon) -> Outcome<bool> {
    Ok(daemon.count("oomwarden_paused", &[])? == 1.0)
}

/// Paused after SIGTERM: SIGKILL does not follow, the ladder says so, and after resume the next one goes to its end.
pub fn pause_in_the_middle_of_a_ladder() -> Outcome {
    let daemon = Daemon::start(GRACE)?;
    let a = narrow("t/a")?;
    let mut stubborn = Work::start(&a, "hog mib=64 term=ignore")?;
    climbing(&daemon)?;
    ask(&["pause"])?;
    let was_paused = |line: &Value| line["outcome"] == "paused" && rung(line, "term").is_some_and(|rung| rung["outcome"] == "paused");
    let line = daemon.journalled("the ladder that was paused", was_paused)?;
    ensure!(rung(&line, "kill").is_none(), "it was killed: {line}");
    // The trouble lasts, is judged, and nothing comes of it.
    let judged = || Ok(daemon.judgements("paused")?.len() >= 2);
    wait::until("it goes on to be judged", SOON, judged)?;
    stubborn.must_run("deeds are paused")?;
    let status = status()?;
    ensure!(status["paused"]["remaining_seconds"].as_u64().is_some_and(|left| left > 500), "the status tells another story: {status}");
    ensure!(ask(&["status"])?.contains("deeds are PAUSED"), "the status for people does not say so");
    std::fs::write(daemon.policy_file(), GRACE.replace("5m", "100ms")).doing("write the policy")?;
    daemon.counted("oomwarden_policy_reloads_total", &[], 1.0)?;
    ask(&["resume"])?;
    stubborn.must_be_killed()?;
    daemon.killed(&a)?;
    daemon.stop()
}

/// The wall clock is set days ahead and back: a pause is neither shown as over nor ended, nor made
/// longer, also over a restart.
pub fn clock_that_jumps_ends_no_pause() -> Outcome {
    use nix::time::{ClockId, clock_gettime, clock_settime};
    const JUMPS: [i64; 2] = [3 * 86_400, -6 * 86_400];
    let jump = |by: i64| -> Outcome {
        let now = clock_gettime(ClockId::CLOCK_REALTIME).doing("read the clock")?;
        let then = nix::sys::time::TimeSpec::new(now.tv_sec() + by, now.tv_nsec());
        clock_settime(ClockId::CLOCK_REALTIME, then).doing("set the clock")
    };
    let mut daemon = Some(Daemon::start(THRASH)?);
    ask(&["pause", "10m"])?;
    let check = |daemon: &Daemon| -> Outcome {
        let status = status()?;
        let left = status["paused"]["remaining_seconds"].as_u64();
        ensure!(left.is_some_and(|left| (400..=600).contains(&left)), "the pause is shown as {}", status["paused"]);
        ensure!(status["paused"]["by"]["uid"] == 0 && status["paused"]["by"]["comm"] == "oomwarden", "by whom? {}", status["paused"]);
        ensure!(paused(daemon)?, "deeds go on");
        Ok(())
    };
    let mut all = || -> Outcome {
        for by in JUMPS {
            jump(by)?;
            let old = daemon.take().ok_or("no daemon")?;
            check(&old)?;
            old.signal(Signal::SIGKILL)?;
            drop(old);
            let new = Daemon::start(THRASH)?;
            check(&new)?;
            daemon = Some(new);
        }
        Ok(())
    };
    let went = all();
    jump(-JUMPS.iter().sum::<i64>())?;
    went?;
    daemon.take().ok_or("no daemon")?.stop()
}

/// A pause survives SIGKILL and a new start with what is left of it, and ends by itself.
pub fn pause_survives_a_restart_and_ends_by_itself() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    ask(&["pause", "10s"])?;
    daemon.signal(Signal::SIGKILL)?;
    drop(daemon);
    let daemon = Daemon::start(THRASH)?;
    ensure!(paused(&daemon)?, "the pause is forgotten");
    let a = narrow("t/a")?;
    let mut thrashing = hog(&a)?;
    daemon.journalled("a judgement without a deed", |line| line["outcome"] == "paused" && line["victim"] == "/t/a")?;
    // The end of the pause is all that it takes.
    thrashing.must_be_killed()?;
    daemon.killed(&a)?;
    ensure!(!paused(&daemon)? && status()?["paused"].is_null(), "it is still said to be paused");
    daemon.stop()
}

/// Whether the module is nobody's and its table is empty.
fn module_is_free() -> Outcome<bool> {
    let state = State::now()?;
    Ok(["handler_pid", "table_rules", "table_spares", "table_kill_ids", "table_spare_ids"].iter().all(|key| state.number(key) == Ok(0)))
}

/// Paused means that the module is left alone too: no hold, no table, and the kernel's own killer does what it would.
pub fn paused_leaves_the_module_alone() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let daemon = Daemon::start(NODE_OOM)?;
    let fat = Group::new("t/fat")?;
    let mut living = Work::holding(&fat, 40)?;
    let pid = u64::from(daemon.pid());
    let armed = || {
        let state = State::now()?;
        Ok(state.number("handler_pid")? == pid && state.number("table_rules")? == 1)
    };
    wait::until("oomwarden is the handler and has a table", SOON, armed)?;
    ask(&["pause"])?;
    // Before the command returned.
    ensure!(module_is_free()?, "something was left with the module: {}", State::now()?);
    ensure!(status()?["module"]["handler"] == false, "the status tells another story: {}", status()?);
    let before = Counters::now()?;
    Work::start(&Group::new("t/greedy")?, "hog mib=1000 term=ignore")?.must_be_killed()?;
    let alone = before.kernel_kills()? == 1 && before.of("holds")? == 0 && before.of("table_kills")? == 0;
    ensure!(alone && module_is_free()?, "not the kernel's doing alone: {}", before.story());
    ask(&["resume"])?;
    wait::until("oomwarden is the handler again and has a table", SOON, armed)?;
    living.must_run("it is not the fattest")?;
    daemon.stop()
}

/// A daemon that was killed leaves its table in force for a while. One that is started paused takes it back: no deeds means none.
pub fn started_paused_it_takes_a_dead_daemons_table_back() -> Outcome {
    lms::load(EXCITABLE)?;
    let daemon = Daemon::start(NODE_OOM)?;
    let mut living = Work::holding(&Group::new("t/fat")?, 40)?;
    wait::until("oomwarden has left a table", SOON, || Ok(State::now()?.number("table_rules")? == 1))?;
    let state = Path::new(places::FILES).join("state/pause.json");
    daemon.signal(Signal::SIGKILL)?;
    drop(daemon);
    ensure!(State::now()?.number("table_rules")? == 1, "the dead daemon's table is gone by itself: {}", State::now()?);
    std::fs::write(&state, "{\"v\":1,\"until\":\"2999-01-01T00:00:00Z\",\"seconds\":600}").doing("leave a pause")?;
    let daemon = Daemon::start(NODE_OOM)?;
    ensure!(paused(&daemon)? && module_is_free()?, "something is left with the module: {}", State::now()?);
    living.must_run("deeds are paused")?;
    daemon.stop()
}

/// One tenant crashes over and over: its breaker opens, the other is still dealt with.
pub fn breaker_opens_for_one_subject_only() -> Outcome {
    let daemon = Daemon::start(&THRASH.replace("version: 1", "version: 1\nlimits: {kills: 2 per 1h}\ndefaults: {cooldown: 100ms}"))?;
    for kills in 1..=2_u8 {
        // Made anew each time, as a supervisor does.
        let a = narrow("t/a")?;
        hog(&a)?.must_be_killed()?;
        a.wait_empty()?;
        daemon.counted("oomwarden_kills_total", &[("rule", "thrash")], f64::from(kills))?;
        a.remove()?;
    }
    daemon.counted("oomwarden_breaker_open", &[], 1.0)?;
    let (a, b) = (narrow("t/a")?, narrow("t/b")?);
    let mut spared = hog(&a)?;
    daemon.journalled("a judgement with an open breaker", |line| line["outcome"] == "breaker" && line["victim"] == "/t/a")?;
    hog(&b)?.must_be_killed()?;
    daemon.killed(&b)?;
    spared.must_run("its breaker is open")?;
    let status = status()?;
    ensure!(
        status["breakers"][0]["subject"] == "/t/a" && status["breakers"][0]["rule"] == "thrash",
        "the status tells another story: {status}"
    );
    ensure!(daemon.said().contains("the breaker of rule thrash for /t/a opens"), "the log does not say so: {}", daemon.said());
    daemon.stop()
}

/// A rule about the node whose breaker opens has no answer to a hold, and nobody stands in the table for its sake.
pub fn open_breaker_leaves_the_module_alone() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let daemon = Daemon::start(&NODE_OOM.replace("version: 1", "version: 1\nlimits: {kills: 1 per 1h}"))?;
    let pid = u64::from(daemon.pid());
    wait::until("oomwarden is the handler", SOON, || Ok(State::now()?.number("handler_pid")? == pid))?;
    let greedy = Group::new("t/greedy")?;
    Work::start(&greedy, "hog mib=1000 term=ignore")?.must_be_killed()?;
    greedy.wait_empty()?;
    daemon.counted("oomwarden_breaker_open", &[], 1.0)?;
    wait::until("the module is free", SOON, module_is_free)?;
    let before = Counters::now()?;
    Work::start(&Group::new("t/greedier")?, "hog mib=1000 term=ignore")?.must_be_killed()?;
    let alone = before.kernel_kills()? == 1 && before.of("holds")? == 0 && before.of("table_kills")? == 0;
    ensure!(alone && module_is_free()?, "not the kernel's doing alone: {}", before.story());
    daemon.stop()
}

/// Killed in mid-ladder and started again: the ladder begins anew where there is still trouble, and nobody else is touched.
pub fn daemon_killed_in_mid_ladder_goes_on_after_a_restart() -> Outcome {
    let daemon = Daemon::start(GRACE)?;
    let (a, b) = (narrow("t/a")?, Group::new("t/b")?);
    let mut neighbour = Work::holding(&b, 8)?;
    let mut stubborn = Work::start(&a, "hog mib=64 term=ignore")?;
    climbing(&daemon)?;
    daemon.signal(Signal::SIGKILL)?;
    drop(daemon);
    stubborn.must_run("nobody was left to kill it")?;
    // Its socket is left behind, and replaced.
    ensure!(Path::new("/run/oomwarden/control.sock").exists(), "there is no socket of the dead daemon");
    let daemon = Daemon::start(&GRACE.replace("5m", "100ms"))?;
    stubborn.must_be_killed()?;
    a.wait_empty()?;
    daemon.killed(&a)?;
    ensure!(daemon.judgements("killed")?.len() == 1, "more than one kill: {:?}", daemon.judgements("killed")?);
    neighbour.must_run("it was in nobody's way")?;
    ask(&["status"])?;
    daemon.stop()
}

/// A broken policy at the start: the last good one is used, and said to be.
pub fn broken_policy_at_start_falls_back_to_the_last_good_one() -> Outcome {
    Daemon::start(THRASH)?.stop()?;
    let daemon = Setup::default().start("version: 1\nrules: [{nam: x}]\n")?;
    ensure!(daemon.metrics()?.sample("oomwarden_policy_last_reload_successful", &[]) == Some(0.0), "the metric does not say so");
    ensure!(status()?["policy"]["is_last"] == false, "the status does not say so: {}", status()?);
    let said = daemon.said();
    ensure!(status()?["degraded"][0]["reason"] == "policy", "it is not degraded: {}", status()?);
    ensure!(said.contains("the last good one is used") && said.contains("unknown key `nam`"), "the log does not say so: {said}");
    let a = narrow("t/a")?;
    hog(&a)?.must_be_killed()?;
    daemon.killed(&a)?;
    // And a sound one takes over as ever.
    std::fs::write(daemon.policy_file(), THRASH.replace("thrash", "other")).doing("write the policy")?;
    let taken = || Ok(daemon.metrics()?.sample("oomwarden_policy_last_reload_successful", &[]) == Some(1.0));
    wait::until("the sound policy is taken over", Duration::from_secs(10), taken)?;
    ensure!(status()?["rules"][0]["name"] == "other", "another policy is in force: {}", status()?);
    ensure!(status()?["degraded"] == Value::Array(vec![]), "it is still degraded: {}", status()?);
    daemon.stop()
}

/// A policy that is not there at the start, and no last good one: the built-in one observes, loudly, until the policy comes.
pub fn missing_policy_at_start_leaves_the_built_in_one_observing() -> Outcome {
    let file = Path::new(places::FILES).join("later/policy.yaml");
    let daemon = Setup { policy_file: Some(file.clone()), ..Setup::default() }.start("unused")?;
    let now = status()?;
    ensure!(now["degraded"][0]["reason"] == "policy" && now["policy"]["mode"] == "observe", "the status does not say so: {now}");
    ensure!(now["rules"].as_array().is_some_and(|rules| rules.iter().all(|rule| rule["mode"] == "observe")), "a rule acts: {now}");
    let ready = http::get(ADDRESS.parse().doing("understand the address")?, "/-/ready")?;
    ensure!(ready.status == 200 && ready.body == "ready, degraded: policy\n", "/-/ready says {}: {:?}", ready.status, ready.body);
    let said = daemon.said();
    for part in ["ERROR", "later/policy.yaml", "there is no last good one", "only observes"] {
        ensure!(said.contains(part), "the log does not say {part:?}: {said}");
    }
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    wait::stays("nobody is killed", Duration::from_millis(800), || hog.running())?;
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).doing("make the policy's directory")?;
    std::fs::write(&file, THRASH).doing("write the policy")?;
    hog.must_be_killed()?;
    daemon.killed(&a)?;
    ensure!(status()?["degraded"] == Value::Array(vec![]), "it is still degraded: {}", status()?);
    daemon.stop()
}
