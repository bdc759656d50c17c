//! Who else acts on memory here: daemons that kill, the kubelet that evicts, and marks that were set for one of them.
//!
//! Two that act on the same trouble take two victims. None of them hinders oomwarden, so nothing here is *missing*.

use std::fs;
use std::path::PathBuf;

use super::machine::read;
use super::{Finding, Machine, many};
use crate::unit_files;

/// Daemons that kill when memory is short, by their comm (15 bytes of it).
const KILLERS: &[&str] = &["earlyoom", "nohang", "nohang-desktop", "oomd", "bustd", "low-memory-moni", "thrash-protect", "le9-oomd"];

/// Daemons that only tell.
const TELLERS: &[&str] = &["psi-notify", "psi-monitor"];

/// What the kubelet does if nobody says otherwise.
const DEFAULT_EVICTION: &str = "100Mi";

/// Extended attributes by which root tells systemd-oomd whom to spare.
const MARKS: [&str; 2] = ["user.oomd_omit", "user.oomd_avoid"];

/// Instances of one template that are looked at.
const MOST_INSTANCES: usize = 64;

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
    let Some(first) = units.first() else { return Finding::ok(format!("running (process {pid}), and no unit asks it to kill")) };
    let names: Vec<String> = units.iter().map(|unit| unit.name.clone()).collect();
    let each = if units.len() == 1 { "" } else { ", and so for each of them" };
    Finding::degraded(
        format!("running (process {pid}), and told to kill in {}: it and oomwarden would each take a victim", named(&names)),
        format!("leave it all to oomwarden: `{MASK}`; or that unit only: `{}`{each}", first.command()),
    )
}

/// Stops systemd-oomd for good. Only disabled it is started again by every unit with
/// `ManagedOOM...=kill`.
const MASK: &str = "systemctl mask --now systemd-oomd.service systemd-oomd.socket";

/// A unit that asks systemd-oomd to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Managed {
    name: String,
    /// It is one of users' managers.
    user: bool,
}

impl Managed {
    /// Takes that back, as a shell understands it. systemctl sets properties of units only: not of
    /// templates, and not of those of all users.
    fn command(&self) -> String {
        let (stem, kind) = self.name.rsplit_once('.').unwrap_or(("", &self.name));
        if !self.user && !stem.is_empty() && !stem.ends_with('@') && (stem == "-" || !stem.ends_with('-')) {
            // `-.slice` would be taken for an option.
            return format!("systemctl set-property -- {} ManagedOOMSwap=auto ManagedOOMMemoryPressure=auto", quoted(&self.name));
        }
        let section = format!("{}{}", kind.get(..1).unwrap_or_default().to_uppercase(), kind.get(1..).unwrap_or_default());
        let directory = quoted(&format!("/etc/systemd/{}/{}.d", if self.user { "user" } else { "system" }, self.name));
        let reload = if self.user { "; it counts from each user's next login" } else { " && systemctl daemon-reload" };
        let (reload, after) = if self.user { ("", reload) } else { (reload, "") };
        format!(
            "mkdir -p {directory} && printf '[{section}]\\nManagedOOMSwap=auto\\nManagedOOMMemoryPressure=auto\\n' > {directory}/99-oomwarden.conf{reload}{after}"
        )
    }
}

/// A word for a shell. systemd escapes what is odd in a unit's name with backslashes.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '@' | ':');
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Units in which systemd-oomd is to kill, by their files and all that overrides them. Of a
/// template, or of what begins alike, those that are there; where none is, itself.
fn managed_units(machine: &Machine) -> Vec<Managed> {
    let root = &machine.system.root;
    let mut found: Vec<Managed> = Vec::new();
    for user in [false, true] {
        for name in unit_files::all_that_mention_oomd(root, user) {
            let instances = instances(machine, &name, user);
            let candidates = if instances.is_empty() { vec![name] } else { instances };
            for name in candidates.into_iter().filter(|name| unit_files::oomd_kills_in(root, name, user)) {
                let unit = Managed { name, user };
                if !found.contains(&unit) {
                    found.push(unit);
                }
            }
        }
    }
    found
}

/// The system's groups that a template (`user@.service`) or a beginning (`user-.slice`) is about;
/// for anything else, and for units of users, whose own files count for all of them, none.
fn instances(machine: &Machine, name: &str, user: bool) -> Vec<String> {
    let Some((stem, kind)) = name.rsplit_once('.') else { return Vec::new() };
    if user || stem == "-" || !stem.ends_with(['@', '-']) {
        return Vec::new();
    }
    let is_one = |name: &&str| {
        let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(kind)).and_then(|rest| rest.strip_suffix('.'));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    let names = machine.groups.iter().filter_map(|group| group.file_name()?.to_str()).filter(is_one);
    let mut names: Vec<String> = names.take(MOST_INSTANCES).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
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
