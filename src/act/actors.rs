//! The actor threads: started beforehand, stacks locked, waiting for jobs in boxes that go back and forth.
//!
//! Handing over a job and taking it back moves a box between two queues that have room for all of them: nothing is
//! allocated, and nobody waits for a deed.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;

use super::deed::{Deed, Done, Dying, Workshop};
use super::first_kill::Ticket;
use super::listeners::Listeners;
use super::marks::{self, Marks};
use crate::cgroup::group::Group;
use crate::sense::lms::Lms;
use crate::sense::poller::Key;
use crate::threads;

/// How many threads: one may be stuck in a write for seconds, and its victim's ladder goes on with another.
pub const ACTORS: usize = 4;

/// A deed on its way to an actor and back.
#[derive(Debug)]
pub struct Job {
    /// Whose: the ladder, and which attempt.
    pub ladder: Key,
    /// What to do.
    pub deed: Deed,
    /// The kernel holds an OOM until it hears that somebody is dying: which hold, and where to say so.
    pub hold: Option<(Arc<Lms>, u64)>,
    /// Where to say that SIGKILL went out, for a kill.
    pub first_kill: Option<Ticket>,
    /// The victim and everything below it, the victim first.
    pub targets: Vec<Arc<Group>>,
    /// The victim gets the marks that systemd reads.
    pub marked: bool,
    /// How many processes stood in the victim when that was last counted: the record's number, and
    /// that of the mark.
    pub processes: Option<u64>,
    /// How it went.
    pub done: Done,
    /// When it was finished.
    pub finished: Option<Instant>,
    /// A pidfd to wait on, of a single victim.
    pub pidfd: Option<OwnedFd>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<VecDeque<Box<Job>>>,
    more: Condvar,
    finished: Mutex<VecDeque<Box<Job>>>,
    mail: Arc<EventFd>,
}

/// The warden's end.
#[derive(Debug)]
pub struct Actors {
    shared: Arc<Shared>,
    #[expect(clippy::vec_box, reason = "jobs go to the actors and back by their boxes: moving one allocates nothing")]
    spare: Vec<Box<Job>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A queue of boxes is whole after every operation, whoever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Actors {
    /// Starts the threads with room for `jobs` at a time, each of at most `targets` groups before its list must grow.
    /// `mail` is written whenever a job is finished. `listeners` are whom warnings tell.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(mail: Arc<EventFd>, jobs: usize, targets: usize, listeners: Option<&Arc<Listeners>>) -> io::Result<Actors> {
        let shared = Arc::new(Shared {
            waiting: Mutex::new(VecDeque::with_capacity(jobs)),
            more: Condvar::new(),
            finished: Mutex::new(VecDeque::with_capacity(jobs)),
            mail,
        });
        let marks = Marks::start()?;
        for number in 0..ACTORS {
            let (shared, listeners, marks) = (Arc::clone(&shared), listeners.cloned(), marks.clone());
            threads::vital(&format!("actor-{number}"), 256 * 1024, move || work(&shared, listeners, &marks))?;
        }
        let job = || {
            Box::new(Job {
                ladder: Key { slot: 0, generation: 0 },
                deed: Deed::Term,
                hold: None,
                first_kill: None,
                targets: Vec::with_capacity(targets),
                marked: false,
                processes: None,
                done: Done::default(),
                finished: None,
                pidfd: None,
            })
        };
        Ok(Actors { shared, spare: (0..jobs).map(|_| job()).collect() })
    }

    /// Makes room for larger victims. Not on the kill path.
    pub fn reserve(&mut self, targets: usize) {
        for job in &mut self.spare {
            let more = targets.saturating_sub(job.targets.len());
            job.targets.reserve(more);
        }
    }

    /// An empty job, or `None` while all are under way.
    pub fn take(&mut self) -> Option<Box<Job>> {
        let mut job = self.spare.pop()?;
        job.targets.clear();
        (job.done, job.finished, job.pidfd, job.hold) = (Done::default(), None, None, None);
        job.first_kill = None;
        Some(job)
    }

