//! Who else acts on memory here: daemons that kill, the kubelet that evicts, and marks that were set for one of them.
//!
//! Two that act on the same trouble take two victims. None of them hinders oomwarden, so nothing here is *missing*.

use std::fs;
use std::path::{Path, PathBuf};

use super::machine::read;
use super::{Finding, Machine, many};
use crate::unit_files;

/// Daemons that kill when memory is short, by their comm (15 bytes of it).
const KILLERS: &[&str] = &["earlyoom", "nohang", "nohang-desktop", "oomd", "bustd", "low-memory-moni", "thrash-protect", "le9-oomd"];

/// Daemons that only tell.
const TELLERS: &[&str] = &["psi-notify", "psi-monitor"];

/// Directories of systemd's units, below the root directory.
const UNITS: &[&str] = &[
    "etc/systemd/system",
    "etc/systemd/system.control",
    "etc/systemd/user",
    "run/systemd/system",
    "run/systemd/system.control",
    "run/systemd/transient",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "usr/lib/systemd/user",
];

/// What the kubelet does if nobody says otherwise.
const DEFAULT_EVICTION: &str = "100Mi";

/// Extended attributes by which root tells systemd-oomd whom to spare.
const MARKS: [&str; 2] = ["user.oomd_omit", "user.oomd_avoid"];

/// Names are listed up to so many.
const NAMED: usize = 5;

/// The process with this comm, if one runs.
fn running(machine: &Machine, comm: &str) -> Option<u32> {
    let entries = fs::read_dir(&machine.system.proc).ok()?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid| machine.proc(&format!("{pid}/comm")).as_deref() == Some(comm))
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

pub(super) fn systemd_oomd(machine: &Machine) -> Finding {
    let Some(pid) = running(machine, "systemd-oomd") else { return Finding::ok("not running") };
    let units = managed_units(machine);
    if units.is_empty() {
        return Finding::ok(format!("running (process {pid}), and no unit asks it to kill"));
    }
    Finding::degraded(
        format!("running (process {pid}), and told to kill in {}: it and oomwarden would each take a victim", named(&units)),
        "leave each group to one of the two: systemctl set-property UNIT ManagedOOMMemoryPressure=auto ManagedOOMSwap=auto, or systemctl \
         disable --now systemd-oomd.service systemd-oomd.socket",
    )
}

/// Units with `ManagedOOMSwap=kill` or `ManagedOOMMemoryPressure=kill`, in their own file or a drop-in.
fn managed_units(machine: &Machine) -> Vec<String> {
    let mut units = Vec::new();
    for directory in UNITS.iter().map(|directory| machine.system.root.join(directory)) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let files: Vec<PathBuf> = if path.is_dir() {
                fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
            } else {
                vec![path.clone()]
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(unit) = unit_name(&name, path.is_dir()) else { continue };
            if files.iter().any(|file| asks_for_kills(file)) && !units.iter().any(|known| known == unit) {
                units.push(unit.to_owned());
            }
        }
    }
    units.sort();
    units
}

/// The unit of a file, or of a directory of drop-ins.
fn unit_name(name: &str, is_directory: bool) -> Option<&str> {
    let unit = if is_directory { name.strip_suffix(".d")? } else { name };
    [".slice", ".service", ".scope", "slice", "service", "scope"].iter().any(|kind| unit.ends_with(kind)).then_some(unit)
}

fn asks_for_kills(file: &Path) -> bool {
    let text = read(file).unwrap_or_default();
    let asks = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or_default();
        matches!(key.trim(), "ManagedOOMSwap" | "ManagedOOMMemoryPressure") && value.trim() == "kill"
    };
    text.lines().any(asks)
}

pub(super) fn oom_policy(machine: &Machine) -> Finding {
    let (by_policy, delegated): (Vec<_>, Vec<_>) =
        unit_files::all_that_continue(&machine.system.root).into_iter().partition(|(_, by)| *by == unit_files::By::Policy);
    let names = |units: Vec<(String, unit_files::By)>| units.into_iter().map(|(unit, _)| unit).collect::<Vec<_>>();
    let (by_policy, delegated) = (names(by_policy), names(delegated));
    let mut parts = Vec::new();
    if !by_policy.is_empty() {
        let place = if by_policy.len() == 1 { "there" } else { "in these" };
        parts.push(format!("OOMPolicy=continue in {}: `kernel: oom_group` of a policy is not set {place}", named(&by_policy)));
    }
    if !delegated.is_empty() {
        let place = if delegated.len() == 1 { "its own group" } else { "their own groups" };
        parts.push(format!(
            "Delegate= without OOMPolicy= in {}: it is not set in {place}, only in groups below (and in scopes with Delegate=)",
            named(&delegated)
        ));
    }
    Finding::ok(if parts.is_empty() { "no service has OOMPolicy=continue or Delegate=".to_owned() } else { parts.join("; ") })
}

