//! What `run` sets up for others to use: the pressure socket, and the helper that runs hooks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::eventfd::EventFd;

use super::FAILED;
use super::failure::Failure;
use crate::act::hooks::Helper;
use crate::act::listeners::{Door, Listeners};
use crate::policy::model::Policy;
use crate::record::counters::Counters;
use crate::record::journal::Context;
use crate::record::pool::Pool as Records;
use crate::warden::hooks::{self, Hooks};

/// Where applications look for it; the value of MEMORY_PRESSURE_WATCH.
pub const SOCKET: &str = "/run/oomwarden/pressure.sock";

/// This program, also after it was replaced on disk.
fn own_program() -> PathBuf {
    "/proc/self/exe".into()
}

/// Starts the helper if the policy has hooks and deeds are done at all.
///
/// # Errors
/// When it can't be started.
pub fn start_helper(policy: &Policy, observe: bool) -> io::Result<Option<Helper>> {
    if observe || !hooks::are_in(policy) { Ok(None) } else { Helper::start(&own_program()).map(Some) }
}

/// Starts the thread that goes between the warden and the helper.
///
/// # Errors
/// As [`Hooks::start`].
pub fn hooks(helper: Option<Helper>, records: Records, context: Context, mail: Arc<EventFd>) -> io::Result<Hooks> {
    Hooks::start(helper, own_program(), records, context, mail)
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
            message: format!("pressure socket {error}: name another place with --pressure-socket, or `none`"),
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
