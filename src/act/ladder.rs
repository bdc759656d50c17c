//! The ladder as a state machine: rungs with deadlines. Pure: the caller has the clock, does the deeds and tells what came of
//! them.
//!
//! `warn`, `term` and `kill` are deeds on an actor, `hook` is another process's; what they wait for is the victim being empty,
//! or, before the kill, the trouble being over. If a rung fails or its deadline passes, the next follows; if the victim can't be
//! killed the ladder has failed, and the caller may try the next victim.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::deed::{Deed, Done};
use super::rung::{RungName, RungOutcome, RungRecord};
use crate::policy::model::{Hook, Rung};

/// How long telling and signalling may take before the next rung follows.
const TELL_DEADLINE: Duration = Duration::from_secs(1);
/// How long the news of a hook that was ended at its time limit may take.
const HOOK_SLACK: Duration = Duration::from_millis(250);
/// How long a kill may be stuck before it is tried another way on another thread.
const KILL_DEADLINE: Duration = Duration::from_secs(1);
/// How long the victim may take to be gone after the kill.
const VERIFY_DEADLINE: Duration = Duration::from_secs(5);

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: wait for news, at most until the deadline.
    Wait,
    /// Hand this deed to an actor.
    Do(Deed),
    /// Have this hook run, and tell how it ended by [`Ladder::hook_done`].
    Run(Arc<Hook>),
    /// Find out whether the trouble is over, and tell by [`Ladder::judged`].
    AskRecovered,
    /// The ladder has ended.
    End(End),
}

/// How a ladder ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The victim is gone, verified.
    Gone,
    /// The trouble ended first.
    Recovered,
    /// The victim lives on: nobody could be signalled. Another may be tried.
    Failed(Option<Errno>),
    /// SIGKILL was sent, or may have been, and the victim is not gone in time: a process in D state, a core dump. It
    /// has given its memory back, or will; whether somebody else has to die is for new evidence to say.
    Lingers,
}

/// When a deed sent its signals, since the notice; where it sent none, when it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The first.
    pub first: Duration,
    /// The last.
    pub last: Duration,
}

impl From<Duration> for Sent {
    fn from(at: Duration) -> Sent {
        Sent { first: at, last: at }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Warning,
    Warned,
    Hooking,
    /// The hook's end is on record.
    Hooked,
    Terminating,
    Grace,
    Killing {
        second: bool,
    },
    Verifying,
}

/// One ladder under way. Times are since the notice.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    rung: usize,
    state: State,
    since: Duration,
    deadline: Duration,
    signals_first: bool,
    one: Option<i32>,
    refused: Option<Errno>,
    /// When the first SIGKILL went out to somebody, or cgroup.kill was written while somebody was
    /// there.
    pub killed_at: Option<Duration>,
    termed: bool,
    signalled: u32,
    listeners: u32,
    sent: Option<Duration>,
    /// No wait ends before that.
    not_before: Duration,
}

impl Ladder {
    /// A ladder that has not begun. `signals_first`: the whole node is short; `one`: the single process to kill.
    #[must_use]
    pub fn new(signals_first: bool, one: Option<i32>) -> Ladder {
        Ladder {
            rung: 0,
            state: State::Idle,
            since: Duration::ZERO,
            deadline: Duration::ZERO,
            signals_first,
            one,
            refused: None,
            killed_at: None,
            termed: false,
            signalled: 0,
            listeners: 0,
            sent: None,
            not_before: Duration::ZERO,
        }
    }

    /// The single process to be killed, if it is one.
    #[must_use]
    pub fn one(&self) -> Option<i32> {
        self.one
    }

    /// When the caller must call [`Ladder::deadline_passed`].
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether SIGKILL was sent, so that the end is a matter of the victim's exit.
    #[must_use]
    pub fn is_killing(&self) -> bool {
        matches!(self.state, State::Killing { .. } | State::Verifying)
    }

