//! vm.panic_on_oom: whether the kernel is to panic where it would kill.
//!
//! The kernel asks the module before it looks at this setting, and the module can't read it. With a handler, or a table, a machine whose
//! administrator wants it to go down rather than lose a process would lose a group, and stay up. So the warden looks, and leaves the
//! module alone while it is set.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::pread;

/// How often it is looked at when nothing happens. The kernel tells nobody that it was changed; a hold is never answered without a
/// look.
const EVERY: Duration = Duration::from_secs(30);

/// The setting, held open.
#[derive(Debug)]
pub(super) struct PanicOnOom {
    file: Option<OwnedFd>,
    is_set: bool,
    due: Duration,
}

impl PanicOnOom {
    /// Opens it below the directory that the module's file is in, /proc.
    pub fn beside(module: &Path) -> PanicOnOom {
        let path = module.with_file_name("sys/vm/panic_on_oom");
        let file = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        PanicOnOom { file: file.ok(), is_set: false, due: Duration::ZERO }
    }

    /// Looks whether it is set; what can't be read stays as it was. Whether that is a change.
    pub fn look(&mut self, now: Duration) -> bool {
        self.due = now + EVERY;
        let mut text = [0; 16];
        let Some(length) = self.file.as_ref().and_then(|file| pread(file, &mut text, 0).ok()) else { return false };
        let value = text.get(..length).unwrap_or_default().trim_ascii();
        let is_set = !value.is_empty() && value != b"0";
        std::mem::replace(&mut self.is_set, is_set) != is_set
    }

    /// What the last look found.
    pub fn is_set(&self) -> bool {
        self.is_set
    }

    /// When to look again.
    pub fn due(&self) -> Duration {
        self.due
    }
}

/// What that means, for log and status.
pub(super) const LACK: &str = "vm.panic_on_oom is set, so the kernel is to panic where it would kill: no OOM is held, and no table is left with the kernel module; \
     its levels are heard. `sysctl vm.panic_on_oom=0` (and in /etc/sysctl.d) if oomwarden is to answer instead";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_is_anything_but_0_and_what_cannot_be_read_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (module, setting) = (directory.path().join("oom_notifier"), directory.path().join("sys/vm/panic_on_oom"));
        let mut none = PanicOnOom::beside(&module);
        assert!(!none.look(Duration::ZERO) && !none.is_set());

        std::fs::create_dir_all(setting.parent().unwrap()).unwrap();
        std::fs::write(&setting, "0\n").unwrap();
        let mut panic = PanicOnOom::beside(&module);
        for (text, changes, is_set) in
            [("0\n", false, false), ("1\n", true, true), ("2\n", false, true), ("0\n", true, false), ("2", true, true), ("", true, false)]
        {
            std::fs::write(&setting, text).unwrap();
            assert_eq!(panic.look(Duration::from_secs(5)), changes, "{text:?}");
            assert_eq!((panic.is_set(), panic.due()), (is_set, Duration::from_secs(35)), "{text:?}");
        }
    }
}
