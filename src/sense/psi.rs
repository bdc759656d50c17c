//! PSI triggers: which groups have one, within a budget, and what to do where the kernel refuses.
//!
//! A privileged trigger costs a kernel thread a group, so there is a budget. While it lasts, every watched group has its
//! triggers; beyond it a group gets them when its own memory.events tell of trouble, and the group whose last trouble lies
//! farthest back gives its own up. Arming can block, so the clerk does it. Where PSI is off there is nothing to read on a timer
//! either: such a trigger is dead, and said to be. Documentation/accounting/psi.rst.
//!
//! A group gets its triggers with its first process. Nothing stalls in it before, and it may be
//! removed at any moment: kernels up to 6.12 at least lose a trigger that is written while its group
//! is removed ("psi: trigger leak"), and go on to use memory that they freed.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::poller::Key;
use crate::cgroup::GroupId;
use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::parse::{self, Pressure};
use crate::policy::model::{Psi, PsiKind};

/// Windows that unprivileged users may ask for are multiples of this.
const UNPRIVILEGED_UNIT: Duration = Duration::from_secs(2);
/// The smallest window of older kernels, 6.1 among them; 6.12 takes smaller ones.
const OLD_SMALLEST: Duration = Duration::from_millis(500);

/// How long a group keeps its triggers at the least, however many others are in trouble.
const SHORTEST_STAY: Duration = Duration::from_secs(2);
/// How soon a refused trigger is tried again.
pub const RETRY: Duration = Duration::from_secs(10);
/// How soon it is tried again where the group's PSI was switched.
const SWITCHED: Duration = Duration::from_secs(1);
/// After so long a trigger that is no longer wanted is closed for certain.
const CLOSED: Duration = Duration::from_secs(10);
/// Groups of which such things are remembered.
const REMEMBERED: usize = 64;

/// `psi` and, in order, what to try where the kernel refuses it with EINVAL: wider windows with the same ratio of stall to
/// window, so that none is more sensitive than what was asked for.
pub fn attempts(psi: Psi) -> impl Iterator<Item = Psi> {
    let whole_units = psi.window.as_nanos().div_ceil(UNPRIVILEGED_UNIT.as_nanos());
    let unprivileged = UNPRIVILEGED_UNIT * u32::try_from(whole_units).unwrap_or(1).max(1);
    let wider = |window: Duration| (window > psi.window).then(|| widened(psi, window));
    [Some(psi), wider(OLD_SMALLEST), wider(unprivileged)].into_iter().flatten()
}

fn widened(psi: Psi, window: Duration) -> Psi {
    let stall = psi.stall.as_nanos() * window.as_nanos() / psi.window.as_nanos().max(1);
    Psi { stall: Duration::from_nanos(u64::try_from(stall).unwrap_or(u64::MAX)).min(window), window, ..psi }
}

/// The text that arms a trigger, with the NUL that the kernel wants.
#[must_use]
pub fn text(psi: Psi) -> String {
    let kind = match psi.kind {
        PsiKind::Some => "some",
        PsiKind::Full => "full",
    };
    format!("{kind} {} {}\0", psi.stall.as_micros(), psi.window.as_micros())
}

/// A stall total, microseconds.
#[must_use]
pub const fn total_us(pressure: &Pressure, kind: PsiKind) -> Option<u64> {
    match kind {
        PsiKind::Some => pressure.some_us,
        PsiKind::Full => pressure.full_us,
    }
}

/// The stall total of the group whose pressure file this is, microseconds: as unprivileged triggers count it. For privileged ones the
/// kernel keeps another total, and this one may lag far behind it: busy processors dilute it, and who reads it in a tight loop blinds it.
pub fn stall_total(file: &OwnedFd, kind: PsiKind, buffer: &mut ReadBuf) -> Option<u64> {
    total_us(&parse::pressure(buffer.pread(file).ok()?).ok()?, kind)
}

/// How one trigger stands.
#[derive(Debug)]
enum State {
    /// The clerk is at it.
    Asked,
    /// The kernel watches.
    Armed(OwnedFd),
    /// The kernel won't: stall totals are read on a timer.
    Timer(Option<Stall>),
    /// The kernel won't, and there is no total to be read: PSI is off.
    Dead,
}

