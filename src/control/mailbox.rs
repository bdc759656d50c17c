//! Where the warden finds a new policy and asks for a reload; its mail wakes it for whatever others have for it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::reloads::Reloads;
use crate::gather::last_resort::LastResort;
use crate::metrics::rules::RuleCounters;
use crate::policy::model::Policy;

#[derive(Debug)]
struct Shared {
    policy: Mutex<Option<Prepared>>,
    reloads: Arc<Reloads>,
    mail: Arc<EventFd>,
}

/// A policy with all that takes time to make of it, so that the warden only has to move pointers.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The counters of its rules: making them may wait for a scrape.
    pub rules: Arc<[RuleCounters]>,
    /// What the kernel module's table says of it.
    pub last_resort: Arc<LastResort>,
}

/// Where the warden asks for a reload, and finds a new policy.
#[derive(Clone, Debug)]
pub struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Mailbox> {
        let mail = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let shared = Shared { policy: Mutex::new(None), reloads: Arc::new(Reloads::new()?), mail };
        Ok(Mailbox(Arc::new(shared)))
    }

    /// Written whenever something is there for the warden; others may use it for the same.
    #[must_use]
    pub fn mail(&self) -> Arc<EventFd> {
        Arc::clone(&self.0.mail)
    }

    /// Asks for a reload.
    pub fn ask(&self) {
        self.0.reloads.ask();
    }

    /// Where others ask for a reload, and hear what came of it.
    #[must_use]
    pub fn reloads(&self) -> Arc<Reloads> {
        Arc::clone(&self.0.reloads)
    }

    /// The new policy, if one has come.
    #[must_use]
    pub fn take(&self) -> Option<Prepared> {
        self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn put(&self, policy: Prepared) {
        let untaken = self.0.policy.lock().unwrap_or_else(PoisonError::into_inner).replace(policy);
        // Freed with the lock released.
        drop(untaken);
        // Full means that the warden is being woken already.
        let _ = self.0.mail.write(1);
    }
}
