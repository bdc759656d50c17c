//! Holds that oomwarden answers while much else goes on. The kernel never kills and the right ones die; where a hold gets too long for so much work
//! the table may have to help, and how often is printed.

use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::MEASURED;
use super::common::storm;
use super::lms_common::{Counters, ROUNDS, fresh, spread};
use super::lms_daemon_common::{NODE_OOM, Prepared, all_over, hold_begins, leaves_a_table, on_time, rounds_with};
use super::lms_foreign::{limit_of, lower_and_watch};
use crate::guest::crowd;
use crate::guest::group::{Group, MIB};
use crate::guest::lms::Notifier;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// An answer that takes so long comes too late more often than not: a hold lasts two seconds.
const LATE: Duration = Duration::from_millis(1000);

/// Three processes make and remove groups all the time. Whoever does so holds locks while it waits for memory; oomwarden's way to an answer needs
/// none of them.
pub fn hog_dies_while_groups_come_and_go() -> Outcome {
    let (mut times, mut helped) = (Vec::new(), 0);
    let places = |at: u32| Ok::<_, String>((Group::new(&format!("u/s{at}"))?, Group::new(&format!("u/w{at}"))?));
    let mut rounds = 0;
    rounds_with(NODE_OOM, ROUNDS, |round, _| {
        rounds += 1;
        let Prepared { greedy, mut known, mut precious } = Prepared::new(round)?;
        let mut storms = Vec::new();
        for at in 0..3 {
            let (place, from) = places(at)?;
            place.set("cgroup.subtree_control", "+memory +pids")?;
            storms.push(storm(&from, &place, "groups=20")?);
        }
        let before = Counters::now()?;
        let mut hog = Work::start(&greedy, "hog mib=1000 term=ignore")?;
        hold_begins(&before)?;
        let began = Instant::now();
        while hog.running()? && began.elapsed() < LATE {
            std::thread::sleep(Duration::from_millis(5));
        }
        if hog.running()? {
            // Who is in whose way, should it happen too often.
            crowd::print();
        }
        hog.must_be_killed()?;
        known.must_be_killed()?;
        times.push(began.elapsed());
        helped += usize::from(!all_over(&before)?);
        precious.must_run("it is excluded")?;
        for storm in &mut storms {
            storm.must_run("no rule names it")?;
        }
        drop(storms);
        for at in 0..3 {
            let (place, _) = places(at)?;
            for group in 0..20 {
                // Some are there, some are not.
                drop(std::fs::remove_dir(place.named(format!("g{group}")).directory()));
            }
        }
        Ok(())
    })?;
    println!(
        "{MEASURED}beginning of the hold to the end of oomwarden's victim, beside three storms of groups: {}, with the table's help {helped} times",
        spread(times)
    );
    on_time(helped, rounds)
}

/// A group's own limit costs its process no later because the node's shortage is being held and answered at that moment.
pub fn limit_reached_elsewhere_is_not_kept_waiting() -> Outcome {
    let (mut alone, mut beside, mut at_once) = (Vec::new(), Vec::new(), 0);
    rounds_with(NODE_OOM, ROUNDS, |round, daemon| {
        let (limited, greedy) = (Group::new(&format!("u/limited{round}"))?, fresh("greedy", round)?);
        let mut work = Work::holding(&limited, 30)?;
        let limit = limit_of(&limited)?;
        if round % 5 == 0 {
            alone.push(lower_and_watch(&limit, &mut work)?);
            return Ok(());
        }
        let before = Counters::now()?;
        let notifier = Notifier::open()?;
        let mut hog = Work::start(&greedy, "hog mib=1000")?;
        // It may be over by the time that it is looked at.
        while notifier.state()?.level() != "oom" && before.of("holds")? == 0 {
            ensure!(notifier.notice(SOON)?, "no hold begins: {}", notifier.state()?);
        }
        at_once += u32::from(notifier.state()?.number("hold_seq")? != 0);
        beside.push(lower_and_watch(&limit, &mut work)?);
        hog.must_be_killed()?;
        wait::until("the hold is over", SOON, || Ok(notifier.state()?.number("hold_seq")? == 0))?;
        ensure!(before.kernel_kills()? == 1 && limited.event("oom_kill")? == 1, "another than the limited one: {}", before.story());
        ensure!(before.of("holds_resolved")? == before.of("holds")? && before.of("table_kills")? == 0, "not answered: {}", before.story());
        daemon.killed(&greedy).map(drop)
    })?;
    let worst = beside.iter().max().copied().unwrap_or_default();
    println!(
        "{MEASURED}a lowered limit to its victim's end: {} alone, {} beside a hold, {at_once} of them within it",
        spread(alone),
        spread(beside)
    );
    ensure!(worst < Duration::from_secs(2), "an OOM elsewhere waited {worst:?}");
    Ok(())
}

