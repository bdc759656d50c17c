//! What systemd's unit files say of `OOMPolicy=`, and of `Delegate=`, on which its default rests: whether a service is to go on when the kernel
//! kills one of its processes. And of `ManagedOOMSwap=` and `ManagedOOMMemoryPressure=`: where
//! systemd-oomd is to kill.
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

/// Why a unit is to go on when one of its processes is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `OOMPolicy=continue`, its own or as the manager's default.
    Policy,
    /// `Delegate=` in a service without `OOMPolicy=`. Only the service's own group: what stands
    /// below it is made by others, who decide for it.
    Delegation,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            By::Policy => "OOMPolicy=continue",
            By::Delegation => "Delegate= and no OOMPolicy=, which means OOMPolicy=continue",
        })
    }
}

/// The unit of a group's path that is to go on when one of its processes is killed, and by what:
/// the group itself, or one that it is in. `root` is the root directory.
#[must_use]
pub fn continues(root: &Path, group: &[u8]) -> Option<(String, By)> {
    let mut user = false;
    let mut names = group.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if name.ends_with(".service") || name.ends_with(".scope") {
            match reason(root, name, user) {
                Some(By::Delegation) if names.peek().is_some() => {}
                Some(by) => return Some((name.to_owned(), by)),
                None => {}
            }
        }
        // What is below belongs to the manager of that user.
        user |= name.starts_with("user@") && name.ends_with(".service");
    }
    None
}

/// What the files say of a unit of the system manager, or of a `user`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    /// `OOMPolicy=`; `None` if it is not set, nor a default of the manager's that counts for it.
    policy: Option<OomPolicy>,
    /// It is a service with `Delegate=` and without `OOMPolicy=`.
    delegated: bool,
}

/// Why the unit is to go on; `None`: it isn't.
fn reason(root: &Path, unit: &str, user: bool) -> Option<By> {
    let said = said(root, unit, user);
    if said.delegated { Some(By::Delegation) } else { (said.policy == Some(OomPolicy::Continue)).then_some(By::Policy) }
}

fn said(root: &Path, unit: &str, user: bool) -> Said {
    let (mut policy, mut delegate) = (None, None);
    for text in texts(root, unit, user) {
        assign(&text, &["Service", "Scope"], "OOMPolicy", OomPolicy::of, &mut policy);
        // Empty is a delegation too, of no controllers: systemd.resource-control(5).
        each_assignment(&text, &["Service"], "Delegate", |value| delegate = Some(!is_false(value)));
    }
    // Not for scopes: container runtimes delegate each container's scope, and a container should
    // die whole where the policy says so.
    let delegated = policy.is_none() && delegate == Some(true);
    Said { policy: policy.or_else(|| default(root, user).filter(|_| !delegated)), delegated }
}

/// A unit's fragment and its drop-ins, in the order in which they count.
fn texts(root: &Path, unit: &str, user: bool) -> impl Iterator<Item = String> {
    let directories = directories(root, user);
    let fragment = names(unit).into_iter().find_map(|name| directories.iter().find_map(|directory| read(&directory.join(&name))));
    fragment.into_iter().chain(drop_ins(&directories, unit))
}

fn directories(root: &Path, user: bool) -> Vec<PathBuf> {
    (if user { USER } else { SYSTEM }).iter().map(|directory| root.join(directory)).collect()
}

/// Whether systemd-oomd is to kill in a unit of the system manager, or of a `user`'s: all files
/// taken together.
#[must_use]
pub fn oomd_kills_in(root: &Path, unit: &str, user: bool) -> bool {
    let (mut swap, mut pressure) = (None, None);
    let of = |word: &str| match word {
        "kill" => Some(true),
        "auto" => Some(false),
        _ => None,
    };
    for text in texts(root, unit, user) {
        for (key, said) in [("ManagedOOMSwap", &mut swap), ("ManagedOOMMemoryPressure", &mut pressure)] {
            assign(&text, &["Service", "Scope", "Slice"], key, of, said);
        }
    }
    [swap, pressure].contains(&Some(true))
}

