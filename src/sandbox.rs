//! Names the setting of a systemd unit by which a path fails: the file system that a service sees is not the machine's, and the bare errno
//! ("No such file or directory" for a file that is there) leads nowhere. See systemd.exec(5), "Sandboxing".

use std::error::Error;
use std::io;
use std::path::Path;

/// What `ProtectHome=` hides, or makes read-only.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];
/// What `PrivateTmp=` replaces.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// The error in words, with the setting that is probably the reason where this process is a service of systemd.
#[must_use]
pub fn explained(path: &Path, error: &(dyn Error + 'static)) -> String {
    with_reason(error, errno(error).and_then(|errno| reason_here(path, errno)))
}

fn with_reason(error: &(dyn Error + 'static), reason: Option<String>) -> String {
    match reason {
        Some(reason) => format!("{error} ({reason})"),
        None => error.to_string(),
    }
}

/// [`reason`], if this process is a service of systemd.
#[must_use]
pub fn reason_here(path: &Path, errno: i32) -> Option<String> {
    std::env::var_os("INVOCATION_ID").and_then(|_| reason(path, errno))
}

/// The system's error at the bottom of others. Not each [`io::Error`] is one: it may stand for an
/// error of ours.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut at = Some(error);
    while let Some(error) = at {
        match error.downcast_ref().and_then(io::Error::raw_os_error) {
            Some(errno) => return Some(errno),
            None => at = error.source(),
        }
    }
    None
}

/// The setting by which a service's use of this path may fail so.
#[must_use]
pub fn reason(path: &Path, errno: i32) -> Option<String> {
    let below = |places: &[&str]| places.iter().any(|place| path.starts_with(place));
    let missing = matches!(errno, libc::ENOENT | libc::EACCES | libc::EPERM);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(path).display();
    let edit = "`systemctl edit oomwarden`, section [Service]";
    if below(&HOMES) && (missing || errno == libc::EROFS) {
        let allow = format!("move it elsewhere, or allow it with ProtectHome=tmpfs and BindPaths={directory} ({edit})");
        return Some(format!("if it is there: the unit's ProtectHome= hides /home, /root and /run/user from the service; {allow}"));
    }
    if below(&TEMPORARY) && errno == libc::ENOENT {
        return Some(format!(
            "if it is there: the unit's PrivateTmp= gives the service a /tmp and a /var/tmp of its own; move it elsewhere, or set PrivateTmp=no ({edit})"
        ));
    }
    if errno == libc::EROFS {
        // A directory that is not there would keep the unit from starting.
        let make = if path.parent().is_some_and(Path::exists) { String::new() } else { format!("make {directory} and ") };
        return Some(format!(
            "the unit's ProtectSystem= makes it read-only for the service; {make}allow it with ReadWritePaths={directory} ({edit})"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owners::Unsafe;
    use crate::state::lock::LockError;

    #[derive(Debug, thiserror::Error)]
    #[error("journal {path}: {source}")]
    struct Outer {
        path: String,
        source: io::Error,
    }

    #[test]
    fn the_setting_is_named_with_what_to_write() {
        let said = |path: &str, errno: i32| reason(Path::new(path), errno).unwrap_or_default();
        let system = said("/nowhere/oomwarden/journal", libc::EROFS);
        assert!(system.contains("ProtectSystem=") && system.contains("make /nowhere/oomwarden and "), "{system}");
        assert!(system.contains("ReadWritePaths=/nowhere/oomwarden "), "{system}");
        assert!(!said("/etc/journal", libc::EROFS).contains("make "));
        for home in ["/home/a/policy.yaml", "/root/policy.yaml", "/run/user/1000/x"] {
            for errno in [libc::ENOENT, libc::EACCES, libc::EROFS] {
                let home = said(home, errno);
                assert!(home.contains("ProtectHome=") && !home.contains("ProtectSystem="), "{home}");
            }
        }
        assert!(said("/home/a/p.yaml", libc::ENOENT).contains("BindPaths=/home/a "));
        assert!(said("/var/tmp/p", libc::ENOENT).contains("PrivateTmp="));
        for (path, errno) in
            [("/etc/oomwarden/x", libc::ENOENT), ("/homes/x", libc::ENOENT), ("/tmp/x", libc::EACCES), ("/home/x", libc::EMFILE)]
        {
            assert_eq!(said(path, errno), "", "{path} {errno}");
        }
    }

    #[test]
    fn the_systems_error_is_found_below_others() {
        let outer = Outer { path: "/a".to_owned(), source: io::Error::from_raw_os_error(libc::EROFS) };
        assert_eq!((errno(&outer), errno(&outer.source)), (Some(libc::EROFS), Some(libc::EROFS)));
        assert_eq!(errno(&io::Error::other(outer)), Some(libc::EROFS));
        assert_eq!(errno(&io::Error::other("nothing of the system's")), None);
    }

    #[test]
    fn the_setting_is_named_for_what_has_no_lock() {
        let path = Path::new("/srv/oomwarden/lock");
        let unfit = || Unsafe::Io { path: path.to_owned(), source: io::Error::from_raw_os_error(libc::EROFS) };
        for error in [LockError::State { why: unfit() }, LockError::Place { why: unfit() }] {
            let said = with_reason(&error, errno(&error).and_then(|errno| reason(path, errno)));
            assert!(said.contains("ReadWritePaths=/srv/oomwarden "), "{said}");
        }
    }
}
