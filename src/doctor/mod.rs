//! Can this machine do it? Checks of kernel, cgroups, rights and limits, each by itself, with what was found and what to do.
//!
//! A check is a function from the [`Machine`] to a [`Finding`]; [`CHECKS`] lists them in the order of the report. What they
//! look at is files below given directories, and the few questions that only the kernel can answer are functions in
//! [`Probes`], so tests run on trees of files. Nothing is changed: the PSI triggers that are tried are gone with their descriptor.
//!
//! *missing* is what oomwarden can't do its work without, *degraded* what it works around: later, less precisely, or for fewer
//! groups.

mod features;
mod groups;
mod limits;
mod lms;
mod lms_build;
mod lms_users;
mod machine;
mod memory;
mod neighbours;
mod root;
mod unit;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use machine::{Machine, Probes, System};
pub use unit::{Unit, UnitError};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, less well.
    Degraded,
    /// It does not work.
    Missing,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Ok => "ok",
            Status::Degraded => "degraded",
            Status::Missing => "missing",
        })
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it came out.
    pub status: Status,
    /// What was found, in words.
    pub found: String,
    /// What to do; `None` if nothing need be done.
    pub advice: Option<String>,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Finding {
        Finding { status: Status::Ok, found: found.into(), advice: None }
    }

    fn degraded(found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { status: Status::Degraded, found: found.into(), advice: Some(advice.into()) }
    }

    fn missing(found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { status: Status::Missing, found: found.into(), advice: Some(advice.into()) }
    }

    /// For what can't be looked at because the file it stands in could not be read.
    fn unreadable(what: &str) -> Finding {
        Finding::degraded(format!("{what} could not be read"), "look at it by hand")
    }
}

/// A number of things: `1 group`, `2 groups`.
fn many<N: fmt::Display + PartialEq + From<u8>>(number: N, thing: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Name of the check; stays the same from version to version.
    pub name: &'static str,
    /// What it found.
    #[serde(flatten)]
    pub finding: Finding,
}

/// All lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`CHECKS`].
    pub lines: Vec<Line>,
}

/// What must be there for a check to make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// The cgroup root is cgroup2.
    CgroupRoot,
}

/// A check: its name, what it needs, and how it is done.
pub type Check = (&'static str, Needs, fn(&Machine) -> Finding);

/// Every check.
pub const CHECKS: &[Check] = &[
    ("cgroup-root", Needs::Nothing, root::cgroup_root),
    ("memory-controller", Needs::CgroupRoot, root::memory_controller),
    ("mount-options", Needs::CgroupRoot, root::mount_options),
    ("unit", Needs::Nothing, unit::unit),
    ("own-group", Needs::CgroupRoot, groups::own_group),
    ("pid-namespace", Needs::CgroupRoot, groups::pid_namespace),
    ("kill-rights", Needs::CgroupRoot, groups::kill_rights),
    ("psi", Needs::Nothing, features::psi),
    ("psi-triggers", Needs::CgroupRoot, features::psi_triggers),
    ("psi-groups", Needs::CgroupRoot, features::psi_groups),
    ("cgroup-kill", Needs::Nothing, features::cgroup_kill),
    ("process-mrelease", Needs::Nothing, features::process_mrelease),
    ("pidfd", Needs::Nothing, features::pidfd),
    ("swap", Needs::Nothing, features::swap),
    ("overcommit", Needs::Nothing, memory::overcommit),
    ("panic-on-oom", Needs::Nothing, memory::panic_on_oom),
    ("kill-allocating", Needs::Nothing, memory::oom_kill_allocating_task),
    ("lms", Needs::Nothing, lms::lms),
    ("lms-build", Needs::Nothing, lms_build::lms_build),
    ("lms-users", Needs::Nothing, lms_users::lms_users),
    ("cap-kill", Needs::Nothing, limits::cap_kill),
    ("cap-sys-resource", Needs::Nothing, limits::cap_sys_resource),
    ("cap-ipc-lock", Needs::Nothing, limits::cap_ipc_lock),
    ("kernel-log", Needs::Nothing, limits::kernel_log),
    ("rlimit-nofile", Needs::Nothing, limits::open_files),
    ("rlimit-memlock", Needs::Nothing, limits::locked_memory),
    ("inotify", Needs::Nothing, limits::inotify),
    ("own-limits", Needs::CgroupRoot, limits::own_group),
    ("systemd-oomd", Needs::Nothing, neighbours::systemd_oomd),
    ("oomd-marks", Needs::CgroupRoot, neighbours::oomd_marks),
    ("oom-policy", Needs::Nothing, neighbours::oom_policy),
    ("other-killers", Needs::Nothing, neighbours::other_killers),
    ("kubelet", Needs::Nothing, neighbours::kubelet),
];

/// Who else acts on memory here and will be in oomwarden's way, one line each: for the daemon's
/// start. Looks at no group.
#[must_use]
pub fn neighbours(system: &System) -> Vec<String> {
    let machine = Machine::without_groups(system);
    let found = [
        ("systemd-oomd", neighbours::systemd_oomd(&machine)),
        ("another killer beside oomwarden", neighbours::other_killers(&machine)),
        ("kubelet", neighbours::kubelet(&machine)),
    ];
    let told = |(who, Finding { status, found, advice }): (&str, Finding)| {
        (status != Status::Ok).then(|| format!("{who}: {found}; {}", advice.unwrap_or_default()))
    };
    found.into_iter().filter_map(told).collect()
}

/// Runs every check.
#[must_use]
pub fn examine(system: &System) -> Report {
    let machine = Machine::look(system);
    let lines = CHECKS.iter().map(|(name, needs, check)| {
        let finding = match needs {
            Needs::CgroupRoot if !machine.is_cgroup2 => {
                Finding { status: Status::Missing, found: "not looked at".to_owned(), advice: Some("see cgroup-root first".to_owned()) }
            }
            Needs::Nothing | Needs::CgroupRoot => check(&machine),
        };
        Line { name, finding }
    });
    Report { lines: lines.collect() }
}

impl Report {
    /// The worst of all lines.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lines.iter().map(|line| line.finding.status).max().unwrap_or(Status::Ok)
    }

    fn count(&self, status: Status) -> usize {
        self.lines.iter().filter(|line| line.finding.status == status).count()
    }
}

impl Serialize for Report {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Whole<'a> {
            status: Status,
            checks: &'a [Line],
        }
        Whole { status: self.status(), checks: &self.lines }.serialize(serializer)
    }
}

impl fmt::Display for Report {
    /// One line a check, in columns, and one that sums up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
        for Line { name, finding } in &self.lines {
            write!(f, "{:8}  {name:width$}  {}", finding.status, finding.found)?;
            match &finding.advice {
                Some(advice) => writeln!(f, " -> {advice}")?,
                None => writeln!(f)?,
            }
        }
        let verdict = match self.status() {
            Status::Ok => "this machine is fit",
            Status::Degraded => "this machine will do",
            Status::Missing => "oomwarden can't do its work here",
        };
        let [ok, degraded, missing] = [Status::Ok, Status::Degraded, Status::Missing].map(|status| self.count(status));
        writeln!(f, "\n{verdict}: {ok} ok, {degraded} degraded, {missing} missing")
    }
}
