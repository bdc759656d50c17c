//! What the service manager is told while the daemon runs: `STATUS=`, one line for people, which `systemctl status` shows.
//!
//! A thread of its own, since systemd may be slow to take it. It sleeps until a bell is rung (the warden has shown how it stands, a deed is done,
//! a policy was read), and tells only what has changed, and not more often than every [`REST`].

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sd_notify::NotifyState;

use super::Desk;
use crate::policy::model::Mode;
use crate::preview::text::many;
use crate::record::counters::Counters;
use crate::state::time_text;

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
pub fn start_telling(desk: Desk, counters: Arc<Counters>, rest: Duration, tell: impl FnMut(&str) + Send + 'static) -> io::Result<()> {
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
    std::thread::Builder::new()
        .name("supervisor".into())
        .stack_size(128 * 1024)
        .spawn(move || work(&desk, &counters, &bell, rest, tell))?;
    Ok(())
}

fn work(desk: &Desk, counters: &Counters, bell: &EventFd, rest: Duration, mut tell: impl FnMut(&str)) {
    let mut told = String::new();
    loop {
        match poll(&mut [PollFd::new(bell.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return tracing::error!("the service manager is not told any more how oomwarden stands: {error}"),
        }
        // Taken back before looking: what changes from now on rings again.
        let _ = bell.read();
        let text = Facts::look(desk, counters).map(|facts| facts.text());
        if let Some(text) = text.filter(|text| *text != told) {
            tell(&text);
            told = text;
            std::thread::sleep(rest);
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
    paused_until: Option<SystemTime>,
    breakers: usize,
    /// The policy that was offered last was refused.
    refused: bool,
    deed: Option<Arc<str>>,
}

impl Facts {
    /// `None` before the warden has shown how it stands.
    fn look(desk: &Desk, counters: &Counters) -> Option<Facts> {
        let board = desk.board.as_ref()?;
        let (standing, policy) = (board.standing(), board.policy()?);
        if standing.shown == SystemTime::UNIX_EPOCH {
            return None;
        }
        Some(Facts {
            mode: policy.mode,
            hash: Arc::clone(&policy.hash),
            rules: policy.rules.len(),
            groups: standing.groups,
            armed: standing.armed,
            paused_until: standing.paused_until,
            breakers: standing.breakers_open,
            refused: !counters.is_last_policy_in_force(),
            deed: desk.recent.as_ref().and_then(|recent| recent.deed()),
        })
    }

    /// In one line, what is out of the ordinary first.
    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text can't fail, here and below.
        if let Some(until) = self.paused_until {
            let _ = write!(text, "PAUSED until {}; ", time_text(until));
        }
        if self.refused {
            text.push_str("the last policy is REFUSED, an older one is in force; ");
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
            breakers: 0,
            refused: false,
            deed: None,
        };
        assert_eq!(facts.text(), "enforcing, policy abc (1 rule), 3 groups, 1 PSI trigger armed");
        let facts = Facts {
            mode: Mode::Observe,
            rules: 2,
            armed: 2,
            paused_until: Some(SystemTime::UNIX_EPOCH),
            breakers: 2,
            refused: true,
            deed: Some("killed /t/a by rule x at 1970-01-01T00:00:00Z".into()),
            ..facts
        };
        assert_eq!(
            facts.text(),
            "PAUSED until 1970-01-01T00:00:00Z; the last policy is REFUSED, an older one is in force; 2 breakers open; \
             observing only, policy abc (2 rules), 3 groups, 2 PSI triggers armed; last killed /t/a by rule x at 1970-01-01T00:00:00Z"
        );
    }
}
