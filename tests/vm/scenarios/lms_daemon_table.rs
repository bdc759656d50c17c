//! The table that oomwarden leaves with the module says what its policy says, and is written when there is something to write.

use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::MEASURED;
use super::lms_common::{Counters, EXCITABLE, ROUNDS, called, fresh, leave_available, spread};
use super::lms_daemon_common::{NODE_OOM, answered, handling, leaves_a_table, rounds_with};
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::facts::{self, Effort};
use crate::guest::group::Group;
use crate::guest::lms::{self, State};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const GREEDY: &str = "hog mib=1000 term=ignore";

/// The name of a process that an exclusion is about.
const TREASURED: &str = "treasured";

/// With importance; holds of 100 ms.
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
    leaves_a_table(1)?;
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

/// Sixty groups with four triggers each, which take the kernel a while to arm, and more who must live each time.
fn with_many_triggers(excluded: &str) -> String {
    format!(
        "
version: 1
exclude: [{excluded}]
rules:
  - name: crowded
    watch: /t/crowd/*
    when: [psi: some 400ms/1s, psi: full 400ms/1s, psi: some 900ms/2s, psi: full 900ms/2s]
  - {{name: node-oom, watch: /, when: [lms: oom], victim: {{among: [\"/t/*\"], at_least: 8MiB}}}}
"
    )
}

/// A policy excludes a group more than the one before. From the moment at which that is in force, or oomwarden is the handler, the module has
/// no table by which that group could die: neither the table of the old policy, nor that of an oomwarden that was killed.
pub fn narrower_policy_takes_the_wider_table_back_at_once() -> Outcome {
    lms::load(EXCITABLE)?;
    let crowd = Group::new("t/crowd")?;
    let many = Work::start(&Group::new("t/spreader")?, &format!("spread of=60 groups=60 at={}", crowd.directory().display()))?;
    called(&many, "spread")?;
    let daemon = handling(&with_many_triggers("/t/a"))?;
    // Itself by its path, and who is excluded.
    let table = |spares: u64| -> Outcome<bool> {
        let state = State::now()?;
        let (rules, said) = (state.number("table_rules")?, state.number("table_spares")?);
        ensure!(rules == 0 || said >= spares, "a table of another policy is in force: {state}");
        Ok(rules == 1 && said == spares)
    };
    wait::until("the first table", SOON, || table(2))?;
    wait::until("all is armed", SOON, || Ok(daemon.count("oomwarden_psi_triggers", &[])? >= 240.0))?;
    // Said once the policy is in force, and before the clerk has armed much.
    let in_force = |daemon: &Daemon, excluded: u32| daemon.said().contains(&format!("for {excluded} of {excluded} globs under `exclude`"));
    std::fs::write(daemon.policy_file(), with_many_triggers("/t/a, /t/b")).doing("write the policy")?;
    wait::until("the second policy's table", SOON, || Ok(in_force(&daemon, 2) && table(3)?))?;
    drop(daemon);
    ensure!(table(3)?, "oomwarden was killed, and left no table: {}", State::now()?);
    let daemon = Setup::default().spawn(&with_many_triggers("/t/a, /t/b, /t/c"))?;
    let pid = u64::from(daemon.pid());
    wait::until("the third policy's table", SOON, || Ok(State::now()?.number("handler_pid")? == pid && table(4)?))?;
    wait::until("the third policy is in force", SOON, || Ok(in_force(&daemon, 3)))?;
    daemon.stop()
}

/// What the table says depends on no group, and oomwarden is not woken for it.
pub fn table_is_the_policy_and_oomwarden_rests() -> Outcome {
    lms::load("hold_ms=2000")?;
    let daemon = handling(ORDERED)?;
    leaves_a_table(1)?;
    let counts = || {
        let state = State::now()?;
        ["table_rules", "table_spares", "table_kill_ids", "table_spare_ids"]
            .iter()
            .map(|key| state.number(key))
            .collect::<Outcome<Vec<_>>>()
    };
    let before = counts()?;
    // Itself by id and path, and the exclusion.
    ensure!(before == [1, 2, 0, 1], "another table: {}", State::now()?);
    let a = Group::new("t/a")?;
    let work = Work::holding(&a, 12)?;
    let spared = Group::new("t/spared")?;
    drop(work);
    a.wait_empty()?;
    a.remove()?;
    spared.remove()?;
    let _living = Work::holding(&Group::new("t/a")?, 12)?;
    let pid = daemon.pid();
    let effort = |time: Duration| {
        let before = Effort::of(pid)?;
        std::thread::sleep(time);
        Ok::<_, String>(Effort::of(pid)?.since(before))
    };
    wait::until("oomwarden rests", SOON, || Ok(effort(Duration::from_secs(1))?.switches == 0))?;
    let rest = effort(Duration::from_secs(5))?;
    println!("{MEASURED}five seconds without a change: {} wake-ups", rest.switches);
    // A look may be interrupted.
    ensure!(rest.switches <= 1, "{} wake-ups while nothing changed", rest.switches);
    ensure!(counts()? == before, "the table changed with the groups: {}", State::now()?);
    daemon.stop()
}

/// oomwarden is stopped when it rests after a kill. A hog starts in the group that was emptied by that, and one in a group that is made only
/// then: both die by the table. Who is excluded by its path or by the name of its process lives, in groups made anew after the stop.
pub fn stopped_oomwardens_table_knows_who_came_since() -> Outcome {
    let policy = NODE_OOM
        .replace("hold: 2s", "hold: 100ms")
        .replace("exclude: [", &format!("exclude: [{{group: \"/t/named*\", comm: {TREASURED}}}, "));
    let mut times = Vec::new();
    rounds_with(&policy, ROUNDS, |round, daemon| {
        let (greedy, spared, named) = (fresh("greedy", round)?, fresh("spared", round)?, fresh("named", round)?);
        let ids = (spared.id()?, named.id()?);
        answered(daemon, &greedy, GREEDY)?;
        let pid = daemon.pid();
        wait::until("oomwarden rests", SOON, || {
            let before = Effort::of(pid)?;
            std::thread::sleep(Duration::from_secs(1));
            Ok(Effort::of(pid)?.since(before).switches == 0)
        })?;
        leaves_a_table(1)?;
        daemon.signal(Signal::SIGSTOP)?;
        spared.remove()?;
        named.remove()?;
        let (spared, named) = (fresh("spared", round)?, fresh("named", round)?);
        ensure!(spared.id()? != ids.0 && named.id()? != ids.1, "a group that was made anew has its old id");
        let mut precious = Work::holding(&spared, 20)?;
        let mut treasured = Work::start(&named, &format!("hog mib=20 usr1={TREASURED} then=hold"))?;
        called(&treasured, TREASURED)?;
        signal::kill(Pid::from_raw(treasured.pid() as i32), Signal::SIGUSR1).doing("let it begin")?;
        named.wait_usage(20 << 20)?;
        let before = Counters::now()?;
        let began = Instant::now();
        Work::start(&greedy, GREEDY)?.must_be_killed()?;
        times.push(began.elapsed());
        greedy.wait_empty()?;
        let late = fresh("late", round)?.child("below")?;
        Work::start(&late, GREEDY)?.must_be_killed()?;
        late.wait_empty()?;
        precious.must_run("it is excluded by its path")?;
        treasured.must_run("it is excluded by its name")?;
        ensure!(before.kernel_kills()? == 0 && before.of("table_kills")? == 2, "not the table's doing: {}", before.story());
        daemon.signal(Signal::SIGCONT)
    })?;
    println!("{MEASURED}start of a hog in a group that a stopped oomwarden knew as empty to its end: {}", spread(times));
    Ok(())
}