    /// Hands a job over.
    pub fn send(&self, job: Box<Job>) {
        lock(&self.shared.waiting).push_back(job);
        self.shared.more.notify_one();
    }

    /// Takes back what was handed over for the ladder at `place` and no actor has begun: what is stuck behind others must
    /// not be done when its ladder has long gone on. Whether there was something.
    pub fn recall(&mut self, place: u32) -> bool {
        let mut found = false;
        let mut waiting = lock(&self.shared.waiting);
        for _ in 0..waiting.len() {
            match waiting.pop_front() {
                Some(mut job) if job.ladder.slot == place => {
                    job.targets.clear();
                    self.spare.push(job);
                    found = true;
                }
                Some(job) => waiting.push_back(job),
                None => break,
            }
        }
        found
    }

    /// The next finished job; to be given back by [`Actors::give_back`].
    #[must_use]
    pub fn finished(&self) -> Option<Box<Job>> {
        lock(&self.shared.finished).pop_front()
    }

    /// Takes an empty job box back.
    pub fn give_back(&mut self, mut job: Box<Job>) {
        job.targets.clear();
        self.spare.push(job);
    }
}

/// How long a deed waits for the mark of its attempt; `None`: it gets none.
///
/// The second try of a kill is the same attempt. Nor is the kill of one process an attempt to kill
/// the group: systemd would stop the whole unit for it.
fn patience(deed: Deed, held: bool) -> Option<Duration> {
    match deed {
        // A mkdir that waits for memory may hold the directory's lock, for as long as the shortage
        // lasts.
        Deed::KillGroup { signals_first } if signals_first || held => Some(Duration::ZERO),
        Deed::KillGroup { .. } => Some(marks::PATIENCE),
        _ => None,
    }
}

fn work(shared: &Shared, listeners: Option<Arc<Listeners>>, marks: &Marks) {
    let mut workshop = Workshop::new(listeners);
    // Without the rights, deeds are done all the same; the start tells that once for all threads.
    let _ = crate::sys::lock_stack().and_then(|()| workshop.lock());
    let _ = crate::sys::run_before_others();
    loop {
        let mut waiting = lock(&shared.waiting);
        let mut job = loop {
            match waiting.pop_front() {
                Some(job) => break job,
                None => waiting = shared.more.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(waiting);
        let mut hold = job.hold.take();
        let first_kill = job.first_kill.take();
        let victim = job.targets.first();
        let mut marked = victim.filter(|_| job.marked);
        // Of a unit that has ended by itself systemd must not say that it was killed.
        if let (Some(victim), Some(patience)) = (marked, patience(job.deed, hold.is_some()))
            && !workshop.is_empty(victim)
        {
            marks.attempt(victim, patience);
        }
        let mut dying = |dying| {
            if let (Dying::Somebody, Some(first_kill)) = (dying, &first_kill) {
                first_kill.sent();
            }
            let counted = job.processes.filter(|_| dying == Dying::Somebody);
            if let Some((device, seq)) = hold.take() {
                // Over by now: nobody waits for the answer any more.
                let _ = device.ack(seq, victim.map(|victim| victim.id));
            }
            if let Some(processes) = counted
                && let Some(victim) = marked.take()
            {
                marks.killed(victim, processes);
            }
        };
        job.done = workshop.perform(job.deed, &job.targets, &mut job.pidfd, &mut dying);
        // Nobody counted them before. Of a kill that reached nobody nothing is raised.
        if let Some(victim) = marked.filter(|_| job.deed.is_kill()) {
            marks.killed(victim, job.done.processes.into());
        }
        job.finished = Some(Instant::now());
        lock(&shared.finished).push_back(job);
        // Only full when the warden has not read for ages; it will.
        let _ = shared.mail.write(1);
    }
}

#[cfg(test)]
mod tests;
