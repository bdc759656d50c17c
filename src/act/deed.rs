//! What a rung does to the system, but for hooks. Runs on an actor thread; allocates nothing.
//!
//! A process is a pidfd, never a pid: after a pidfd was opened the group's list is read once more, and only a process that
//! still stands there is signalled, so that a recycled pid hits nobody. A pid of 0 (a process of another pid namespace)
//! never gets this far: [`crate::cgroup::parse::process`] calls it hidden.
//! pidfd_open(2), pidfd_send_signal(2), process_mrelease(2), cgroup-v2.rst on cgroup.kill.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::handlers::Handlers;
use super::listeners::Listeners;
use crate::cgroup::group::{Cause, File, Group, ReadBuf, ReadError};
use crate::cgroup::parse::{self, Process};
use crate::policy::model::WarnSignal;
use crate::sense::process::has_ended;
use crate::sys::{process_mrelease, send_signal};

/// Processes that are held by pidfd at a time; longer lists are worked through in so many at once.
const CHUNK: usize = 64;
/// Processes whose end is waited for by nobody: those signalled once already in one deed.
const REMEMBERED: usize = 4096;
/// Passes over a group's list for SIGTERM: what forks faster than this will meet SIGKILL.
const TERM_PASSES: usize = 5;
/// Passes over a group's list where cgroup.kill is not to be had.
const KILL_PASSES: usize = 200;
/// Chunks of one such pass: a bomb that forks faster is met again in the next.
const PASS_CHUNKS: usize = REMEMBERED / CHUNK;
/// Between two of them.
const PASS_PAUSE: Duration = Duration::from_millis(1);
/// Chunks that are signalled before cgroup.kill under a shortage of the whole node; what is left, or forks, is for that write.
const FIRST_CHUNKS: usize = 8;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Whoever listens for the victim is told, and each process of it that handles the signal gets it.
    Warn(Option<WarnSignal>),
    /// SIGTERM to every process.
    Term,
    /// SIGTERM to one process of the group: the one that will be killed.
    TermOne(i32),
    /// cgroup.kill; `signals_first` where that write may block behind a task that waits for memory.
    KillGroup {
        /// The whole node is short.
        signals_first: bool,
    },
    /// SIGKILL by pidfd until the group is empty.
    KillProcesses,
    /// SIGKILL to one process of the group.
    KillOne(i32),
}

impl Deed {
    /// Whether it sends SIGKILL.
    #[must_use]
    pub fn is_kill(self) -> bool {
        matches!(self, Deed::KillGroup { .. } | Deed::KillProcesses | Deed::KillOne(_))
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Processes signalled, where signals were sent.
    pub processes: u32,
    /// Listeners told, by a warning.
    pub listeners: u32,
    /// The last refusal.
    pub errno: Option<Errno>,
    /// When the first signal was sent, or, where none went before it, cgroup.kill was written.
    pub first: Option<Instant>,
    /// When the last signal was sent, or cgroup.kill was written.
    pub sent: Option<Instant>,
    /// A kill that was carried out, though nobody was there any more: what it was meant for had
    /// left by itself.
    pub nobody: bool,
}

impl Done {
    /// A signal was sent, or cgroup.kill written, at this moment.
    fn sent_now(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.sent = Some(now);
    }
}

/// What a kill has come to, told while it is still going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dying {
    /// SIGKILL is on its way to somebody.
    Somebody,
    /// It was carried out, and nobody was there.
    Nobody,
}

/// Buffers of one actor.
#[derive(Debug)]
pub struct Workshop {
    buffer: ReadBuf,
    signalled: Vec<i32>,
    chunk: Vec<(i32, OwnedFd)>,
    handlers: Handlers,
    listeners: Option<Arc<Listeners>>,
}

impl Default for Workshop {
    fn default() -> Workshop {
        Workshop::new(None)
    }
}

impl Workshop {
    /// With all the room that a deed needs. `listeners`: whom a warning tells.
    #[must_use]
    pub fn new(listeners: Option<Arc<Listeners>>) -> Workshop {
        let (signalled, chunk) = (Vec::with_capacity(REMEMBERED), Vec::with_capacity(CHUNK));
        Workshop { buffer: ReadBuf::new(), signalled, chunk, handlers: Handlers::open(), listeners }
    }

    /// Locks what a deed reads into.
    ///
    /// # Errors
    /// As [`crate::sys::lock`].
    pub fn lock(&mut self) -> std::io::Result<()> {
        self.buffer.lock()
    }

    /// Does it. `targets` are the victim and everything below it, the victim first; a pidfd that the caller wants to wait
    /// on is left in `kept`. `dying` is called once the first of them were sent SIGKILL, before their memory is released or
    /// anything else is done that takes its time.
    pub fn perform(&mut self, deed: Deed, targets: &[Arc<Group>], kept: &mut Option<OwnedFd>, dying: &mut dyn FnMut(Dying)) -> Done {
        self.signalled.clear();
        match deed {
            Deed::Warn(signal) => self.warn(targets, signal),
            Deed::Term => self.signal_all(targets, Signal::TERM, TERM_PASSES, usize::MAX, dying),
            Deed::KillProcesses => self.signal_all(targets, Signal::KILL, KILL_PASSES, PASS_CHUNKS, dying),
            Deed::KillGroup { signals_first } => self.kill_group(targets, signals_first, dying),
            Deed::TermOne(pid) => self.signal_one(targets, pid, Signal::TERM, kept, dying),
            Deed::KillOne(pid) => self.signal_one(targets, pid, Signal::KILL, kept, dying),
        }
    }

