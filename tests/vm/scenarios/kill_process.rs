//! `kill: process`: which one of several goes.

use std::path::Path;
use std::time::Duration;

use super::lms_common::called;
use crate::guest::daemon::Daemon;
use crate::guest::group::{Group, MIB};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// One process of a group below /t goes when something in it runs into a memory.high; after that there is quiet for longer than a scenario lasts.
const ONE: &str = "
version: 1
rules:
  - name: one
    watch: /t/*
    when:
      - event: high
    cooldown: 5m
    then:
      - kill: process
";

/// Somebody small in a child of `group` who runs into that child's limit, which is a notice about `group` and changes nothing for others.
fn trouble(group: &Group) -> Outcome<Work> {
    let path = format!("{}/churner", group.path().trim_start_matches('/'));
    let churner = Group::new(&path)?.no_swap()?.high(MIB)?;
    Work::start(&churner, "churn mib=2")
}

/// A number from a file of a process.
fn number(work: &Work, file: &str) -> Outcome<i64> {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", work.pid())).doing(format_args!("read {file}"))?;
    text.trim().parse().doing(format_args!("understand {file}: {text:?}"))
}

/// A line of /proc/PID/status, in bytes.
fn status(work: &Work, key: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", work.pid())).doing("read status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or_else(|| format!("no {key} in {text}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().doing(format_args!("understand {key}{line}"))?;
    Ok(kilobytes << 10)
}

/// The line about `group`, which tells of one killed process.
fn one_killed(daemon: &Daemon, group: &Group) -> Outcome {
    let line = daemon.killed(group)?;
    ensure!(line["processes_killed"] == 1, "not one process: {line}");
    Ok(())
}

fn all_live(works: &mut [Work]) -> Outcome {
    wait::stays("the others live", Duration::from_secs(1), || {
        works.iter_mut().try_fold(true, |all, work| work.running().map(|running| all && running))
    })
}

/// Five, of which the small one has the highest oom_score.
pub fn of_five_the_one_with_the_highest_score_dies() -> Outcome {
    // A group that hands its memory controller down holds no processes of its own.
    let (subject, group) = (Group::new("t/a")?, Group::new("t/a/work")?);
    let mut chosen = Work::start(&group, "hog mib=4 then=hold adj=300")?;
    let mut others = vec![Work::holding(&group, 24)?, Work::holding(&group, 8)?, Work::start(&group, "sleep adj=100")?];
    let scores: Vec<i64> = others.iter().map(|work| number(work, "oom_score")).collect::<Outcome<_>>()?;
    wait::until("it has the highest score", SOON, || {
        Ok(scores.iter().all(|score| number(&chosen, "oom_score").is_ok_and(|most| most > *score)))
    })?;
    let daemon = Daemon::start(ONE)?;
    others.push(trouble(&subject)?);
    chosen.must_be_killed()?;
    one_killed(&daemon, &subject)?;
    all_live(&mut others)?;
    daemon.stop()
}

/// Two with one score: the one that holds more dies, although most of it is in swap and the other has more in memory.
pub fn between_equals_the_one_that_holds_more_in_memory_and_swap_dies() -> Outcome {
    system::zram_swap(256)?;
    let group = Group::new("t/a")?;
    let (large, small) = (Group::new("t/a/large")?, Group::new("t/a/small")?.no_swap()?);
    let mut larger = Work::holding(&large, 40)?;
    let smaller = Work::holding(&small, 24)?;
    // Some of it may refuse to go: what counts is what the kernel says afterwards.
    drop(large.set("memory.reclaim", "36M"));
    let (resident, swapped) = (status(&larger, "VmRSS:")?, status(&larger, "VmSwap:")?);
    let other = status(&smaller, "VmRSS:")?;
    ensure!(resident < other && resident + swapped > other, "{resident} and {swapped} in swap against {other}");
    let adj = format!("/proc/{}/oom_score_adj", smaller.pid());
    let mut equal = false;
    for value in 0..200 {
        std::fs::write(&adj, value.to_string()).doing("write oom_score_adj")?;
        equal = number(&smaller, "oom_score")? == number(&larger, "oom_score")?;
        if equal {
            break;
        }
    }
    ensure!(equal, "no oom_score_adj makes the two equal");
    let daemon = Daemon::start(ONE)?;
    let churner = trouble(&group)?;
    larger.must_be_killed()?;
    one_killed(&daemon, &group)?;
    all_live(&mut [smaller, churner])?;
    daemon.stop()
}

/// Zombies are nobody to kill, at whatever oom_score_adj; a process whose main thread has ended looks like one and is not.
pub fn zombies_are_passed_over_and_a_process_without_its_main_thread_is_not() -> Outcome {
    let (subject, group) = (Group::new("t/a")?, Group::new("t/a/work")?);
    let parent = Work::start(&group, "zombies of=3")?;
    called(&parent, "bereft")?;
    let beside = Work::holding(&group, 8)?;
    let mut headless = Work::start(&group, "headless mib=24 adj=500")?;
    let pid = headless.pid();
    wait::until("its main thread has ended", SOON, || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).doing("read status")?;
        Ok(text.contains("State:\tZ") && !text.contains("VmRSS:"))
    })?;
    ensure!(Path::new(&format!("/proc/{pid}/comm")).exists() && group.processes()?.contains(&pid), "it is not listed");
    let daemon = Daemon::start(ONE)?;
    let churner = trouble(&subject)?;
    headless.must_be_killed()?;
    one_killed(&daemon, &subject)?;
    all_live(&mut [parent, beside, churner])?;
    daemon.stop()
}
