//! What the kernel says of the whole node and of one process.

use std::path::Path;

use super::group::MIB;
use crate::outcome::{Doing, Outcome};

/// A counter of /proc/vmstat; `oom_kill` counts processes killed by any kernel OOM killer since boot.
pub fn vmstat(key: &str) -> Outcome<u64> {
    keyed("/proc/vmstat", key)
}

/// A line of /proc/meminfo, in MiB.
pub fn meminfo_mib(key: &str) -> Outcome<u64> {
    Ok(meminfo_kib(key)? * 1024 / MIB)
}

/// The same in KiB.
pub fn meminfo_kib(key: &str) -> Outcome<u64> {
    keyed("/proc/meminfo", &format!("{key}:"))
}

/// Wake-ups and processor time of a process, all threads together.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Context switches, voluntary and not.
    pub switches: u64,
    /// User and system time in clock ticks.
    pub ticks: u64,
}

impl Effort {
    /// Up to now.
    pub fn of(pid: u32) -> Outcome<Effort> {
        let mut switches = 0;
        let threads = format!("/proc/{pid}/task");
        for thread in std::fs::read_dir(&threads).doing(format_args!("list {threads}"))? {
            let status = thread.doing(format_args!("list {threads}"))?.path().join("status");
            switches += keyed(&status, "voluntary_ctxt_switches:")? + keyed(&status, "nonvoluntary_ctxt_switches:")?;
        }
        let stat = format!("/proc/{pid}/stat");
        let text = std::fs::read_to_string(&stat).doing(format_args!("read {stat}"))?;
        // The name may hold anything, parentheses too: fields are counted from the last one.
        let fields: Vec<&str> = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let field =
            |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).ok_or_else(|| format!("{stat} has no field {at}"));
        Ok(Effort { switches, ticks: field(11)? + field(12)? })
    }

    /// What was added since.
    pub fn since(self, before: Effort) -> Effort {
        Effort { switches: self.switches - before.switches, ticks: self.ticks - before.ticks }
    }
}

/// Whether a process, or a kernel thread, waits for something.
pub fn is_asleep(pid: u32) -> Outcome<bool> {
    let status = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&status).doing(format_args!("read {status}"))?;
    Ok(text.lines().any(|line| line.strip_prefix("State:\t").is_some_and(|state| state.starts_with(['S', 'I']))))
}

/// The pid of a kernel thread.
pub fn kernel_thread(name: &str) -> Outcome<u32> {
    let pids = std::fs::read_dir("/proc").doing("list /proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_it = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("Name:\t{name}")) && status.lines().any(|line| line == "PPid:\t2")
    };
    pids.into_iter().find(is_it).ok_or_else(|| format!("there is no kernel thread {name}"))
}

/// What of a process's memory is in huge pages, of which one byte takes two MiB.
pub fn huge_kib(pid: u32) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).doing("read smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("AnonHugePages:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).ok_or_else(|| format!("no huge pages in {text:?}"))
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> Outcome<u64> {
    keyed(format!("/proc/{pid}/status"), "VmRSS:")
}

/// How many descriptors a process has open.
pub fn descriptors(pid: u32) -> Outcome<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(std::fs::read_dir(&path).doing(format_args!("list {path}"))?.count())
}

/// How many inotify watches a process holds.
pub fn watches(pid: u32) -> Outcome<usize> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut watches = 0;
    for entry in std::fs::read_dir(&directory).doing(format_args!("list {directory}"))?.filter_map(Result::ok) {
        // A descriptor may be closed while we look.
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        watches += text.lines().filter(|line| line.starts_with("inotify wd:")).count();
    }
    Ok(watches)
}

fn keyed(path: impl AsRef<Path>, key: &str) -> Outcome<u64> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).doing(format_args!("read {}", path.display()))?;
    text.lines()
        .find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == key).then(|| words.next()?.parse().ok()).flatten()
        })
        .ok_or_else(|| format!("{} has no {key}", path.display()))
}
