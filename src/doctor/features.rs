//! What the kernel offers: PSI and its triggers, cgroup.kill, process_mrelease, pidfds, swap.

use std::io;
use std::path::PathBuf;

use procfs::{FromRead, Meminfo};

use super::{Finding, Machine, many};
use crate::units::Bytes;

pub(super) fn psi(machine: &Machine) -> Finding {
    match std::fs::read_to_string(machine.system.proc.join("pressure/memory")) {
        Ok(_) => Finding::ok("on"),
        Err(error) if error.kind() == io::ErrorKind::NotFound && machine.kernel_at_least(4, 20) == Some(false) => {
            Finding::missing("this kernel has none", "rules on psi need Linux 4.20")
        }
        Err(error) => Finding::missing(
            format!("off: {error}"),
            "boot with psi=1 on the kernel command line (the kernel needs CONFIG_PSI); rules on psi rest on it",
        ),
    }
}

/// Triggers that are tried, the most demanding first, and what it means when one is accepted.
const TRIGGERS: [(&str, &str, Option<&str>); 3] = [
    ("some 20000 100000\0", "accepted, windows of 100ms too", None),
    ("some 100000 500000\0", "accepted with windows from 500ms on; shorter ones are widened", None),
    (
        "some 400000 2000000\0",
        "only windows of 2s, 4s and so on are accepted; others are widened",
        Some("grant CAP_SYS_RESOURCE for a reaction within a fraction of a second"),
    ),
];

pub(super) fn psi_triggers(machine: &Machine) -> Finding {
    // in the root of a delegated subtree they may be refused where they are accepted in the groups below
    let files: Vec<_> = machine.groups.iter().map(|group| group.join("memory.pressure")).filter(|file| file.exists()).take(64).collect();
    let mut refusal = None;
    for (text, found, advice) in TRIGGERS {
        for file in &files {
            match machine.arm_trigger(file, text) {
                Ok(()) => {
                    return advice.map_or_else(|| Finding::ok(found), |advice| Finding::degraded(found, advice));
                }
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
    }
    let advice =
        "rules on psi need it: see psi, boot without cgroup_disable=pressure, run as root, or use a delegated subtree as --cgroup-root";
    match refusal {
        Some(error) => Finding::missing(format!("refused: {error}"), advice),
        None => Finding::missing("no group has memory.pressure", advice),
    }
}

/// Whoever may write a group's cgroup.pressure can switch its PSI off (6.1).
pub(super) fn psi_groups(machine: &Machine) -> Finding {
    let is_off = |group: &&PathBuf| std::fs::read_to_string(group.join("cgroup.pressure")).is_ok_and(|text| text.trim() == "0");
    let off: Vec<&PathBuf> = machine.groups.iter().filter(is_off).collect();
    match off.first() {
        None => Finding::ok("on in every group"),
        Some(first) => Finding::degraded(
            format!("off in {}, as in {}", many(off.len(), "group"), machine.group_path(first)),
            "write 1 to cgroup.pressure there; rules on psi hear nothing of these groups",
        ),
    }
}

pub(super) fn cgroup_kill(machine: &Machine) -> Finding {
    let below = machine.groups.get(1..).unwrap_or_default();
    if below.iter().any(|group| group.join("cgroup.kill").exists()) || machine.kernel_at_least(5, 14) == Some(true) {
        return Finding::ok("there");
    }
    Finding::degraded(
        "not there: groups are killed process by process until they are empty",
        "Linux 5.14 kills a group at once, also one that forks",
    )
}

pub(super) fn process_mrelease(machine: &Machine) -> Finding {
    match machine.kernel_at_least(5, 15) {
        Some(true) => Finding::ok("there"),
        Some(false) => Finding::degraded("not there: a victim's memory comes back when it exits by itself", "Linux 5.15 frees it at once"),
        None => Finding::unreadable("the kernel's version"),
    }
}

pub(super) fn pidfd(machine: &Machine) -> Finding {
    match (machine.system.probes.pidfd)() {
        Ok(()) => Finding::ok("there"),
        Err(error) => {
            Finding::missing(format!("refused: {error}"), "it needs Linux 5.3; in a container, a seccomp profile that allows pidfd_open")
        }
    }
}

/// Never worse than ok: swap is a choice, but it decides what rules on swap mean.
pub(super) fn swap(machine: &Machine) -> Finding {
    let text = std::fs::read(machine.system.proc.join("meminfo")).unwrap_or_default();
    let Ok(memory) = Meminfo::from_read(text.as_slice()) else { return Finding::unreadable("/proc/meminfo") };
    if memory.swap_total == 0 {
        return Finding::ok("none: conditions on swap_free always hold, and trouble comes faster");
    }
    let zram = machine.proc("swaps").is_some_and(|text| text.lines().any(|line| line.starts_with("/dev/zram")));
    let kind = if zram { ", zram among it: what is swapped there still takes memory" } else { "" };
    Finding::ok(format!("{} of {} free{kind}", Bytes(memory.swap_free), Bytes(memory.swap_total)))
}
