//! What keeps the daemon from doing all that it was set up for, while it goes on: said in `oomwarden_degraded`, in the status and at
//! `/-/ready`.
//!
//! Each [`Reason`] has one text at a time. Whoever finds a fault sets it, and clears it when it is mended; that
//! may happen on any thread. The lock is held for an exchange of pointers only: nothing is allocated, freed or formatted within it.
//! Whoever tells of them further is woken by a bell when one begins, changes or ends.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use nix::sys::eventfd::EventFd;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};

/// Why the daemon is degraded: the label of `oomwarden_degraded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The policy that was offered last is not the one in force.
    Policy,
    /// The kernel has no PSI: rules that wait for stall never fire.
    Psi,
    /// PSI is off for some groups (cgroup.pressure), and rules wait for their stall.
    GroupPsi,
    /// The kernel module has not taken us as its handler, or can be left no table: it is of another
    /// version, or vm.panic_on_oom is set.
    Lms,
    /// The default listen address is taken.
    Listen,
    /// A thread has died.
    Threads,
}

impl Reason {
    /// All reasons, in their order.
    pub const ALL: [Reason; 6] = [Reason::Policy, Reason::Psi, Reason::GroupPsi, Reason::Lms, Reason::Listen, Reason::Threads];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Policy => "policy",
            Reason::Psi => "psi",
            Reason::GroupPsi => "group_psi",
            Reason::Lms => "lms",
            Reason::Listen => "listen",
            Reason::Threads => "threads",
        }
    }
}

/// A text for each reason that holds now.
type Texts = [Option<Arc<str>>; Reason::ALL.len()];

/// The reasons that hold now. Shared by all who find and mend faults, and by who tells of them.
#[derive(Debug)]
pub struct Degraded {
    texts: Mutex<Texts>,
    gauges: [IntGauge; Reason::ALL.len()],
    bell: OnceLock<Arc<EventFd>>,
}

impl Degraded {
    /// With the gauge of every reason, at 0: in the registry, labelled by it.
    ///
    /// # Errors
    /// Names or labels that the registry refuses: an error in the program.
    pub fn new(registry: &Registry) -> prometheus::Result<Degraded> {
        let help = "Whether something keeps the daemon from doing all that it was set up for (1) or not (0).";
        let gauges = IntGaugeVec::new(Opts::new("oomwarden_degraded", help), &["reason"])?;
        registry.register(Box::new(gauges.clone()))?;
        let gauges = Reason::ALL.map(|reason| gauges.with_label_values(&[reason.word()]));
        Ok(Degraded { texts: Mutex::default(), gauges, bell: OnceLock::new() })
    }

