//! What keeps a rule still: cool-downs, back-off after kills that freed little, and verdicts that were put off.
//!
//! A table of fixed size, keyed by rule and the subject's *path*: a supervisor that starts a service
//! anew makes a new group under the old name, and a cool-down is there to end that very loop. What was
//! noticed belongs to one group, so a kept notice is void once another stands under the name. Time comes
//! in as the time since some fixed moment (monotonic), and nothing here allocates after
//! [`History::with_capacity`].
//!
//! While a rule rests for a subject, its notices don't lead to judgements. Those of a level or of stall are dropped: if the
//! trouble lasts, they come again. Counters of events don't come again, so the weightiest such notice is kept and
//! handed out when the rest is over ([`History::take_due`]). What was noticed before a deed ended well is evidence of a trouble that
//! is over, and forgotten with it.

use std::time::Duration;

use super::facts::GroupId;
use super::verdict::Notice;
use crate::cgroup::path::GroupPath;
use crate::policy::model::EventKind;
use crate::units::Share;

/// However little the kills free, a rule rests no longer than this (unless its own cool-down is longer).
pub const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// A kill that freed less than this share of the victim's usage freed little.
pub const LITTLE_OF_USAGE: Share = Share::percent(10);

/// And so did one that freed less than this, bytes: nobody's trouble ends by a MiB.
pub const LITTLE: u64 = 1 << 20;

/// Doubling starts anew for a rule and subject that had no deed for so long.
pub const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The longest time from one judgement to the next while a verdict is put off.
pub const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// While a verdict is put off again and again, that is said so often.
pub const SAID_AGAIN: Duration = Duration::from_secs(60);

/// Whether a kill freed so little that the next one would hardly help either. Not known (`false`) if the numbers were not
/// read; never so after a kernel OOM kill, where the aim was to end what is left of a broken group.
#[must_use]
pub fn freed_little(notice: &Notice, usage_bytes: Option<u64>, freed_bytes: Option<u64>) -> bool {
    if matches!(notice, Notice::Event(EventKind::OomKill | EventKind::OomGroupKill, ..)) {
        return false;
    }
    let (Some(usage), Some(freed)) = (usage_bytes, freed_bytes) else { return false };
    freed < LITTLE_OF_USAGE.of(usage).max(LITTLE)
}

/// What becomes of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Judge it now.
    Judge,
    /// It will be handed out by [`History::take_due`].
    Kept,
    /// If the trouble lasts it will be noticed again.
    Dropped,
}

/// How a deed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeedEnd {
    /// The victim is gone.
    Gone {
        /// See [`freed_little`].
        freed_little: bool,
    },
    /// The trouble ended on a lower rung.
    Recovered,
    /// The victim, and any other that was tried, lives on.
    Failed,
}

/// A subject: the group, and the name under which its rests are kept.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Identity.
    pub id: GroupId,
    /// Name.
    pub path: &'a GroupPath,
}

#[derive(Clone, Debug)]
struct Entry {
    rule: u16,
    path: GroupPath,
    /// The group that stood under the name last.
    id: GroupId,
    /// Rests until then; `None` while a deed is under way.
    until: Option<Duration>,
    /// How long the last rest was, if it was longer than the rule's cool-down.
    back_off: Option<Duration>,
    pending: Option<(EventKind, u64, u64)>,
    /// When the last deed ended.
    ended: Option<Duration>,
    /// When it was last said that a verdict was put off.
    put_off: Option<Duration>,
    /// It rests because a verdict was put off, not for a deed: how long it rests each time.
    retry: Option<Duration>,
    /// When this entry was last needed.
    touched: Duration,
}

impl Entry {
    fn concerns(&self, rule: u16, subject: &Subject<'_>) -> bool {
        self.rule == rule && self.path == *subject.path
    }

