//! What was noticed before the daemon stood still says nothing about now.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// While the daemon stands still a group is in trouble and gets over it. Then the daemon goes on: the group lives, and
/// dies when it gets into trouble again.
fn trouble_that_is_over(daemon: &Daemon, stop: impl FnOnce() -> Outcome, go_on: impl FnOnce() -> Outcome) -> Outcome {
    let a = narrow("t/a")?;
    let _holds = Work::holding(&a, 20)?;
    // Asks for memory all the time, which is what stalls over memory.high.
    let mut work = Work::start(&a, "churn mib=4")?;
    wait::until("it is at work", SOON, || Ok(a.usage()? > 20 * MIB))?;
    daemon.counted("oomwarden_psi_triggers", &[], 1.0)?;
    stop()?;
    a.set("memory.high", &(8 * MIB).to_string())?;
    wait::until("it stalls for many windows", SOON * 3, || Ok(a.stall("full")? > 3_000_000))?;
    a.set("memory.high", &(64 * MIB).to_string())?;
    let over = a.stall("full")?;
    wait::until("it is over", SOON, || Ok(a.usage()? > 20 * MIB))?;
    wait::stays("it is over", Duration::from_secs(3), || work.running())?;
    println!("{}it had stalled for {} ms while the daemon stood still", super::MEASURED, over / 1000);
    go_on()?;
    wait::until("the daemon says that it did not run", SOON, || Ok(daemon.said().contains("did not run for a while")))?;
    let lives = wait::stays("the healthy group lives", Duration::from_secs(4), || work.running());
    lives.map_err(|why| format!("{why}: {:?}", daemon.judgements("killed")))?;
    a.set("memory.high", &(8 * MIB).to_string())?;
    work.must_be_killed()?;
    daemon.killed(&a).map(drop)
}

/// Stopped by a signal.
pub fn stopped_daemon_holds_nothing_against_a_group_that_is_well_again() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    trouble_that_is_over(&daemon, || daemon.signal(Signal::SIGSTOP), || daemon.signal(Signal::SIGCONT))?;
    daemon.stop()
}

/// Frozen with its group.
pub fn frozen_daemon_holds_nothing_against_a_group_that_is_well_again() -> Outcome {
    let own = Group::new("own")?;
    let daemon = Setup { group: Some(own.clone()), ..Setup::default() }.start(THRASH)?;
    let freeze = || {
        own.set("cgroup.freeze", "1")?;
        wait::until("the daemon is frozen", SOON, || Ok(own.key("cgroup.events", "frozen")? == 1))
    };
    trouble_that_is_over(&daemon, freeze, || own.set("cgroup.freeze", "0"))?;
    daemon.stop()
}

/// A level must have held for its whole time before our eyes: a gap between two looks is none of it.
pub fn time_that_nobody_looked_counts_for_no_level() -> Outcome {
    let policy = "
version: 1
rules:
  - name: lasting
    watch: /t/*
    when:
      - usage: {above: 16MiB, for: 8s}
";
    let daemon = Daemon::start(policy)?;
    let a = Group::new("t/a")?;
    let first = Work::holding(&a, 32)?;
    wait::stays("it is looked at", Duration::from_secs(3), || Ok(true))?;
    daemon.signal(Signal::SIGSTOP)?;
    drop(first);
    a.wait_empty()?;
    wait::stays("the daemon stands still", Duration::from_secs(6), || Ok(true))?;
    let mut second = Work::holding(&a, 32)?;
    daemon.signal(Signal::SIGCONT)?;
    wait::until("the daemon says that it did not run", SOON, || Ok(daemon.said().contains("did not run for a while")))?;
    wait::stays("nobody saw it above for 8 s", Duration::from_secs(4), || second.running())?;
    second.must_be_killed()?;
    daemon.stop()
}

/// A reload arms triggers beside old ones that are not closed yet; stall from before the reload is not the new one's.
pub fn reload_holds_no_stall_from_before_against_anybody() -> Outcome {
    let observing = format!("{THRASH}    mode: observe\n");
    let daemon = Daemon::start(&observing)?;
    let a = narrow("t/a")?;
    let mut hog = hog(&a)?;
    wait::until("it is in trouble", SOON, || Ok(!daemon.judgements("observed")?.is_empty()))?;
    a.set("memory.high", &(128 * MIB).to_string())?;
    std::fs::write(daemon.policy_file(), THRASH).map_err(|error| error.to_string())?;
    daemon.counted("oomwarden_policy_reloads_total", &[], 1.0)?;
    let lives = wait::stays("it is well by now and lives", Duration::from_secs(4), || hog.running());
    lives.map_err(|why| format!("{why}: {:?}", daemon.judgements("killed")))?;
    daemon.stop()
}
