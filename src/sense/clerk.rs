//! The clerk: a thread for the writes of sensing that can block, so that the warden need not do them.
//!
//! Arming a privileged PSI trigger starts a kernel thread, and taking one down waits for it; the
//! kernel module needs memory for a new table. A table goes before all else: the one before it may be
//! gone already. Then triggers are armed, in order. Closing waits until nothing else is to be done: a trigger
//! takes the kernel tens of milliseconds to close, and there may be hundreds. Nothing on the kill path waits
//! for an errand.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use nix::sys::eventfd::EventFd;
use rustix::fs::OFlags;
use rustix::io::{Errno, write};
use rustix::thread::{CapabilitySet, capabilities};

use super::lms::{Lms, Table};
use super::poller::Key;
use super::psi::{Refused, Unprivileged, attempts, stall_total, text};
use crate::cgroup::buffer::ReadBuf;
use crate::cgroup::group::{File, Group};
use crate::cgroup::parse;
use crate::policy::model::Psi;
use crate::threads;

/// Something to be done off the warden thread.
#[derive(Debug)]
pub enum Errand {
    /// Arm a trigger.
    Arm(Key, Arc<Group>, Psi),
    /// Close descriptors of triggers that are no longer wanted.
    Close(OwnedFd),
    /// Write the kernel module's table, for which the module needs memory, if it is still wanted.
    Table(Arc<Lms>, Box<Table>, Wanted),
}

/// Whether something is still wanted: the warden counts its changes of mind.
#[derive(Debug)]
pub struct Wanted {
    changes: Arc<AtomicU64>,
    at: u64,
}

impl Wanted {
    /// Wanted until `changes` rises.
    #[must_use]
    pub fn now(changes: &Arc<AtomicU64>) -> Wanted {
        Wanted { changes: Arc::clone(changes), at: changes.load(Ordering::SeqCst) }
    }

    /// Whether it still is.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.changes.load(Ordering::SeqCst) == self.at
    }
}

/// What became of an errand.
#[derive(Debug)]
pub enum Reply {
    /// A trigger is armed, without privileges or with them.
    Armed(Key, OwnedFd, Option<Unprivileged>),
    /// It could not be, and what is left then.
    Refused(Key, Refused),
    /// It was not, since its group has no processes, or is gone.
    Empty(Key),
    /// What became of the table.
    Table(Box<Table>, Tabled),
}

/// What became of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tabled {
    /// It was written, or refused, and was wanted until then.
    Written(Result<(), Errno>),
    /// It was wanted no longer, and was not written.
    Unwanted,
    /// The same became of it while it was written, so it was taken back; or not.
    TakenBack(Result<(), Errno>),
}

/// The warden's end.
#[derive(Debug)]
pub struct Clerk {
    errands: Sender<Errand>,
    replies: Receiver<Reply>,
}

impl Clerk {
    /// Starts the thread. `mail` is written whenever a reply is there.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn start(mail: Arc<EventFd>) -> io::Result<Clerk> {
        let (errands, inbox) = channel();
        let (outbox, replies) = channel();
        threads::vital("clerk", 128 * 1024, move || work(&inbox, &outbox, &mail))?;
        Ok(Clerk { errands, replies })
    }

    /// Hands over an errand.
    pub fn send(&self, errand: Errand) {
        // The clerk lives as long as this end does.
        let _ = self.errands.send(errand);
    }

    /// The next reply, if one is there.
    #[must_use]
    pub fn reply(&self) -> Option<Reply> {
        self.replies.try_recv().ok()
    }
}

fn work(inbox: &Receiver<Errand>, outbox: &Sender<Reply>, mail: &EventFd) {
    let mut told = Told::default();
    let mut buffer = ReadBuf::new();
    let mut waiting = Waiting::default();
    // The kernel asks for it where a file of pressure was opened. Before it knew unprivileged triggers every trigger was privileged: then a
    // doubt more is no harm.
    let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    while let Some(errand) = waiting.next(inbox) {
        let reply = match errand {
            Errand::Arm(key, group, psi) => match arm(&group, psi, &mut buffer) {
                Ok(None) => Reply::Empty(key),
                Ok(Some((fd, armed))) => {
                    told.widened(psi, armed);
                    let total_us = if privileged { None } else { stall_total(&fd, armed.kind, &mut buffer) };
                    let unprivileged = total_us.map(|total_us| Unprivileged { armed, total_us });
                    Reply::Armed(key, fd, unprivileged)
                }
                // Removed meanwhile, which the tree is told of on its own way.
                Err(_) if group.reopen_dir().is_err_and(|errno| matches!(errno, Errno::NOENT | Errno::NODEV)) => Reply::Empty(key),
                Err(errno) => {
                    let refused = refusal(&group, psi, errno, &mut buffer);
                    if refused == Refused::Readable {
                        told.refused(&group, errno);
                    }
                    Reply::Refused(key, refused)
                }
            },
            Errand::Table(device, table, wanted) => {
                let tabled = write_table(&device, &table, &wanted);
                Reply::Table(table, tabled)
            }
            Errand::Close(fd) => {
                drop(fd);
                continue;
            }
        };
        if outbox.send(reply).is_err() {
            return;
        }
        // Only full when the warden has not read for ages; it will.
        let _ = mail.write(1);
    }
}

