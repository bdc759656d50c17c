//! Groups by the hundred, names by the worst, and the limits of the system.

use std::time::{Duration, Instant};

use super::MEASURED;
use super::common::{THRASH, hog, narrow, storm};
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::facts;
use crate::guest::group::{self, Group, MIB};
use crate::guest::kernel_log::KernelLog;
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// The policy of [`THRASH`] for more of the tree.
fn thrash_everywhere() -> String {
    THRASH.replace("watch: /t/*", "watch: [/t/*, \"/t/*/*\"]")
}

/// 300 groups are made and removed, over and over, while another group is being killed, and after.
pub fn storm_of_300_groups_hides_nothing() -> Outcome {
    let mut daemon = Daemon::start(&thrash_everywhere())?;
    let weather = Group::new("t/weather")?;
    // Hands the controllers down.
    weather.child("first")?.remove()?;
    let elsewhere = Group::new("u/storm")?;
    let mut storm = storm(&elsewhere, &weather, "groups=300")?;
    for name in ["t/a", "t/b"] {
        let group = narrow(name)?;
        let mut hog = hog(&group)?;
        hog.must_be_killed()?;
        daemon.killed(&group)?;
    }
    storm.must_run("it only makes groups")?;
    drop(storm);
    ensure!(daemon.running()?, "oomwarden is gone");
    daemon.stop()
}

