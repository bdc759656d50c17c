//! Kills by the kernel itself are on record, each with its own group and process: by log and counters together, by counters alone
//! where there is no right to the log, and whatever names say.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use super::MEASURED;
use super::common::Family;
use super::lms_common::leave_available;
use crate::guest::daemon::{Daemon, Setup};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::system;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// A rule that none of these groups is under.
const NOBODY: &str = "
version: 1
rules:
  - name: nobody
    watch: /nobody/*
    when:
      - event: oom_kill
";

const TOTAL: &str = "oomwarden_kernel_oom_kills_total";

/// A daemon that has nothing to do but to watch the kernel, and how much that had killed before.
struct Watch {
    daemon: Daemon,
    before: u64,
}

impl Watch {
    fn start(setup: Setup) -> Outcome<Watch> {
        let watch = Watch { before: facts::vmstat("oom_kill")?, daemon: setup.start(NOBODY)? };
        let metrics = watch.daemon.metrics()?;
        for scope in ["memcg", "global"] {
            ensure!(metrics.sample(TOTAL, &[("scope", scope)]) == Some(0.0), "{scope} does not begin at 0");
        }
        Ok(watch)
    }

    /// How many the kernel killed since, by its own count.
    fn kills(&self) -> Outcome<u64> {
        Ok(facts::vmstat("oom_kill")? - self.before)
    }

    fn lines(&self) -> Outcome<Vec<Value>> {
        Ok(self.daemon.journal()?.into_iter().filter(|line| line["kind"] == "kernel_oom").collect())
    }

    /// Waits until journal and metrics have what the kernel counted, no less and no more, and gives the journal's lines.
    fn all_on_record(&self, memcg: u64, global: u64) -> Outcome<Vec<Value>> {
        let on_record = || -> Outcome<(u64, u64, u64)> {
            let metrics = self.daemon.metrics()?;
            let counted = |scope| metrics.sample(TOTAL, &[("scope", scope)]).unwrap_or(0.0) as u64;
            let journalled: u64 = self.lines()?.iter().filter_map(|line| line["processes_killed"].as_u64()).sum();
            Ok((counted("memcg"), counted("global"), journalled))
        };
        let wanted = (memcg, global, memcg + global);
        wait::until(&format!("{wanted:?} kills are on record"), SOON, || Ok(on_record()? == wanted))
            .map_err(|why| format!("{why}: {:?}, the kernel counts {:?}", on_record(), self.kills()))?;
        ensure!(self.kills()? == memcg + global, "the kernel counts {} kills", self.kills()?);
        self.lines()
    }

    fn stop(self) -> Outcome {
        self.daemon.stop()
    }
}

/// A group that a hog is too large for.
fn small(path: &str) -> Outcome<Group> {
    Group::new(path)?.max(24 * MIB)?.no_swap()
}

/// A limit's kill of one process, the group's limit above it, and the numbers of the process.
pub fn one_process_at_its_groups_limit() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let above = small("k/limited")?;
    let group = above.child("of it")?;
    let mut hog = Work::start(&group, "hog mib=64 comm=hungry adj=7")?;
    let pid = hog.pid();
    hog.must_be_killed()?;
    let lines = watch.all_on_record(1, 0)?;
    let [line] = &lines[..] else { return Err(format!("{lines:?}")) };
    for (key, expected) in [
        ("v", Value::from(1)),
        ("scope", "memcg".into()),
        ("constraint", "memcg".into()),
        ("oom_memcg", above.path().into()),
        ("group", group.path().into()),
        ("pid", pid.into()),
        ("comm", "hungry".into()),
        ("uid", 0.into()),
        ("oom_score_adj", 7.into()),
        ("whole_group", false.into()),
        ("killed_group", Value::Null),
        ("confirmed", true.into()),
        ("evidence", serde_json::json!({"source": "log"})),
    ] {
        ensure!(line[key] == expected, "{key} is not {expected}: {line}");
    }
    ensure!(line["anon_rss_bytes"].as_u64().is_some_and(|bytes| bytes > 8 * MIB && bytes < 64 * MIB), "odd sizes: {line}");
    ensure!(watch.daemon.said().contains("the kernel killed process"), "the log does not tell: {}", watch.daemon.said());
    watch.stop()
}

/// A user that the kernel's log shows as a negative number, as directory services give them out.
pub fn user_from_2_31_on() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let group = small("k/far")?;
    for (kills, uid) in [(1, 1_u32 << 31), (2, u32::MAX - 1)] {
        let mut hog = Work::start(&group, &format!("hog mib=64 uid={uid}"))?;
        let pid = hog.pid();
        hog.must_be_killed()?;
        let lines = watch.all_on_record(kills, 0)?;
        let line = lines.last().ok_or("no line")?;
        ensure!(line["uid"] == uid && line["pid"] == pid && line["evidence"]["source"] == "log", "{line}");
        ensure!(line["constraint"] == "memcg" && line["oom_memcg"] == "/k/far" && line["group"] == "/k/far", "{line}");
        group.wait_empty()?;
    }
    watch.stop()
}

/// Its main thread has exited: the kernel's log names the process first and then a thread. The
/// record is the process's, by a limit and by the machine's shortage.
pub fn process_without_its_main_thread() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let group = small("k/headless")?;
    let mut work = Work::start(&group, "headless mib=8 grow=64 comm=main-is-gone uid=2147483649")?;
    let pid = work.pid();
    work.must_be_killed()?;
    let lines = watch.all_on_record(1, 0)?;
    let [line] = &lines[..] else { return Err(format!("{lines:?}")) };
    ensure!(line["pid"] == pid && line["comm"] == "main-is-gone" && line["uid"] == 2_147_483_649_u32, "{line}");
    ensure!(line["thread"].as_u64().is_some_and(|thread| thread != u64::from(pid)), "the kernel named no thread: {line}");
    ensure!(line["constraint"] == "memcg" && line["oom_memcg"] == "/k/headless" && line["group"] == "/k/headless", "{line}");
    ensure!(line["confirmed"] == true && line["evidence"]["source"] == "log", "{line}");
    let _ballast = leave_available(85)?;
    let greedy = Group::new("k/greedy")?;
    let mut work = Work::start(&greedy, "headless mib=8 grow=1000 comm=greedy")?;
    let pid = work.pid();
    work.must_be_killed()?;
    let lines = watch.all_on_record(1, 1)?;
    let line = lines.last().ok_or("no line")?;
    ensure!(line["scope"] == "global" && line["constraint"] == "none" && line["group"] == "/k/greedy", "{line}");
    ensure!(line["pid"] == pid && line["comm"] == "greedy" && line["thread"].is_u64(), "{line}");
    watch.stop()
}

/// memory.oom.group: one line with everybody.
pub fn whole_group_by_memory_oom_group() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let group = small("k/whole")?;
    group.set("memory.oom.group", "1")?;
    let family = Family::start(&group)?;
    family.grow()?;
    group.wait_empty()?;
    let lines = watch.all_on_record(watch.kills()?, 0)?;
    let [line] = &lines[..] else { return Err(format!("one kill, one line: {lines:?}")) };
    ensure!(line["whole_group"] == true && line["killed_group"] == "/k/whole" && line["group"] == "/k/whole", "{line}");
    // Five processes; the kernel kills, and counts, the one that it chose a second time with its group.
    ensure!(line["processes_killed"].as_u64().is_some_and(|processes| (5..=6).contains(&processes)), "{line}");
    ensure!(line["confirmed"] == true && line["scope"] == "memcg", "{line}");
    watch.stop()
}

/// The machine's own shortage, in a group without a limit.
pub fn machine_out_of_memory() -> Outcome {
    let _ballast = leave_available(85)?;
    let watch = Watch::start(Setup::default())?;
    let group = Group::new("k/greedy")?;
    let mut hog = Work::start(&group, "hog mib=1000 comm=greedy")?;
    let pid = hog.pid();
    hog.must_be_killed()?;
    let lines = watch.all_on_record(0, 1)?;
    let [line] = &lines[..] else { return Err(format!("{lines:?}")) };
    ensure!(line["scope"] == "global" && line["constraint"] == "none" && line["oom_memcg"] == Value::Null, "{line}");
    ensure!(line["group"] == "/k/greedy" && line["pid"] == pid && line["comm"] == "greedy" && line["confirmed"] == true, "{line}");
    watch.stop()
}

/// Names of processes and groups that read like what the kernel writes.
pub fn forged_names_fool_nobody() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let spared = small("k/f")?;
    let names: [(&str, &[&str]); 4] = [
        ("x,pid=1,uid=0", &["plain"]),
        (",task_memcg=/k", &["plain"]),
        ("hog", &["a,task=b,pid=1,uid=0"]),
        ("a,task=b", &["a,task_memcg=", "k", "f"]),
    ];
    let mut kills = 0;
    for (comm, path) in names {
        let mut group = spared.clone();
        for name in path {
            let below = group.named(name);
            group = if below.directory().exists() { below } else { group.child(name)? };
        }
        let mut hog = Work::start(&group, &format!("hog mib=64 comm={comm}"))?;
        let pid = hog.pid();
        hog.must_be_killed()?;
        kills += 1;
        let lines = watch.all_on_record(kills, 0)?;
        let line = lines.last().ok_or("no line")?;
        ensure!(line["pid"] == pid && line["comm"] == comm && line["uid"] == 0, "not the process {pid} ({comm}): {line}");
        ensure!(line["group"] == group.path().as_str() && line["oom_memcg"] == "/k/f", "not of {}: {line}", group.path());
        ensure!(line["confirmed"] == true && line["evidence"]["source"] == "log", "{line}");
        // What it had mapped is given back before the next one wants it.
        group.wait_empty()?;
    }
    watch.stop()
}

/// Whoever may write to the kernel's log can tell of kills that never were.
pub fn line_that_a_program_wrote_is_no_kill() -> Outcome {
    let watch = Watch::start(Setup::default())?;
    let tail = "total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB, UID:0 pgtables:1kB oom_score_adj:0";
    for text in [
        "<6>oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/k,task=x,pid=1,uid=0",
        &format!("<3>Out of memory: Killed process 1 (x) {tail}"),
        &format!("<0>Memory cgroup out of memory: Killed process 1 (x) {tail}"),
        "<6>Tasks in /k are going to be killed due to memory.oom.group set",
    ] {
        fs::write("/dev/kmsg", text).doing("write to the kernel's log")?;
    }
    let group = small("k/true")?;
    let mut hog = Work::start(&group, "hog mib=64")?;
    hog.must_be_killed()?;
    let lines = watch.all_on_record(1, 0)?;
    ensure!(lines.len() == 1 && lines[0]["group"] == "/k/true" && lines[0]["pid"] == hog.pid(), "{lines:?}");
    watch.stop()
}

/// Two hundred kills as fast as they go, most of them without a summary in the log.
pub fn storm_of_200_kills_is_counted_exactly() -> Outcome {
    const GROUPS: u64 = 4;
    const EACH: u64 = 50;
    let watch = Watch::start(Setup::default())?;
    let groups: Vec<Group> = (0..GROUPS).map(|at| Group::new(&format!("k/storm{at}"))?.max(6 * MIB)?.no_swap()).collect::<Outcome<_>>()?;
    let began = Instant::now();
    let start = |group| Work::start(group, &format!("victims of={EACH} mib=64"));
    let _works: Vec<Work> = groups.iter().map(start).collect::<Outcome<_>>()?;
    wait::until("200 were killed", 4 * SOON, || Ok(watch.kills()? >= GROUPS * EACH))?;
    let took = began.elapsed();
    let lines = watch.all_on_record(GROUPS * EACH, 0)?;
    let (mut named, mut by_log) = (0, 0);
    for group in &groups {
        let here = lines.iter().filter(|line| line["group"] == group.path().as_str());
        let here: u64 = here.filter_map(|line| line["processes_killed"].as_u64()).sum();
        ensure!(here <= group.event("oom_kill")?, "{group} is charged with {here} kills, it had {}", group.event("oom_kill")?);
        named += here;
    }
    for line in &lines {
        by_log += u64::from(line["evidence"]["source"] == "log");
        ensure!(line["confirmed"] == true && line["scope"] == "memcg", "{line}");
    }
    ensure!(named > 0, "not one of them has a group: {lines:?}");
    println!(
        "{MEASURED}kernel kills in a storm: {} in {:.1} s, {by_log} by the log, {named} with their group",
        GROUPS * EACH,
        took.as_secs_f64()
    );
    ensure!(watch.daemon.count("oomwarden_journal_dropped_total", &[])? == 0.0, "lines were lost");
    watch.stop()
}

/// No CAP_SYSLOG where the log is not for everybody: counted, with the group, and it is said once.
pub fn without_the_right_to_the_log_counters_tell() -> Outcome {
    system::set("/proc/sys/kernel/dmesg_restrict", "1")?;
    let watch = Watch::start(Setup { enter: "without=syslog".to_owned(), ..Setup::default() })?;
    let group = small("k/unseen")?;
    let mut hog = Work::start(&group, "hog mib=64")?;
    hog.must_be_killed()?;
    let lines = watch.all_on_record(1, 0)?;
    ensure!(lines.len() == 1 && lines[0]["group"] == "/k/unseen" && lines[0]["evidence"]["source"] == "counters", "{lines:?}");
    ensure!(lines[0]["pid"] == Value::Null && lines[0]["scope"] == "memcg" && lines[0]["whole_group"] == false, "{lines:?}");
    let whole = small("k/whole")?;
    whole.set("memory.oom.group", "1")?;
    let family = Family::start(&whole)?;
    family.grow()?;
    whole.wait_empty()?;
    let memcg = watch.kills()?;
    let lines = watch.all_on_record(memcg, 0)?;
    let of_it: Vec<&Value> = lines.iter().filter(|line| line["group"] == "/k/whole").collect();
    ensure!(of_it.iter().any(|line| line["whole_group"] == true), "{lines:?}");
    let _ballast = leave_available(85)?;
    let greedy = Group::new("g/greedy")?;
    let mut hog = Work::start(&greedy, "hog mib=1000")?;
    hog.must_be_killed()?;
    let lines = watch.all_on_record(memcg, 1)?;
    let last = lines.last().ok_or("no line")?;
    ensure!(last["scope"] == "global" && last["group"] == "/g/greedy", "{last}");
    let said = watch.daemon.said();
    ensure!(said.matches("the kernel's log can't be read").count() == 1, "not said, or not once: {said}");
    watch.stop()
}

/// Where /dev/kmsg is out of reach but syslog(2) is not, as in a container.
pub fn syslog_serves_where_kmsg_does_not() -> Outcome {
    const KMSG: &str = "/dev/kmsg";
    const AWAY: &str = "/dev/kmsg.away";
    fs::rename(KMSG, AWAY).doing("take the device away")?;
    let watch = Watch::start(Setup::default());
    fs::rename(AWAY, KMSG).doing("put the device back")?;
    let watch = watch?;
    for (kills, name) in [(1, "k/one"), (2, "k/two")] {
        let group = small(name)?;
        let mut hog = Work::start(&group, "hog mib=64 comm=hungry")?;
        let pid = hog.pid();
        hog.must_be_killed()?;
        let lines = watch.all_on_record(kills, 0)?;
        let line = lines.last().ok_or("no line")?;
        ensure!(line["group"] == group.path().as_str() && line["pid"] == pid && line["comm"] == "hungry", "{line}");
        ensure!(line["evidence"]["source"] == "log" && line["confirmed"] == true, "{line}");
    }
    watch.stop()
}