    fn rests(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Keeps a notice of an event; others are let go.
    fn keep(&mut self, notice: &Notice) -> Admission {
        match notice {
            Notice::Event(kind, from, to) => {
                self.pending = Some(weightier(self.pending, (*kind, *from, *to)));
                Admission::Kept
            }
            Notice::Psi(_) | Notice::Usage(..) | Notice::Available(..) | Notice::SwapFree(..) | Notice::Lms(_) => Admission::Dropped,
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct History {
    entries: Vec<Entry>,
    capacity: usize,
    lost: u64,
}

impl History {
    /// A table for `capacity` pairs of rule and subject (at least one). When it is full, the entry that is needed least makes room.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> History {
        let capacity = capacity.max(1);
        History { entries: Vec::with_capacity(capacity), capacity, lost: 0 }
    }

    /// A notice has come: may it be judged now?
    pub fn admit(&mut self, now: Duration, rule: u16, subject: &Subject<'_>, notice: &Notice) -> Admission {
        let Some(entry) = self.find(rule, subject) else { return Admission::Judge };
        if !entry.rests(now) {
            return Admission::Judge;
        }
        entry.keep(notice)
    }

    /// A deed begins: the rule rests for this subject until [`History::deed_ended`].
    pub fn deed_began(&mut self, now: Duration, rule: u16, subject: &Subject<'_>) {
        let entry = self.find_or_make(now, rule, subject);
        entry.until = None;
        (entry.put_off, entry.retry) = (None, None);
        entry.touched = now;
    }

    /// The deed ended at `now`: the cool-down begins. Returns how long the rule rests: `cooldown` (the rule's own), or longer
    /// while one kill after the other frees little.
    pub fn deed_ended(&mut self, now: Duration, rule: u16, subject: &Subject<'_>, cooldown: Duration, end: DeedEnd) -> Duration {
        let entry = self.find_or_make(now, rule, subject);
        let forgiven = entry.ended.is_some_and(|ended| now.saturating_sub(ended) >= FORGIVEN_AFTER);
        let last = entry.back_off.filter(|_| !forgiven);
        let rest = match end {
            DeedEnd::Gone { freed_little: true } => last.unwrap_or(cooldown).saturating_mul(2).min(LONGEST_BACK_OFF).max(cooldown),
            DeedEnd::Gone { freed_little: false } => cooldown,
            DeedEnd::Recovered | DeedEnd::Failed => last.unwrap_or(cooldown).max(cooldown),
        };
        entry.back_off = (rest > cooldown).then_some(rest);
        entry.until = Some(now.saturating_add(rest));
        entry.ended = Some(now);
        entry.retry = None;
        entry.touched = now;
        if end != DeedEnd::Failed {
            entry.pending = None;
        }
        rest
    }

    /// A verdict stands and can't be carried out now: the rule is judged anew after `retry`, then after twice that and
    /// so on up to [`LONGEST_RETRY`], or when [`History::wake`] says so. A notice of an event is kept for that; others come again.
    pub fn put_off(&mut self, now: Duration, rule: u16, subject: &Subject<'_>, notice: &Notice, retry: Duration) {
        let entry = self.find_or_make(now, rule, subject);
        entry.keep(notice);
        // Judging costs time, and what is in the way may last; its end is told by `wake`.
        let retry = entry.retry.map_or(retry, |last| last.saturating_mul(2).min(LONGEST_RETRY));
        entry.retry = entry.until.map(|_| retry);
        entry.until = entry.until.map(|until| until.max(now.saturating_add(retry)));
        entry.touched = now;
    }

    /// Whether it is to be said that a verdict was put off: the first time, and once in [`SAID_AGAIN`] while it goes on.
    pub fn is_to_be_said(&mut self, now: Duration, rule: u16, subject: &Subject<'_>) -> bool {
        let entry = self.find_or_make(now, rule, subject);
        let first = entry.put_off.is_none_or(|said| now.saturating_sub(said) >= SAID_AGAIN);
        if first {
            entry.put_off = Some(now);
        }
        first
    }

    /// What verdicts were put off for may be over: they are judged anew now.
    pub fn wake(&mut self, now: Duration) {
        for entry in self.entries.iter_mut().filter(|entry| entry.retry.is_some()) {
            (entry.until, entry.retry) = (Some(now), None);
        }
    }

    /// A kept notice whose rest is over, to be judged now; one at a time, until `None`.
    pub fn take_due(&mut self, now: Duration) -> Option<(u16, GroupId, Notice)> {
        let entry = self.entries.iter_mut().filter(|entry| !entry.rests(now)).find(|entry| entry.pending.is_some())?;
        let (kind, from, to) = entry.pending.take()?;
        Some((entry.rule, entry.id, Notice::Event(kind, from, to)))
    }

    /// When [`History::take_due`] will have something to give, for the timer.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.entries.iter().filter(|entry| entry.pending.is_some()).filter_map(|entry| entry.until).min()
    }

    /// The time at which the rule may act again on the subject; `None` if it may now, [`Duration::MAX`] during a deed.
    #[must_use]
    pub fn resting_until(&self, now: Duration, rule: u16, subject: &Subject<'_>) -> Option<Duration> {
        let entry = self.entries.iter().find(|entry| entry.concerns(rule, subject))?;
        entry.rests(now).then(|| entry.until.unwrap_or(Duration::MAX))
    }

    /// Whether the rule rests for the subject because a verdict was put off: what is noticed meanwhile counts.
    #[must_use]
    pub fn is_put_off(&self, rule: u16, subject: &Subject<'_>) -> bool {
        self.entries.iter().any(|entry| entry.retry.is_some() && entry.concerns(rule, subject))
    }

    /// Forgets the kept notices for which `stale` says so.
    pub fn drop_pending(&mut self, stale: impl Fn(GroupId, EventKind) -> bool) {
        for entry in &mut self.entries {
            let id = entry.id;
            entry.pending.take_if(|(kind, ..)| stale(id, *kind));
        }
    }

    /// The group was removed: what was noticed of it concerns nobody any more. The rest counts for its name.
    pub fn forget(&mut self, subject: GroupId) {
        for entry in self.entries.iter_mut().filter(|entry| entry.id == subject) {
            entry.pending = None;
        }
    }

    /// The policy was replaced: rules keep their rests under their new index; `None` is a rule that is no more.
    pub fn renumber(&mut self, new_index: impl Fn(u16) -> Option<u16>) {
        self.entries.retain_mut(|entry| new_index(entry.rule).map(|rule| entry.rule = rule).is_some());
    }

    /// How many entries had to make room although their rest, or a kept notice, still counted.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn find(&mut self, rule: u16, subject: &Subject<'_>) -> Option<&mut Entry> {
        let entry = self.entries.iter_mut().find(|entry| entry.concerns(rule, subject))?;
        if entry.id != subject.id {
            // Another group stands under the name.
            (entry.id, entry.pending) = (subject.id, None);
        }
        Some(entry)
    }

    fn find_or_make(&mut self, now: Duration, rule: u16, subject: &Subject<'_>) -> &mut Entry {
        let found = self.entries.iter().position(|entry| entry.concerns(rule, subject));
        let at = found.unwrap_or_else(|| self.make(now, rule, subject));
        &mut self.entries[at]
    }

    fn make(&mut self, now: Duration, rule: u16, subject: &Subject<'_>) -> usize {
        let entry = Entry {
            rule,
            path: subject.path.clone(),
            id: subject.id,
            until: Some(now),
            back_off: None,
            pending: None,
            ended: None,
            put_off: None,
            retry: None,
            touched: now,
        };
        // spent entries go first, deeds under way last; among equals the one longest untouched
        let need = |entry: &Entry| (entry.until.is_none(), entry.rests(now) || entry.pending.is_some(), entry.touched);
        if self.entries.len() >= self.capacity
            && let Some((at, least)) = self.entries.iter().enumerate().min_by_key(|(_, entry)| need(entry))
        {
            self.lost += u64::from(need(least).1);
            self.entries[at] = entry;
            return at;
        }
        self.entries.push(entry);
        self.entries.len() - 1
    }
}

/// Of two notices the one that is answered first; two of the same counter become one.
fn weightier(kept: Option<(EventKind, u64, u64)>, new: (EventKind, u64, u64)) -> (EventKind, u64, u64) {
    let weight = |kind: EventKind| match kind {
        EventKind::Low => 0,
        EventKind::High => 1,
        EventKind::Max => 2,
        EventKind::Oom => 3,
        EventKind::OomKill => 4,
        EventKind::OomGroupKill => 5,
    };
    match kept {
        Some((kind, from, to)) if kind == new.0 => (kind, from.min(new.1), to.max(new.2)),
        Some(kept) if weight(kept.0) > weight(new.0) => kept,
        _ => new,
    }
}
