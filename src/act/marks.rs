//! What systemd reads of a kill: the extended attributes `user.oomd_ooms` (attempts to kill the
//! group) and `user.oomd_kill` (processes killed in it), decimal numbers on the victim's directory.
//!
//! They are what systemd-oomd and Meta's oomd leave there. When a process of a unit ends, and when
//! the unit's group is empty, systemd compares `user.oomd_ooms` with what it was
//! (`unit_check_oomd_kill` in src/core/cgroup.c): if it has risen, the unit's result is `oom-kill`,
//! and an entry in the unit's journal tells of it, with the number in `user.oomd_kill` if there is
//! one. So the first is raised before the kill, the second right after.
//!
//! Setting an attribute takes the lock of the directory's inode, which a mkdir there holds while it
//! waits for memory, and allocates in the kernel. A kill must not wait for either: attributes are
//! set by a thread of their own, and an actor waits for it a few milliseconds at the most.

mod complaints;

use std::collections::VecDeque;
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use rustix::io::Errno;

use complaints::Complaints;

use crate::cgroup::group::Group;
use crate::threads;

/// Attempts to kill the group.
const ATTEMPTS: &CStr = c"user.oomd_ooms";
/// Processes killed in it.
const KILLED: &CStr = c"user.oomd_kill";
/// Marks that may wait at a time; what does not fit is left out, and said.
const MOST_WAITING: usize = 64;
/// How long a kill waits for the mark of its attempt.
pub const PATIENCE: Duration = Duration::from_millis(5);
/// The longest decimal number of 64 bits.
const MOST_DIGITS: usize = 20;

/// An attribute to be raised.
#[derive(Debug)]
struct Mark {
    number: u64,
    group: Arc<Group>,
    name: &'static CStr,
    by: u64,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Mark>,
    /// The last number that was given out, and the last that is done.
    given: u64,
    done: u64,
    /// When the thread began with the mark that it is at.
    busy_since: Option<Instant>,
    /// Marks that found no room, and are not said yet.
    left_out: u64,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    done: Condvar,
}

/// The thread's other end.
#[derive(Clone, Debug)]
pub struct Marks(Arc<Shared>);

fn lock(shared: &Shared) -> MutexGuard<'_, Queue> {
    // Whole after every operation, whoever panicked meanwhile.
    shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn new() -> Queue {
        Queue { waiting: VecDeque::with_capacity(MOST_WAITING), given: 0, done: 0, busy_since: None, left_out: 0 }
    }
}

impl Marks {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start() -> io::Result<Marks> {
        let queue = Queue::new();
        let shared = Arc::new(Shared { queue: Mutex::new(queue), more: Condvar::new(), done: Condvar::new() });
        let marks = Marks(Arc::clone(&shared));
        threads::watched("marks", 128 * 1024, move |_| work(&shared))?;
        Ok(marks)
    }

    /// An attempt to kill the group is about to begin. Returns when that is written, or cannot be,
    /// or after `patience`; at once if the thread has been stuck for as long with another one.
    pub fn attempt(&self, group: &Arc<Group>, patience: Duration) {
        let Some(number) = self.raise(group, ATTEMPTS, 1) else { return };
        let until = Instant::now() + patience;
        let mut queue = lock(&self.0);
        while queue.done < number && queue.busy_since.is_none_or(|since| since.elapsed() < patience) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
            queue = self.0.done.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// So many processes of the group were sent SIGKILL. Waits for nothing.
    pub fn killed(&self, group: &Arc<Group>, processes: u64) {
        if processes > 0 {
            let _ = self.raise(group, KILLED, processes);
        }
    }

    /// Hands a mark over; its number, or `None` if there is no room.
    fn raise(&self, group: &Arc<Group>, name: &'static CStr, by: u64) -> Option<u64> {
        let mut queue = lock(&self.0);
        if queue.waiting.len() == MOST_WAITING {
            queue.left_out += 1;
            return None;
        }
        queue.given += 1;
        let number = queue.given;
        queue.waiting.push_back(Mark { number, group: Arc::clone(group), name, by });
        drop(queue);
        self.0.more.notify_one();
        Some(number)
    }
}

fn work(shared: &Shared) -> ! {
    // Without the right it is done all the same.
    let _ = crate::sys::run_before_others();
    let mut complaints = Complaints::default();
    loop {
        let mut queue = lock(shared);
        let mark = loop {
            match queue.waiting.pop_front() {
                Some(mark) => break mark,
                None => queue = shared.more.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        };
        queue.busy_since = Some(Instant::now());
        drop(queue);
        let result = raise(&mark.group, mark.name, mark.by);
        let mut queue = lock(shared);
        (queue.done, queue.busy_since) = (mark.number, None);
        let left_out = std::mem::take(&mut queue.left_out);
        drop(queue);
        shared.done.notify_all();
        match result {
            // The victim is gone already, or was removed.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => complaints.refused(&mark.group.path, mark.name, errno, Instant::now()),
        }
        complaints.left_out(left_out, Instant::now());
    }
}

/// Adds to a number. One that is no number, or would not fit any more, stays as it is.
fn raise(group: &Group, name: &CStr, by: u64) -> Result<(), Errno> {
    let directory: OwnedFd = group.readable_dir()?;
    let mut text = [0; MOST_DIGITS];
    let before = match fgetxattr(&directory, name, &mut text[..]) {
        Ok(length) => number(text.get(..length).unwrap_or_default()).ok_or(Errno::BADMSG)?,
        Err(Errno::NODATA) => 0,
        Err(errno) => return Err(errno),
    };
    let after = before.checked_add(by).ok_or(Errno::OVERFLOW)?;
    fsetxattr(&directory, name, digits(after, &mut text), XattrFlags::empty())
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| !text.starts_with('+')) }
}

/// The number in decimal, without allocating.
fn digits(mut number: u64, text: &mut [u8; MOST_DIGITS]) -> &[u8] {
    let mut at = text.len();
    loop {
        at -= 1;
        if let (Some(place), Ok(digit)) = (text.get_mut(at), u8::try_from(number % 10)) {
            *place = b'0' + digit;
        }
        number /= 10;
        if number == 0 {
            return &text[at..];
        }
    }
}

#[cfg(test)]
mod tests;