    /// Whether a kill was handed over and its deed has not been heard of.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        matches!(self.state, State::Killing { .. })
    }

    /// Whether SIGTERM reached somebody.
    #[must_use]
    pub fn was_termed(&self) -> bool {
        self.termed
    }

    /// SIGKILL went out to somebody at this time, by a deed that may not have been heard of.
    pub fn killed_by(&mut self, at: Duration) {
        self.killed_at = Some(self.killed_at.map_or(at, |known| known.min(at)));
    }

    /// Begins with the first rung.
    pub fn begin(&mut self, rungs: &[Rung], now: Duration) -> Next {
        self.rung = 0;
        self.enter(rungs, now)
    }

    /// Begins with the kill: whoever waits for memory can't wait for a grace time.
    pub fn begin_with_kill(&mut self, rungs: &[Rung], now: Duration) -> Next {
        self.rung = last(rungs);
        self.enter(rungs, now)
    }

    /// Goes on to the kill at once, if it has not come to it yet.
    pub fn hurry(&mut self, rungs: &[Rung], now: Duration, records: &mut Vec<RungRecord>) -> Next {
        if self.is_killing() {
            return Next::Wait;
        }
        self.note(records, RungOutcome::Overtaken, now);
        self.rung = last(rungs);
        self.enter(rungs, now)
    }

    fn enter(&mut self, rungs: &[Rung], now: Duration) -> Next {
        self.since = now;
        (self.signalled, self.listeners, self.sent) = (0, 0, None);
        match rungs.get(self.rung) {
            Some(Rung::Warn { signal, .. }) => {
                (self.state, self.deadline) = (State::Warning, now + TELL_DEADLINE);
                Next::Do(Deed::Warn(*signal))
            }
            Some(Rung::Hook(hook)) => {
                (self.state, self.deadline) = (State::Hooking, now + hook.timeout + HOOK_SLACK);
                Next::Run(Arc::clone(hook))
            }
            Some(Rung::Term { .. }) => {
                (self.state, self.deadline) = (State::Terminating, now + TELL_DEADLINE);
                Next::Do(self.one.map_or(Deed::Term, Deed::TermOne))
            }
            Some(Rung::Kill(_)) => {
                (self.state, self.deadline) = (State::Killing { second: false }, now + KILL_DEADLINE);
                Next::Do(self.one.map_or(Deed::KillGroup { signals_first: self.signals_first }, Deed::KillOne))
            }
            None => Next::End(End::Failed(self.refused)),
        }
    }

    fn note(&self, records: &mut Vec<RungRecord>, outcome: RungOutcome, now: Duration) {
        let (name, processes) = match self.state {
            State::Idle | State::Hooked => return,
            State::Warning | State::Warned => (RungName::Warn, Some(self.signalled)),
            State::Hooking => (RungName::Hook, None),
            State::Terminating | State::Grace => (RungName::Term, Some(self.signalled)),
            State::Killing { .. } => (RungName::Kill, (self.signalled > 0).then_some(self.signalled)),
            State::Verifying => (RungName::Verify, None),
        };
        // A record has room for every rung of two tries; beyond that the earliest tell enough.
        if records.len() < records.capacity() {
            let took = now.saturating_sub(self.since);
            let listeners = (name == RungName::Warn).then_some(self.listeners);
            let sent = self.sent.filter(|_| name != RungName::Verify);
            records.push(RungRecord { name, outcome, at: self.since, took, processes, listeners, sent });
        }
    }

    /// The deed of the present rung is done.
    pub fn deed_done(&mut self, rungs: &[Rung], done: Done, sent: impl Into<Sent>, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        let sent: Sent = sent.into();
        let at = sent.last;
        self.sent = done.sent.map(|_| if self.is_sending() { sent.first } else { sent.last });
        match (self.state, rungs.get(self.rung)) {
            (State::Warning, Some(Rung::Warn { wait, .. })) => {
                (self.signalled, self.listeners) = (done.processes, done.listeners);
                if done.processes == 0 && done.listeners == 0 {
                    let outcome = done.errno.map_or(RungOutcome::Nobody, |errno| RungOutcome::Errno(errno.raw_os_error()));
                    return self.go_on(rungs, outcome, now, records);
                }
                (self.state, self.deadline) = (State::Warned, (at + *wait).max(self.not_before));
                Next::Wait
            }
            (State::Terminating, Some(Rung::Term { wait })) => {
                self.signalled = done.processes;
                self.termed |= done.processes > 0;
                if let (0, Some(errno)) = (done.processes, done.errno) {
                    return self.go_on(rungs, RungOutcome::Errno(errno.raw_os_error()), now, records);
                }
                (self.state, self.deadline) = (State::Grace, (at + *wait).max(self.not_before));
                Next::Wait
            }
            (State::Killing { second }, Some(Rung::Kill(_))) => match done.errno {
                // The single victim exited by itself.
                Some(Errno::SRCH) if self.one.is_some() => self.gone(now, records),
                Some(errno) if !second && self.one.is_none() => {
                    self.note_killed(done, sent);
                    self.second_try(Some(errno), now, records)
                }
                Some(errno) if done.processes > 0 || (second && self.refused.is_none()) => {
                    // Some were sent SIGKILL, or all by the first try, which was only slow: memory is on its way back.
                    self.refused = Some(errno);
                    self.note_killed(done, sent);
                    self.verify(RungOutcome::Errno(errno.raw_os_error()), done.processes, sent, records)
                }
                Some(errno) => {
                    self.note(records, RungOutcome::Errno(errno.raw_os_error()), now);
                    Next::End(End::Failed(Some(errno)))
                }
                None => {
                    if !done.nobody {
                        self.killed_by(sent.first);
                    }
                    self.verify(RungOutcome::Done, done.processes, sent, records)
                }
            },
            // Late news of a rung that was given up.
            _ => Next::Wait,
        }
    }

    /// A kill that was refused may have reached some.
    fn note_killed(&mut self, done: Done, sent: Sent) {
        if done.processes > 0 {
            self.killed_by(sent.first);
        }
    }

    /// SIGKILL is on its way: the victim's end is waited for from the first one on, for so long
    /// after the last.
    fn verify(&mut self, outcome: RungOutcome, processes: u32, sent: impl Into<Sent>, records: &mut Vec<RungRecord>) -> Next {
        let sent: Sent = sent.into();
        self.signalled = processes;
        self.note(records, outcome, sent.first);
        (self.state, self.since, self.deadline) = (State::Verifying, sent.first, sent.last + VERIFY_DEADLINE);
        Next::Wait
    }

    /// Leaves a rung that came to nothing for the next one.
    fn go_on(&mut self, rungs: &[Rung], outcome: RungOutcome, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        self.note(records, outcome, now);
        self.rung += 1;
        self.enter(rungs, now)
    }

    /// The hook has ended, or could not be run. Whatever came of it, the trouble may be over.
    pub fn hook_done(&mut self, outcome: RungOutcome, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        if self.state != State::Hooking {
            return Next::Wait;
        }
        self.note(records, outcome, now);
        (self.state, self.deadline) = (State::Hooked, now.max(self.not_before));
        if self.deadline > now { Next::Wait } else { Next::AskRecovered }
    }

    fn second_try(&mut self, errno: Option<Errno>, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        let outcome = errno.map_or(RungOutcome::Deadline, |errno| RungOutcome::Errno(errno.raw_os_error()));
        self.note(records, outcome, now);
        (self.refused, self.sent) = (errno, None);
        (self.state, self.since, self.deadline) = (State::Killing { second: true }, now, now + KILL_DEADLINE);
        Next::Do(Deed::KillProcesses)
    }

    /// The victim is empty, or gone: whatever rung we are on, it is over. A kill whose actor has sent SIGKILL and not reported yet is done.
    pub fn gone(&mut self, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        if let (State::Killing { .. }, Some(at)) = (self.state, self.killed_at) {
            self.sent = Some(at);
            self.verify(RungOutcome::Done, 0, at, records);
        }
        self.note(records, RungOutcome::Empty, now);
        Next::End(End::Gone)
    }

    /// The deadline has passed.
    pub fn deadline_passed(&mut self, rungs: &[Rung], now: Duration, records: &mut Vec<RungRecord>) -> Next {
        match self.state {
            State::Idle => Next::Wait,
            State::Warning | State::Terminating => self.go_on(rungs, RungOutcome::Deadline, now, records),
            State::Hooking => self.hook_done(RungOutcome::Deadline, now, records),
            State::Warned | State::Hooked | State::Grace => Next::AskRecovered,
            State::Killing { second: false } if self.one.is_none() => self.second_try(None, now, records),
            // SIGKILL is on its way, and releasing memory takes its time: wait for the end, don't turn to another.
            State::Killing { .. } => {
                self.note(records, RungOutcome::Deadline, now);
                (self.state, self.since, self.deadline) = (State::Verifying, now, now + VERIFY_DEADLINE);
                Next::Wait
            }
            State::Verifying => {
                self.note(records, RungOutcome::Deadline, now);
                Next::End(End::Lingers)
            }
        }
    }

    /// The answer to [`Next::AskRecovered`].
    pub fn judged(&mut self, rungs: &[Rung], recovered: bool, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        if !matches!(self.state, State::Warned | State::Hooked | State::Grace) {
            return Next::Wait;
        }
        if recovered {
            self.note(records, RungOutcome::Recovered, now);
            return Next::End(End::Recovered);
        }
        self.go_on(rungs, RungOutcome::Deadline, now, records)
    }

    /// The victim must live after all: what came in meanwhile is protected. The present rung is noted as given up.
    pub fn spared(&self, now: Duration, records: &mut Vec<RungRecord>) {
        self.note(records, RungOutcome::Spared, now);
    }

    /// Gives whoever waits for a sign of the trouble until then: a wait, the present one or a later one, ends no sooner.
    pub fn extend(&mut self, until: Duration) {
        self.not_before = self.not_before.max(until);
        if matches!(self.state, State::Warned | State::Hooked | State::Grace) {
            self.deadline = self.deadline.max(until);
        }
    }

    /// The present rung begins only now: something had to be found out first.
    pub fn begin_rung(&mut self, now: Duration) {
        self.deadline += now.saturating_sub(self.since);
        self.since = now;
    }

    /// Whether a kill was refused. One that merely was not done in time may have been sent.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Goes no further against a victim that SIGKILL may be on its way to: its end is waited for.
    pub fn stand_back(&mut self, now: Duration, records: &mut Vec<RungRecord>) -> Next {
        self.verify(RungOutcome::Spared, 0, now, records)
    }

    /// Deeds are paused: the present rung is noted as given up.
    pub fn paused(&self, now: Duration, records: &mut Vec<RungRecord>) {
        self.note(records, RungOutcome::Paused, now);
    }

    /// The daemon is told to stop: the present rung is noted as interrupted.
    pub fn interrupted(&self, now: Duration, records: &mut Vec<RungRecord>) {
        self.note(records, RungOutcome::Interrupted, now);
    }
}

/// The kill: the policy's compiler puts it last.
fn last(rungs: &[Rung]) -> usize {
    rungs.len().saturating_sub(1)
}

#[cfg(test)]
mod tests;
