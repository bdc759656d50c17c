//! The numbers of a group that is there, and the processes for whose sake it must live.

use std::fs;

use serde::Serialize;

use super::super::onlooker::Onlooker;
use crate::cgroup::Limit;
use crate::cgroup::group::{File, Group, ReadBuf};
use crate::cgroup::parse::{self, ParseError};
use crate::cgroup::path::Escaped;
use crate::policy::model::{EntrySet, Policy};
use crate::sense::process::{MAX_PROCESSES, is_dead};
use crate::sense::tree::{Slot, Tree};

/// What a group holds and may hold, bytes. What could not be read is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Numbers {
    /// What its death frees: anonymous memory and swap.
    pub usage_bytes: Option<u64>,
    /// What counts against limits and can't be reclaimed: memory.current less clean file cache and
    /// reclaimable slab.
    pub charged_bytes: Option<u64>,
    /// memory.current.
    pub current_bytes: Option<u64>,
    /// memory.stat `anon`.
    pub anon_bytes: Option<u64>,
    /// memory.swap.current.
    pub swap_bytes: Option<u64>,
    /// memory.max: its own, and the smallest along its ancestors.
    pub max: Limits,
    /// memory.high, likewise.
    pub high: Limits,
    /// memory.low.
    pub low_bytes: Option<u64>,
    /// memory.oom.group.
    pub oom_group: Option<bool>,
    /// cgroup.events `populated`.
    pub populated: Option<bool>,
    /// A threaded group, which is no subject and no candidate.
    pub threaded: bool,
    /// It has the memory controller.
    pub has_memory: bool,
    /// Groups below it.
    pub groups_below: u64,
    /// Processes in it and below it; `None`: some of them are hidden, or a list could not be read.
    pub processes: Option<usize>,
}

/// One limit and those above it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The group's own; `None`: none is set, or it has no such file.
    pub own_bytes: Option<u64>,
    /// The smallest of its own and its ancestors'; `None`: none is set.
    pub smallest_bytes: Option<u64>,
    /// Whose that is.
    pub smallest_of: Option<String>,
}

/// A process for whose sake a group must live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// The group that it is in.
    pub group: String,
    /// Its id; `None`: it is hidden, in another pid namespace.
    pub pid: Option<i32>,
    /// Its name.
    pub comm: String,
    /// Why.
    pub reason: String,
    /// The explained group is spared as such, and not only as something that contains another: the process is in it, or above it.
    pub spares_group: bool,
}

/// A comm as text.
pub fn comm_text(comm: &[u8]) -> String {
    Escaped(comm).to_string()
}

/// Reads a group's numbers.
pub fn of(onlooker: &mut Onlooker, slot: Slot) -> Option<Numbers> {
    let Onlooker { tree, buffer, .. } = onlooker;
    let node = tree.get(slot)?;
    let group = &node.group;
    let stat = read(group, File::Stat, buffer, parse::stat);
    let current_bytes = read(group, File::Current, buffer, parse::value);
    let anon_bytes = stat.and_then(|stat| stat.anon);
    // A kernel without swap accounting has no such file.
    let swap_bytes = group.read(File::SwapCurrent, buffer, parse::value).ok().map(|swap| swap.unwrap_or(0));
    Some(Numbers {
        usage_bytes: anon_bytes.zip(swap_bytes).map(|(anon, swap)| anon.saturating_add(swap)),
        charged_bytes: current_bytes.zip(stat.and_then(|stat| stat.reclaimable())).map(|(current, back)| current.saturating_sub(back)),
        current_bytes,
        anon_bytes,
        swap_bytes,
        max: limits(tree, slot, File::Max, buffer),
        high: limits(tree, slot, File::High, buffer),
        low_bytes: read(group, File::Low, buffer, parse::limit).and_then(Limit::bytes),
        oom_group: read(group, File::OomGroup, buffer, parse::flag),
        populated: if slot == Tree::ROOT { Some(true) } else { read(group, File::GroupEvents, buffer, parse::populated).flatten() },
        threaded: node.threaded,
        has_memory: node.has_memory,
        groups_below: tree.count_below(slot),
        processes: count(tree, slot, buffer),
    })
}

fn read<T>(group: &Group, file: File, buffer: &mut ReadBuf, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Option<T> {
    group.read(file, buffer, parse).ok().flatten()
}

fn limits(tree: &Tree, slot: Slot, file: File, buffer: &mut ReadBuf) -> Limits {
    let mut limits = Limits::default();
    let mut at = Some(slot);
    while let Some(node) = at.and_then(|slot| tree.get(slot)) {
        if let Some(bytes) = read(&node.group, file, buffer, parse::limit).and_then(Limit::bytes) {
            if at == Some(slot) {
                limits.own_bytes = Some(bytes);
            }
            if limits.smallest_bytes.is_none_or(|smallest| bytes < smallest) {
                (limits.smallest_bytes, limits.smallest_of) = (Some(bytes), Some(node.group.path.to_string()));
            }
        }
        at = node.parent;
    }
    limits
}

/// The slots of a group and of everything below it.
fn subtree(tree: &Tree, top: Slot) -> impl Iterator<Item = Slot> + '_ {
    std::iter::successors(Some(top), move |slot| tree.next_in_preorder(top, *slot))
}