pub(super) fn other_killers(machine: &Machine) -> Finding {
    let found = |names: &[&str]| -> Vec<String> {
        names.iter().filter_map(|comm| running(machine, comm).map(|pid| format!("{comm} (process {pid})"))).collect()
    };
    let (killers, tellers) = (found(KILLERS), found(TELLERS));
    if !killers.is_empty() {
        return Finding::degraded(
            format!("{} also kills when memory is short, single processes of its own choice", named(&killers)),
            "stop it where oomwarden enforces a policy, or set it so that it acts later than every rule",
        );
    }
    Finding::ok(if tellers.is_empty() { "none".to_owned() } else { format!("{} only tells", named(&tellers)) })
}

pub(super) fn kubelet(machine: &Machine) -> Finding {
    let Some(pid) = running(machine, "kubelet") else { return Finding::ok("not running") };
    let (eviction, from) = eviction(machine, pid);
    if eviction.trim_start_matches(['0', '.']).chars().next().is_none_or(|c| !c.is_ascii_digit()) {
        return Finding::ok(format!("running (process {pid}), with no eviction for memory ({from})"));
    }
    Finding::degraded(
        format!("running (process {pid}), and evicts pods below memory.available {eviction} ({from}), which it looks at every 10s"),
        format!(
            "let rules about the node act before it does (available: above {eviction}), or lower evictionHard memory.available; pods that \
             oomwarden kills are restarted, evicted ones are not"
        ),
    )
}

/// `evictionHard` for `memory.available`, and where it was found.
fn eviction(machine: &Machine, pid: u32) -> (String, String) {
    let line = fs::read(machine.system.proc.join(format!("{pid}/cmdline"))).unwrap_or_default();
    let words: Vec<String> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let option = |name: &str| {
        let long = format!("--{name}=");
        let joined = words.iter().find_map(|word| word.strip_prefix(&long).map(str::to_owned));
        joined.or_else(|| words.iter().skip_while(|word| **word != format!("--{name}")).nth(1).cloned())
    };
    // The command line outdoes the file.
    if let Some(hard) = option("eviction-hard") {
        let memory = hard.split(',').find_map(|one| one.trim().strip_prefix("memory.available<").map(str::to_owned));
        return (memory.unwrap_or_default(), "--eviction-hard".to_owned());
    }
    let Some(file) = option("config") else { return (DEFAULT_EVICTION.to_owned(), "its default".to_owned()) };
    let path = machine.system.root.join(file.trim_start_matches('/'));
    let Some(text) = read(&path) else { return (DEFAULT_EVICTION.to_owned(), format!("its default; {file} could not be read")) };
    let config: Option<serde_yaml::Value> = serde_yaml::from_str(&text).ok();
    let hard = config.as_ref().and_then(|config| config.get("evictionHard"));
    match hard {
        Some(serde_yaml::Value::Mapping(hard)) if !hard.is_empty() => {
            let memory = hard.get("memory.available").and_then(|value| value.as_str()).unwrap_or_default();
            (memory.to_owned(), file)
        }
        _ => (DEFAULT_EVICTION.to_owned(), format!("its default; {file} says nothing")),
    }
}

pub(super) fn oomd_marks(machine: &Machine) -> Finding {
    let marked = |directory: &&PathBuf| (machine.system.probes.marks)(directory, &MARKS);
    let groups: Vec<String> = machine.groups.iter().filter(marked).map(|directory| machine.group_path(directory).to_string()).collect();
    if groups.is_empty() {
        return Finding::ok("no group is marked to be spared by systemd-oomd");
    }
    Finding::degraded(
        format!(
            "{} marked for systemd-oomd (user.oomd_omit, user.oomd_avoid), which oomwarden does not read: {}",
            many(groups.len(), "group"),
            named(&groups)
        ),
        "name them under `exclude` or `importance` in the policy",
    )
}
