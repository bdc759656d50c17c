//! The control socket: a Unix socket that only its owner and his group may use.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::owners::{self, Unsafe};

/// Where it is if nothing is said.
pub const DEFAULT: &str = "/run/oomwarden/control.sock";

/// Who may connect: the owner and his group.
const MODE: u32 = 0o660;

/// A path to listen at, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAddr {
    /// There is no control socket.
    None,
    /// Here.
    Path(PathBuf),
}

impl FromStr for ControlAddr {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<ControlAddr, Self::Err> {
        Ok(if text == "none" { ControlAddr::None } else { ControlAddr::Path(text.into()) })
    }
}

/// Why there can be no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon answers there.
    #[error("--control {0}: another oomwarden listens there: stop it, or name another path, or `none`")]
    InUse(PathBuf),
    /// Others may put another in its place.
    #[error("--control {0}: others could replace the socket: {1}; or name another path, or `none`")]
    Unsafe(PathBuf, #[source] Unsafe),
    /// Something else has that name.
    #[error("--control {0}: there is a file which is no socket: move it away, or name another path, or `none`")]
    NoSocket(PathBuf),
    /// Anything else.
    #[error("--control {0}: {1}; name a path (at most 107 bytes) in a directory that oomwarden may write to, or `none`")]
    Failed(PathBuf, #[source] io::Error),
}

/// The listening socket. Dropping it takes its file away, unless that is another's by now.
#[derive(Debug)]
pub struct ControlSocket {
    listener: Option<UnixListener>,
    path: PathBuf,
    identity: (u64, u64),
}

impl ControlSocket {
    /// Listens at `path`, in whose place there may be a socket that a dead daemon left. Directories are made as needed.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
        let failed = |error| ControlError::Failed(path.to_owned(), error);
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            owners::make_directory(parent).map_err(failed)?;
            owners::place(parent).map_err(|error| ControlError::Unsafe(path.to_owned(), error))?;
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => return Err(ControlError::NoSocket(path.to_owned())),
            Ok(_) if owners::somebody_listens(path).map_err(failed)? => return Err(ControlError::InUse(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        // Made under another name, so that nobody can connect before its mode is right, and nobody finds no socket.
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut unfinished = std::ffi::OsString::from(".");
        unfinished.push(name);
        let unfinished = path.with_file_name(unfinished);
        let _ = fs::remove_file(&unfinished);
        let listener = owners::listen(&unfinished, MODE).map_err(failed)?;
        let finish = || {
            let identity = identity(&unfinished)?;
            fs::rename(&unfinished, path)?;
            Ok(identity)
        };
        match finish() {
            Ok(identity) => Ok(ControlSocket { listener: Some(listener), path: path.to_owned(), identity }),
            Err(error) => {
                let _ = fs::remove_file(&unfinished);
                Err(failed(error))
            }
        }
    }

    /// The listener itself, for whoever accepts; once.
    pub(super) fn listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            // Gone meanwhile, or in a directory that became read-only: the next daemon replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::owners::tests::Deaf;

    /// A connect that blocks would wait here for good.
    #[test]
    fn one_who_does_not_answer_any_more_is_not_replaced_nor_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        let _deaf = Deaf::at(&path);
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::InUse(_))));
        assert!(path.exists());
    }

    #[test]
    fn where_others_could_replace_the_socket_there_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("control.sock");
        for (mode, made) in [(0o777, false), (0o1777, true), (0o755, true)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).expect("chmod");
            let bound = ControlSocket::bind(&path);
            assert_eq!(bound.is_ok(), made, "{mode:o}: {bound:?}");
            if let Err(error) = bound {
                let said = error.to_string();
                assert!(said.contains("others could replace the socket") && said.contains("mode 0777"), "{said}");
            }
        }
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deeper").join("control.sock");
        let first = ControlSocket::bind(&path).expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o7777, 0o660);
        assert!(UnixStream::connect(&path).is_ok());
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::InUse(_))));
        drop(first);
        assert!(!path.exists(), "taken away at the end");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "left behind");
        let second = ControlSocket::bind(&path).expect("replaced");
        // Another's by now: not ours to remove.
        fs::remove_file(&path).expect("removed");
        let _third = UnixListener::bind(&path).expect("bound");
        drop(second);
        assert!(path.exists());
        assert_eq!(fs::read_dir(path.parent().expect("a parent")).expect("listed").count(), 1);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("precious");
        fs::write(&path, "text").expect("written");
        let error = ControlSocket::bind(&path).expect_err("refused").to_string();
        assert!(error.contains("precious") && error.contains("no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "text");
        std::os::unix::fs::symlink(&path, dir.path().join("link")).expect("linked");
        assert!(matches!(ControlSocket::bind(&dir.path().join("link")), Err(ControlError::NoSocket(_))));
        let long = dir.path().join("x".repeat(120));
        assert!(ControlSocket::bind(&long).expect_err("too long").to_string().contains("107 bytes"));
        assert!(ControlSocket::bind(Path::new("/proc/oomwarden/x")).is_err());
    }
}
