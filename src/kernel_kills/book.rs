//! Kills by the kernel, put together from what its log says and what its counters count.
//!
//! A kill is counted by a counter and by nothing else; a line of the log describes one that was counted. The kernel raises
//! the counter before it writes the line, so a line that finds no count left describes none of ours, and a count that finds no line
//! in time is recorded by itself. Lines are gathered until it is quiet, since a group that dies whole is one kill of many lines.
//!
//! Pure: the time is handed in, and the journal's lines come out as [`KernelKill`]s.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use crate::cgroup::path::GroupPath;
use crate::kernel_kills::census::Rise;
use crate::kernel_kills::log::parse::{Constraint, Killed, Line, Reading, Scope, Summary, is_at_or_below};

/// After this much quiet a kill has been told to its end.
const QUIET: Duration = Duration::from_millis(500);
/// In a storm that never rests, what is known is recorded this often.
const RESTLESS: Duration = Duration::from_secs(1);
/// A count waits this long for its line.
const PATIENCE: Duration = Duration::from_secs(1);
/// A process that is killed with its group follows the one before it within this time.
const NEXT_MEMBER: Duration = QUIET;
/// Kills that are gathered at a time; the oldest is recorded to make room.
const GATHERED: usize = 512;
/// Groups whose counts are remembered for the lines that name none.
const PLACES: usize = 256;

/// One kill by the kernel: of a process, or of a group as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelKill {
    /// When it was told.
    pub time: SystemTime,
    /// Whose memory was short.
    pub scope: Scope,
    /// What the allocation was bound to, if the log says so.
    pub constraint: Option<Constraint>,
    /// The group at its limit.
    pub oom_memcg: Option<GroupPath>,
    /// The victim's group.
    pub group: Option<GroupPath>,
    /// The victim was in a group below `group` that is gone.
    pub below: bool,
    /// The victim, if the log tells of it; of a whole group the one that the kernel chose. Its pid
    /// is that of the process, if that could be told.
    pub victim: Option<Killed>,
    /// The thread that the log names instead of the process, whose main thread had exited.
    pub thread: Option<u32>,
    /// Whether everybody in a group was killed (memory.oom.group); `None` if neither log nor counters tell.
    pub whole: Option<bool>,
    /// The group that was killed as a whole.
    pub whole_group: Option<GroupPath>,
    /// How many processes.
    pub processes: u64,
    /// How many of them the counters have.
    pub counted: u64,
}

/// The names that the log gives to groups, and which of them are ours.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Path of our root in the whole hierarchy, where it is not its root.
    pub prefix: Option<Vec<u8>>,
}

impl Names {
    fn below(&self, path: &[u8]) -> Option<GroupPath> {
        let Some(prefix) = &self.prefix else { return Some(GroupPath::from_bytes(path)) };
        let rest = path.strip_prefix(prefix.as_slice()).filter(|_| is_at_or_below(path, prefix))?;
        Some(GroupPath::from_bytes(rest))
    }
}

/// What /proc still tells of who was just killed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its group.
    pub group: Option<Vec<u8>>,
    /// The process that a thread belongs to.
    pub process: Option<u32>,
}

/// A kill that the log told of.
#[derive(Debug)]
struct Told {
    last: Duration,
    time: SystemTime,
    summary: Option<Summary>,
    killed: Killed,
    thread: Option<u32>,
    whole: Option<Vec<u8>>,
    processes: u64,
    /// The last one that was killed with its group.
    member: Option<Killed>,
    /// Where the process was, by /proc.
    seen_in: Option<Vec<u8>>,
    /// More of it may come.
    open: bool,
}

/// Where a kill happened, as far as it could be told.
#[derive(Debug, Default)]
struct Place {
    group: Option<GroupPath>,
    oom_memcg: Option<GroupPath>,
    /// The process's comm, where the line about the kill has a thread's.
    comm: Option<Vec<u8>>,
    /// It names groups of others only.
    foreign: bool,
}

/// What is gathered and not recorded yet.
#[derive(Debug)]
pub struct Book {
    names: Names,
    told: VecDeque<Told>,
    summary: Option<Summary>,
    /// Lines may be missing between that summary and what comes next.
    after_gap: bool,
    uncounted: u64,
    rises: Vec<Rise>,
    last: Option<Duration>,
    first: Option<Duration>,
    /// So many counts have been without a line since then.
    stale: Option<(u64, Duration)>,
    /// Lines can be expected at all.
    has_log: bool,
}

