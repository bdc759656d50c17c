//! How long memory is out, by whoever ends it. Numbers, printed and hardly asserted.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, fresh, short_of_memory, spread};
use super::lms_daemon_common::{NODE_OOM, handling};
use crate::guest::daemon::Daemon;
use crate::guest::group::Group;
use crate::guest::lms::{self, Notifier, State};
use crate::guest::wait::SOON;
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// What many run where there is no module.
const BY_PRESSURE: &str = "
version: 1
rules:
  - name: node-stalls
    watch: /
    when: [psi: some 100ms/1s]
    only_if: [available: {below: 10%}]
    cooldown: 50ms
    victim: {among: [\"/t/*\"], at_least: 8MiB, rank: [usage]}
";

/// When what was seen in one shortage.
#[derive(Default)]
struct Times {
    /// Less available than level kill's threshold, to what was available at the start.
    low_to_back: Vec<Duration>,
    /// The kernel has asked for a victim, to the same.
    oom_to_back: Vec<Duration>,
    /// The same, to a level that is not oom.
    oom_to_level: Vec<Duration>,
    kernel_kills: u64,
}

impl Times {
    /// One greedy process, watched from beginning to end through one open file, which takes no memory.
    fn shortage(&mut self, group: &Group, until_level: bool) -> Outcome {
        let notifier = Notifier::open()?;
        let start = notifier.state()?.number("mem_available_kb")?;
        let before = Counters::now()?;
        let mut work = Work::start(group, "hog mib=1000 term=ignore")?;
        let began = Instant::now();
        let (mut low, mut oom, mut back) = (None, None, None);
        loop {
            notifier.notice(Duration::from_millis(1))?;
            let state = notifier.state()?;
            let now = Instant::now();
            let available = state.number("mem_available_kb")?;
            if available < state.number("kill_kb")? {
                low.get_or_insert(now);
            }
            if state.level() == "oom" {
                oom.get_or_insert(now);
            }
            if low.is_some() && available + (20 << 10) > start && !work.running()? {
                back.get_or_insert(now);
            }
            if let (Some(back), true) = (back, !until_level || state.level() != "oom") {
                self.low_to_back.extend(low.map(|low| back - low));
                self.oom_to_back.extend(oom.map(|oom| back.saturating_duration_since(oom)));
                self.oom_to_level.extend(oom.filter(|_| until_level).map(|oom| now - oom));
                break;
            }
            ensure!(began.elapsed() < SOON, "the shortage does not end: {state}");
        }
        work.must_be_killed()?;
        self.kernel_kills += before.kernel_kills()?;
        Ok(())
    }

    fn print(self, who: &str) {
        let Times { low_to_back, oom_to_back, oom_to_level, kernel_kills } = self;
        let level = if oom_to_level.is_empty() { String::new() } else { format!(", to the level's end {}", spread(oom_to_level)) };
        println!(
            "{MEASURED}{who}: low to memory back {}; kernel's call to memory back {}{level}; killed by the kernel: {kernel_kills}",
            spread(low_to_back),
            spread(oom_to_back)
        );
    }
}

/// A module that has forgotten the last round: after a kernel's kill its level stays for a time.
fn anew() -> Outcome {
    lms::unload().doing("unload the module")?;
    lms::load(EXCITABLE)
}

/// oomwarden with the module, the module's table alone, the kernel alone, and oomwarden with pressure alone.
pub fn time_to_memory_back() -> Outcome {
    lms::load(&format!("{EXCITABLE} hold_ms=2000"))?;
    let mut times = Times::default();
    let daemon = handling(NODE_OOM)?;
    short_of_memory(ROUNDS, |round| times.shortage(&fresh("asked", round)?, true))?;
    daemon.stop()?;
    ensure!(times.kernel_kills == 0, "the kernel killed in spite of the hold");
    times.print("oomwarden answers the hold");

    let mut times = Times::default();
    short_of_memory(ROUNDS, |round| {
        let group = fresh("named", round)?;
        let id = group.id()?;
        Notifier::open()?.command(&format!("table keep 600\nkill {id}"))?;
        times.shortage(&group, true)
    })?;
    Notifier::open()?.command("clear")?;
    ensure!(times.kernel_kills == 0, "the kernel killed in spite of the table");
    times.print("a table that was left, and nobody to ask");

    let mut times = Times::default();
    short_of_memory(ROUNDS, |round| {
        times.shortage(&fresh("kernels", round)?, false)?;
        anew()
    })?;
    ensure!(times.kernel_kills == times.low_to_back.len() as u64, "not the kernel's doing");
    times.print("the kernel alone");

    let mut times = Times::default();
    // Started without the module, it knows nothing of it.
    lms::unload().doing("unload the module")?;
    let daemon = Daemon::start(BY_PRESSURE)?;
    lms::load(EXCITABLE)?;
    short_of_memory(ROUNDS, |round| {
        times.shortage(&fresh("stalled", round)?, false)?;
        anew()
    })?;
    ensure!(State::now()?.number("handler_pid")? == 0, "somebody is the handler");
    times.print("oomwarden by pressure alone");
    daemon.stop()
}