/// Names of fragments and of directories of drop-ins in which systemd-oomd is told to kill, whether
/// another file takes that back or not: of units, of templates (`user@.service`), of all that begin
/// alike (`user-.slice`), of a kind (`slice`).
#[must_use]
pub fn all_that_mention_oomd(root: &Path, user: bool) -> Vec<String> {
    let asks = |path: &Path| {
        let mut found = false;
        for key in ["ManagedOOMSwap", "ManagedOOMMemoryPressure"] {
            each_assignment(&read(path).unwrap_or_default(), &["Service", "Scope", "Slice"], key, |value| found |= value == "kill");
        }
        found
    };
    let mut names: Vec<String> = Vec::new();
    for entry in directories(root, user).iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let unit = name.strip_suffix(".d").unwrap_or(&name);
        let is_unit = ["service", "scope", "slice"].contains(&unit.rsplit('.').next().unwrap_or_default());
        let files = || std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
        if is_unit && !names.iter().any(|known| known == unit) && if path.is_dir() { files().any(|file| asks(&file)) } else { asks(&path) }
        {
            names.push(unit.to_owned());
        }
    }
    names.sort();
    names
}

/// How systemd reads a boolean that is false.
fn is_false(word: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].iter().any(|no| word.eq_ignore_ascii_case(no))
}

/// Every unit of the system manager that has a file or a drop-in by which it is to go on, sorted.
/// An instance is named by its template if that says so.
#[must_use]
pub fn all_that_continue(root: &Path) -> Vec<(String, By)> {
    let mut units: Vec<String> = Vec::new();
    for entry in SYSTEM.iter().filter_map(|directory| std::fs::read_dir(root.join(directory)).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let unit = name.strip_suffix(".d").unwrap_or(&name);
        let is_unit = unit.rsplit_once('.').is_some_and(|(stem, kind)| matches!(kind, "service" | "scope") && !stem.ends_with('-'));
        if is_unit && !units.iter().any(|known| known == unit) {
            units.push(unit.to_owned());
        }
    }
    units.sort();
    units.into_iter().filter_map(|unit| reason(root, &unit, false).map(|by| (unit, by))).collect()
}

