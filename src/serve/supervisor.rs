//! What the service manager is told while the daemon runs: `STATUS=`, one line for people, which `systemctl status` shows.
//!
//! A thread of its own, since systemd may be slow to take it. It sleeps until a bell is rung (the
//! warden has shown how it stands, a deed is done, a policy was read, a fault came or went), and
//! tells only what has changed, and not more often than every [`REST`].

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sd_notify::NotifyState;

use super::Desk;
use crate::control::origin::Source;
use crate::degraded::Reason;
use crate::metrics::counters::Counters;
use crate::policy::model::Mode;
use crate::state::time_text;
use crate::terminal::many;
use crate::threads;

/// How long after one message the next one is held back, so that a storm of groups is none for systemd.
pub const REST: Duration = Duration::from_secs(5);

/// Starts the thread where a service manager listens.
///
/// # Errors
/// EMFILE, or no thread.
pub fn start(desk: Desk, counters: Arc<Counters>) -> io::Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Ok(());
    }
    // A manager that is gone can't be told.
    start_telling(desk, counters, REST, |text| drop(sd_notify::notify(&[NotifyState::Status(text)])))
}

/// Starts the thread; `tell` is handed each text, and may block.
///
/// # Errors
/// EMFILE, or no thread.
pub fn start_telling(desk: Desk, counters: Arc<Counters>, rest: Duration, mut tell: impl FnMut(&str) + Send + 'static) -> io::Result<()> {
    let bell = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    if let Some(board) = &desk.board {
        board.on_shown(Arc::clone(&bell));
    }
    if let Some(recent) = &desk.recent {
        recent.on_deed(Arc::clone(&bell));
    }
    if let Some(reloads) = &desk.reloads {
        reloads.on_decided(Arc::clone(&bell));
    }
    counters.degraded().on_changed(Arc::clone(&bell));
    threads::watched("supervisor", 128 * 1024, move |_| work(&desk, &counters, &bell, rest, &mut tell))?;
    Ok(())
}

fn work(desk: &Desk, counters: &Counters, bell: &EventFd, rest: Duration, tell: &mut impl FnMut(&str)) -> Result<(), String> {
    let (mut told, mut until) = (String::new(), None);
    loop {
        match poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(format!("poll: {error}")),
        }
        // Taken back before looking: what changes from now on rings again.
        let _ = bell.read();
        let Some(facts) = Facts::look(desk, counters, until) else { continue };
        until = facts.paused_until;
        let text = facts.text();
        if text != told {
            tell(&text);
            told = text;
            std::thread::sleep(rest);
        }
    }
}

/// When a pause ends: by the clock that it goes by, and by the wall clock as it was when that was seen first, so that the same end is told in
/// the same words.
#[derive(Clone, Copy, Debug)]
struct Until {
    at: Instant,
    wall: SystemTime,
}

impl Until {
    fn of(at: Instant, before: Option<Until>) -> Until {
        match before {
            Some(before) if before.at == at => before,
            _ => Until { at, wall: SystemTime::now() + at.saturating_duration_since(Instant::now()) },
        }
    }
}

/// What is in force in the place of a policy that can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    /// The one before it, of this run.
    Older,
    /// The last good one of a former run.
    LastGood,
    /// The built-in one, which only observes.
    BuiltIn,
}

impl Instead {
    fn of(desk: &Desk, mode: Mode) -> Instead {
        match &desk.origin {
            Some(origin) if origin.source() == Source::LastGood => Instead::LastGood,
            Some(origin) if origin.source() == Source::BuiltIn && !origin.files.is_empty() && mode == Mode::Observe => Instead::BuiltIn,
            _ => Instead::Older,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Instead::Older => "the last policy is REFUSED, an older one is in force",
            Instead::LastGood => "the policy CAN'T BE USED, the last good one is in force",
            Instead::BuiltIn => "the policy CAN'T BE USED, the built-in one only observes: nobody is killed",
        }
    }
}

/// What is told.
#[derive(Clone, Debug)]
struct Facts {
    mode: Mode,
    hash: Arc<str>,
    rules: usize,
    groups: usize,
    armed: usize,
    paused_until: Option<Until>,
    degraded: Vec<&'static str>,
    breakers: usize,
    /// The policy that was offered last can't be used.
    refused: Option<Instead>,
    deed: Option<Arc<str>>,
}

