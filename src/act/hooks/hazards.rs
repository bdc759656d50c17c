//! What takes the daemon down together with somebody whom the kernel kills: said at the start, with what to do.

use std::fs;
use std::path::Path;

use super::place::own_directory;
use crate::cgroup::path::Escaped;
use crate::unit_files;

/// The oom_score_adj of a process that the kernel never kills for memory, not even with its group.
pub const EXEMPT: &str = "-1000";

/// What the machine says about us.
#[derive(Debug)]
pub struct Facts {
    /// The groups from our own up to the root of the mount whose memory.oom.group is 1, as paths.
    pub killed_whole: Vec<String>,
    /// /proc/self/oom_score_adj.
    pub oom_score_adj: String,
    /// The systemd service that we are the main process of and that systemd stops when the kernel kills one of its processes.
    pub stopped_unit: Option<String>,
}

impl Facts {
    /// Looks. `mounts` as for [`own_directory`].
    #[must_use]
    pub fn look(mounts: &[&Path]) -> Facts {
        let (mut killed_whole, mut stopped_unit) = (Vec::new(), None);
        if let Some((mount, own)) = own_directory(mounts) {
            let shown = |group: &Path| {
                let path = group.strip_prefix(&mount).unwrap_or(group);
                format!("/{}", Escaped(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())))
            };
            let line = own.ancestors().take_while(|group| group.starts_with(&mount));
            let is_set = |group: &&Path| fs::read_to_string(group.join("memory.oom.group")).is_ok_and(|text| text.trim() == "1");
            killed_whole = line.filter(is_set).map(shown).collect();
            if std::env::var_os("INVOCATION_ID").is_some() {
                stopped_unit = stopped(Path::new("/"), &shown(&own));
            }
        }
        let oom_score_adj = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default().trim().to_owned();
        Facts { killed_whole, oom_score_adj, stopped_unit }
    }

    /// The warnings; `hooks`: the policy has some.
    pub fn warnings(&self, hooks: bool) -> impl Iterator<Item = String> + '_ {
        let whole = self.killed_whole.first().filter(|_| self.oom_score_adj != EXEMPT).map(|group| {
            let adjust = &self.oom_score_adj;
            format!(
                "memory.oom.group of {group} is 1 and oomwarden's oom_score_adj is {adjust}: whomever the kernel kills in there, a hook for one, \
                 oomwarden dies with; start it with oom_score_adj {EXEMPT} (systemd: OOMScoreAdjust={EXEMPT}, or grant CAP_SYS_RESOURCE), or set that \
                 memory.oom.group to 0 (systemd: OOMPolicy=continue)"
            )
        });
        let stopped = self.stopped_unit.as_ref().filter(|_| hooks).map(|unit| {
            format!(
                "{unit} has no OOMPolicy=continue: when the kernel kills a hook for memory, systemd stops oomwarden; add it to [Service] \
                 (`systemctl edit {unit}`)"
            )
        });
        whole.into_iter().chain(stopped)
    }
}

/// The service of a group's path, unless it is to go on when one of its processes is killed. `root` is the root directory.
fn stopped(root: &Path, group: &str) -> Option<String> {
    let end = group.rfind(".service").map(|at| at + ".service".len())?;
    let (base, below) = group.split_at_checked(end)?;
    let unit = base.rsplit('/').next().filter(|_| below.is_empty() || below.starts_with('/'))?;
    // What stands below the unit are our own parts of it.
    unit_files::continues(root, base.as_bytes()).is_none().then(|| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(facts: &Facts, hooks: bool) -> Vec<String> {
        facts.warnings(hooks).collect()
    }

    #[test]
    fn a_group_that_dies_whole_is_said_unless_we_are_exempt() {
        let facts = |adjust: &str| Facts {
            killed_whole: vec!["/pods/a".to_owned(), "/pods".to_owned()],
            oom_score_adj: adjust.to_owned(),
            stopped_unit: None,
        };
        let warnings = said(&facts("0"), false);
        assert!(
            warnings.len() == 1 && warnings[0].contains("memory.oom.group of /pods/a is 1") && warnings[0].contains("-1000"),
            "{warnings:?}"
        );
        assert!(said(&facts(EXEMPT), true).is_empty());
        let none = Facts { killed_whole: Vec::new(), oom_score_adj: "0".to_owned(), stopped_unit: None };
        assert!(said(&none, true).is_empty());
    }

    #[test]
    fn a_unit_that_systemd_stops_is_said_where_hooks_are() {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let write = |text: &str| fs::write(units.join("w.service"), format!("[Service]\n{text}\n")).unwrap();
        write("ExecStart=/w");
        let unit = stopped(dir.path(), "/system.slice/w.service");
        assert_eq!(unit.as_deref(), Some("w.service"));
        assert_eq!(stopped(dir.path(), "/system.slice/w.service/daemon"), unit);
        let facts = Facts { killed_whole: Vec::new(), oom_score_adj: EXEMPT.to_owned(), stopped_unit: unit };
        assert!(said(&facts, true)[0].contains("w.service has no OOMPolicy=continue") && said(&facts, false).is_empty());
        for goes_on in ["OOMPolicy=continue", "Delegate=memory"] {
            write(goes_on);
            assert_eq!(stopped(dir.path(), "/system.slice/w.service"), None, "{goes_on}");
            assert_eq!(stopped(dir.path(), "/system.slice/w.service/daemon"), None, "{goes_on}");
        }
        assert_eq!(stopped(dir.path(), "/user.slice/session-1.scope"), None, "no service");
    }
}