fn count(tree: &Tree, top: Slot, buffer: &mut ReadBuf) -> Option<usize> {
    let (mut count, mut whole) = (0, true);
    for node in subtree(tree, top).filter_map(|slot| tree.get(slot)).filter(|node| !node.threaded) {
        let listed = node.group.each_process(buffer, |process| {
            count += 1;
            whole &= process != parse::Process::Hidden;
            true
        });
        whole &= listed.is_ok() || listed.is_err_and(|error| error.is_gone());
    }
    whole.then_some(count)
}

/// Processes in a group, below it, or directly in one above it, for whose sake it must live.
pub fn processes(onlooker: &mut Onlooker, policy: &Policy, slot: Slot) -> Vec<Process> {
    let Onlooker { tree, buffer, .. } = onlooker;
    let mut found = Vec::new();
    for at in subtree(tree, slot) {
        let Some(node) = tree.get(at).filter(|node| !node.threaded) else { continue };
        let (pids, hidden) = list(&node.group, buffer);
        let group = node.group.path.to_string();
        let own = at == slot;
        if hidden {
            let reason = "some of its processes can't be seen from here".to_owned();
            found.push(Process { group: group.clone(), pid: None, comm: String::new(), reason, spares_group: own });
        }
        for pid in pids {
            let Some(comm) = comm(pid) else {
                // One that is gone by now is nobody.
                if !is_dead(pid) {
                    let reason = "can't be looked at".to_owned();
                    found.push(Process { group: group.clone(), pid: Some(pid), comm: String::new(), reason, spares_group: own });
                }
                continue;
            };
            if let Some(reason) = reason(policy, &node.class.comm_excludes, pid, &comm) {
                found.push(Process { group: group.clone(), pid: Some(pid), comm: comm_text(&comm), reason, spares_group: own });
            }
        }
    }
    // A comm that an exclusion asks for covers everything below the group that holds the process.
    let mut above = tree.get(slot).and_then(|node| node.parent);
    while let Some(node) = above.and_then(|slot| tree.get(slot)) {
        above = node.parent;
        if node.class.comm_excludes.is_empty() || node.threaded {
            continue;
        }
        for pid in list(&node.group, buffer).0 {
            let Some(comm) = comm(pid) else { continue };
            if let Some(reason) = by_comm(policy, &node.class.comm_excludes, &comm) {
                let group = node.group.path.to_string();
                found.push(Process { group, pid: Some(pid), comm: comm_text(&comm), reason, spares_group: true });
            }
        }
    }
    found
}

/// The processes directly in a group, and whether some are hidden.
fn list(group: &Group, buffer: &mut ReadBuf) -> (Vec<i32>, bool) {
    let (mut pids, mut hidden) = (Vec::new(), false);
    let listed = group.each_process(buffer, |process| {
        match process {
            parse::Process::Pid(pid) if pids.len() < MAX_PROCESSES => pids.push(pid),
            parse::Process::Pid(_) => {}
            parse::Process::Hidden => hidden = true,
        }
        true
    });
    let unread = listed.is_err_and(|error| !error.is_gone());
    (pids, hidden || unread)
}

fn comm(pid: i32) -> Option<Vec<u8>> {
    let mut comm = fs::read(format!("/proc/{pid}/comm")).ok()?;
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    Some(comm)
}

fn reason(policy: &Policy, comms: &EntrySet, pid: i32, comm: &[u8]) -> Option<String> {
    if pid == 1 {
        return Some("is process 1".to_owned());
    }
    match fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).map(|text| text.trim().parse::<i32>()) {
        Ok(Ok(-1000)) => return Some("has oom_score_adj -1000".to_owned()),
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Some("has an oom_score_adj that can't be read".to_owned()),
        // Gone by now.
        Err(error)
            if (error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()))
                && is_dead(pid) =>
        {
            return None;
        }
        Err(error) => return Some(format!("has an oom_score_adj that can't be read: {error}")),
    }
    by_comm(policy, comms, comm)
}

fn by_comm(policy: &Policy, comms: &EntrySet, comm: &[u8]) -> Option<String> {
    let entry = comms.iter().filter_map(|at| policy.exclude.get(at)).find(|exclude| exclude.comm.as_deref() == Some(comm))?;
    Some(format!("is excluded by {}", entry.text))
}
