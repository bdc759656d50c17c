//! Whoever wants the policy read again asks here, and may hear what came of it.
//!
//! The signal's way and the control socket's both end here; the thread that reads policies waits for the bell.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

/// What came of a reload: the fingerprint of the policy that takes over, or why the new one is refused.
pub type Decided = Result<Arc<str>, String>;

/// Askers that wait at a time; the control socket has fewer places.
const MOST_WAITING: usize = 16;

/// Shared by those who ask and the thread that reads.
#[derive(Debug)]
pub struct Reloads {
    asked: AtomicBool,
    bell: EventFd,
    waiting: Mutex<Vec<oneshot::Sender<Decided>>>,
    told: OnceLock<Arc<EventFd>>,
}

impl Reloads {
    /// Nobody has asked.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> io::Result<Reloads> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Reloads { asked: AtomicBool::new(false), bell, waiting: Mutex::default(), told: OnceLock::new() })
    }

    /// Asks. Waits for nobody.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // Full means that it is being asked already.
        let _ = self.bell.write(1);
    }

    /// Asks, and hears what came of it. `None`: too many wait already.
    #[must_use]
    pub fn ask_and_hear(&self) -> Option<oneshot::Receiver<Decided>> {
        let hearer = self.line_up()?;
        self.ask();
        Some(hearer)
    }

    /// Waits for the end of the next reading that is asked for.
    fn line_up(&self) -> Option<oneshot::Receiver<Decided>> {
        let (teller, hearer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|teller| !teller.is_closed());
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        waiting.push(teller);
        Some(hearer)
    }

    /// `bell` is rung whenever a policy was read, whoever asked.
    pub fn on_decided(&self, bell: Arc<EventFd>) {
        // Set once, at the start.
        let _ = self.told.set(bell);
    }

    /// For the reading thread: takes the bell's notice back; whether somebody asked, and who waits
    /// to hear. Who lines up and has not asked yet stays in line for the next time.
    #[must_use]
    pub fn take(&self) -> (bool, Vec<oneshot::Sender<Decided>>) {
        // EAGAIN where nobody rang.
        let _ = self.bell.read();
        if !self.asked.swap(false, Ordering::SeqCst) {
            return (false, Vec::new());
        }
        (true, std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// For the reading thread: a policy was read, with this end.
    pub fn tell(&self, waiting: Vec<oneshot::Sender<Decided>>, decided: &Decided) {
        for teller in waiting {
            // Who asked may have gone.
            let _ = teller.send(decided.clone());
        }
        if let Some(bell) = self.told.get() {
            let _ = bell.write(1);
        }
    }
}

impl AsFd for Reloads {
    /// Readable when somebody asks.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_waits_hears_and_a_crowd_is_bounded() {
        let reloads = Reloads::new().unwrap();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        reloads.on_decided(Arc::clone(&bell));
        assert!(!reloads.take().0);
        reloads.ask();
        let mut hearers: Vec<_> = (0..MOST_WAITING).map(|_| reloads.ask_and_hear().unwrap()).collect();
        assert!(reloads.ask_and_hear().is_none());
        // Who gave up makes room.
        drop(hearers.pop());
        hearers.push(reloads.ask_and_hear().unwrap());
        let (asked, waiting) = reloads.take();
        assert!(asked && waiting.len() == MOST_WAITING);
        reloads.tell(waiting, &Err("bad".to_owned()));
        for mut hearer in hearers {
            assert_eq!(hearer.try_recv(), Ok(Err("bad".to_owned())));
        }
        assert_eq!(bell.read().ok(), Some(1));
        assert!(!reloads.take().0, "once");
    }

    /// The reading thread may be woken by something else between the two steps of an asker.
    #[test]
    fn who_is_about_to_ask_is_not_forgotten() {
        let reloads = Reloads::new().unwrap();
        let mut hearer = reloads.line_up().unwrap();
        let (asked, waiting) = reloads.take();
        assert!(!asked && waiting.is_empty());
        reloads.ask();
        let (asked, waiting) = reloads.take();
        assert!(asked && waiting.len() == 1);
        reloads.tell(waiting, &Ok("hash".into()));
        assert_eq!(hearer.try_recv(), Ok(Ok("hash".into())));
    }
}
