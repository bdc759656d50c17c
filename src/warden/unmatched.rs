//! Says at the start, and when a policy is adopted, which exclusions protect nothing on this machine: no group has such a name.
//!
//! Ready policies name services of many distributions, so most of that is no fault and is told in one line. A unit that is named
//! without its slice is one, and gets a warning.

use std::fmt::Write as _;

use crate::cgroup::path::GroupPath;
use crate::policy::model::Policy;
use crate::policy::slices;
use crate::sense::tree::Tree;

/// How many globs a line names.
const NAMED: usize = 6;
/// How many times a name may be held against a glob: the warden has other things to do. Some 10 ms.
const MOST_COMPARED: usize = 200_000;

/// Exclusions that no group bears out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Unmatched {
    /// Units that can hardly stand where the policy says, each with the place where they would.
    misplaced: Vec<(String, String)>,
    /// Other globs.
    others: Vec<String>,
    /// How many globs were looked at.
    of: usize,
    /// Not all were.
    cut: bool,
}

/// Writes it to the log.
pub(super) fn tell(policy: &Policy, tree: &Tree) {
    let paths = tree.slots().filter_map(|slot| tree.get(slot)).map(|node| &node.group.path);
    let found = Unmatched::find(policy, &paths.collect::<Vec<_>>());
    for line in found.warnings() {
        tracing::warn!("{line}");
    }
    if let Some(line) = found.remark() {
        tracing::info!("{line}");
    }
}

impl Unmatched {
    fn find(policy: &Policy, paths: &[&GroupPath]) -> Unmatched {
        let mut found = Unmatched::default();
        let mut compared = 0;
        for globs in policy.exclude.iter().map(|exclude| &exclude.group) {
            for (index, pattern) in globs.patterns().enumerate() {
                if compared >= MOST_COMPARED {
                    found.cut = true;
                    return found;
                }
                found.of += 1;
                let at = paths.iter().position(|path| globs.matches_by(index, path.as_bytes()));
                compared += at.map_or(paths.len(), |at| at + 1);
                match (at, slices::usual_place(pattern)) {
                    (Some(_), _) => {}
                    (None, Some(place)) => found.misplaced.push((pattern.to_owned(), place)),
                    (None, None) => found.others.push(pattern.to_owned()),
                }
            }
        }
        found
    }

    fn warnings(&self) -> Vec<String> {
        let more = self.misplaced.len().saturating_sub(NAMED);
        let one = |(pattern, place): &(String, String)| {
            format!("the exclusion {pattern} protects nothing: no group has such a name; on a machine with systemd it would be {place}")
        };
        let mut lines: Vec<String> = self.misplaced.iter().take(NAMED).map(one).collect();
        if more > 0 {
            lines.push(format!("{more} more exclusions like these protect nothing: `oomwarden check` names them"));
        }
        lines
    }

    fn remark(&self) -> Option<String> {
        if self.others.is_empty() {
            return None;
        }
        // A path is more likely to be a slip than a glob is.
        let (globs, literal): (Vec<&String>, Vec<&String>) = self.others.iter().partition(|glob| glob.contains(['*', '?', '[', '{']));
        let names: Vec<&str> = literal.into_iter().chain(globs).map(String::as_str).collect();
        let mut line = format!("no group is there now for {} of {} globs under `exclude`", names.len(), self.of);
        if self.cut {
            line.push_str(" (others were not looked at)");
        }
        // Writing to a text can't fail.
        let _ = write!(line, ": {}", names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "));
        if names.len() > NAMED {
            let _ = write!(line, " and {} more", names.len() - NAMED);
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Source, load};

    fn find(exclude: &str, paths: &[&str]) -> Unmatched {
        let policy = load(&[Source::new("p", format!("version: 1\nexclude: {exclude}\nrules: []\n"))]).unwrap().policy;
        let paths: Vec<GroupPath> = paths.iter().map(|path| GroupPath::from_bytes(path.as_bytes())).collect();
        Unmatched::find(&policy, &paths.iter().collect::<Vec<_>>())
    }

    #[test]
    fn exclusions_that_match_nothing_are_named_once_and_mildly() {
        let machine = ["/", "/init.scope", "/system.slice", "/system.slice/ssh.service", "/a", "/a/b"];
        let found = find("[/init.scope, '/system.slice/{ssh,sshd}.service', {group: /a/*, comm: x}]", &machine);
        assert_eq!((found.of, found.remark(), found.warnings()), (3, None, vec![]));

        let found =
            find("['/system.slice/*getty@*.service', /system.slice/dbus.service, /init.scope, {group: [/a/c, /a/b], comm: x}]", &machine);
        assert_eq!(found.warnings(), [""; 0]);
        assert_eq!(
            found.remark().unwrap(),
            "no group is there now for 3 of 5 globs under `exclude`: /system.slice/dbus.service, /a/c, /system.slice/*getty@*.service"
        );
        let many: Vec<String> = (0..10).map(|n| format!("/system.slice/s{n}.service")).collect();
        let remark = find(&format!("[{}]", many.join(", ")), &machine).remark().unwrap();
        assert!(remark.starts_with("no group is there now for 10 of 10 globs") && remark.ends_with("s5.service and 4 more"), "{remark}");
    }

    #[test]
    fn an_exclusion_without_its_slice_is_a_warning() {
        let found = find("[/ssh.service, '/session-*.scope', /system.slice/ssh.service]", &["/", "/system.slice/ssh.service"]);
        assert_eq!(
            found.warnings(),
            [
                "the exclusion /ssh.service protects nothing: no group has such a name; on a machine with systemd it would be /system.slice/ssh.service",
                "the exclusion /session-*.scope protects nothing: no group has such a name; on a machine with systemd it would be \
                 /user.slice/user-*.slice/session-*.scope",
            ]
        );
        assert_eq!(found.remark(), None);
        // Where it does stand at the top, all is well.
        assert_eq!(find("[/ssh.service]", &["/", "/ssh.service"]), Unmatched { of: 1, ..Unmatched::default() });
        let many: Vec<String> = (0..10).map(|n| format!("/s{n}.service")).collect();
        let warnings = find(&format!("[{}]", many.join(", ")), &["/"]).warnings();
        assert_eq!(
            (warnings.len(), warnings[6].as_str()),
            (7, "4 more exclusions like these protect nothing: `oomwarden check` names them")
        );
    }

    #[test]
    fn a_machine_full_of_groups_does_not_hold_the_warden_up() {
        let paths: Vec<String> = (0..50_000).map(|n| format!("/a/{n}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let exclude: Vec<String> = (0..200).map(|n| format!("/b/{n}")).collect();
        let found = find(&format!("[{}]", exclude.join(", ")), &paths);
        assert!(found.cut && found.of == MOST_COMPARED / 50_000, "{} {}", found.cut, found.of);
        assert!(found.remark().unwrap().contains("4 of 4 globs under `exclude` (others were not looked at)"));
    }
}
