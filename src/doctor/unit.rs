//! A service of systemd whose rights are judged in the place of the caller's: what its running
//! process has, or, while it is not running, what its settings give it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::process::{Command, Stdio};

use nix::unistd::User;

use super::{Finding, Machine};

/// What is asked of systemd.
const PROPERTIES: &[&str] = &[
    "LoadState",
    "ActiveState",
    "Result",
    "MainPID",
    "NeedDaemonReload",
    "User",
    "DynamicUser",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "LimitNOFILE",
    "LimitNOFILESoft",
    "LimitMEMLOCK",
    "LimitMEMLOCKSoft",
    "OOMScoreAdjust",
    "OOMPolicy",
    "MemoryMax",
    "MemoryHigh",
    "TasksMax",
    "Slice",
    "ProtectControlGroups",
    "ProtectKernelLogs",
];

/// Capabilities that a check asks for, by their number in linux/capability.h, as systemd names
/// them.
const CAPABILITIES: [(u32, &str); 6] =
    [(1, "cap_dac_override"), (5, "cap_kill"), (14, "cap_ipc_lock"), (23, "cap_sys_nice"), (24, "cap_sys_resource"), (34, "cap_syslog")];

/// Why a unit can't be judged.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// There is no systemctl, or it can't be run.
    #[error("systemctl can't be run, so the unit {0} can't be judged: {1}")]
    NoSystemd(String, io::Error),
    /// It refused.
    #[error("systemctl tells nothing of the unit {0}: {1}")]
    Refused(String, String),
    /// systemd has none of that name.
    #[error("there is no unit {0}: `systemctl list-units --all '*oomwarden*'` shows what there is")]
    NotFound(String),
    /// It is there, and broken.
    #[error("the unit {0} can't be loaded ({1}): `systemctl status {0}` says why")]
    Broken(String, String),
}

/// A service, as systemd tells of it.
#[derive(Clone, Debug)]
pub struct Unit {
    name: String,
    properties: BTreeMap<String, String>,
}

impl Unit {
    /// Asks systemd.
    ///
    /// # Errors
    /// See [`UnitError`].
    pub fn ask(name: &str) -> Result<Unit, UnitError> {
        let name = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        let list = format!("--property={}", PROPERTIES.join(","));
        let mut command = Command::new("systemctl");
        command.args(["show", "--no-pager", &list, "--", &name]).stdin(Stdio::null()).env("LC_ALL", "C");
        let answer = command.output().map_err(|error| UnitError::NoSystemd(name.clone(), error))?;
        if !answer.status.success() {
            let why = crate::cgroup::path::Escaped(answer.stderr.trim_ascii()).to_string();
            return Err(UnitError::Refused(name, why));
        }
        Unit::of(&name, &String::from_utf8_lossy(&answer.stdout))
    }

