//! The groups: which is ours, whose processes can be seen, which could be killed?

use std::io;
use std::path::{Path, PathBuf};

use super::machine::read;
use super::{Finding, Machine, many};

/// What a list of processes says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    /// We are in it.
    Us,
    /// We are not.
    Others,
    /// It can't be read, or has processes that can't be seen from here: those stand in it as 0.
    Hidden,
}

fn listed(machine: &Machine, directory: &Path) -> Listed {
    let Some(text) = read(&directory.join("cgroup.procs")) else {
        // a group that was removed meanwhile hides nobody
        return if directory.exists() { Listed::Hidden } else { Listed::Others };
    };
    let pids = || text.split_whitespace();
    if pids().any(|pid| pid.parse() == Ok(machine.system.pid)) {
        Listed::Us
    } else if pids().any(|pid| pid == "0") {
        Listed::Hidden
    } else {
        Listed::Others
    }
}

/// The directory of our own group, and how it was found.
pub(super) fn own_directory(machine: &Machine) -> Option<(PathBuf, String)> {
    let holds_us = |directory: &Path| listed(machine, directory) == Listed::Us;
    // a name with `..` leads out of our cgroup namespace
    if let Some(named) = own_name(machine).filter(|named| !named.split('/').any(|part| part == "..")) {
        let directory = machine.system.cgroup_root.join(named.trim_start_matches('/'));
        if holds_us(&directory) {
            return Some((directory, format!("as /proc/{}/cgroup says", machine.who())));
        }
    }
    // in a cgroup namespace, or with a subtree as the root, the name means something else
    let directory = machine.groups.iter().find(|directory| holds_us(directory))?;
    Some((directory.clone(), "by our process id in its cgroup.procs".to_owned()))
}

fn own_name(machine: &Machine) -> Option<String> {
    machine.proc(&format!("{}/cgroup", machine.who()))?.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

pub(super) fn own_group(machine: &Machine) -> Finding {
    if let Some(unit) = machine.system.unit.as_ref().filter(|unit| unit.pid().is_none()) {
        return Finding::ok(format!("{} below {}, once it runs", unit.name(), unit.slice()));
    }
    if let Some((directory, how)) = own_directory(machine) {
        return Finding::ok(format!("{}, {how}", machine.group_path(&directory)));
    }
    let named = own_name(machine);
    let named = named.as_deref().unwrap_or("nothing");
    let in_doubt =
        machine.groups.iter().filter(|directory| listed(machine, directory) == Listed::Hidden && !is_threaded(directory)).count();
    if in_doubt == 0 {
        return Finding::ok(format!("not below {}, so never a victim", machine.system.cgroup_root.display()));
    }
    Finding::missing(
        format!("not found: /proc/{}/cgroup says {named}, and the processes of {} can't be seen", machine.who(), many(in_doubt, "group")),
        "nothing is killed while any group might be our own: give it the host's pid namespace (Kubernetes: hostPID: true), or the rights to \
         read cgroup.procs",
    )
}

/// Threaded groups can't list processes, and are listed in the domain above them.
fn is_threaded(directory: &Path) -> bool {
    read(&directory.join("cgroup.type")).is_some_and(|kind| kind == "threaded" || kind == "domain invalid")
}

pub(super) fn pid_namespace(machine: &Machine) -> Finding {
    let lists: Vec<String> = machine.groups.iter().filter_map(|directory| read(&directory.join("cgroup.procs"))).collect();
    let hidden = lists.iter().filter(|text| text.split_whitespace().any(|pid| pid == "0")).count();
    if hidden == 0 {
        return Finding::ok("the processes of all groups can be seen");
    }
    Finding::degraded(
        format!("the processes of {hidden} of {} are in another pid namespace: such groups are never killed", many(lists.len(), "group")),
        "run in the host's pid namespace (Kubernetes: hostPID: true)",
    )
}

pub(super) fn kill_rights(machine: &Machine) -> Finding {
    let below = machine.groups.get(1..).unwrap_or_default();
    let asked: Vec<(PathBuf, io::Result<()>)> = below
        .iter()
        .map(|directory| directory.join("cgroup.kill"))
        .filter(|file| file.exists())
        .map(|file| (file.clone(), machine.may_write(&file)))
        .collect();
    let refused: Vec<&io::Error> = asked.iter().filter_map(|(_, answer)| answer.as_ref().err()).collect();
    let all = asked.len();
    let Some(error) = refused.first() else {
        return if all > 0 {
            Finding::ok(format!(
                "cgroup.kill may be written in {}",
                if all == 1 { "the only group".to_owned() } else { format!("all {all} groups") }
            ))
        } else {
            Finding::ok("no group with cgroup.kill here to try it on")
        };
    };
    let advice = if refused.iter().any(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
        "the cgroup file system is mounted read-only: mount it writable"
    } else {
        "run as root (in a container also with CAP_DAC_OVERRIDE), or with a subtree that is delegated to this user as --cgroup-root"
    };
    let found = format!("cgroup.kill may not be written in {} of {}: {error}", refused.len(), many(all, "group"));
    if refused.len() == all { Finding::missing(found, advice) } else { Finding::degraded(found, advice) }
}