/// `DefaultOOMPolicy=` of the manager.
fn default(root: &Path, user: bool) -> Option<OomPolicy> {
    let directories: Vec<PathBuf> = MANAGER.iter().map(|directory| root.join(directory)).collect();
    let file = if user { "user.conf" } else { "system.conf" };
    let mut said = None;
    let main = directories.iter().find_map(|directory| read(&directory.join(file)));
    for text in main.into_iter().chain(in_order(&directories, &[format!("{file}.d")])) {
        assign(&text, &["Manager"], "DefaultOOMPolicy", OomPolicy::of, &mut said);
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
fn assign<T>(text: &str, sections: &[&str], key: &str, of: fn(&str) -> Option<T>, said: &mut Option<T>) {
    each_assignment(text, sections, key, |value| {
        if value.is_empty() {
            *said = None;
        } else if let Some(value) = of(value) {
            *said = Some(value);
        }
    });
}

/// Calls `each` with the value of each assignment of a key, in order.
fn each_assignment(text: &str, sections: &[&str], key: &str, mut each: impl FnMut(&str)) {
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
            each(value.trim());
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
            said(self.0.path(), unit, false).policy
        }

        fn named(&self) -> Vec<String> {
            all_that_continue(self.0.path()).into_iter().map(|(unit, _)| unit).collect()
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
        assert_eq!(files.named(), ["cron.service", "job@.service", "run-7.scope", "ssh.service"]);
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
    fn systemd_oomd_kills_where_the_last_word_says_so() {
        let kill = "[Slice]\nManagedOOMSwap=kill\n";
        let files = Files::with(&[
            ("usr/lib/systemd/system/-.slice.d/10-oomd.conf", kill),
            ("usr/lib/systemd/system/user@.service.d/10-oomd.conf", "[Service]\nManagedOOMMemoryPressure=kill\n"),
            ("usr/lib/systemd/system/system.slice.d/10-oomd.conf", kill),
            ("etc/systemd/system.control/system.slice.d/50-ManagedOOMSwap.conf", "[Slice]\nManagedOOMSwap=auto\n"),
            ("etc/systemd/system.control/user@7.service.d/50-ManagedOOMMemoryPressure.conf", "[Service]\nManagedOOMMemoryPressure=auto\n"),
            ("usr/lib/systemd/system/user-.slice.d/10-oomd.conf", kill),
            ("usr/lib/systemd/system/a.slice.d/10-oomd.conf", kill),
            ("etc/systemd/system/a.slice.d/10-oomd.conf", ""),
            ("usr/lib/systemd/system/b.service", "[Service]\n#ManagedOOMSwap=kill\n[Unit]\nManagedOOMSwap=kill\n"),
        ]);
        let root = files.0.path();
        for (unit, kills) in [
            ("-.slice", true),
            ("user@1000.service", true),
            ("user@7.service", false),
            ("system.slice", false),
            ("user-1000.slice", true),
            ("a.slice", false),
            ("b.service", false),
            ("c.slice", false),
        ] {
            assert_eq!(oomd_kills_in(root, unit, false), kills, "{unit}");
        }
        assert_eq!(all_that_mention_oomd(root, false), ["-.slice", "a.slice", "system.slice", "user-.slice", "user@.service"]);
        assert!(all_that_mention_oomd(root, true).is_empty());
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
            let found = continues(files.0.path(), group);
            assert_eq!(found.as_ref().map(|(unit, by)| (&**unit, *by)), unit.map(|unit| (unit, By::Policy)), "{}", group.escape_ascii());
        }
    }

    #[test]
    fn a_delegated_service_without_oompolicy_goes_on_but_not_what_stands_below_it_and_no_scope() {
        for (text, by) in [
            ("Delegate=yes\n", Some(By::Delegation)),
            ("Delegate=pids memory\n", Some(By::Delegation)),
            // That delegates no controllers, but the group all the same.
            ("Delegate=\n", Some(By::Delegation)),
            ("Delegate=no\n", None),
            ("Delegate=False\n", None),
            ("Delegate=yes\nDelegate=off\n", None),
            ("Delegate=0\nDelegate=pids\n", Some(By::Delegation)),
            ("Delegate=yes\nOOMPolicy=kill\n", None),
            ("OOMPolicy=stop\nOOMPolicy=\nDelegate=yes\n", Some(By::Delegation)),
            ("Delegate=yes\nOOMPolicy=continue\n", Some(By::Policy)),
        ] {
            let text = format!("[Service]\n{text}");
            // The manager's default does not count for those that are delegated.
            for default in ["", "[Manager]\nDefaultOOMPolicy=kill\n"] {
                let files = Files::with(&[("usr/lib/systemd/system/user@.service", &text), ("etc/systemd/system.conf", default)]);
                let own = continues(files.0.path(), b"/user.slice/user-0.slice/user@0.service");
                assert_eq!(own.map(|(_, by)| by), by, "{text:?} {default:?}");
                let below = continues(files.0.path(), b"/user.slice/user-0.slice/user@0.service/user.slice/libpod-1.scope");
                assert_eq!(below.map(|(_, by)| by), by.filter(|by| *by == By::Policy), "{text:?} {default:?}");
            }
        }
        let files = Files::with(&[
            ("usr/lib/systemd/system/a.service", "[Service]\n"),
            ("etc/systemd/system/a.service.d/x.conf", "[Service]\nDelegate=yes\n"),
            ("run/systemd/transient/cri-1.scope", "[Scope]\nDelegate=yes\n"),
        ]);
        assert_eq!(all_that_continue(files.0.path()), [("a.service".to_owned(), By::Delegation)]);
        assert_eq!(continues(files.0.path(), b"/kubepods.slice/cri-1.scope"), None, "a container");
    }
}