    fn warn(&mut self, targets: &[Arc<Group>], signal: Option<WarnSignal>) -> Done {
        let mut done = Done::default();
        // Listeners first: they wait for nothing else, and looking at processes takes its time.
        if let (Some(listeners), Some(victim)) = (&self.listeners, targets.first()) {
            done.listeners = listeners.tell(victim.id);
            if done.listeners > 0 {
                done.sent_now();
            }
        }
        let Some(signal) = signal else { return done };
        let mut left = PASS_CHUNKS;
        for group in targets {
            while left > 0 {
                left -= 1;
                self.chunk.clear();
                match self.open_chunk(group) {
                    Opened::Nobody => break,
                    Opened::Failed(errno) => {
                        done.errno = Some(errno);
                        break;
                    }
                    Opened::Some => {}
                }
                self.keep_members(group);
                self.keep_handlers(signal);
                self.signal_chunk(signal.number(), &mut done);
            }
        }
        self.chunk.clear();
        done
    }

    /// Drops who does not handle the signal: it would end him. The pidfds are open already, so that what is read of a
    /// recycled pid is followed by no signal.
    fn keep_handlers(&mut self, signal: WarnSignal) {
        let Workshop { buffer, signalled, chunk, handlers, .. } = self;
        chunk.retain(|(pid, _)| {
            let handles = handlers.handles(*pid, signal, buffer);
            if !handles {
                remember(signalled, *pid);
            }
            handles
        });
    }

    fn kill_group(&mut self, targets: &[Arc<Group>], signals_first: bool, dying: &mut dyn FnMut(Dying)) -> Done {
        let Some(victim) = targets.first() else { return Done::default() };
        let mut done = Done::default();
        if signals_first {
            done = self.signal_all(targets, Signal::KILL, 1, FIRST_CHUNKS, dying);
        }
        // The pidfds must be opened while the processes live; releasing works only once they are dying.
        self.chunk.clear();
        if !signals_first {
            self.open_chunk(victim);
        }
        // Looked at before the write: who is gone by then was not killed by it.
        let nobody = done.processes == 0 && self.is_empty(victim);
        match victim.kill() {
            Ok(()) => {
                (done.errno, done.nobody) = (None, nobody);
                if nobody {
                    dying(Dying::Nobody);
                } else {
                    done.sent_now();
                    dying(Dying::Somebody);
                }
                self.release_chunk();
                done
            }
            // Before Linux 5.14, or refused: one by one.
            Err(errno) => {
                let one_by_one = self.signal_all(targets, Signal::KILL, KILL_PASSES, PASS_CHUNKS, dying);
                let errno = if errno == Errno::NOENT { one_by_one.errno } else { one_by_one.errno.or(Some(errno)) };
                let processes = done.processes + one_by_one.processes;
                let nobody = processes == 0 && errno.is_none();
                Done { processes, errno, first: done.first.or(one_by_one.first), nobody, ..one_by_one }
            }
        }
    }

    /// Signals every process of the groups, reading the lists again until nobody is new: at most `passes` times, and at
    /// most `chunks` at a time.
    fn signal_all(&mut self, targets: &[Arc<Group>], signal: Signal, passes: usize, chunks: usize, dying: &mut dyn FnMut(Dying)) -> Done {
        let mut done = Done::default();
        for pass in 0..passes {
            if signal == Signal::KILL && pass > 0 {
                // A bomb reuses pids fast: who stands in the list now is signalled, whatever had that pid before. The dying
                // need the moment to go.
                self.signalled.clear();
                std::thread::sleep(PASS_PAUSE);
            }
            let (mut news, before) = (false, done.processes);
            done.processes = 0;
            let mut left = chunks;
            for group in targets {
                while left > 0 {
                    left -= 1;
                    self.chunk.clear();
                    match self.open_chunk(group) {
                        Opened::Nobody => break,
                        Opened::Failed(errno) => {
                            done.errno = Some(errno);
                            break;
                        }
                        Opened::Some => {}
                    }
                    self.keep_members(group);
                    news = true;
                    self.signal_chunk(signal.as_raw(), &mut done);
                    // Releasing memory takes its time and must not keep anybody from its signal.
                    if signal == Signal::KILL {
                        if done.processes > 0 {
                            dying(Dying::Somebody);
                        }
                        self.release_chunk();
                    }
                }
            }
            // Passes see the same dying processes again: the fullest tells how many there were.
            done.processes = done.processes.max(before);
            // Nobody new stands in any list. For SIGKILL the dying stay listed for a while, which is not news.
            if !news || (signal == Signal::KILL && passes > 1 && targets.first().is_some_and(|victim| self.is_empty(victim))) {
                break;
            }
        }
        done.nobody = signal == Signal::KILL && done.processes == 0 && done.errno.is_none();
        done
    }