/// What is left where the kernel refuses a trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The stall total can be read.
    Readable,
    /// There is none.
    Unreadable,
}

/// The begin of a window that is watched on a timer.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Duration,
    total_us: u64,
}

/// Why a trigger may tell of stall that is older than the trigger.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// It tells of its own.
    None,
    /// It was armed beside one that was polled already. Its window begins with the total of the last poll, so stall that had not been
    /// added up by then counts as its own: on a busy machine all that a victim caused which is gone by now.
    Inherited { until: Duration },
    /// It is unprivileged. Kernels up to 6.12 at least begin its window with the total of privileged triggers, which is 0 where there are none:
    /// all stall that the group ever had counts as its own.
    Unprivileged { before: Unprivileged, until: Duration },
}

/// An unprivileged trigger as it was armed.
#[derive(Clone, Copy, Debug)]
pub struct Unprivileged {
    /// As the kernel took it.
    pub armed: Psi,
    /// The group's stall total then, microseconds.
    pub total_us: u64,
}

/// What to make of a trigger that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firing {
    /// The stall accrued since it was armed.
    Own,
    /// The stall is older; what lasts is told again, a window later.
    Older,
    /// The stall may be older. All is added up now: made anew, the trigger tells of its own.
    Unsure,
}

/// One trigger of one group.
#[derive(Debug)]
pub struct Entry {
    /// Whose.
    pub group: GroupId,
    /// As the policy words it.
    pub psi: Psi,
    state: State,
    troubled: Duration,
    asked: Duration,
    /// It takes the place of another, after a deed.
    renewed: bool,
    doubt: Doubt,
    /// When it was doubted last for a deed below its group.
    doubted: Option<Duration>,
}

impl Entry {
    fn doubt_from(&self, unprivileged: Option<Unprivileged>, now: Duration) -> Doubt {
        match unprivileged {
            // The kernel weighs the growth of the window before in, and looks every two seconds only.
            Some(before) => Doubt::Unprivileged { before, until: now + 3 * before.armed.window + UNPRIVILEGED_UNIT },
            None if self.renewed => Doubt::Inherited { until: now + 2 * self.psi.window.max(OLD_SMALLEST) },
            None => Doubt::None,
        }
    }
}

fn threshold_us(psi: Psi) -> u64 {
    u64::try_from(psi.stall.as_micros()).unwrap_or(u64::MAX)
}

/// All triggers.
#[derive(Debug)]
pub struct Pool {
    entries: Vec<Option<Entry>>,
    generations: Vec<u32>,
    limit: usize,
    /// Has its triggers whatever the number of groups: it stands for the node.
    root: GroupId,
    /// Groups with triggers, each counted once, the root left out.
    groups: usize,
    /// Groups that had triggers when they were asked for anew, and had no processes then; when.
    renewed: VecDeque<(GroupId, Duration)>,
    /// Groups without triggers whose PSI was switched a moment ago; when that was looked at.
    switches: VecDeque<(GroupId, Duration)>,
}

impl Pool {
    /// For at most `limit` groups with triggers beside the root.
    #[must_use]
    pub fn new(limit: usize, root: GroupId) -> Pool {
        let room = || VecDeque::with_capacity(REMEMBERED);
        Pool { entries: Vec::new(), generations: Vec::new(), limit, root, groups: 0, renewed: room(), switches: room() }
    }

    fn with_slots(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0u32..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    fn key(&self, slot: u32) -> Key {
        Key { slot, generation: self.generations.get(slot as usize).copied().unwrap_or(0) & 0xff_ffff }
    }

    fn entry_mut(&mut self, key: Key) -> Option<&mut Entry> {
        if self.key(key.slot) != key {
            return None;
        }
        self.entries.get_mut(key.slot as usize)?.as_mut()
    }

    /// The trigger behind a key, if it is still the same.
    #[must_use]
    pub fn find(&self, key: Key) -> Option<&Entry> {
        if self.key(key.slot) == key { self.entries.get(key.slot as usize)?.as_ref() } else { None }
    }

    /// Triggers that the kernel watches.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.with_slots().filter(|(_, entry)| matches!(entry.state, State::Armed(_))).count()
    }

