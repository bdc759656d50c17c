//! `kernel: oom_group`: where memory.oom.group is set, where it never is, that it is taken back,
//! and whose kills are whose.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::common::{Family, THRASH, hog, narrow, neighbour};
use crate::guest::daemon::{Daemon, ask, candidate};
use crate::guest::group::{Group, MIB};
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const FILE: &str = "memory.oom.group";
const RESETS: &str = "oomwarden_oom_group_resets_total";

/// A group that lost a process goes whole, by the kernel itself where it can.
const FINISH: &str = "
version: 1
rules:
  - name: finish
    watch: /t/*
    when:
      - event: oom_kill
kernel:
  oom_group: /t/*
";

fn is(group: &Group, value: u64) -> Outcome {
    wait::until(&format!("{FILE} of {group} is {value}"), SOON, || Ok(group.number(FILE)? == value))
}

/// An exclusion counts for the group that it names, what contains it, and what is below it; one
/// that appears later as well.
pub fn never_set_on_a_group_that_is_contains_or_lies_below_an_excluded_one() -> Outcome {
    let policy = "
version: 1
exclude:
  - /t/keep
  - /t/later/named
  - /**/kept-*
  - {group: /t/data, comm: postgres}
rules: []
kernel:
  oom_group: [/t, /t/**, /oomwarden]
";
    let spared = ["t", "t/keep", "t/keep/below", "t/later", "t/holds", "t/holds/kept-1", "t/data", "oomwarden"];
    let spared = spared.map(Group::new).into_iter().collect::<Outcome<Vec<Group>>>()?;
    let before = Group::new("t/before")?;
    let daemon = Daemon::start(policy)?;
    // Looked at together with the others.
    is(&before, 1)?;
    let after = Group::new("t/after")?;
    is(&after, 1)?;
    for group in &spared {
        ensure!(group.number(FILE)? == 0, "{group} can be killed whole by the kernel");
    }
    let kept = after.child("kept-2")?;
    is(&after, 0)?;
    kept.remove()?;
    is(&after, 1)?;
    daemon.stop()?;
    is(&after, 0)
}

/// The kernel's OOM in an excluded group costs one process, as it would without oomwarden.
pub fn excluded_group_loses_one_process_and_not_all() -> Outcome {
    let policy = FINISH.replace("rules:", "exclude: [/t/keep]\nrules:");
    let keep = Group::new("t/keep")?.max(24 * MIB)?.no_swap()?;
    let daemon = Daemon::start(&policy)?;
    let beside = Group::new("t/beside")?;
    is(&beside, 1)?;
    let mut family = Family::start(&keep)?;
    family.grow()?;
    keep.wait_event("oom_kill", 0)?;
    daemon.journalled("the kernel's kill", |line| line["kind"] == "kernel_oom" && line["group"] == "/t/keep")?;
    ensure!(keep.event("oom_group_kill")? == 0, "the kernel took the whole group");
    family.first.must_run("the group is excluded")?;
    daemon.stop()
}

/// What was 1 before is somebody else's; what oomwarden set is taken back when it is told to stop.
pub fn foreign_1_stays_and_ours_are_taken_back_at_sigterm() -> Outcome {
    let foreign = Group::new("t/foreign")?;
    foreign.set(FILE, "1")?;
    let ours = Group::new("t/ours")?;
    let daemon = Daemon::start(FINISH)?;
    is(&ours, 1)?;
    daemon.stop()?;
    ensure!(ours.number(FILE)? == 0, "what oomwarden set is left behind");
    ensure!(foreign.number(FILE)? == 1, "what somebody else set is taken away");
    Ok(())
}

/// A daemon that was killed leaves its 1s. The next one knows them: it keeps those that the policy
/// names and takes the others back.
pub fn after_a_crash_the_next_oomwarden_knows_what_was_set() -> Outcome {
    let foreign = Group::new("t/foreign")?;
    foreign.set(FILE, "1")?;
    let (kept, dropped, gone) = (Group::new("t/kept")?, Group::new("t/dropped")?, Group::new("t/gone")?);
    let daemon = Daemon::start(FINISH)?;
    for group in [&kept, &dropped, &gone] {
        is(group, 1)?;
    }
    daemon.signal(Signal::SIGKILL)?;
    drop(daemon);
    ensure!(kept.number(FILE)? == 1 && dropped.number(FILE)? == 1, "the scenario proves nothing");
    // Another group under the name of one that was set: what it has is not ours.
    gone.remove()?;
    let anew = Group::new("t/gone")?;
    anew.set(FILE, "1")?;
    let daemon = Daemon::start(&FINISH.replace("oom_group: /t/*", "oom_group: /t/kept"))?;
    is(&dropped, 0)?;
    ensure!(kept.number(FILE)? == 1 && foreign.number(FILE)? == 1 && anew.number(FILE)? == 1, "it took back too much");
    daemon.stop()?;
    ensure!(kept.number(FILE)? == 0, "it no longer knew that this was its own");
    ensure!(foreign.number(FILE)? == 1 && anew.number(FILE)? == 1, "it took back too much at its end");
    Ok(())
}

/// A policy without the key, one that excludes, and one that only observes take back; a pause sets
/// nothing.
pub fn policy_that_no_longer_asks_takes_it_back() -> Outcome {
    let daemon = Daemon::start(FINISH)?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    let becomes = |policy: &str, values: [u64; 2]| {
        std::fs::write(daemon.policy_file(), policy).doing("write the policy")?;
        is(&a, values[0])?;
        is(&b, values[1])
    };
    becomes(FINISH, [1, 1])?;
    becomes(&FINISH.replace("rules:", "exclude: [/t/a]\nrules:"), [0, 1])?;
    becomes(FINISH, [1, 1])?;
    becomes(&FINISH.replace("kernel:\n  oom_group: /t/*\n", ""), [0, 0])?;
    becomes(FINISH, [1, 1])?;
    becomes(&FINISH.replace("version: 1", "version: 1\nmode: observe"), [0, 0])?;
    ask(&["pause"])?;
    let reloads = daemon.count("oomwarden_policy_reloads_total", &[])?;
    std::fs::write(daemon.policy_file(), FINISH).doing("write the policy")?;
    daemon.counted("oomwarden_policy_reloads_total", &[], reloads + 1.0)?;
    let c = Group::new("t/c")?;
    wait::stays("nothing is set in a pause", Duration::from_secs(1), || Ok([&a, &b, &c].iter().all(|group| group.number(FILE) == Ok(0))))?;
    ask(&["resume"])?;
    for group in [&a, &b, &c] {
        is(group, 1)?;
    }
    daemon.stop()
}

/// systemd writes 0 when a property of the unit is set: noticed, set again, counted; but not for
/// ever.
pub fn reset_by_somebody_else_is_noticed_set_again_and_counted() -> Outcome {
    let daemon = Daemon::start(FINISH)?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    is(&a, 1)?;
    is(&b, 1)?;
    ensure!(daemon.count(RESETS, &[])? == 0.0, "oomwarden's own writes are counted");
    for times in 1..10 {
        a.set(FILE, "0")?;
        is(&a, 1)?;
        daemon.counted(RESETS, &[], f64::from(times))?;
    }
    a.set(FILE, "0")?;
    b.set(FILE, "0")?;
    is(&b, 1)?;
    daemon.counted(RESETS, &[], 10.0)?;
    wait::until("the log says that it gives up", SOON, || Ok(daemon.said().contains("it is left at that")))?;
    ensure!(a.number(FILE)? == 0 && daemon.count(RESETS, &[])? == 10.0, "it fights for ever");
    daemon.stop()
}

/// A unit that is made to go on when one of its processes is killed is left alone, and so is what
/// is below it.
pub fn unit_with_oompolicy_continue_is_left_alone() -> Outcome {
    let units = Path::new("/etc/systemd/system");
    std::fs::create_dir_all(units).doing("make the directory of units")?;
    std::fs::write(units.join("many.service"), "[Service]\nOOMPolicy=continue\n").doing("write a unit")?;
    let many = Group::new("t/many.service")?;
    let worker = many.child("worker")?;
    let daemon = Daemon::start(&FINISH.replace("oom_group: /t/*", "oom_group: /t/**"))?;
    is(&Group::new("t/one.service")?, 1)?;
    ensure!(many.number(FILE)? == 0 && worker.number(FILE)? == 0, "a unit that is to go on can be killed whole");
    ensure!(daemon.said().contains("many.service has OOMPolicy=continue"), "the log does not say so: {}", daemon.said());
    std::fs::remove_file(units.join("many.service")).doing("remove the unit")?;
    daemon.stop()
}

/// Twelve groups that the kernel takes whole are twelve lines of the kernel's, and no deed of a
/// rule's.
pub fn twelve_group_kills_by_the_kernel_are_no_kills_of_a_rule() -> Outcome {
    const GROUPS: usize = 12;
    let daemon = Daemon::start(FINISH)?;
    for number in 1..=GROUPS {
        let group = Group::new(&format!("t/{number}"))?.max(24 * MIB)?.no_swap()?;
        is(&group, 1)?;
        let family = Family::start(&group)?;
        family.grow()?;
        group.wait_empty()?;
        ensure!(group.event("oom_group_kill")? == 1, "the kernel did not take {group} whole: {}", group.read("memory.events")?);
    }
    let by_the_kernel =
        || -> Outcome<Vec<Value>> { Ok(daemon.journal()?.into_iter().filter(|line| line["kind"] == "kernel_oom").collect()) };
    wait::until("the kernel's kills are on record", SOON, || Ok(by_the_kernel()?.len() == GROUPS))?;
    let all = by_the_kernel()?;
    ensure!(all.iter().all(|line| line["whole_group"] == true), "{all:?}");
    // Each was judged in the end, and found nobody to kill.
    daemon.counted("oomwarden_judgements_total", &[("rule", "finish"), ("outcome", "no_victim")], GROUPS as f64)?;
    let killed = daemon.judgements("killed")?;
    ensure!(killed.is_empty() && daemon.kills("finish")? == 0.0, "claimed by the rule: {killed:?}");
    daemon.stop()
}

/// A limit below the group that has it costs one process: then the rest is the rule's.
pub fn one_process_killed_at_a_limit_below_leaves_the_rest_to_the_rule() -> Outcome {
    let daemon = Daemon::start(FINISH)?;
    let a = Group::new("t/a")?;
    let below = a.child("limited")?;
    let below = below.max(24 * MIB)?.no_swap()?;
    is(&a, 1)?;
    let mut family = Family::start(&below)?;
    family.grow()?;
    family.first.must_be_killed()?;
    a.wait_empty()?;
    ensure!(a.event("oom_group_kill")? == 0, "the kernel took the group whole: the scenario proves nothing");
    daemon.killed(&a)?;
    daemon.stop()
}

/// A group with memory.oom.group, whoever set it, that holds an excluded one is not killed; its
/// other children can be.
pub fn siblings_of_an_excluded_child_can_be_killed_in_a_group_with_oom_group() -> Outcome {
    let a = narrow("t/a")?;
    a.set(FILE, "1")?;
    let (keep, greedy) = (a.child("keep")?, a.child("greedy")?);
    let daemon = Daemon::start(&THRASH.replace("rules:", "exclude: [/t/a/keep]\nrules:"))?;
    let mut kept = Work::holding(&keep, 4)?;
    let (_, mut beside) = neighbour("t/b")?;
    let mut greed = hog(&greedy)?;
    greed.must_be_killed()?;
    let line = daemon.killed(&greedy)?;
    ensure!(candidate(&line, &a)?["standing"] != "chosen", "{line}");
    kept.must_run("it is excluded")?;
    beside.must_run("it did nothing")?;
    daemon.stop()
}
