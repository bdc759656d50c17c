//! What the warden reaches beyond the kernel's files: applications that listen, and the administrator's programs.

use std::sync::Arc;

use super::hooks::Hooks;
use crate::act::listeners::Listeners;

/// Both may be missing; then nobody is told, and hooks fail.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Who waits at the pressure socket.
    pub listeners: Option<Arc<Listeners>>,
    /// The way to the helper that runs hooks.
    pub hooks: Option<Hooks>,
}