/// Thousands of groups are made and removed below the victim itself, and the policy excludes groups by name there: that keeps neither the kill
/// waiting nor an excluded group, made in the middle of it, from living.
pub fn groups_churned_below_the_victim_keep_no_kill_waiting() -> Outcome {
    let policy = "
version: 1
exclude:
  - /t/*/*/keep
rules:
  - name: fat
    watch: /t/*
    when:
      - usage: {above: 40MiB}
";
    let daemon = Daemon::start(policy)?;
    let elsewhere = Group::new("u/storm")?;
    // The storm in /t/b first: who is in /t/b/weather/keep was not there when it was found. A process where the groups are made, without which
    // nothing below would have to be looked at.
    let (mut storms, mut inside, began) = (Vec::new(), Vec::new(), Instant::now());
    for name in ["t/b", "t/a"] {
        let weather = Group::new(name)?.named("weather");
        std::fs::create_dir(weather.directory()).doing("create a group")?;
        inside.push(Work::start(&weather, "sleep")?);
        storms.push(storm(&elsewhere, &weather, "groups=3000")?);
        println!("{MEASURED}storm_below_/{name}_is_up_s={:.1}", began.elapsed().as_secs_f64());
    }
    let spared = Group::at("/sys/fs/cgroup/t/b");
    let keep = spared.named("weather/keep");
    std::fs::create_dir(keep.directory()).doing("create a group")?;
    let mut bystander = Work::start(&keep, "sleep")?;
    // It stands beside who is excluded, so it may die in the place of the whole, as soon as all below /t/b is known.
    let _fat = Work::start(&spared.child("fat")?, "hog mib=64 then=hold")?;
    let a = Group::at("/sys/fs/cgroup/t/a");
    let mut hog = Work::start(&a.child("fat")?, "hog mib=64 then=hold")?;
    hog.must_be_killed_within(4 * SOON)?;
    let line = daemon.killed(&a)?;
    let took = line["latency_us"]["kill"].as_u64().ok_or_else(|| format!("no kill: {line}"))?;
    let spared = daemon.judgements("no_victim")?.iter().filter(|line| line["subject"] == "/t/a").count();
    println!("{MEASURED}kill_with_groups_churned_below_us={took} spared_before={spared}");
    // A machine that stood still for a second may have spared it once.
    ensure!(spared <= 1, "it was spared {spared} times because it could not be looked at");
    bystander.must_run("it is excluded")?;
    inside[0].must_run("it stands beside who is excluded")?;
    for storm in &mut storms {
        storm.must_run("it only makes groups")?;
    }
    daemon.stop()
}

/// More notices than the kernel queues: what was lost is found by looking again.
pub fn overflowing_queue_of_notices_loses_no_group() -> Outcome {
    system::set("/proc/sys/fs/inotify/max_queued_events", "16")?;
    let daemon = Daemon::start(THRASH)?;
    let t = Group::new("t")?;
    t.child("first")?.remove()?;
    let elsewhere = Group::new("u/storm")?;
    let mut storm = Work::start(&elsewhere, &format!("storm groups=300 rounds=3 at={}", t.directory().display()))?;
    // Made in the middle of it.
    let group = narrow("t/between")?;
    storm.must_exit_with(0)?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()?;
    daemon.killed(&group)?;
    daemon.stop()
}

/// 9,000 groups made and removed in turn use up no watches, although only 1,000 are allowed; then one more is noticed. None of them is given a
/// trigger, since kernels lose those that are armed while their group is removed.
pub fn nine_thousand_groups_in_turn_leak_no_watch() -> Outcome {
    system::set("/proc/sys/fs/inotify/max_user_watches", "1000")?;
    let daemon = Daemon::start(THRASH)?;
    let t = Group::new("t")?;
    t.set("cgroup.subtree_control", "+memory +pids")?;
    let before = facts::watches(daemon.pid())?;
    let mut log = KernelLog::from_now()?;
    for at in 0..9000 {
        // 50 at a time are there, so that some live long enough to be watched.
        std::fs::create_dir(t.named(format!("g{at}")).directory()).map_err(|error| format!("mkdir {at}: {error}"))?;
        if let Some(gone) = usize::checked_sub(at, 50) {
            std::fs::remove_dir(t.named(format!("g{gone}")).directory()).map_err(|error| format!("rmdir {gone}: {error}"))?;
        }
    }
    for at in 8950..9000 {
        std::fs::remove_dir(t.named(format!("g{at}")).directory()).map_err(|error| format!("rmdir {at}: {error}"))?;
    }
    wait::until("the watches are taken back", SOON, || Ok(facts::watches(daemon.pid())? <= before + 5))?;
    let leak = log.lines()?.into_iter().find(|line| line.contains("psi: trigger leak"));
    ensure!(leak.is_none(), "triggers were armed in groups without processes: {leak:?}");
    let descriptors = facts::descriptors(daemon.pid())?;
    ensure!(descriptors < 200, "{descriptors} descriptors are open with hardly a group left");
    let late = narrow("t/late")?;
    let mut hog = hog(&late)?;
    hog.must_be_killed()?;
    daemon.killed(&late)?;
    daemon.stop()
}

/// A group without processes, which may be removed at any moment, has no trigger: it gets it with its first process, and after a kill with the
/// first one that comes then.
pub fn trigger_comes_with_the_first_process() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let armed = |count: f64| {
        wait::until(&format!("{count} triggers are armed"), SOON, || Ok(daemon.count("oomwarden_psi_triggers", &[])? == count))
    };
    let group = narrow("t/late")?;
    // Whatever is armed is armed in the order of the groups' coming, so the first one's turn is over then.
    let other = Group::new("t/other")?;
    let _other = Work::holding(&other, 1)?;
    armed(1.0)?;
    // A calm one comes first: whoever is in trouble at once may be gone before anybody sees its trigger.
    let mut first = Work::start(&group, "sleep")?;
    armed(2.0)?;
    let mut hog = hog(&group)?;
    hog.must_be_killed()?;
    first.must_be_killed()?;
    let record = daemon.killed(&group)?;
    ensure!(record["trigger"].to_string().contains("psi"), "not noticed by its trigger: {record}");
    armed(1.0)?;
    let _work = Work::holding(&group, 1)?;
    armed(2.0)?;
    daemon.stop()
}

/// Empty groups keep nobody from the places that there are for triggers, also at the start, when all are asked for at once.
pub fn empty_groups_leave_the_triggers_to_others() -> Outcome {
    let t = Group::new("t/e0").map(|_| Group::at("/sys/fs/cgroup/t"))?;
    for at in 1..20 {
        std::fs::create_dir(t.named(format!("e{at}")).directory()).doing("create a group")?;
    }
    // The kernel lists the youngest group first.
    let mut works = Vec::new();
    for name in ["t/e5", "t/e15", "t/young"] {
        works.push(Work::holding(&Group::new(name)?, 1)?);
    }
    let daemon = Setup { options: vec!["--psi-groups=3".to_owned()], ..Setup::default() }.start(THRASH)?;
    wait::until("those with processes have triggers", SOON, || Ok(daemon.count("oomwarden_psi_triggers", &[])? == 3.0))?;
    works.iter_mut().try_for_each(|work| work.must_run("nothing is wrong with it"))?;
    daemon.stop()
}

/// 50 watches for 200 groups: those that can't be watched are read on a timer, a gauge says how many, and the last is noticed.
pub fn fifty_watches_for_200_groups_are_enough() -> Outcome {
    system::set("/proc/sys/fs/inotify/max_user_watches", "50")?;
    let daemon = Daemon::start(THRASH)?;
    let last = many_groups(200)?;
    wait::until("groups are read on a timer", SOON, || Ok(daemon.count("oomwarden_groups", &[("sensing", "timer")])? >= 100.0))?;
    let last = last.high(32 * MIB)?.no_swap()?;
    let mut hog = hog(&last)?;
    hog.must_be_killed()?;
    daemon.killed(&last)?;
    daemon.stop()
}

/// 64 descriptors for 100 groups.
pub fn sixty_four_descriptors_for_100_groups_are_enough() -> Outcome {
    let daemon = Setup { enter: "nofile=64".to_owned(), ..Setup::default() }.start(THRASH)?;
    let last = many_groups(100)?.high(32 * MIB)?.no_swap()?;
    let mut hog = hog(&last)?;
    hog.must_be_killed()?;
    daemon.killed(&last)?;
    ensure!(facts::descriptors(daemon.pid())? <= 64, "more descriptors than the limit");
    daemon.stop()
}

/// So many groups below /t; the last of them.
fn many_groups(count: usize) -> Outcome<Group> {
    let t = Group::new("t/g0").map(|_| Group::at("/sys/fs/cgroup/t"))?;
    let mut last = t.named("g0");
    for at in 1..count {
        last = t.named(format!("g{at}"));
        std::fs::create_dir(last.directory()).map_err(|error| format!("mkdir {at}: {error}"))?;
    }
    Ok(last)
}

/// Spaces, control characters, backslashes, 200 bytes, not UTF-8, braces: all are noticed, killed and recorded. A newline is the
/// one thing (beside the slash) that the kernel itself refuses.
pub fn names_of_any_bytes_are_groups_like_others() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let t = Group::new("t")?;
    let newline = t.child("a\nb").err().unwrap_or_default();
    ensure!(newline.contains("Invalid argument"), "the kernel takes a newline now: {newline:?}; put it into the list");
    let long = "x".repeat(200);
    let names: [(&[u8], &str); 8] = [
        (b"a b", "/t/a b"),
        (b"a\tb\x1b[31m\x7f", "/t/a\\x09b\\x1b[31m\\x7f"),
        (b"a\\x2db.scope", "/t/a\\x2db.scope"),
        (long.as_bytes(), &format!("/t/{long}")),
        (b"\xff\xfe", "/t/\\xff\\xfe"),
        (b"{a,b}[c]*?", "/t/{a,b}[c]*?"),
        (b"\"quoted\"", "/t/\"quoted\""),
        ("größe".as_bytes(), "/t/größe"),
    ];
    for (name, shown) in names {
        let group = t.child(group::bytes(name))?;
        group.set("memory.high", &(32 * MIB).to_string())?;
        group.set("memory.swap.max", "0")?;
        let mut hog = hog(&group)?;
        hog.must_be_killed()?;
        daemon.journalled(&format!("the kill of {shown:?}"), |line| line["outcome"] == "killed" && line["victim"] == shown)?;
    }
    let metrics = daemon.metrics()?;
    ensure!(
        metrics.0.lines().all(|line| line.starts_with('#') || line.contains("oomwarden_") || line.contains("process_")),
        "a name broke the metrics' lines: {}",
        metrics.0
    );
    wait::stays("oomwarden is well", Duration::from_millis(200), || Ok(daemon.kills("thrash")? == 8.0))?;
    daemon.stop()
}