impl Book {
    /// An empty one; `has_log` where the kernel's log can be read.
    #[must_use]
    pub fn new(names: Names, has_log: bool) -> Book {
        let told = VecDeque::with_capacity(GATHERED);
        Book {
            names,
            told,
            summary: None,
            after_gap: false,
            uncounted: 0,
            rises: Vec::new(),
            last: None,
            first: None,
            stale: None,
            has_log,
        }
    }

    /// The log can't be read any more.
    pub fn without_log(&mut self) {
        self.has_log = false;
    }

    fn stir(&mut self, now: Duration) {
        self.last = Some(now);
        self.first.get_or_insert(now);
    }

    /// The counter rose by so many.
    pub fn counted(&mut self, kills: u64, now: Duration) {
        if kills > 0 {
            self.uncounted += kills;
            self.stir(now);
        }
    }

    /// A line of the log. `seen` is asked about a process whose kill the kernel gives no group for,
    /// or another pid.
    pub fn line(&mut self, line: Line, now: Duration, time: SystemTime, seen: impl FnOnce(&Killed) -> Seen) {
        self.stir(now);
        match line {
            Line::Summary(summary) => {
                self.close_last();
                (self.summary, self.after_gap) = (Some(summary), false);
            }
            Line::Skipped => self.summary = None,
            Line::Gap => self.after_gap = true,
            Line::WholeGroup(path) => self.whole(path, now, time),
            Line::Killed(mut killed) => {
                let summary = self.summary.take();
                let by_pid = summary.as_ref().is_some_and(|summary| summary.pid == killed.pid);
                let seen = if by_pid { Seen::default() } else { seen(&killed) };
                let summary = summary.filter(|summary| by_pid || self.is_of_a_thread(summary, &killed, seen.process));
                let process = summary.as_ref().map(|summary| summary.pid).or(seen.process).filter(|process| *process != killed.pid);
                let thread = process.map(|process| std::mem::replace(&mut killed.pid, process));
                let seen_in = if summary.is_none() { seen.group } else { None };
                if summary.is_none() && self.is_member(&killed, seen_in.as_deref(), now) {
                    if let Some(told) = self.told.back_mut() {
                        told.processes += 1;
                        told.last = now;
                        told.member = Some(killed);
                    }
                    return;
                }
                let told = Told { last: now, time, summary, killed, thread, whole: None, processes: 1, member: None, seen_in, open: true };
                self.begin(told);
            }
        }
    }

    /// Whether a kill that names another pid is the one that the summary before it announced: the
    /// kernel kills the process that the summary names, and when its main thread has exited, its
    /// next line names a thread instead. It writes both under one lock, so what follows the summary
    /// is that line, if none is missing in between. What can be told of the thread has to agree.
    fn is_of_a_thread(&self, summary: &Summary, killed: &Killed, process: Option<u32>) -> bool {
        let same_scope = (summary.constraint == Constraint::Memcg) == (killed.scope == Scope::Memcg);
        let same_process = match process {
            Some(process) => process == summary.pid,
            None => killed.uid.is_none_or(|uid| uid == summary.uid),
        };
        same_scope && same_process && !self.after_gap
    }

    fn begin(&mut self, told: Told) {
        self.close_last();
        self.told.push_back(told);
    }

    /// The group of the process that was killed last goes as a whole.
    fn whole(&mut self, path: Vec<u8>, now: Duration, time: SystemTime) {
        let Some(told) = self.told.back_mut().filter(|told| told.open) else { return };
        told.last = now;
        if told.whole.is_none() {
            told.whole = Some(path);
            return;
        }
        // What was taken for one more of the former group was the first of this one.
        if let Some(killed) = told.member.take() {
            told.processes -= 1;
            let whole = Some(path);
            let told =
                Told { last: now, time, summary: None, killed, thread: None, whole, processes: 1, member: None, seen_in: None, open: true };
            self.begin(told);
        }
    }

    fn close_last(&mut self) {
        if let Some(told) = self.told.back_mut() {
            told.open = false;
        }
    }

