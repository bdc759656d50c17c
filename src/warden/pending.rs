//! Notices that wait to be judged.

use std::time::Duration;

use crate::cgroup::GroupId;
use crate::decide::verdict::Notice;
use crate::policy::model::EventKind;

/// How soon a verdict that was put off is judged again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// A notice that waits to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Index of the rule.
    pub rule: u16,
    /// The subject.
    pub subject: GroupId,
    /// What was noticed.
    pub notice: Notice,
    /// When it arrived, on the warden's clock.
    pub arrived: Duration,
    /// Importance and memory.current of the subject, for the order within a batch.
    pub weight: (i64, u64),
}

/// Adds a notice, unless the same rule and subject wait already or there is no room: what lasts comes again. An event
/// does not, a kill by the kernel above all, so it takes the place of another kind of notice.
/// Whether one was let go.
#[must_use]
pub fn push(pending: &mut Vec<Pending>, one: Pending) -> bool {
    let room = pending.len() < pending.capacity();
    let known = pending.iter_mut().find(|other| other.rule == one.rule && other.subject == one.subject);
    let is_new = known.is_none();
    match known {
        Some(other) if is_weightier(&one.notice, &other.notice) => *other = one,
        Some(_) => {}
        None if room => pending.push(one),
        None if breaks_group(&one.notice) => {
            if let Some(other) = pending.iter_mut().find(|other| !breaks_group(&other.notice)) {
                *other = one;
            }
        }
        None if is_event(&one.notice) => {
            if let Some(other) = pending.iter_mut().find(|other| !is_event(&other.notice)) {
                *other = one;
            }
        }
        None => {}
    }
    is_new && !room
}

/// Whether of two notices for the same rule and subject the new one is to be judged: kills by the kernel before other
/// events, which don't come again, and these before what does; of the kernel module's levels the worse.
fn is_weightier(new: &Notice, known: &Notice) -> bool {
    match (new, known) {
        (Notice::Lms(new), Notice::Lms(known)) => new > known,
        _ => breaks_group(new) || lasts(new) > lasts(known),
    }
}

/// For how long a notice holds, to be compared: a kill by the kernel before other events, which don't come again, and these before what does.
pub(super) fn lasts(notice: &Notice) -> (bool, bool) {
    (breaks_group(notice), is_event(notice))
}

/// Whether the notice says that a group is no longer whole, which does not pass by itself.
pub(super) fn breaks_group(notice: &Notice) -> bool {
    matches!(notice, Notice::Event(kind, ..) if is_kill(*kind))
}

/// Whether the event is a kill by the kernel.
pub(super) fn is_kill(kind: EventKind) -> bool {
    matches!(kind, EventKind::OomKill | EventKind::OomGroupKill)
}

/// Whether the notice is of a counter that rose, which need not rise again while the trouble lasts.
pub(super) fn is_event(notice: &Notice) -> bool {
    matches!(notice, Notice::Event(..))
}

pub(super) fn rule_index(rule: usize) -> u16 {
    // The compiler allows 256 rules.
    u16::try_from(rule).unwrap_or(u16::MAX)
}
