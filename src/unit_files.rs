//! What systemd's unit files say of `OOMPolicy=`: whether a service is to go on when the kernel
//! kills one of its processes.
//!
//! systemd tells it over D-Bus only, and a unit with `continue` has no mark in the cgroup file
//! system, so the files are read: the fragment, its drop-ins, and `DefaultOOMPolicy=` of
//! system.conf. Nothing else of a unit is understood. Files of users (below their home directories)
//! are not read. Reads files; for threads that may block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the units of the system manager are, the first counts most (systemd.unit(5)). Below the
/// root directory.
const SYSTEM: &[&str] = &[
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];

/// The same for units of users' managers, as far as root wrote them.
const USER: &[&str] =
    &["etc/systemd/user", "run/systemd/user", "usr/local/share/systemd/user", "usr/local/lib/systemd/user", "usr/lib/systemd/user"];

/// Where system.conf and user.conf are, with their drop-ins.
const MANAGER: &[&str] = &["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];

/// The longest file that is read.
const LONGEST: u64 = 1 << 20;

/// What systemd does about a unit one of whose processes the kernel's OOM killer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomPolicy {
    /// Nothing: the unit goes on without the process.
    Continue,
    /// It stops the unit.
    Stop,
    /// It has the kernel kill the whole unit: memory.oom.group is 1.
    Kill,
}

impl OomPolicy {
    fn of(word: &str) -> Option<OomPolicy> {
        match word {
            "continue" => Some(OomPolicy::Continue),
            "stop" => Some(OomPolicy::Stop),
            "kill" => Some(OomPolicy::Kill),
            _ => None,
        }
    }
}

/// The unit of a group's path that is to go on when one of its processes is killed: the group
/// itself, or one that it is in. `root` is the root directory.
#[must_use]
pub fn continues(root: &Path, group: &[u8]) -> Option<String> {
    let mut user = false;
    for name in group.split(|byte| *byte == b'/') {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if (name.ends_with(".service") || name.ends_with(".scope")) && oom_policy(root, name, user) == Some(OomPolicy::Continue) {
            return Some(name.to_owned());
        }
        // What is below belongs to the manager of that user.
        user |= name.starts_with("user@") && name.ends_with(".service");
    }
    None
}

/// What the files say of a unit of the system manager, or of a `user`'s; `None` if they say
/// nothing, so that systemd's own default holds.
#[must_use]
pub fn oom_policy(root: &Path, unit: &str, user: bool) -> Option<OomPolicy> {
    let directories: Vec<PathBuf> = (if user { USER } else { SYSTEM }).iter().map(|directory| root.join(directory)).collect();
    let mut said = None;
    let fragment = names(unit).into_iter().find_map(|name| directories.iter().find_map(|directory| read(&directory.join(&name))));
    for text in fragment.into_iter().chain(drop_ins(&directories, unit)) {
        assign(&text, &["Service", "Scope"], "OOMPolicy", &mut said);
    }
    said.or_else(|| default(root, user))
}

/// Every unit that has a file or a drop-in with `OOMPolicy=continue` in force, of the system
/// manager, sorted. An instance is named by its template if that says so.
#[must_use]
pub fn all_that_continue(root: &Path) -> Vec<String> {
    let mut units: Vec<String> = Vec::new();
    for entry in SYSTEM.iter().filter_map(|directory| std::fs::read_dir(root.join(directory)).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let unit = name.strip_suffix(".d").unwrap_or(&name);
        let is_unit = unit.rsplit_once('.').is_some_and(|(stem, kind)| matches!(kind, "service" | "scope") && !stem.ends_with('-'));
        if is_unit && !units.iter().any(|known| known == unit) {
            units.push(unit.to_owned());
        }
    }
    units.retain(|unit| oom_policy(root, unit, false) == Some(OomPolicy::Continue));
    units.sort();
    units
}

/// `DefaultOOMPolicy=` of the manager.
fn default(root: &Path, user: bool) -> Option<OomPolicy> {
    let directories: Vec<PathBuf> = MANAGER.iter().map(|directory| root.join(directory)).collect();
    let file = if user { "user.conf" } else { "system.conf" };
    let mut said = None;
    let main = directories.iter().find_map(|directory| read(&directory.join(file)));
    for text in main.into_iter().chain(in_order(&directories, &[format!("{file}.d")])) {
        assign(&text, &["Manager"], "DefaultOOMPolicy", &mut said);
    }
    said
}

/// The names under which a unit's fragment is looked for: its own, then its template's.
fn names(unit: &str) -> Vec<String> {
    std::iter::once(unit.to_owned()).chain(template(unit)).collect()
}

