//! The whole node runs out at once and oomwarden answers the hold: its victim dies, the kernel's killer is never called.

use std::time::Instant;

use super::MEASURED;
use super::lms_common::{Counters, ROUNDS, fresh, rounds, spread};
use crate::guest::daemon::Daemon;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A hold is answered by the fattest of /t; cool-downs are long, because a hold knows none.
const NODE_OOM: &str = "
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

/// Nobody but the greedy group dies, although it is in nobody's way but the excluded one's.
pub fn hog_without_swap_is_answered() -> Outcome {
    let mut daemon = None;
    let mut times = Vec::new();
    rounds("hold_ms=2000", ROUNDS, |round| {
        let daemon = match &mut daemon {
            Some(daemon) => daemon,
            None => daemon.insert(Daemon::start(NODE_OOM)?),
        };
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let mut precious = Work::holding(&spared, 20)?;
        let before = Counters::now()?;
        let mut hog = Work::start(&greedy, "hog mib=1000")?;
        wait::until("a hold begins", SOON, || Ok(before.of("holds")? > 0))?;
        let began = Instant::now();
        hog.must_be_killed()?;
        times.push(began.elapsed());
        wait::until("the hold is over", SOON, || Ok(before.of("holds_resolved")? > 0))?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 0, "not oomwarden's doing");
        daemon.killed(&greedy)?;
        precious.must_run("it is excluded")
    })?;
    println!("{MEASURED}beginning of the hold to the end of oomwarden's victim: {}", spread(times));
    Ok(())
}