impl Facts {
    /// `None` before the warden has shown how it stands.
    fn look(desk: &Desk, counters: &Counters, before: Option<Until>) -> Option<Facts> {
        let board = desk.board.as_ref()?;
        let (standing, policy) = (board.standing(), counters.in_force().get()?);
        // The root is one.
        if standing.groups == 0 {
            return None;
        }
        let reasons: Vec<Reason> = counters.degraded().list().iter().map(|(reason, _)| *reason).collect();
        // That of the policy is told in words.
        let degraded = reasons.iter().filter(|reason| **reason != Reason::Policy).map(|reason| reason.word()).collect();
        Some(Facts {
            mode: policy.mode,
            hash: Arc::clone(&policy.hash),
            rules: policy.rules.len(),
            groups: standing.groups,
            armed: standing.armed,
            paused_until: standing.paused_until.map(|until| Until::of(until, before)),
            degraded,
            breakers: standing.breakers_open,
            refused: reasons.contains(&Reason::Policy).then(|| Instead::of(desk, policy.mode)),
            deed: desk.recent.as_ref().and_then(|recent| recent.deed()),
        })
    }

    /// In one line, what is out of the ordinary first.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text can't fail, here and below.
        if let Some(until) = self.paused_until {
            let _ = write!(text, "PAUSED until {}; ", time_text(until.wall));
        }
        if let Some(instead) = self.refused {
            let _ = write!(text, "{}; ", instead.words());
        }
        if !self.degraded.is_empty() {
            let _ = write!(text, "degraded: {}; ", self.degraded.join(", "));
        }
        if self.breakers > 0 {
            let _ = write!(text, "{} open; ", many(self.breakers, "breaker"));
        }
        let mode = if self.mode == Mode::Enforce { "enforcing" } else { "observing only" };
        let (rules, groups, armed) = (many(self.rules, "rule"), many(self.groups, "group"), many(self.armed, "PSI trigger"));
        let _ = write!(text, "{mode}, policy {} ({rules}), {groups}, {armed} armed", self.hash);
        if let Some(deed) = &self.deed {
            let _ = write!(text, "; last {deed}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_the_ordinary_comes_first() {
        let facts = Facts {
            mode: Mode::Enforce,
            hash: "abc".into(),
            rules: 1,
            groups: 3,
            armed: 1,
            paused_until: None,
            degraded: Vec::new(),
            breakers: 0,
            refused: None,
            deed: None,
        };
        assert_eq!(facts.text(), "enforcing, policy abc (1 rule), 3 groups, 1 PSI trigger armed");
        let facts = Facts {
            mode: Mode::Observe,
            rules: 2,
            armed: 2,
            paused_until: Some(Until { at: Instant::now(), wall: SystemTime::UNIX_EPOCH }),
            degraded: vec!["psi", "listen"],
            breakers: 2,
            refused: Some(Instead::Older),
            deed: Some("killed /t/a by rule x at 1970-01-01T00:00:00Z".into()),
            ..facts
        };
        assert_eq!(
            facts.text(),
            "PAUSED until 1970-01-01T00:00:00Z; the last policy is REFUSED, an older one is in force; degraded: psi, listen; 2 breakers open; \
             observing only, policy abc (2 rules), 3 groups, 2 PSI triggers armed; last killed /t/a by rule x at 1970-01-01T00:00:00Z"
        );
    }

    /// What is told of a policy that can't be used goes by what is in force instead.
    #[test]
    fn in_place_of_a_policy_that_can_not_be_used() {
        use crate::control::board::Board;
        use crate::control::origin::Origin;
        use crate::policy::model::Policy;

        let board = Arc::new(Board::new(Arc::new(EventFd::new().unwrap())));
        board.show(|standing| standing.groups = 1);
        let counters = Counters::new().unwrap();
        let mut policy = Policy::builtin().unwrap().policy;
        let mut told = |mode: Mode, source: Source, refused: bool| {
            policy.mode = mode;
            let policy = Arc::new(policy.clone());
            counters.in_force().set(&policy);
            match refused {
                true => counters.policy_fell_back(SystemTime::now(), "not there".to_owned()),
                false => counters.policy_started(SystemTime::now()),
            }
            let origin = Origin::new(&["/etc/policy.yaml".into()], "/run/kept".into(), false, source);
            let desk = Desk { board: Some(Arc::clone(&board)), origin: Some(Arc::new(origin)), ..Desk::default() };
            Facts::look(&desk, &counters, None).unwrap().text()
        };
        let built_in = told(Mode::Observe, Source::BuiltIn, true);
        let start = "the policy CAN'T BE USED, the built-in one only observes: nobody is killed; observing only, policy ";
        assert!(built_in.starts_with(start), "{built_in}");
        let last_good = told(Mode::Enforce, Source::LastGood, true);
        assert!(last_good.starts_with("the policy CAN'T BE USED, the last good one is in force; enforcing, policy "), "{last_good}");
        let older = told(Mode::Enforce, Source::Files, true);
        assert!(older.starts_with("the last policy is REFUSED, an older one is in force; enforcing, policy "), "{older}");
        let sound = told(Mode::Enforce, Source::Files, false);
        assert!(sound.starts_with("enforcing, policy "), "{sound}");
    }
}