/// `a@.service` for `a@b.service`.
fn template(unit: &str) -> Option<String> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let (prefix, instance) = stem.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// The texts of a unit's drop-ins, in the order in which they count.
fn drop_ins(directories: &[PathBuf], unit: &str) -> Vec<String> {
    // The most specific first: of files with one name that one counts.
    let mut names = names(unit);
    if let Some((stem, kind)) = unit.rsplit_once('.') {
        // `a-b.service` heeds `a-.service.d` too, `a-b@c.service` does `a-@.service.d`... systemd
        // cuts at each dash of the prefix.
        let (prefix, at) = stem.split_once('@').map_or((stem, ""), |(prefix, _)| (prefix, "@"));
        let dashes = prefix.char_indices().rev().filter(|(at, c)| *c == '-' && at + 1 < prefix.len());
        names.extend(dashes.map(|(dash, _)| format!("{}{at}.{kind}", &prefix[..=dash])));
        names.push(kind.to_owned());
    }
    let names: Vec<String> = names.into_iter().map(|name| format!("{name}.d")).collect();
    in_order(directories, &names)
}

/// The texts of `*.conf` in subdirectories of these names, in order of their own names; of two with
/// one name the first counts.
fn in_order(directories: &[PathBuf], subdirectories: &[String]) -> Vec<String> {
    let mut files: BTreeMap<std::ffi::OsString, PathBuf> = BTreeMap::new();
    for subdirectory in subdirectories {
        for directory in directories {
            for entry in std::fs::read_dir(directory.join(subdirectory)).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "conf") {
                    files.entry(entry.file_name()).or_insert_with(|| entry.path());
                }
            }
        }
    }
    files.values().filter_map(|path| read(path)).collect()
}