    /// Triggers that are still being armed.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.with_slots().filter(|(_, entry)| matches!(entry.state, State::Asked)).count()
    }

    /// Triggers that are read on a timer.
    #[must_use]
    pub fn timed(&self) -> usize {
        self.with_slots().filter(|(_, entry)| matches!(entry.state, State::Timer(_))).count()
    }

    /// Triggers for which nothing can be read at all.
    pub fn dead(&self) -> impl Iterator<Item = (GroupId, Psi)> {
        self.with_slots().filter(|(_, entry)| matches!(entry.state, State::Dead)).map(|(_, entry)| (entry.group, entry.psi))
    }

    /// Whether a group has triggers that can fire.
    #[must_use]
    pub fn hears(&self, group: GroupId) -> bool {
        self.with_slots().any(|(_, entry)| entry.group == group && !matches!(entry.state, State::Dead))
    }

    /// Whether a group has its triggers.
    #[must_use]
    pub fn has(&self, group: GroupId) -> bool {
        self.with_slots().any(|(_, entry)| entry.group == group)
    }

    /// Whether a group has this very trigger.
    #[must_use]
    pub fn knows(&self, group: GroupId, psi: Psi) -> bool {
        self.with_slots().any(|(_, entry)| entry.group == group && entry.psi == psi)
    }

    /// All triggers.
    pub fn all(&self) -> impl Iterator<Item = (GroupId, Psi)> {
        self.with_slots().map(|(_, entry)| (entry.group, entry.psi))
    }

    /// Whether this group, which has no trigger, may have some: the root always may.
    #[must_use]
    pub fn has_room(&self, group: GroupId) -> bool {
        group == self.root || self.groups < self.limit
    }

    /// Whether there is no room for one more group.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.groups >= self.limit
    }

    /// The group, other than the root, whose last trouble lies farthest back, if that is long enough
    /// ago: a trigger that is taken down again before its window is over tells nothing to anybody.
    #[must_use]
    pub fn least_troubled(&self, now: Duration) -> Option<GroupId> {
        let rested = |entry: &Entry| now.saturating_sub(entry.troubled) >= SHORTEST_STAY.max(entry.psi.window);
        let others = self.with_slots().map(|(_, entry)| entry).filter(|entry| entry.group != self.root);
        others.filter(|entry| rested(entry)).min_by_key(|entry| entry.troubled).map(|entry| entry.group)
    }

    /// Notes trouble of a group.
    pub fn touch(&mut self, group: GroupId, now: Duration) {
        for entry in self.entries.iter_mut().flatten().filter(|entry| entry.group == group) {
            entry.troubled = now;
        }
    }

    /// Makes room for a trigger that the clerk is to arm; its key goes along with the errand.
    pub fn ask(&mut self, group: GroupId, psi: Psi, now: Duration) -> Key {
        self.insert(Entry { group, psi, state: State::Asked, troubled: now, asked: now, renewed: false, doubt: Doubt::None, doubted: None })
    }

    /// The same for a trigger that takes the place of one that is closed only later, and is to tell of stall from now on only.
    pub fn ask_anew(&mut self, group: GroupId, psi: Psi, now: Duration) -> Key {
        self.insert(Entry { group, psi, state: State::Asked, troubled: now, asked: now, renewed: true, doubt: Doubt::None, doubted: None })
    }

    fn insert(&mut self, entry: Entry) -> Key {
        self.groups += usize::from(entry.group != self.root && !self.has(entry.group));
        let slot = self.entries.iter().position(Option::is_none).unwrap_or_else(|| {
            self.entries.push(None);
            self.generations.push(0);
            self.entries.len() - 1
        });
        self.entries[slot] = Some(entry);
        self.key(u32::try_from(slot).unwrap_or(u32::MAX))
    }

    /// The clerk armed a trigger: `register` puts it to use. `unprivileged` is given if the trigger is such a one. A descriptor that nobody wants any more comes back, to be closed.
    #[must_use]
    pub fn armed_now(
        &mut self,
        key: Key,
        fd: OwnedFd,
        unprivileged: Option<Unprivileged>,
        now: Duration,
        register: impl FnOnce(&OwnedFd) -> bool,
    ) -> Option<OwnedFd> {
        match self.entry_mut(key) {
            Some(entry) if register(&fd) => {
                entry.state = State::Armed(fd);
                entry.doubt = entry.doubt_from(unprivileged, now);
                None
            }
            Some(entry) => {
                entry.state = State::Timer(None);
                Some(fd)
            }
            None => Some(fd),
        }
    }

    /// What to make of a trigger that fired; `total` reads its group's stall total.
    pub fn fired(&mut self, key: Key, now: Duration, total: impl FnOnce(&OwnedFd, PsiKind) -> Option<u64>) -> Firing {
        let Some(entry) = self.entry_mut(key) else { return Firing::Older };
        let State::Armed(fd) = &entry.state else { return Firing::Older };
        let firing = match entry.doubt {
            Doubt::Inherited { until } if now < until => Firing::Unsure,
            Doubt::Unprivileged { before: Unprivileged { armed, total_us: before }, until } if now < until => match total(fd, armed.kind) {
                Some(total_us) if total_us.saturating_sub(before) < threshold_us(armed) => {
                    entry.doubt = Doubt::Unprivileged { before: Unprivileged { armed, total_us }, until };
                    return Firing::Older;
                }
                // What can't be read makes nobody deaf.
                _ => Firing::Own,
            },
            _ => Firing::Own,
        };
        entry.doubt = Doubt::None;
        firing
    }

    /// A victim below these groups is gone: its stall is in their windows, too, and a trigger that fires within them is made anew before
    /// it is believed. Not again for a while, so that deeds that follow each other make nobody deaf.
    pub fn doubt(&mut self, now: Duration, concerns: impl Fn(GroupId) -> bool) {
        for entry in self.entries.iter_mut().flatten().filter(|entry| concerns(entry.group)) {
            let windows = 2 * entry.psi.window.max(OLD_SMALLEST);
            let lately = entry.doubted.is_some_and(|at| now.saturating_sub(at) < 5 * windows);
            if matches!(entry.doubt, Doubt::None) && !lately {
                entry.doubt = Doubt::Inherited { until: now + windows };
                entry.doubted = Some(now);
            }
        }
    }

    /// The clerk is to arm a trigger once more: its new key, and the descriptor to be closed, already out of use by `remove`.
    pub fn again(&mut self, key: Key, now: Duration, remove: impl FnOnce(&OwnedFd)) -> Option<(Key, OwnedFd)> {
        let entry = self.entry_mut(key)?;
        let State::Armed(fd) = std::mem::replace(&mut entry.state, State::Asked) else { return None };
        (entry.asked, entry.renewed) = (now, false);
        remove(&fd);
        if let Some(generation) = self.generations.get_mut(key.slot as usize) {
            *generation = generation.wrapping_add(1);
        }
        Some((self.key(key.slot), fd))
    }

    /// The next trigger, on a timer or dead, that is to be tried again, if its last trial is long enough ago.
    pub fn retry(&mut self, now: Duration) -> Option<(Key, GroupId, Psi)> {
        self.retry_one(now, RETRY, |entry| matches!(entry.state, State::Timer(_) | State::Dead))
    }

    /// The next dead trigger of a group whose PSI was switched: to be tried at once, but not as often as its owner can switch it.
    pub fn switched(&mut self, group: GroupId, now: Duration) -> Option<(Key, GroupId, Psi)> {
        self.retry_one(now, SWITCHED, |entry| entry.group == group && matches!(entry.state, State::Dead))
    }

    fn retry_one(&mut self, now: Duration, after: Duration, wanted: impl Fn(&Entry) -> bool) -> Option<(Key, GroupId, Psi)> {
        let late = |entry: &Entry| wanted(entry) && now.saturating_sub(entry.asked) >= after;
        let slot = self.entries.iter().position(|entry| entry.as_ref().is_some_and(late))?;
        let entry = self.entries.get_mut(slot)?.as_mut()?;
        (entry.state, entry.asked) = (State::Asked, now);
        let (group, psi) = (entry.group, entry.psi);
        Some((self.key(u32::try_from(slot).ok()?), group, psi))
    }

    /// The clerk did not arm it, since its group has no processes: who hears of the first one asks again.
    pub fn withdraw(&mut self, key: Key, now: Duration) {
        let Some((group, renewed)) = self.find(key).map(|entry| (entry.group, entry.renewed)) else { return };
        if renewed {
            if self.renewed.len() == REMEMBERED {
                self.renewed.pop_front();
            }
            self.renewed.push_back((group, now));
        }
        self.take_at(key.slot as usize, |_| {});
    }

    /// Whether a group had triggers a moment ago, which may not be closed yet.
    #[must_use]
    pub fn had_triggers(&self, group: GroupId, now: Duration) -> bool {
        self.renewed.iter().any(|(other, at)| *other == group && now.saturating_sub(*at) < CLOSED)
    }

    /// Whether a group's PSI may be looked at anew because its owner switched it: not as often as that can be done. Notes that it was.
    pub fn may_look_at_switch(&mut self, group: GroupId, now: Duration) -> bool {
        self.switches.retain(|(_, at)| now.saturating_sub(*at) < SWITCHED);
        if self.switches.len() == REMEMBERED || self.switches.iter().any(|(other, _)| *other == group) {
            return false;
        }
        self.switches.push_back((group, now));
        true
    }

    /// The clerk could not arm it: it is read on a timer from now on, if there is something to read.
    pub fn refused(&mut self, key: Key, refused: Refused) {
        if let Some(entry) = self.entry_mut(key) {
            entry.state = match refused {
                Refused::Readable => State::Timer(None),
                Refused::Unreadable => State::Dead,
            };
        }
    }

    /// Takes the triggers out that `doomed` names; `gone` gets the descriptors, already out of use.
    pub fn take(&mut self, doomed: impl Fn(&Entry) -> bool, mut gone: impl FnMut(OwnedFd)) {
        for at in 0..self.entries.len() {
            if self.entries[at].as_ref().is_some_and(&doomed) {
                self.take_at(at, &mut gone);
            }
        }
    }

    fn take_at(&mut self, at: usize, gone: impl FnOnce(OwnedFd)) {
        let Some(entry) = self.entries.get_mut(at).and_then(Option::take) else { return };
        self.generations[at] = self.generations[at].wrapping_add(1);
        if entry.group != self.root && !self.has(entry.group) {
            self.groups = self.groups.saturating_sub(1);
        }
        if let State::Armed(fd) = entry.state {
            gone(fd);
        }
    }

    /// Nobody looked for a while: windows that are watched on a timer begin anew.
    pub fn forget_windows(&mut self) {
        for entry in self.entries.iter_mut().flatten() {
            if let State::Timer(stall) = &mut entry.state {
                *stall = None;
            }
        }
    }

    /// Reads the triggers that are on a timer: `total` gives a group's stall total, `fired` is called for those whose
    /// stall reached its threshold within the window.
    pub fn tick(&mut self, now: Duration, mut total: impl FnMut(GroupId, PsiKind) -> Option<u64>, mut fired: impl FnMut(GroupId, Psi)) {
        for entry in self.entries.iter_mut().flatten() {
            let State::Timer(stall) = &mut entry.state else { continue };
            let Some(total_us) = total(entry.group, entry.psi.kind) else { continue };
            let begin = *stall.get_or_insert(Stall { since: now, total_us });
            if total_us.saturating_sub(begin.total_us) >= threshold_us(entry.psi) {
                fired(entry.group, entry.psi);
                *stall = Some(Stall { since: now, total_us });
            } else if now.saturating_sub(begin.since) >= entry.psi.window {
                *stall = Some(Stall { since: now, total_us });
            }
        }
    }
}

#[cfg(test)]
mod tests;
