//! What the machine does when memory is promised to more than there is, and when it runs out.

use procfs::{FromRead, Meminfo};

use super::{Finding, Machine};
use crate::units::Bytes;

/// From that share of CommitLimit on, in percent, little is left to be promised.
const NEARLY_ALL: u64 = 90;

/// vm.overcommit_memory, and Committed_AS against CommitLimit where that counts.
pub(super) fn overcommit(machine: &Machine) -> Finding {
    let Some(mode) = machine.proc("sys/vm/overcommit_memory") else { return Finding::unreadable("/proc/sys/vm/overcommit_memory") };
    let text = std::fs::read(machine.system.proc.join("meminfo")).unwrap_or_default();
    let Ok(memory) = Meminfo::from_read(text.as_slice()) else { return Finding::unreadable("/proc/meminfo") };
    let committed = memory.committed_as;
    let Some(limit) = memory.commit_limit.filter(|limit| *limit > 0) else {
        return Finding::ok(format!("vm.overcommit_memory={mode}, Committed_AS {}", Bytes(committed)));
    };
    let percent = u128::from(committed) * 100 / u128::from(limit);
    let found = format!("vm.overcommit_memory={mode}, Committed_AS {} of CommitLimit {} ({percent}%)", Bytes(committed), Bytes(limit));
    if mode != "2" {
        return Finding::ok(format!("{found}, which does not apply in this mode"));
    }
    if percent < u128::from(NEARLY_ALL) {
        return Finding::ok(format!("{found}: beyond that allocations fail, and nobody is killed"));
    }
    Finding::degraded(
        format!("{found}: allocations fail (ENOMEM) before memory is short, so programs break and no rule has a reason to act"),
        "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio or vm.overcommit_kbytes, or add swap",
    )
}

/// vm.panic_on_oom.
pub(super) fn panic_on_oom(machine: &Machine) -> Finding {
    let when = match machine.proc("sys/vm/panic_on_oom").as_deref() {
        None => return Finding::unreadable("/proc/sys/vm/panic_on_oom"),
        Some("0") => return Finding::ok("vm.panic_on_oom=0: the kernel kills, where it comes first"),
        Some("2") => "vm.panic_on_oom=2: where oomwarden comes too late the kernel panics, also when only a group is at its limit",
        Some("1") => "vm.panic_on_oom=1: where oomwarden comes too late and the whole machine is out of memory the kernel panics",
        Some(other) => return Finding::degraded(format!("vm.panic_on_oom={other} is not understood"), "sysctl vm.panic_on_oom=0"),
    };
    let then = match machine.proc("sys/kernel/panic").as_deref() {
        Some("0") => ", and stays down (kernel.panic=0)",
        _ => "",
    };
    let held = if machine.system.proc.join("oom_notifier").exists() {
        "; oomwarden respects it: no OOM is held for it and no table is left with the kernel module"
    } else {
        ""
    };
    Finding::degraded(
        format!("{when}{then}; it does not kill{held}"),
        "sysctl vm.panic_on_oom=0 (and in /etc/sysctl.d), unless the machine is to go down rather than lose a process",
    )
}

/// vm.oom_kill_allocating_task. What the policy says goes before it, with the kernel module too.
pub(super) fn oom_kill_allocating_task(machine: &Machine) -> Finding {
    match machine.proc("sys/vm/oom_kill_allocating_task").as_deref() {
        None => Finding::unreadable("/proc/sys/vm/oom_kill_allocating_task"),
        Some("0") => Finding::ok("vm.oom_kill_allocating_task=0: the kernel weighs processes, where it comes first"),
        Some(other) => Finding::degraded(
            format!(
                "vm.oom_kill_allocating_task={other}: where oomwarden comes too late the kernel kills whoever asks for memory at that moment, however small; holds and table of the kernel module go before it"
            ),
            "sysctl vm.oom_kill_allocating_task=0 (and in /etc/sysctl.d)",
        ),
    }
}