/// Twelve processes in three groups below the victim: all of it goes.
pub fn twelve_processes_in_nested_groups_die_together() -> Outcome {
    let (mut times, mut helped) = (Vec::new(), 0);
    rounds_with(NODE_OOM, ROUNDS, |round, daemon| {
        let (greedy, spared) = (fresh("greedy", round)?, fresh("spared", round)?);
        let (a, b) = (greedy.child("a")?, greedy.child("b")?);
        let below = [a.child("aa")?, a.child("ab")?, b.child("ba")?];
        let mut precious = Work::holding(&spared, 10)?;
        let before = Counters::now()?;
        let mut herds = below.iter().map(|group| Work::start(group, "herd of=3 mib=60 usr1=waiting")).collect::<Outcome<Vec<_>>>()?;
        let waiting = wait::find("nine wait for the signal", SOON, || {
            let is_one = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "waiting\n");
            let mut pids = Vec::new();
            for group in &below {
                pids.extend(group.processes()?.into_iter().filter(is_one));
            }
            Ok((pids.len() == 9).then_some(pids))
        })?;
        leaves_a_table(1)?;
        for pid in waiting {
            signal::kill(Pid::from_raw(pid as i32), Signal::SIGUSR1).doing("signal one of the herd")?;
        }
        hold_begins(&before)?;
        let began = Instant::now();
        greedy.wait_empty()?;
        times.push(began.elapsed());
        for herd in &mut herds {
            herd.must_be_killed()?;
        }
        if all_over(&before)? {
            let line = daemon.killed(&greedy)?;
            ensure!(line["processes_killed"] == 12, "not a dozen: {line}");
        } else {
            helped += 1;
        }
        precious.must_run("it is excluded")
    })?;
    let number = times.len();
    println!("{MEASURED}beginning of the hold to the end of twelve processes: {}, with the table's help {helped} times", spread(times));
    on_time(helped, number)
}

/// Five at once: one after the other goes. Who is excluded lives, and so does who is not but has next to nothing.
pub fn five_hogs_die_and_the_small_live() -> Outcome {
    let (mut times, mut helped) = (Vec::new(), 0);
    rounds_with(NODE_OOM, ROUNDS, |round, _| {
        let (spared, small) = (fresh("spared", round)?, fresh("small", round)?);
        let (mut precious, mut modest) = (Work::holding(&spared, 10)?, Work::holding(&small, 3)?);
        let before = Counters::now()?;
        let groups = (0..5).map(|at| fresh(&format!("greedy{at}-"), round)).collect::<Outcome<Vec<_>>>()?;
        let hogs = groups.iter().map(|group| Work::start(group, "hog mib=1000 term=ignore")).collect::<Outcome<Vec<_>>>()?;
        hold_begins(&before)?;
        let began = Instant::now();
        for mut hog in hogs {
            hog.must_be_killed()?;
        }
        times.push(began.elapsed());
        helped += usize::from(!all_over(&before)?);
        ensure!(small.usage()? < 8 * MIB, "the small one is not small: {}", small.usage()?);
        modest.must_run("its death would free little")?;
        precious.must_run("it is excluded")
    })?;
    let number = times.len();
    println!("{MEASURED}beginning of the hold to the end of the last of five: {}, with the table's help {helped} times", spread(times));
    on_time(helped, number)
}
