//! Rights and limits of this process and of its user.

use super::machine::read;
use super::unit::Unit;
use super::{Finding, Machine, groups, many};
use crate::units::Bytes;

/// Numbers of capabilities in linux/capability.h.
const CAP_KILL: u32 = 5;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_RESOURCE: u32 = 24;

/// Descriptors that are wanted for a group: its directory and the files that are read or waited on when it is in trouble.
const DESCRIPTORS_PER_GROUP: u64 = 8;
/// And for everything else.
const OTHER_DESCRIPTORS: u64 = 128;
/// Stacks and buffers of the threads on the kill path, and their code.
const LOCKED_BYTES: u64 = 4 << 20;
/// What oomwarden may need on a machine with many groups, with room to spare.
const OWN_BYTES: u64 = 64 << 20;
/// Its threads, and the processes that it starts.
const OWN_TASKS: u64 = 32;
/// Groups that may appear later need watches as well: this many times those that are there.
const GROWTH: u64 = 2;

fn capability(machine: &Machine, number: u32, without: &str, advice: &str) -> Finding {
    let user = machine.rights.and_then(|rights| rights.uid).map_or_else(|| "?".to_owned(), |uid| uid.to_string());
    match machine.has_capability(number) {
        Some(true) => Finding::ok(format!("granted (uid {user})")),
        Some(false) => Finding::degraded(format!("not granted (uid {user}): {without}"), advice),
        None => Finding::unreadable("/proc/self/status"),
    }
}

pub(super) fn cap_kill(machine: &Machine) -> Finding {
    let without = "processes of other users can't be signalled, which leaves cgroup.kill and, where that is refused, nothing";
    capability(machine, CAP_KILL, without, "grant it, unless all groups belong to this user")
}

pub(super) fn cap_sys_resource(machine: &Machine) -> Finding {
    let without = "psi windows are multiples of 2s, and the kernel may choose oomwarden itself as its victim";
    capability(
        machine,
        CAP_SYS_RESOURCE,
        without,
        "grant it; else start oomwarden with oom_score_adj -1000 (systemd: OOMScoreAdjust=-1000)",
    )
}

pub(super) fn cap_ipc_lock(machine: &Machine) -> Finding {
    capability(machine, CAP_IPC_LOCK, "memory is locked only as far as rlimit-memlock allows", "grant it, or raise that limit")
}

/// kernel.dmesg_restrict and CAP_SYSLOG: what the kernel says of its own OOM kills.
pub(super) fn kernel_log(machine: &Machine) -> Finding {
    match machine.kernel_log() {
        Ok(way) => Finding::ok(format!("readable by {way}")),
        Err(error) => Finding::degraded(
            format!("not readable: {error}; the kernel's own OOM kills are counted, and recorded without the process"),
            "grant CAP_SYSLOG (and, for /dev/kmsg, the device), or set kernel.dmesg_restrict=0",
        ),
    }
}

/// A limit in words.
fn words(limit: u64, number: impl Fn(u64) -> String) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { number(limit) }
}

fn number_of_groups(machine: &Machine) -> u64 {
    u64::try_from(machine.groups.len()).unwrap_or(u64::MAX)
}

pub(super) fn open_files(machine: &Machine) -> Finding {
    // we raise our own limit as far as the hard one
    let Some((_, limit)) = machine.limit("Max open files") else { return Finding::unreadable("/proc/self/limits") };
    let words = words(limit, |limit| limit.to_string());
    let wanted = number_of_groups(machine).saturating_mul(DESCRIPTORS_PER_GROUP).saturating_add(OTHER_DESCRIPTORS);
    if limit >= wanted {
        return Finding::ok(format!("{words}, {wanted} are wanted for the groups that are there now"));
    }
    Finding::degraded(
        format!("{words}, {wanted} are wanted: files of some groups will be opened only when they are needed"),
        format!("raise it (systemd: LimitNOFILE={})", wanted.saturating_mul(GROWTH)),
    )
}