    /// Whether a process was killed with the group of the one before it: it has no summary, follows at once, and stands there.
    fn is_member(&self, killed: &Killed, seen_in: Option<&[u8]>, now: Duration) -> bool {
        self.told.back().is_some_and(|told| {
            let inside = told.whole.as_ref().is_some_and(|whole| seen_in.is_none_or(|group| is_at_or_below(group, whole)));
            inside && told.open && told.killed.scope == killed.scope && now.saturating_sub(told.last) < NEXT_MEMBER
        })
    }

    /// When something has to be recorded; `None` while there is nothing.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        let gathered = match (self.last, self.first) {
            (Some(last), Some(first)) => Some((last + QUIET).min(first + RESTLESS)),
            _ => None,
        };
        let full = (self.told.len() >= GATHERED).then_some(Duration::ZERO);
        let stale = self.stale.map(|(_, since)| since + PATIENCE);
        [gathered, full, stale].into_iter().flatten().min()
    }

    /// Records what is known, once it is [`Book::due`] or at the end (`all`): `rises` is what the census found since the last
    /// time, `time` what the clock shows now.
    pub fn settle(&mut self, now: Duration, time: SystemTime, all: bool, rises: Vec<Rise>, mut give: impl FnMut(KernelKill)) {
        self.remember(rises);
        (self.first, self.last) = (None, None);
        let mut told = std::mem::take(&mut self.told);
        // More may come of the last one.
        let open = told.back().is_some_and(|told| told.open && now.saturating_sub(told.last) < QUIET && !all);
        let kept = if open { told.pop_back() } else { None };
        let mut places: Vec<Option<Place>> = told.iter().map(|told| self.named(told)).collect();
        for place in &mut places {
            // Those whose group is named have had their share of the counts by now: what is left is for these.
            place.get_or_insert_with(|| self.guessed());
        }
        for (told, place) in told.into_iter().zip(places) {
            self.record(told, place.unwrap_or_default(), &mut give);
        }
        let waiting = kept.as_ref().map_or(0, |told| told.processes);
        if let Some(kept) = kept {
            (self.first, self.last) = (Some(now), Some(kept.last));
            self.told.push_back(kept);
        }
        self.without_line(now, time, all, waiting, &mut give);
        if self.uncounted == 0 && self.told.is_empty() {
            self.rises.clear();
        }
    }

    fn remember(&mut self, rises: Vec<Rise>) {
        for rise in rises {
            let known = self.rises.iter().position(|known| known.group == rise.group && known.below == rise.below);
            if let Some(at) = known {
                let known = &mut self.rises[at];
                known.kills += rise.kills;
                known.limited |= rise.limited;
                known.whole = if known.whole == rise.whole { rise.whole } else { None };
            } else if self.rises.len() < PLACES {
                self.rises.push(rise);
            }
        }
    }

    /// The place of a kill that its summary names, or /proc, or at least its whole group. Takes its share of the counts.
    fn named(&mut self, told: &Told) -> Option<Place> {
        let all: &[Reading] = told.summary.as_ref().map_or(&[], |summary| &summary.readings);
        // A thread's comm says nothing about the process's.
        let fits = |reading: &&Reading| told.thread.is_none() && reading.comm == told.killed.comm;
        let mut readings: Vec<&Reading> = all.iter().filter(fits).collect();
        if readings.is_empty() {
            // It took another name in between.
            readings = all.iter().collect();
        }
        if readings.len() > 1 {
            // The counters know where it was.
            let counted = |reading: &&Reading| self.names.below(&reading.task_memcg).is_some_and(|group| self.has_risen(&group));
            let sure: Vec<&Reading> = readings.iter().copied().filter(counted).collect();
            readings = if sure.len() == 1 { sure } else { Vec::new() };
        }
        let (group, oom_memcg, comm) = match (&readings[..], &told.seen_in) {
            ([reading], _) => (&reading.task_memcg, reading.oom_memcg.as_ref(), told.thread.map(|_| reading.comm.clone())),
            (_, Some(seen)) => (seen, None, None),
            _ => {
                let whole = told.whole.as_ref()?;
                self.take_below(whole, told.processes);
                return Some(Place { foreign: self.names.below(whole).is_none(), ..Place::default() });
            }
        };
        let group = self.names.below(group);
        let oom_memcg = oom_memcg.and_then(|path| self.names.below(path));
        match (&told.whole, &group) {
            (Some(whole), _) => self.take_below(whole, told.processes),
            (None, Some(group)) => self.take(group),
            (None, None) => {}
        }
        Some(Place { foreign: group.is_none(), group, oom_memcg, comm })
    }

    /// The place of a kill that nothing names one for: the only group with counts left.
    fn guessed(&mut self) -> Place {
        let mut left = self.rises.iter().filter(|rise| rise.kills > 0 && !rise.below).map(|rise| rise.group.clone());
        let group = match (left.next(), left.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        };
        if let Some(group) = &group {
            self.take(group);
        }
        Place { group, ..Place::default() }
    }

    fn has_risen(&self, group: &GroupPath) -> bool {
        self.rises.iter().any(|rise| rise.kills > 0 && !rise.below && rise.group == *group)
    }

    /// Takes one kill off what was counted in a group; if the group is gone, in the nearest above it that had it counted.
    fn take(&mut self, group: &GroupPath) {
        let path = group.as_bytes();
        let fits = |rise: &&mut Rise| {
            rise.kills > 0 && if rise.below { is_at_or_below(path, rise.group.as_bytes()) } else { rise.group.as_bytes() == path }
        };
        if let Some(rise) = self.rises.iter_mut().filter(fits).max_by_key(|rise| rise.group.as_bytes().len()) {
            rise.kills -= 1;
        }
    }

    fn take_below(&mut self, top: &[u8], mut kills: u64) {
        let Some(top) = self.names.below(top) else { return };
        for rise in self.rises.iter_mut().filter(|rise| is_at_or_below(rise.group.as_bytes(), top.as_bytes())) {
            let taken = rise.kills.min(kills);
            rise.kills -= taken;
            kills -= taken;
        }
    }

    fn record(&mut self, mut told: Told, place: Place, give: &mut impl FnMut(KernelKill)) {
        // Below a subtree the log tells of others too; what nobody counted there is theirs.
        let is_ours = self.names.prefix.is_none() || (!place.foreign && (place.group.is_some() || self.uncounted > 0));
        if !is_ours {
            return;
        }
        let counted = self.uncounted.min(told.processes);
        self.uncounted -= counted;
        if let Some(comm) = place.comm {
            told.killed.comm = comm;
        }
        give(KernelKill {
            time: told.time,
            scope: told.killed.scope,
            constraint: told.summary.map(|summary| summary.constraint),
            oom_memcg: place.oom_memcg,
            group: place.group,
            below: false,
            victim: Some(told.killed),
            thread: told.thread,
            whole: Some(told.whole.is_some()),
            whole_group: told.whole.and_then(|path| self.names.below(&path)),
            processes: told.processes,
            counted,
        });
    }

    /// Records counts that had no line for too long, but for `waiting` that have one which is not recorded yet.
    fn without_line(&mut self, now: Duration, time: SystemTime, all: bool, waiting: u64, give: &mut impl FnMut(KernelKill)) {
        let left = self.uncounted.saturating_sub(waiting);
        if left == 0 {
            self.stale = None;
            return;
        }
        let (since_long, since) = self.stale.map_or((left, now), |(stale, since)| (stale.min(left), since));
        if self.has_log && !all && now.saturating_sub(since) < PATIENCE {
            self.stale = Some((since_long, since));
            return;
        }
        let mut kills = since_long;
        self.uncounted -= kills;
        self.stale = (left > since_long).then_some((left - since_long, now));
        let mut counted = |rise: Option<&Rise>, kills: u64| {
            let is_limited = rise.is_some_and(|rise| rise.limited);
            give(KernelKill {
                time,
                scope: if is_limited { Scope::Memcg } else { Scope::Global },
                constraint: None,
                oom_memcg: None,
                group: rise.map(|rise| rise.group.clone()),
                below: rise.is_some_and(|rise| rise.below),
                victim: None,
                thread: None,
                whole: rise.and_then(|rise| rise.whole),
                whole_group: None,
                processes: kills,
                counted: kills,
            });
        };
        for rise in self.rises.iter_mut().filter(|rise| rise.kills > 0) {
            let here = rise.kills.min(kills);
            if here > 0 {
                rise.kills -= here;
                kills -= here;
                counted(Some(rise), here);
            }
        }
        // Of processes in the root group, which counts none, or in a top-level group that is gone.
        if kills > 0 {
            counted(None, kills);
        }
    }
}

#[cfg(test)]
mod tests;
