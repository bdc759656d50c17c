//! The whole node runs low, and no limit of any group says so.

use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::guest::daemon::{Daemon, candidate, rung};
use crate::guest::facts;
use crate::guest::group::{Group, MIB};
use crate::guest::system;
use crate::guest::wait;
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

fn node_low(when: &str) -> String {
    format!(
        "
version: 1
rules:
  - name: node-low
    watch: /
    when:
      - {when}
    cooldown: 1m
    victim:
      among: [/t/*]
      at_least: 8MiB
      rank: [usage]
"
    )
}

/// No limit, no swap: the largest group goes before the kernel has to do anything.
pub fn node_without_limits_or_swap_is_relieved_before_the_kernel_kills() -> Outcome {
    let kernel_kills = facts::vmstat("oom_kill")?;
    let daemon = Daemon::start(&node_low("available: {below: 96MiB}"))?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    let mut modest = Work::holding(&b, 40)?;
    let mut greedy = Work::start(&a, "hog mib=1000 rate=60 term=ignore")?;
    greedy.must_be_killed()?;
    daemon.killed(&a)?;
    ensure!(facts::vmstat("oom_kill")? == kernel_kills, "the kernel had to kill");
    wait::stays("the modest group lives", Duration::from_millis(500), || modest.running())?;
    daemon.stop()
}

/// As fast as memory can be written, to the end: whoever is faster, the greedy group is gone and the modest one lives.
pub fn node_filled_at_full_speed_loses_the_greedy_group_only() -> Outcome {
    let daemon = Daemon::start(&node_low("available: {below: 128MiB}"))?;
    let (a, b) = (Group::new("t/a")?, Group::new("t/b")?);
    let mut modest = Work::holding(&b, 40)?;
    let mut greedy = Work::start(&a, "hog mib=1000 term=ignore")?;
    greedy.must_be_killed()?;
    a.wait_empty()?;
    wait::stays("the modest group lives", Duration::from_millis(500), || modest.running())?;
    daemon.stop()
}

/// The group whose memory sits in zram is the one that dies, small as its memory.current is.
pub fn group_whose_memory_sits_in_zram_dies() -> Outcome {
    system::zram_swap(256)?;
    let (z, y) = (Group::new("t/z")?, Group::new("t/y")?);
    let mut swapped = Work::holding(&z, 140)?;
    // Some of it may refuse to go: what counts is what the kernel says afterwards.
    drop(z.set("memory.reclaim", "120M"));
    let (current, swap) = (z.usage()?, z.number("memory.swap.current")?);
    ensure!(swap > 90 * MIB && current < 60 * MIB, "reclaim moved too little: {} MiB here, {} MiB in swap", current / MIB, swap / MIB);
    let mut resident = Work::holding(&y, 70)?;
    let daemon = Daemon::start(&node_low("swap_free: {below: 200MiB}"))?;
    swapped.must_be_killed()?;
    let line = daemon.killed(&z)?;
    let usage = candidate(&line, &z)?["usage_bytes"].as_u64();
    ensure!(usage.is_some_and(|usage| usage > 110 * MIB), "usage leaves swap out: {line}");
    ensure!(line["freed_bytes"].as_u64().is_some_and(|freed| freed > 100 * MIB), "freed_bytes leaves swap out: {line}");
    wait::stays("the resident group lives", Duration::from_millis(500), || resident.running())?;
    daemon.stop()
}

/// Under a shortage of the node SIGKILL comes first, then the release of the memory, then
/// cgroup.kill. What the record calls the kill is the first of these, so nobody dies before it.
pub fn kill_is_its_first_sigkill() -> Outcome {
    let a = Group::new("t/a")?;
    // The small one is gone at once; releasing what the large one holds takes its time.
    let small = Work::start(&a, "sleep")?;
    let mut large = Work::holding(&a, 240)?;
    let pid = Pid::from_raw(small.pid().cast_signed()).ok_or("no pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).doing("open a pidfd")?;
    let death = std::thread::spawn(move || poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).map(|_| SystemTime::now()));
    let daemon = Daemon::start(&node_low("available: {below: 256MiB}"))?;
    large.must_be_killed()?;
    let died = death.join().map_err(|_| "the observer panicked")?.doing("wait for the small one")?;
    let line = daemon.killed(&a)?;
    let (kill, verify) = rung(&line, "kill").zip(rung(&line, "verify")).ok_or_else(|| format!("a rung is missing: {line}"))?;
    let at = line["latency_us"]["kill"].as_u64().ok_or_else(|| format!("no time of the kill: {line}"))?;
    let noticed: jiff::Timestamp = line["time"].as_str().unwrap_or_default().parse().doing("understand the time")?;
    let killed = SystemTime::from(noticed) + Duration::from_micros(at);
    // A microsecond for the record's, and one for the clock's.
    ensure!(killed <= died + Duration::from_micros(2), "killed {:?} after its first victim had died: {line}", killed.duration_since(died));
    ensure!(kill["sent_us"] == at && verify["at_us"] == at, "the rungs tell another moment: {line}");
    ensure!(line["processes_killed"] == 2 && line["processes_ended"] == 0, "{line}");
    daemon.stop()
}