/// A text file. An empty one, or /dev/null, says nothing, and hides others of its name all the
/// same.
fn read(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    // Whatever a name in these directories leads to, a pipe for one, must not hold up whoever asks.
    if !std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return path.exists().then(String::new);
    }
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Takes the assignments of a key over, the last one counts; an empty one, and one that systemd
/// would not understand, differ: the former takes back what was said, the latter changes nothing.
fn assign(text: &str, sections: &[&str], key: &str, said: &mut Option<OomPolicy>) {
    let mut in_section = false;
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            in_section = sections.contains(&section);
            continue;
        }
        let continued = |line: &str| line.ends_with('\\');
        if let Some((_, value)) = line.split_once('=').filter(|(name, _)| in_section && name.trim_end() == key) {
            let value = value.trim();
            if value.is_empty() {
                *said = None;
            } else if let Some(policy) = OomPolicy::of(value) {
                *said = Some(policy);
            }
        }
        // The value of another key may go on for lines that look like anything.
        let mut last = line;
        while continued(last) {
            let Some(next) = lines.next() else { return };
            if !next.starts_with(['#', ';']) {
                last = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn with(files: &[(&str, &str)]) -> Files {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Files(root)
        }

        fn policy(&self, unit: &str) -> Option<OomPolicy> {
            oom_policy(self.0.path(), unit, false)
        }
    }

    const CONTINUE: &str = "[Service]\nOOMPolicy=continue\n";
    const KILL: &str = "[Service]\nOOMPolicy=kill\n";

    #[test]
    fn units_with_oompolicy_continue_are_known_by_fragment_drop_in_template_and_default() {
        let files = Files::with(&[
            ("usr/lib/systemd/system/ssh.service", "[Unit]\n[Service]\nExecStart=/x\nOOMPolicy = continue\n"),
            ("usr/lib/systemd/system/cron.service", KILL),
            ("etc/systemd/system/cron.service.d/10-x.conf", CONTINUE),
            ("usr/lib/systemd/system/job@.service", CONTINUE),
            ("usr/lib/systemd/system/job@special.service", KILL),
            ("etc/systemd/system/job@other.service.d/x.conf", KILL),
            ("usr/lib/systemd/system/plain.service", "[Service]\nExecStart=/x\n"),
            ("run/systemd/transient/run-7.scope", "[Scope]\nOOMPolicy=continue\n"),
        ]);
        for (unit, policy) in [
            ("ssh.service", Some(OomPolicy::Continue)),
            ("cron.service", Some(OomPolicy::Continue)),
            ("job@a.service", Some(OomPolicy::Continue)),
            ("job@special.service", Some(OomPolicy::Kill)),
            ("job@other.service", Some(OomPolicy::Kill)),
            ("plain.service", None),
            ("run-7.scope", Some(OomPolicy::Continue)),
            ("unknown.service", None),
        ] {
            assert_eq!(files.policy(unit), policy, "{unit}");
        }
        assert_eq!(all_that_continue(files.0.path()), ["cron.service", "job@.service", "run-7.scope", "ssh.service"]);
        let files = Files::with(&[
            ("etc/systemd/system.conf", "[Manager]\nDefaultOOMPolicy=kill\n"),
            ("etc/systemd/system.conf.d/x.conf", "[Manager]\nDefaultOOMPolicy=continue\n"),
            ("usr/lib/systemd/system/cron.service", KILL),
        ]);
        assert_eq!(files.policy("any.service"), Some(OomPolicy::Continue));
        assert_eq!(files.policy("cron.service"), Some(OomPolicy::Kill));
    }

    #[test]
    fn drop_ins_count_in_order_of_name_and_the_first_of_a_name_hides_the_others() {
        let files = Files::with(&[
            ("usr/lib/systemd/system/a-b.service", KILL),
            // For all services, all of `a-*`, and this one.
            ("usr/lib/systemd/system/service.d/90.conf", CONTINUE),
            ("usr/lib/systemd/system/a-.service.d/50.conf", "[Service]\nOOMPolicy=stop\n"),
            ("usr/lib/systemd/system/a-b.service.d/50.conf", KILL),
        ]);
        assert_eq!(files.policy("a-b.service"), Some(OomPolicy::Continue), "90 comes last");
        let files = Files::with(&[
            ("usr/lib/systemd/system/a-b.service", CONTINUE),
            ("usr/lib/systemd/system/a-.service.d/50.conf", "[Service]\nOOMPolicy=stop\n"),
            ("etc/systemd/system/a-b.service.d/50.conf", KILL),
        ]);
        assert_eq!(files.policy("a-b.service"), Some(OomPolicy::Kill), "its own is more specific");
        assert_eq!(files.policy("a-c.service"), Some(OomPolicy::Stop));
        let files = Files::with(&[
            ("usr/lib/systemd/system/a.service", KILL),
            ("usr/lib/systemd/system/a.service.d/50.conf", CONTINUE),
            ("etc/systemd/system/a.service.d/50.conf", ""),
        ]);
        assert_eq!(files.policy("a.service"), Some(OomPolicy::Kill), "the empty one hides it");
        let files =
            Files::with(&[("usr/lib/systemd/system/a.service", CONTINUE), ("etc/systemd/system/a.service", "[Service]\nExecStart=/y\n")]);
        assert_eq!(files.policy("a.service"), None, "the administrator's takes the vendor's place");
    }

    #[test]
    fn only_the_key_in_its_section_counts() {
        for (text, policy) in [
            ("[Service]\nOOMPolicy=continue\nOOMPolicy=\n", None),
            ("[Service]\nOOMPolicy=continue\nOOMPolicy=nonsense\n", Some(OomPolicy::Continue)),
            ("[X-Mine]\nOOMPolicy=continue\n", None),
            ("OOMPolicy=continue\n", None),
            ("[Service]\n#OOMPolicy=continue\n;OOMPolicy=continue\n", None),
            ("[Service]\nExecStart=/x \\\nOOMPolicy=continue\n", None),
            ("[Service]\nExecStart=/x \\\n# a comment\nOOMPolicy=continue\n", None),
            ("[Service]\nExecStart=/x \\\n  y\nOOMPolicy=continue", Some(OomPolicy::Continue)),
            ("[Service]\r\nOOMPolicy=continue\r\n", Some(OomPolicy::Continue)),
            ("[Service]\nExecStart=/x \\", None),
        ] {
            assert_eq!(Files::with(&[("etc/systemd/system/a.service", text)]).policy("a.service"), policy, "{text:?}");
        }
    }

    #[test]
    fn a_group_below_a_unit_that_continues_is_in_it_and_users_units_are_their_managers() {
        let files = Files::with(&[
            ("usr/lib/systemd/system/ssh.service", CONTINUE),
            ("usr/lib/systemd/user/app.service", CONTINUE),
            ("usr/lib/systemd/system/user@.service", KILL),
        ]);
        for (group, unit) in [
            (&b"/system.slice/ssh.service"[..], Some("ssh.service")),
            (b"/system.slice/ssh.service/below", Some("ssh.service")),
            (b"/system.slice/app.service", None),
            (b"/user.slice/user-0.slice/user@0.service/app.slice/app.service", Some("app.service")),
            (b"/user.slice/user-0.slice/user@0.service/app.slice/ssh.service", None),
            (b"/system.slice/\xff.service", None),
            (b"/t/a", None),
        ] {
            assert_eq!(continues(files.0.path(), group).as_deref(), unit, "{}", group.escape_ascii());
        }
    }
}