    /// `bell` is rung whenever a reason begins or ends, or has another text. It must not block: the
    /// warden rings it too.
    pub fn on_changed(&self, bell: Arc<EventFd>) {
        // Set once, at the start.
        let _ = self.bell.set(bell);
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        // Whole after every operation, whoever panicked meanwhile.
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Degraded::set`] with a text and [`Degraded::clear`] without, for the warden, who waits for nobody: nothing is changed if somebody reads
    /// at the moment, and `None` comes back.
    pub fn try_put(&self, reason: Reason, text: Option<Arc<str>>) -> Option<bool> {
        let texts = match self.texts.try_lock() {
            Ok(texts) => texts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(self.put(texts, reason, text))
    }

    fn put(&self, mut texts: MutexGuard<'_, Texts>, reason: Reason, text: Option<Arc<str>>) -> bool {
        let before = std::mem::replace(&mut texts[reason as usize], text.clone());
        self.gauges[reason as usize].set(i64::from(text.is_some()));
        drop(texts);
        let changed = before != text;
        if changed && let Some(bell) = self.bell.get() {
            // Full means that it rings already.
            let _ = bell.write(1);
        }
        changed
    }

    /// From now on `reason` holds; `text` says in one line what is wrong and what to do. It replaces an earlier text of the same
    /// reason. Tells whether the reason is new or its text another one, so that it is logged once.
    pub fn set(&self, reason: Reason, text: impl Into<Arc<str>>) -> bool {
        let text = text.into();
        self.put(self.texts(), reason, Some(text))
    }

    /// `reason` holds no more. Tells whether it did.
    pub fn clear(&self, reason: Reason) -> bool {
        self.put(self.texts(), reason, None)
    }

    /// What holds now, with its text, in the order of [`Reason::ALL`].
    #[must_use]
    pub fn list(&self) -> Vec<(Reason, Arc<str>)> {
        let texts = self.texts().each_ref().map(Option::clone);
        Reason::ALL.into_iter().zip(texts).filter_map(|(reason, text)| Some((reason, text?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn degraded() -> (Degraded, Registry) {
        let registry = Registry::new();
        (Degraded::new(&registry).expect("gauges"), registry)
    }

    fn metrics(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn all_reasons_are_there_from_the_start_each_at_its_own_place() {
        let (degraded, registry) = degraded();
        assert!(degraded.list().is_empty());
        let lines = metrics(&registry);
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(lines.contains(&format!("oomwarden_degraded{{reason=\"{}\"}} 0", reason.word())), "{lines:?}");
        }
        assert_eq!(lines.len(), Reason::ALL.len());
    }

    #[test]
    fn a_reason_comes_changes_and_goes() {
        let (degraded, registry) = degraded();
        assert!(degraded.set(Reason::Listen, "taken"));
        assert!(!degraded.set(Reason::Listen, "taken".to_owned()), "the same again");
        assert!(degraded.set(Reason::Listen, "taken by another"));
        assert!(degraded.set(Reason::Policy, "refused"));
        assert_eq!(degraded.list(), [(Reason::Policy, "refused".into()), (Reason::Listen, "taken by another".into())]);
        assert!(metrics(&registry).contains(&"oomwarden_degraded{reason=\"listen\"} 1".to_owned()));
        assert!(degraded.clear(Reason::Listen) && !degraded.clear(Reason::Listen));
        assert_eq!(degraded.list(), [(Reason::Policy, "refused".into())]);
        assert!(metrics(&registry).contains(&"oomwarden_degraded{reason=\"listen\"} 0".to_owned()));
    }

    #[test]
    fn a_bell_rings_when_something_changes_and_only_then() {
        use nix::sys::eventfd::EfdFlags;
        let (degraded, _) = degraded();
        let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        degraded.on_changed(Arc::clone(&bell));
        for (reason, text, changed) in [
            (Reason::Listen, None, false),
            (Reason::Listen, Some("taken"), true),
            (Reason::Listen, Some("taken"), false),
            (Reason::Listen, Some("taken by another"), true),
            (Reason::Psi, Some("off"), true),
            (Reason::Listen, None, true),
            (Reason::Listen, None, false),
        ] {
            let text: Option<Arc<str>> = text.map(Arc::from);
            assert_eq!(degraded.try_put(reason, text.clone()), Some(changed));
            assert_eq!(bell.read().ok(), changed.then_some(1), "{reason:?} {text:?}");
        }
    }

    #[test]
    fn the_warden_waits_for_nobody_who_reads() {
        let (degraded, _) = degraded();
        let reading = degraded.texts();
        assert_eq!(degraded.try_put(Reason::Psi, Some("off".into())), None);
        drop(reading);
        assert_eq!(degraded.try_put(Reason::Psi, Some("off".into())), Some(true));
        assert_eq!(degraded.try_put(Reason::Psi, Some("off".into())), Some(false));
        assert_eq!(degraded.list(), [(Reason::Psi, "off".into())]);
        assert_eq!(degraded.try_put(Reason::Psi, None), Some(true));
        assert_eq!(degraded.try_put(Reason::Psi, None), Some(false));
    }
}
