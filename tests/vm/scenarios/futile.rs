//! Memory that no kill would give back, and levels that are no trouble by themselves.

use std::time::Duration;

use crate::guest::daemon::{Daemon, ask, candidate};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A rule about the node with this trigger, and one that proves that the daemon is at work: who
/// holds more than 100 MiB below /v dies.
fn policy(when: &str) -> String {
    format!(
        "
version: 1
rules:
  - name: low
    watch: /
    when:
      - {when}
    victim:
      among: [/t/*]
      rank: [usage]
  - name: proof
    watch: /v/*
    when:
      - usage: {{above: 100MiB}}
"
    )
}

/// The rule `proof` kills: the daemon has looked at all that it samples.
fn prove(daemon: &Daemon, name: &str) -> Outcome {
    let group = Group::new(name)?;
    let mut hog = Work::start(&group, "hog mib=130 then=hold")?;
    hog.must_be_killed()?;
    daemon.killed(&group).map(drop)
}

/// Four groups of 12 MiB, with somebody in each.
fn four() -> Outcome<Vec<(Group, Work)>> {
    ["t/a", "t/b", "t/c", "t/d"]
        .into_iter()
        .map(|name| {
            let group = Group::new(name)?;
            let work = Work::holding(&group, 12)?;
            Ok((group, work))
        })
        .collect()
}

fn all_live(groups: &mut [(Group, Work)], why: &str) -> Outcome {
    groups.iter_mut().try_for_each(|(_, work)| work.must_run(why))
}

/// A tmpfs fills the node: killing would free a fraction of what is missing, so nobody dies, and
/// the journal says what holds the memory. Once killing can help, it is done.
pub fn tmpfs_that_fills_the_node_costs_no_small_group_its_life() -> Outcome {
    let place = system::tmpfs("filler", 200)?;
    let elsewhere = Group::new("u/filler")?;
    let mut filler = Work::start(&elsewhere, &format!("tmpfs mib=150 at={}", place.display()))?;
    wait::until("the tmpfs is full", SOON, || Ok(elsewhere.key("memory.stat", "shmem")? >= 150 * MIB))?;
    let mut groups = four()?;
    let available = facts::meminfo_mib("MemAvailable")?;
    let policy = policy(&format!("available: {{below: {}MiB}}", available + 80));
    let daemon = Daemon::start(&policy)?;
    let line = daemon.journalled("a judgement that kills nobody", |line| line["outcome"] == "no_victim")?;
    for (group, _) in &groups {
        ensure!(candidate(&line, group)?["strike"] == "in_vain", "{group} is not spared for that reason: {line}");
    }
    let number = |key: &str| line["evidence"][key].as_u64().unwrap_or(0);
    ensure!(number("node_shmem_bytes") >= 150 * MIB, "the journal does not say what holds the memory: {line}");
    let (missing, could_free) = (number("missing_bytes"), number("could_free_bytes"));
    ensure!(missing > 70 * MIB && (48 * MIB..70 * MIB).contains(&could_free), "the numbers are wrong: {line}");
    let plan = ask(&["plan", "--policy", &daemon.policy_file().to_string_lossy()])?;
    ensure!(plan.contains("would kill nobody: that would be in vain"), "plan says otherwise: {plan}");
    ensure!(daemon.said().contains("are tmpfs and shared memory"), "the log does not say it: {}", daemon.said());
    all_live(&mut groups, "their death would not have helped")?;
    // Once the tmpfs shrinks so far that they can help together, one after the other dies until the
    // level is lifted.
    let file = std::fs::File::options().write(true).open(place.join("filler")).doing("open the file on the tmpfs")?;
    file.set_len(90 * MIB).doing("shorten the file on the tmpfs")?;
    wait::until("one of them dies", SOON, || {
        Ok(groups.iter_mut().map(|(_, work)| work.running()).collect::<Outcome<Vec<_>>>()?.contains(&false))
    })?;
    filler.must_run("it is nobody's candidate")?;
    ensure!(daemon.kills("low")? >= 1.0, "more than one kill: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// A process fills its group and is moved away: what it filled stays charged to the group that it
/// left. The innocent live, and the journal names that group, although the rule does not.
pub fn group_that_was_left_by_its_processes_is_named_and_its_neighbours_live() -> Outcome {
    let left = Group::new("u/left")?;
    let mut mover = Work::holding(&left, 120)?;
    let there = Group::new("u/there")?;
    there.set("cgroup.procs", &mover.pid().to_string()).doing("move the process")?;
    left.wait_empty()?;
    ensure!(left.usage()? > 110 * MIB && there.usage()? < 20 * MIB, "charges moved with the process");
    let mut groups = four()?;
    let available = facts::meminfo_mib("MemAvailable")?;
    let daemon = Daemon::start(&policy(&format!("available: {{below: {}MiB}}", available + 90)))?;
    let line = daemon.journalled("a judgement that kills nobody", |line| line["outcome"] == "no_victim")?;
    let named = &line["evidence"]["held_without_process"][0];
    ensure!(named["group"] == "/u/left", "the group is not named: {line}");
    ensure!(named["current_bytes"].as_u64().is_some_and(|bytes| bytes > 110 * MIB), "with too little: {line}");
    ensure!(daemon.said().contains("/u/left holds"), "the log does not say it: {}", daemon.said());
    prove(&daemon, "v/proof")?;
    all_live(&mut groups, "they hold next to nothing of what is missing")?;
    mover.must_run("it is nobody's candidate")?;
    ensure!(daemon.kills("low")? == 0.0, "somebody was killed: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// A limit that is full of tmpfs is not lifted by killing who lives there.
pub fn limit_that_is_full_of_tmpfs_kills_nobody() -> Outcome {
    let place = system::tmpfs("filler", 100)?;
    let group = Group::new("t/a")?.max(64 * MIB)?.no_swap()?;
    let mut filler = Work::start(&group, &format!("tmpfs mib=58 at={}", place.display()))?;
    wait::until("the tmpfs is full", SOON, || Ok(group.key("memory.stat", "shmem")? >= 58 * MIB))?;
    let policy = "version: 1\nrules:\n  - {name: full, watch: /t/*, when: [usage: {above: 85%, of: max}]}\n";
    let daemon = Daemon::start(policy)?;
    let line = daemon.journalled("a judgement that kills nobody", |line| line["outcome"] == "no_victim")?;
    ensure!(line["evidence"]["subject_shmem_bytes"].as_u64().is_some_and(|bytes| bytes >= 58 * MIB), "what holds it is not said: {line}");
    filler.must_run("its death would free nothing")?;
    daemon.stop()
}

/// A healthy group that works on file cache up to its limit lives; one that fills the same limit
/// with anonymous memory dies.
pub fn hot_file_cache_at_a_limit_is_no_usage_and_anonymous_memory_is() -> Outcome {
    let policy = "version: 1\nrules:\n  - {name: full, watch: /t/*, when: [usage: {above: 85%, of: max}]}\n";
    let cached = Group::new("t/cached")?.max(64 * MIB)?.no_swap()?;
    let mut reader = Work::start(&cached, "mapped-file mib=58")?;
    wait::until("the cache is hot", SOON, || Ok(cached.key("memory.stat", "active_file")? > 46 * MIB))?;
    ensure!(cached.usage()? > 55 * MIB, "the group is not full: {} MiB", cached.usage()? / MIB);
    let daemon = Daemon::start(policy)?;
    let full = Group::new("t/full")?.max(64 * MIB)?.no_swap()?;
    let mut holder = Work::start(&full, "hog mib=58 then=hold")?;
    holder.must_be_killed()?;
    let line = daemon.killed(&full)?;
    ensure!(line["evidence"]["subject_charged_bytes"].as_u64().is_some_and(|bytes| bytes > 54 * MIB), "for another reason: {line}");
    // Several looks at the other one.
    wait::stays("the reader lives", Duration::from_secs(3), || reader.running())?;
    ensure!(cached.usage()? > 55 * MIB, "the group is not full any more");
    ensure!(daemon.kills("full")? == 1.0, "more than one kill: {:?}", daemon.judgements("killed")?);
    daemon.stop()
}

/// No swap: `swap_free` in `when` starts nothing, whatever it asks for.
pub fn node_without_swap_is_not_short_of_swap() -> Outcome {
    for (at, level) in ["10%", "64MiB", "{share: 50%, at_most: 1GiB}"].into_iter().enumerate() {
        let mut groups = four()?;
        let daemon = Daemon::start(&policy(&format!("swap_free: {{below: {level}}}")))?;
        prove(&daemon, &format!("v/proof{at}"))?;
        all_live(&mut groups, "no swap is no shortage")?;
        let judgements = daemon.judgements("no_victim")?.len() as f64 + daemon.kills("low")?;
        ensure!(judgements == 0.0, "below {level}: it was judged: {}", daemon.journal_text());
        daemon.stop()?;
    }
    Ok(())
}

/// Swap that is switched off at run time is no trouble; nor is an amount that is larger than all
/// swap.
pub fn swap_that_is_switched_off_is_no_trouble() -> Outcome {
    system::zram_swap(128)?;
    let mut groups = four()?;
    let daemon = Daemon::start(&policy("swap_free: {below: 50%}\n      - swap_free: {below: 512MiB}"))?;
    prove(&daemon, "v/with-swap")?;
    system::busybox(&["swapoff", "/dev/zram0"])?;
    ensure!(facts::meminfo_mib("SwapTotal")? == 0, "there is swap left");
    prove(&daemon, "v/without-swap")?;
    all_live(&mut groups, "no swap is no shortage")?;
    ensure!(daemon.kills("low")? == 0.0, "somebody was killed: {:?}", daemon.judgements("killed")?);
    ensure!(daemon.judgements("no_victim")?.is_empty(), "it was judged: {}", daemon.journal_text());
    daemon.stop()
}
