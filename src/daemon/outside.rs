//! What `run` sets up for others to use: the pressure socket, and the helper that runs hooks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::eventfd::EventFd;

use crate::act::hooks::hazards::Facts;
use crate::act::hooks::{Helper, Starter};
use crate::act::listeners::{Door, Listeners};
use crate::command::{FAILED, Failure};
use crate::metrics::counters::Counters;
use crate::policy::model::Policy;
use crate::record::journal::Context;
use crate::record::pool::Pool as Records;
use crate::sandbox;
use crate::warden::hooks::{self, Hooks};

/// Where applications look for it; the value of MEMORY_PRESSURE_WATCH.
pub const SOCKET: &str = "/run/oomwarden/pressure.sock";

/// This program, also after it was replaced on disk.
pub fn own_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// Where cgroup v2 may be mounted; our own group need not be below the watched root.
fn mounts(root: &Path) -> Vec<PathBuf> {
    vec![root.to_owned(), "/sys/fs/cgroup".into()]
}

/// Starts the helper if the policy has hooks and deeds are done at all.
///
/// # Errors
/// When it can't be started.
pub fn start_helper(policy: &Policy, observe: bool, root: &Path) -> io::Result<(Starter, Option<Helper>)> {
    let mut starter = Starter::new(own_program(), mounts(root));
    let helper = if observe || !hooks::are_in(policy) { None } else { Some(starter.start()?) };
    Ok((starter, helper))
}

/// Says what would take the daemon down with somebody whom the kernel kills.
pub fn warn_of_hazards(root: &Path, policy: &Policy) {
    let mounts = mounts(root);
    let facts = Facts::look(&mounts.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    for warning in facts.warnings(hooks::are_in(policy)) {
        tracing::warn!("{warning}");
    }
}

/// Starts the thread that goes between the warden and the helper.
///
/// # Errors
/// As [`Hooks::start`].
pub fn hooks(starter: Starter, helper: Option<Helper>, records: Records, context: Context, mail: Arc<EventFd>) -> io::Result<Hooks> {
    Hooks::start(starter, helper, records, context, mail)
}

/// Opens the pressure socket: at `asked`, nowhere if that is `none`, else at [`SOCKET`], where it may fail.
///
/// # Errors
/// When it can't be opened where it was asked for.
pub fn open_door(asked: Option<&Path>, root: &Path) -> Result<Option<Door>, Failure> {
    match asked {
        Some(path) if path == Path::new("none") => Ok(None),
        Some(path) => Door::open(path, root).map(Some).map_err(|error| Failure {
            code: FAILED,
            message: format!("pressure socket {}: name another place with --pressure-socket, or `none`", sandbox::explained(path, &error)),
        }),
        None => match Door::open(Path::new(SOCKET), root) {
            Ok(door) => Ok(Some(door)),
            Err(error) => {
                tracing::info!("no pressure socket, so applications are warned by signals only: {error}");
                Ok(None)
            }
        },
    }
}

/// Lets listeners in.
///
/// # Errors
/// When the thread can't be started.
pub fn serve(door: Option<Door>, most: usize, counters: &Arc<Counters>) -> io::Result<Option<Arc<Listeners>>> {
    let counters = Arc::clone(counters);
    door.map(|door| door.serve(most, move |count| counters.set_listeners(count))).transpose()
}