/// Errands that wait for others to be done.
#[derive(Default)]
struct Waiting {
    to_arm: VecDeque<Errand>,
    to_close: Vec<OwnedFd>,
}

impl Waiting {
    /// The next errand. `None`: nobody is there any more to send one.
    fn next(&mut self, inbox: &Receiver<Errand>) -> Option<Errand> {
        loop {
            let errand = match inbox.try_recv() {
                Ok(errand) => errand,
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {
                    if let Some(errand) = self.to_arm.pop_front() {
                        return Some(errand);
                    }
                    if let Some(fd) = self.to_close.pop() {
                        return Some(Errand::Close(fd));
                    }
                    inbox.recv().ok()?
                }
            };
            match errand {
                Errand::Table(..) => return Some(errand),
                Errand::Arm(..) => self.to_arm.push_back(errand),
                Errand::Close(fd) => self.to_close.push(fd),
            }
        }
    }
}

/// Writes a table that is wanted, and takes it back if it is not any more when that is done. The warden counts its change of mind before it
/// empties the module's table, so one that was written and is still wanted thereafter was written before that.
fn write_table(device: &Lms, table: &Table, wanted: &Wanted) -> Tabled {
    if !wanted.holds() {
        return Tabled::Unwanted;
    }
    let result = device.write_table(table);
    if wanted.holds() { Tabled::Written(result) } else { Tabled::TakenBack(device.clear_table()) }
}

/// Arms a trigger, unless there are no processes in the group: its descriptor, and the trigger as the kernel took it.
fn arm(group: &Group, psi: Psi, buffer: &mut ReadBuf) -> Result<Option<(OwnedFd, Psi)>, Errno> {
    let mut refused = Errno::INVAL;
    for attempt in attempts(psi) {
        // Where PSI is off there is no such file, which is to be said of groups without processes too.
        let fd = group.open_file(File::Pressure, OFlags::RDWR | OFlags::NONBLOCK)?;
        if has_no_processes(group, buffer) {
            return Ok(None);
        }
        match write(&fd, text(attempt).as_bytes()) {
            Ok(_) => return Ok(Some((fd, attempt))),
            Err(Errno::INVAL) => refused = Errno::INVAL,
            Err(errno) => return Err(errno),
        }
    }
    Err(refused)
}

/// What is left of a group that stands and has no trigger for this reason. Without PSI it has no such file, or one that takes nothing; whatever
/// else is wrong, such as too many open files, may be over by the time that the timer reads it.
fn refusal(group: &Group, psi: Psi, errno: Errno, buffer: &mut ReadBuf) -> Refused {
    if !matches!(errno, Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) {
        return Refused::Readable;
    }
    let file = group.open_file(File::Pressure, OFlags::RDONLY | OFlags::NONBLOCK);
    match file.map(|file| stall_total(&file, psi.kind, buffer)) {
        Ok(Some(_)) => Refused::Readable,
        Ok(None) | Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Refused::Unreadable,
        Err(_) => Refused::Readable,
    }
}

/// Whether cgroup.events says that there are no processes in the group or below. The root has no such file; what can't be read is no
/// reason to leave a group without a trigger.
fn has_no_processes(group: &Group, buffer: &mut ReadBuf) -> bool {
    group.read(File::GroupEvents, buffer, parse::populated).is_ok_and(|populated| populated.flatten() == Some(false))
}

/// What was said already: each thing once, since it is the same for every group.
#[derive(Default)]
struct Told {
    widened: bool,
    refused: Vec<Errno>,
}

impl Told {
    fn widened(&mut self, asked: Psi, armed: Psi) {
        if asked != armed && !std::mem::replace(&mut self.widened, true) {
            tracing::warn!(
                "the kernel refuses a PSI window of {:?}; {:?} with the same ratio is used (small windows need CAP_SYS_RESOURCE and a newer kernel: 6.1 has no windows below 500 ms, 6.12 has)",
                asked.window,
                armed.window
            );
        }
    }

    fn refused(&mut self, group: &Group, errno: Errno) {
        if !self.refused.contains(&errno) {
            self.refused.push(errno);
            tracing::warn!("{}: no PSI trigger: {errno}; stall is read on a timer there", group.path.file("memory.pressure"));
        }
    }
}

#[cfg(test)]
mod tests;
