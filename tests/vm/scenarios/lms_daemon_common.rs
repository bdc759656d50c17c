//! What the scenarios with oomwarden and its kernel module share: a policy that answers holds, and rounds of shortage with the daemon running.

use std::time::{Duration, Instant};

use super::lms_common::{Counters, EXCITABLE, fresh, short_of_memory};
use crate::guest::crowd;
use crate::guest::daemon::Daemon;
use crate::guest::group::Group;
use crate::guest::lms::{self, Notifier, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A hold is answered by the fattest of /t; cool-downs are long, because a hold knows none.
pub const NODE_OOM: &str = "
version: 1
exclude: [\"/t/spared*\"]
defaults: {cooldown: 1m}
rules:
  - name: node-oom
    watch: /
    when: [lms: oom]
    victim: {among: [\"/t/*\"], at_least: 8MiB, rank: [usage]}
kernel: {hold: 2s}
";

/// Starts oomwarden and waits until it is the module's handler.
pub fn handling(policy: &str) -> Outcome<Daemon> {
    let daemon = Daemon::start(policy)?;
    let pid = u64::from(daemon.pid());
    wait::until("oomwarden is the handler", SOON, || Ok(State::now()?.number("handler_pid")? == pid))?;
    Ok(daemon)
}

/// Loads the module with long holds, starts oomwarden, and runs `round` so many times on a machine that is short of memory.
pub fn rounds_with(policy: &str, number: u32, mut round: impl FnMut(u32, &mut Daemon) -> Outcome) -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let mut daemon = handling(policy)?;
    short_of_memory(number, |at| round(at, &mut daemon))?;
    daemon.stop()
}

/// The table is for exceptions.
pub fn on_time(helped: usize, rounds: usize) -> Outcome {
    ensure!(helped <= rounds / 10 + 1, "oomwarden was too late {helped} times in {rounds}");
    Ok(())
}

/// Waits until oomwarden has left a table with so many rules. It names nobody who is to die: it says what the policy says.
pub fn leaves_a_table(rules: u64) -> Outcome {
    wait::until(&format!("oomwarden has left a table of {rules} rules"), SOON, || {
        let state = State::now()?;
        Ok(state.number("table_rules")? == rules && state.number("table_kill_ids")? == 0)
    })
}

/// The groups of a round: a greedy one with a process that was there before, and one that must live.
pub struct Prepared {
    /// Greedy in a moment.
    pub greedy: Group,
    /// Its first process, which holds 12 MiB.
    pub known: Work,
    /// In the group that must live.
    pub precious: Work,
}

impl Prepared {
    /// By [`NODE_OOM`], when oomwarden's table is there.
    pub fn new(round: u32) -> Outcome<Prepared> {
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let known = Work::holding(&greedy, 12)?;
        let precious = Work::holding(&spared, 10)?;
        leaves_a_table(1)?;
        Ok(Prepared { greedy, known, precious })
    }
}

/// Waits for the beginning of a hold that was none `before`: by a notice, because it may last for a moment only. What the module says then.
pub fn hold_begins(before: &Counters) -> Outcome<State> {
    let notifier = Notifier::open()?;
    loop {
        let state = notifier.state()?;
        if before.of("holds")? > 0 {
            return Ok(state);
        }
        // An emulated machine takes its time to fill swap that is compressed memory.
        if !notifier.notice(SOON * 3)? {
            crowd::print();
            return Err(format!("no hold begins: {}; {state}", before.story()));
        }
    }
}

/// A workload in `greedy` uses memory up, a hold begins, and oomwarden ends the group. How long that took from the beginning of the hold.
pub fn answered(daemon: &Daemon, greedy: &Group, what: &str) -> Outcome<Duration> {
    let before = Counters::now()?;
    let mut work = Work::start(greedy, what)?;
    hold_begins(&before)?;
    let began = Instant::now();
    work.must_be_killed()?;
    greedy.wait_empty()?;
    let took = began.elapsed();
    ensure!(all_over(&before)?, "the hold was not answered in time: {}", before.story());
    daemon.killed(greedy)?;
    Ok(took)
}

/// Waits until no hold is open. The kernel must not have killed; whether each hold ended because memory came back, or one was too long and the
/// table had to help.
pub fn all_over(before: &Counters) -> Outcome<bool> {
    wait::until("the hold is over", SOON, || Ok(State::now()?.number("hold_seq")? == 0))?;
    ensure!(before.kernel_kills()? == 0, "the kernel killed: {}", before.story());
    Ok(before.of("holds_resolved")? == before.of("holds")? && before.of("table_kills")? == 0)
}