    /// Whether nobody is in the group any more, nor below it; no, if that can't be told.
    pub fn is_empty(&mut self, group: &Group) -> bool {
        match group.read(File::GroupEvents, &mut self.buffer, parse::populated) {
            Ok(populated) => populated.flatten() == Some(false),
            Err(error) => error.is_gone(),
        }
    }

    /// Opens pidfds of processes of one group that were not signalled yet, as many as fit a chunk.
    fn open_chunk(&mut self, group: &Group) -> Opened {
        let Workshop { buffer, signalled, chunk, .. } = self;
        let mut failed = None;
        let result = group.each_process(buffer, |process| {
            let Process::Pid(pid) = process else { return true };
            if signalled.contains(&pid) {
                return true;
            }
            let Some(id) = Pid::from_raw(pid) else { return true };
            match pidfd_open(id, PidfdFlags::empty()) {
                Ok(fd) => chunk.push((pid, fd)),
                // It exited meanwhile.
                Err(Errno::SRCH) => {}
                Err(errno) => failed = Some(errno),
            }
            chunk.len() < CHUNK
        });
        match (result, failed) {
            _ if !chunk.is_empty() => Opened::Some,
            (Ok(()), Some(errno)) => Opened::Failed(errno),
            (Err(ReadError { cause: Cause::Errno(errno), .. }), _) if errno != Errno::NODEV && errno != Errno::NOENT => {
                Opened::Failed(errno)
            }
            (Err(ReadError { cause: Cause::Parse(_), .. }), _) => Opened::Failed(Errno::BADMSG),
            _ => Opened::Nobody,
        }
    }

    /// Reads the list again and drops what no longer stands in it.
    fn keep_members(&mut self, group: &Group) {
        let Workshop { buffer, chunk, .. } = self;
        let mut members = 0u64;
        let result = group.each_process(buffer, |process| {
            if let Process::Pid(pid) = process
                && let Some(at) = chunk.iter().position(|(known, _)| *known == pid)
            {
                members |= 1 << at;
            }
            true
        });
        if result.is_err() {
            members = 0;
        }
        let mut at = 0;
        chunk.retain(|_| {
            at += 1;
            members & (1 << (at - 1)) != 0
        });
    }

    fn signal_chunk(&mut self, signal: i32, done: &mut Done) {
        for (pid, fd) in &self.chunk {
            match send_signal(fd.as_fd(), signal) {
                Ok(()) => {
                    done.processes += 1;
                    done.sent_now();
                }
                Err(Errno::SRCH) => {}
                Err(errno) => done.errno = Some(errno),
            }
            remember(&mut self.signalled, *pid);
        }
    }

    fn release_chunk(&mut self) {
        for (_, fd) in self.chunk.drain(..) {
            // Refused for a process that is gone already, and before Linux 5.15: its exit frees the memory too.
            let _ = process_mrelease(fd.as_fd());
        }
    }

    fn signal_one(
        &mut self,
        targets: &[Arc<Group>],
        pid: i32,
        signal: Signal,
        kept: &mut Option<OwnedFd>,
        dying: &mut dyn FnMut(Dying),
    ) -> Done {
        let gone = Done { errno: Some(Errno::SRCH), ..Done::default() };
        let Some(id) = Pid::from_raw(pid) else { return gone };
        let fd = match pidfd_open(id, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(errno) => return Done { errno: Some(errno), ..Done::default() },
        };
        let Workshop { buffer, .. } = self;
        let mut member = false;
        for group in targets {
            // An unreadable list has no members.
            let _ = group.each_process(buffer, |process| {
                member |= process == Process::Pid(pid);
                !member
            });
        }
        // Who has ended by itself in the meantime was not killed, even if a signal would still be taken.
        if has_ended(&fd) {
            return gone;
        }
        // It lives, in another group: nobody's victim.
        if !member {
            return Done { errno: Some(Errno::NOENT), ..Done::default() };
        }
        match pidfd_send_signal(&fd, signal) {
            Ok(()) => {
                let mut done = Done { processes: 1, ..Done::default() };
                done.sent_now();
                if signal == Signal::KILL {
                    dying(Dying::Somebody);
                    // As in `release_chunk`.
                    let _ = process_mrelease(fd.as_fd());
                }
                *kept = Some(fd);
                done
            }
            Err(errno) => Done { errno: Some(errno), ..Done::default() },
        }
    }
}

fn remember(signalled: &mut Vec<i32>, pid: i32) {
    if signalled.len() == REMEMBERED {
        // A bomb: forget the oldest half, pids that still live are signalled once more.
        signalled.drain(..REMEMBERED / 2);
    }
    signalled.push(pid);
}

/// What came of opening pidfds.
enum Opened {
    /// Some are in the chunk.
    Some,
    /// Nobody new is there.
    Nobody,
    /// None could be opened.
    Failed(Errno),
}

#[cfg(test)]
mod tests;