    /// From lines `Property=value`.
    pub(super) fn of(name: &str, text: &str) -> Result<Unit, UnitError> {
        let properties = text.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()));
        let unit = Unit { name: name.to_owned(), properties: properties.collect() };
        match unit.get("LoadState") {
            "loaded" => Ok(unit),
            "not-found" => Err(UnitError::NotFound(unit.name)),
            other => Err(UnitError::Broken(unit.name.clone(), other.to_owned())),
        }
    }

    fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", |value| value.trim())
    }

    fn is_on(&self, property: &str) -> bool {
        matches!(self.get(property), "yes" | "strict" | "private")
    }

    /// The unit's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its main process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.get("MainPID").parse().ok().filter(|pid| *pid > 0)
    }

    /// The user that its settings name; `None`: one that can't be told beforehand.
    pub(super) fn uid(&self) -> Option<u32> {
        match self.get("User") {
            _ if self.is_on("DynamicUser") => None,
            "" | "root" => Some(0),
            name => name.parse().ok().or_else(|| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw())),
        }
    }

    /// The capabilities that its settings give it, as far as a check asks for them.
    pub(super) fn capabilities(&self) -> u64 {
        let set = |property: &str| {
            let has = |name: &str| self.get(property).split_whitespace().any(|word| word.eq_ignore_ascii_case(name));
            CAPABILITIES.iter().filter(|(_, name)| has(name)).fold(0, |set, (number, _)| set | 1 << number)
        };
        let bounding: u64 = set("CapabilityBoundingSet");
        let all = if self.uid() == Some(0) { bounding } else { bounding & set("AmbientCapabilities") };
        // That takes the right to the log away, whatever else is said.
        if self.is_on("ProtectKernelLogs") { all & !(1 << 34) } else { all }
    }

    /// Its limits in the form of /proc/PID/limits.
    pub(super) fn limits(&self) -> String {
        let number = |property: &str| match self.get(property) {
            "infinity" | "18446744073709551615" => "unlimited".to_owned(),
            number => number.to_owned(),
        };
        let mut text = String::new();
        for (name, property) in [("Max open files", "LimitNOFILE"), ("Max locked memory", "LimitMEMLOCK")] {
            // Writing to a text can't fail.
            let _ = writeln!(text, "{name} {} {}", number(&format!("{property}Soft")), number(property));
        }
        text
    }

    /// A limit of its group by its settings; `None`: there is none.
    pub(super) fn group_limit(&self, property: &str) -> Option<u64> {
        self.get(property).parse().ok().filter(|limit| *limit < u64::MAX)
    }

    /// Its settings make the cgroup file system read-only for it.
    pub(super) fn has_read_only_groups(&self) -> bool {
        self.is_on("ProtectControlGroups")
    }

    /// The slice that it stands in, once it runs.
    pub(super) fn slice(&self) -> &str {
        self.get("Slice")
    }
}

/// Which service is judged, and what of its settings keeps it from its work.
pub(super) fn unit(machine: &Machine) -> Finding {
    let Some(unit) = &machine.system.unit else {
        return Finding::ok("none named: the rights below are this process's; `--unit oomwarden.service` judges the service's");
    };
    let (mut faults, mut advice) = (Vec::new(), Vec::new());
    let mut fault = |what: String, todo: String| {
        faults.push(what);
        advice.push(todo);
    };
    let name = &unit.name;
    if unit.pid().is_none() {
        let result = if unit.get("ActiveState") == "failed" { format!(" ({})", unit.get("Result")) } else { String::new() };
        fault(
            format!("it is {}{result}, so it is judged by its settings", unit.get("ActiveState")),
            format!("start it: systemctl enable --now {name} (journalctl -u {name} says why it does not run)"),
        );
    }
    if unit.get("NeedDaemonReload") == "yes" {
        fault("its files were changed since systemd read them".to_owned(), "systemctl daemon-reload, then restart it".to_owned());
    }
    if matches!(unit.get("OOMPolicy"), "stop" | "kill") {
        fault(
            format!("OOMPolicy={}: it is ended as well when the kernel kills a hook of it", unit.get("OOMPolicy")),
            "OOMPolicy=continue".to_owned(),
        );
    }
    let (adjust, from) = match machine.proc(&format!("{}/oom_score_adj", machine.who())) {
        Some(adjust) if unit.pid().is_some() => (adjust, "oom_score_adj"),
        _ => (unit.get("OOMScoreAdjust").to_owned(), "OOMScoreAdjust"),
    };
    // With the right to it the daemon sets it by itself.
    let sets_it = unit.pid().is_none() && machine.has_capability(24) == Some(true);
    if adjust != "-1000" && !sets_it {
        fault(format!("{from}={adjust}: the kernel may choose it as its own victim"), "OOMScoreAdjust=-1000".to_owned());
    }
    if unit.has_read_only_groups() {
        fault("ProtectControlGroups is set: it can't kill a group as a whole".to_owned(), "ProtectControlGroups=no".to_owned());
    }
    let who = match (unit.pid(), machine.rights.map(|rights| rights.uid)) {
        (Some(pid), Some(Some(uid))) => format!("{name}, process {pid}, uid {uid}"),
        (Some(pid), _) => format!("{name}, process {pid}"),
        (None, _) => name.clone(),
    };
    if faults.is_empty() {
        return Finding::ok(format!("{who}: the rights below are its own"));
    }
    Finding::degraded(format!("{who}: {}", faults.join("; ")), advice.join("; "))
}
