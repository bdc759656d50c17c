//! The kernel module's low memory signal: is it loaded, may we use it, and would it do any good?

use std::io;
use std::time::Duration;

use super::{Finding, Machine};
use crate::policy::words::lms_word;
use crate::sense::lms::{INTERFACE, Report};
use crate::units::Bytes;

/// Numbers of capabilities in linux/capability.h: the module asks for both at each write.
const NEEDED: [(u32, &str); 2] = [(5, "CAP_KILL"), (24, "CAP_SYS_RESOURCE")];

/// What the daemon is called, as /proc/PID/comm says it.
const OUR_COMM: &str = "oomwarden";

pub(super) fn lms(machine: &Machine) -> Finding {
    let path = machine.system.proc.join("oom_notifier");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Finding::degraded(
                "not loaded: rules on lms rest on their other triggers, and when the node runs out of memory at once the kernel may kill first",
                "build the module (kmod/README.md) and load it: modprobe oomwarden_lms",
            );
        }
        Err(error) => {
            return Finding::degraded(
                format!("loaded, but {} can't be read: {error}", path.display()),
                "run as root, or leave the file's mode as the module sets it",
            );
        }
    };
    let report = match Report::parse(&text) {
        Ok(report) => report,
        Err(error) => {
            return Finding::degraded(
                format!("loaded, but {} makes no sense: {error}", path.display()),
                "build and load the module that belongs to this version: kmod/README.md",
            );
        }
    };
    let found = format!(
        "loaded, level {}: warn below {}, kill below {} of available memory",
        lms_word(report.level),
        Bytes(report.warn_bytes),
        Bytes(report.kill_bytes)
    );
    may_not_write(machine, &path, &found)
        .or_else(|| another_handler(machine, &report, &found))
        .or_else(|| another_interface(&report, &found))
        .or_else(|| odd(&report, &found))
        .unwrap_or_else(|| Finding::ok(format!("{found}, an OOM is held for up to {}ms", report.hold.as_millis())))
}

fn may_not_write(machine: &Machine, path: &std::path::Path, found: &str) -> Option<Finding> {
    let refused = machine.may_write(path).err().map(|error| error.to_string());
    let lacking = NEEDED.iter().find(|(number, _)| machine.has_capability(*number) == Some(false));
    let why = refused.or_else(|| lacking.map(|(_, name)| format!("{name} is not granted")))?;
    Some(Finding::degraded(
        format!("{found}; it may not be written: {why}, so levels are heard and no OOM is held"),
        "run as root with CAP_KILL and CAP_SYS_RESOURCE",
    ))
}

/// Only one process is the handler. A running oomwarden is, and that is well.
fn another_handler(machine: &Machine, report: &Report, found: &str) -> Option<Finding> {
    let pid = report.handler_pid.filter(|pid| *pid != machine.system.pid)?;
    let comm = machine.proc(&format!("{pid}/comm")).unwrap_or_else(|| "unknown".to_owned());
    (comm != OUR_COMM).then(|| {
        Finding::degraded(
            format!(
                "{found}; process {pid} ({}) is its handler, so oomwarden would hear levels and no OOM would be held for it",
                comm.escape_debug()
            ),
            "stop that process, or leave the node's OOMs to it",
        )
    })
}

/// The module of another version: what the daemon would leave with it means something else to it.
fn another_interface(report: &Report, found: &str) -> Option<Finding> {
    let interface = report.interface;
    (interface != INTERFACE).then(|| {
        Finding::degraded(
            format!(
                "{found}; it has interface {interface}, and this oomwarden knows {INTERFACE}: holds are answered, but no table is left for when oomwarden can't answer"
            ),
            "install the module that belongs to this version (kmod/README.md) and reboot, or, once nobody has /proc/oom_notifier open: rmmod oomwarden_lms && modprobe oomwarden_lms",
        )
    })
}

/// Parameters with which it is of little use. That swap's total is not known is no fault: a handler tells it.
fn odd(report: &Report, found: &str) -> Option<Finding> {
    let (what, advice) = if report.hold == Duration::ZERO {
        ("its parameter hold_ms is 0, so the kernel kills without waiting", "echo 500 > /sys/module/oomwarden_lms/parameters/hold_ms")
    } else if report.kill_bytes > report.warn_bytes {
        ("kill begins before warn", "set warn_percent and warn_max_mb above kill_percent and kill_max_mb")
    } else if report.kill_bytes <= report.floor_bytes {
        ("an OOM may come before kill is told: the floor is not below it", "set kill_percent or kill_max_mb higher, or floor_mb lower")
    } else if report.warn_bytes >= report.mem_total_bytes / 2 {
        ("warn begins while half of the memory is available", "set warn_percent lower")
    } else {
        return None;
    };
    Some(Finding::degraded(format!("{found}; {what}"), advice))
}
