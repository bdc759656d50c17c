//! Who has the kernel module's file open: while anybody has, the module can't be unloaded, and any user may open it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::lms_build::NAME;
use super::machine::read;
use super::{Finding, Machine};

/// The file's name.
const FILE: &str = "oom_notifier";

/// Processes that are named.
const NAMED: usize = 8;

/// A process that has it open.
struct User {
    pid: u32,
    comm: String,
    uid: Option<u32>,
    group: Option<String>,
}

pub(super) fn lms_users(machine: &Machine) -> Finding {
    let Ok(file) = fs::metadata(machine.system.proc.join(FILE)) else { return Finding::ok("not loaded") };
    let (users, hidden) = users(machine, file.ino());
    let open_files = read(&machine.system.root.join("sys/module").join(NAME).join("refcnt")).and_then(|number| number.parse::<u64>().ok());
    let unseen = if hidden == 0 {
        String::new()
    } else {
        format!("; {} could not be looked at", if hidden == 1 { "1 process".to_owned() } else { format!("{hidden} processes") })
    };
    if users.is_empty() {
        return match open_files {
            Some(number) if number > 0 => Finding::ok(format!(
                "{FILE} is open {}, in no process that can be seen{unseen}: it may be on its way between two (SCM_RIGHTS), or in another's io_uring; until it is closed the module can't be unloaded",
                if number == 1 { "once".to_owned() } else { format!("{number} times") }
            )),
            _ => Finding::ok(format!("nobody has {FILE} open{unseen}")),
        };
    }
    let mut named: Vec<String> = users.iter().take(NAMED).map(User::told).collect();
    if users.len() > NAMED {
        named.push(format!("{} more", users.len() - NAMED));
    }
    Finding::ok(format!(
        "{FILE} is open in {}{unseen}; to unload the module, which need not be, stop them first: rmmod says that it is in use until all have closed it",
        named.join(", ")
    ))
}

impl User {
    fn told(&self) -> String {
        let uid = self.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
        let group = self.group.as_ref().map_or_else(String::new, |group| format!(", {}", group.escape_debug()));
        format!("process {} ({}{uid}{group})", self.pid, self.comm.escape_debug())
    }
}

/// Those who can be seen, by pid, and how many processes could not be looked at. Ourselves are none: what a check has open it closes.
fn users(machine: &Machine, inode: u64) -> (Vec<User>, usize) {
    let Ok(entries) = fs::read_dir(&machine.system.proc) else { return (Vec::new(), 0) };
    let mut pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let (mut users, mut hidden) = (Vec::new(), 0);
    for pid in pids {
        match has_open(&machine.system.proc.join(format!("{pid}/fd")), inode) {
            Some(true) => users.push(User {
                pid,
                comm: machine.proc(&format!("{pid}/comm")).unwrap_or_else(|| "unknown".to_owned()),
                uid: machine
                    .proc(&format!("{pid}/status"))
                    .and_then(|text| text.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok())),
                group: machine
                    .proc(&format!("{pid}/cgroup"))
                    .and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned))),
            }),
            Some(false) => {}
            None => hidden += 1,
        }
    }
    (users, hidden)
}

/// Whether one of these descriptors is for the file; `None`: it can't be told. By inode: each mount of procfs has a device number and
/// a path of its own for it.
fn has_open(descriptors: &Path, inode: u64) -> Option<bool> {
    let entries = match fs::read_dir(descriptors) {
        Ok(entries) => entries,
        // Gone meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    let is_it = |path: &Path| {
        fs::read_link(path).is_ok_and(|target| target.file_name().is_some_and(|name| name == FILE))
            && fs::metadata(path).is_ok_and(|metadata| metadata.ino() == inode)
    };
    Some(entries.flatten().any(|entry| is_it(&entry.path())))
}