pub(super) fn locked_memory(machine: &Machine) -> Finding {
    let Some((limit, _)) = machine.limit("Max locked memory") else { return Finding::unreadable("/proc/self/limits") };
    if machine.has_capability(CAP_IPC_LOCK) == Some(true) {
        return Finding::ok("does not apply with CAP_IPC_LOCK");
    }
    let shown = words(limit, |limit| Bytes(limit).to_string());
    if limit >= LOCKED_BYTES {
        return Finding::ok(format!("{shown}, {} are wanted", Bytes(LOCKED_BYTES)));
    }
    Finding::degraded(
        format!("{shown}, {} are wanted: reactions may be slow when memory is short", Bytes(LOCKED_BYTES)),
        format!("raise it (systemd: LimitMEMLOCK={}), or grant CAP_IPC_LOCK", LOCKED_BYTES),
    )
}

/// Limits of the group that we run in, and of those above it: what it takes to hurt us.
pub(super) fn own_group(machine: &Machine) -> Finding {
    if let Some(unit) = machine.system.unit.as_ref().filter(|unit| unit.pid().is_none()) {
        return limits_to_be(unit);
    }
    let Some((directory, _)) = groups::own_directory(machine) else { return Finding::ok("not below the cgroup root") };
    let line = directory.ancestors().take_while(|above| above.starts_with(&machine.system.cgroup_root));
    for above in line {
        // Whoever is exempt does not die with its group.
        let exempt = machine.proc("self/oom_score_adj").is_some_and(|adjust| adjust.trim() == "-1000");
        let may_be = exempt || machine.has_capability(CAP_SYS_RESOURCE) == Some(true);
        if !may_be && read(&above.join("memory.oom.group")).is_some_and(|text| text.trim() == "1") {
            return Finding::degraded(
                format!("{} has memory.oom.group 1: the kernel kills oomwarden in there with whomever it kills", machine.group_path(above)),
                "start it with oom_score_adj -1000 (systemd: OOMScoreAdjust=-1000), grant CAP_SYS_RESOURCE, or set that to 0 (systemd: OOMPolicy=continue)",
            );
        }
        let number = |file: &str| read(&above.join(file)).and_then(|text| text.parse::<u64>().ok());
        let group = machine.group_path(above);
        for file in ["memory.max", "memory.high"] {
            if let Some(bytes) = number(file).filter(|bytes| *bytes < OWN_BYTES) {
                return Finding::degraded(
                    format!("{group} has {file} {}: oomwarden in there would starve before anybody else", Bytes(bytes)),
                    format!("run it where there are {} or more (systemd: MemoryMax=, MemoryHigh=), or without a limit", Bytes(OWN_BYTES)),
                );
            }
        }
        if let Some(most) = number("pids.max").filter(|most| *most < OWN_TASKS) {
            return Finding::degraded(
                format!("{group} has pids.max {most}: oomwarden's threads may not all start there"),
                format!("raise it to {OWN_TASKS} (systemd: TasksMax={OWN_TASKS})"),
            );
        }
    }
    Finding::ok(format!("none in {} or above it that would hurt", machine.group_path(&directory)))
}

/// The same of a unit that does not run, by its settings.
fn limits_to_be(unit: &Unit) -> Finding {
    for (property, least) in [("MemoryMax", OWN_BYTES), ("MemoryHigh", OWN_BYTES), ("TasksMax", OWN_TASKS)] {
        if let Some(limit) = unit.group_limit(property).filter(|limit| *limit < least) {
            return Finding::degraded(
                format!("{} has {property}={limit}: oomwarden would starve in there before anybody else", unit.name()),
                format!("{property}={least} or more"),
            );
        }
    }
    Finding::ok(format!("{} has none that would hurt", unit.name()))
}

pub(super) fn inotify(machine: &Machine) -> Finding {
    let number = |name: &str| machine.proc(&format!("sys/fs/inotify/{name}")).and_then(|text| text.parse::<u64>().ok());
    let (Some(watches), Some(instances)) = (number("max_user_watches"), number("max_user_instances")) else {
        return Finding::unreadable("/proc/sys/fs/inotify");
    };
    let wanted = number_of_groups(machine).saturating_mul(GROWTH);
    let found =
        format!("{watches} watches and {instances} instances a user, one watch for each of {}", many(number_of_groups(machine), "group"));
    if instances == 0 {
        return Finding::degraded(format!("{found}: groups are read on a timer"), "sysctl fs.inotify.max_user_instances=128");
    }
    if watches < wanted {
        return Finding::degraded(
            format!("{found}, with no room for more: the rest is read on a timer"),
            format!("sysctl fs.inotify.max_user_watches={}", wanted.next_power_of_two().max(8192)),
        );
    }
    Finding::ok(found)
}
