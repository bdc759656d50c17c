//! The cgroup root: cgroup v2, with the memory controller, mounted how?

use std::path::PathBuf;

use procfs::process::MountInfo;

use super::{Finding, Machine, many};

const UNIFIED: &str = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line (without systemd: cgroup_no_v1=all, and \
                       mount cgroup2 at /sys/fs/cgroup)";

pub(super) fn cgroup_root(machine: &Machine) -> Finding {
    let root = machine.system.cgroup_root.display();
    if machine.is_cgroup2 {
        return match memory_v1(machine) {
            Some(v1) => Finding::missing(
                format!("{root} is cgroup2, but the layout is hybrid: the memory controller is in a v1 hierarchy at {}", v1.display()),
                UNIFIED,
            ),
            None => Finding::ok(format!("{root} is cgroup2 with {}", many(machine.groups.len(), "group"))),
        };
    }
    let what = if machine.system.cgroup_root.is_dir() { "is not cgroup2" } else { "is not a directory" };
    let v2 = machine.mounts.iter().find(|mount| mount.fs_type == "cgroup2").map(|mount| mount.mount_point.display());
    match (v2, memory_v1(machine)) {
        (Some(v2), Some(v1)) => Finding::missing(
            format!("{root} {what}: a hybrid layout, with cgroup2 at {v2} and the memory controller in a v1 hierarchy at {}", v1.display()),
            UNIFIED,
        ),
        (Some(v2), None) => Finding::missing(format!("{root} {what}; cgroup2 is at {v2}"), format!("use --cgroup-root {v2}")),
        (None, _) if machine.mounts.iter().any(|mount| mount.fs_type == "cgroup") => {
            Finding::missing(format!("{root} {what}: a cgroup v1 layout"), UNIFIED)
        }
        (None, _) => Finding::missing(format!("{root} {what}, and cgroup2 is mounted nowhere"), "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}

/// Where the memory controller is mounted as v1.
fn memory_v1(machine: &Machine) -> Option<PathBuf> {
    let is_memory_v1 = |mount: &&MountInfo| mount.fs_type == "cgroup" && mount.super_options.contains_key("memory");
    machine.mounts.iter().find(is_memory_v1).map(|mount| mount.mount_point.clone())
}

pub(super) fn memory_controller(machine: &Machine) -> Finding {
    let root = machine.system.cgroup_root.display();
    let has_memory = |file: &str| machine.root_file(file).map(|text| text.split_whitespace().any(|controller| controller == "memory"));
    match (has_memory("cgroup.controllers"), has_memory("cgroup.subtree_control")) {
        (Some(true), Some(true)) => Finding::ok("available, and enabled for the groups below"),
        (Some(true), _) => {
            Finding::missing("available, but not enabled for the groups below", format!("echo +memory > {root}/cgroup.subtree_control"))
        }
        (Some(false), _) => match memory_v1(machine) {
            Some(v1) => Finding::missing(format!("in a v1 hierarchy at {}", v1.display()), UNIFIED),
            None if machine.boot_option("cgroup_disable=memory") => Finding::missing(
                "switched off by cgroup_disable=memory",
                "remove that from the kernel command line; add cgroup_enable=memory",
            ),
            None => Finding::missing(
                format!("not available at {root}"),
                "a subtree: enable it in the parent's cgroup.subtree_control; the whole tree: the kernel needs CONFIG_MEMCG, some \
                 distributions cgroup_enable=memory on its command line",
            ),
        },
        (None, _) => Finding::missing(format!("{root}/cgroup.controllers could not be read"), "check the rights to it"),
    }
}

pub(super) fn mount_options(machine: &Machine) -> Finding {
    let Some(mount) = machine.mount_of(&machine.system.cgroup_root) else {
        return Finding::unreadable("the mount of the cgroup root");
    };
    let has = |option: &str| mount.super_options.contains_key(option);
    let said = |option: &str| if has(option) { option.to_owned() } else { format!("no {option}") };
    let found = ["memory_recursiveprot", "nsdelegate"].map(said).join(", ");
    if has("memory_localevents") {
        return Finding::degraded(
            format!("memory_localevents, {found}: events of groups are not told to those above them"),
            "remount without it, or watch every group that rules on events are about",
        );
    }
    Finding::ok(found)
}
