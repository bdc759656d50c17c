//! `kill: process`: which single process of the victim.

use std::cmp::Reverse;

/// One process of the victim's subtree. `None` is "could not be read", as a rule because it has exited meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessFact {
    /// As seen from here. 0 is a process of another pid namespace.
    pub pid: i32,
    /// /proc/PID/oom_score.
    pub oom_score: Option<u32>,
    /// What it holds in memory and in swap, bytes.
    pub held_bytes: Option<u64>,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: Option<i16>,
}

/// The value of oom_score_adj that forbids the kernel, and us, to kill a process.
pub const NEVER: i16 = -1000;

/// From here downwards a process has been shielded by whoever runs it: the kubelet gives -997 to
/// Guaranteed pods, and node agents and container runtimes give themselves -999. A group that holds
/// one dies after all others of its importance.
pub const SHIELDED: i16 = -900;

/// The process to be killed, as an index into `processes`: the highest oom_score, then the most memory and swap, then the
/// highest pid. Never process 1, never one that isn't visible from here (pid 0 would mean our own process group), never one at
/// oom_score_adj -1000 or one whose oom_score_adj could not be read.
#[must_use]
pub fn pick(processes: &[ProcessFact]) -> Option<usize> {
    let killable = |process: &ProcessFact| process.pid > 1 && process.oom_score_adj.is_some_and(|adj| adj > NEVER);
    let candidates = processes.iter().enumerate().filter(|(_, process)| killable(process));
    candidates.min_by_key(|(_, process)| Reverse((process.oom_score, process.held_bytes, process.pid))).map(|(at, _)| at)
}
