//! One hook under way: a session of its own, the verdict on its standard input, the begin of what it says, a deadline.
//!
//! A hook that does not read, that writes for ever or that hangs holds nobody up: all pipes are non-blocking on our side, and
//! what it says beyond [`KEPT`] is read and dropped.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::protocol::{Ended, Reply, Request};
use crate::owners::{self, Unsafe};

/// How much of what a hook says is kept.
pub const KEPT: usize = 4096;
/// Reads of each pipe in one turn: what floods its output gets no more attention than others.
const READS: usize = 4;

/// One of a hook's outputs.
#[derive(Debug)]
enum Output {
    Out(ChildStdout),
    Err(ChildStderr),
}

impl Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Output::Out(pipe) => pipe.read(buffer),
            Output::Err(pipe) => pipe.read(buffer),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::Out(pipe) => pipe.as_fd(),
            Output::Err(pipe) => pipe.as_fd(),
        }
    }
}

/// A hook that runs.
#[derive(Debug)]
pub struct Running {
    id: u64,
    child: Child,
    pidfd: OwnedFd,
    input: Option<ChildStdin>,
    verdict: Vec<u8>,
    written: usize,
    outputs: Vec<Output>,
    said: Vec<u8>,
    cut: bool,
    began: Instant,
    deadline: Instant,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// The reply that says why not.
    pub fn start(request: &Request, verdict: Vec<u8>) -> Result<Running, Reply> {
        let began = Instant::now();
        Running::try_start(request, verdict, began).map_err(|error| Reply {
            id: request.id,
            ended: Ended::NotStarted(errno_of(&error)),
            took_us: micros(began.elapsed()),
            // What an errno does not tell.
            output: if error.raw_os_error().is_some() { String::new() } else { error.to_string() },
            cut: false,
        })
    }

    fn try_start(request: &Request, verdict: Vec<u8>, began: Instant) -> io::Result<Running> {
        let (program, arguments) = request.exec.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // Looked at when the policy was taken over, too; it may be another by now.
        if let Err(error @ Unsafe::Writable(_)) = owners::file(Path::new(program)) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        crate::sys::in_own_session(&mut command);
        let mut child = command.spawn()?;
        let prepared = prepare(&mut child);
        let (pidfd, input, outputs) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                // Nobody would keep its time.
                let _ = child.kill();
                return Err(error);
            }
        };
        let deadline = began + Duration::from_micros(request.timeout_us);
        let (said, cut) = (Vec::with_capacity(KEPT), false);
        Ok(Running { id: request.id, child, pidfd, input, verdict, written: 0, outputs, said, cut, began, deadline })
    }

    /// When it is to be killed.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What to wait for.
    pub fn awaited(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let input = self.input.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::OUT));
        let outputs = self.outputs.iter().map(|pipe| (pipe.as_fd(), PollFlags::IN));
        [(self.pidfd.as_fd(), PollFlags::IN)].into_iter().chain(input).chain(outputs)
    }

    /// Gives and takes what can be at the moment; the reply if it has ended, or had to.
    pub fn advance(&mut self) -> Option<Reply> {
        self.give();
        self.take();
        let now = Instant::now();
        let ended = match self.has_exited() {
            true => {
                self.take();
                // Before it is collected: until then its id is nobody else's.
                self.end_session();
                match self.child.wait() {
                    Ok(status) => ended_by(status),
                    Err(_) => Ended::Exit(0),
                }
            }
            false if now >= self.deadline => {
                self.end_session();
                // It may hang in the kernel: it is collected when it goes.
                let _ = self.child.try_wait();
                Ended::Deadline
            }
            false => return None,
        };
        let output = String::from_utf8_lossy(&self.said).into_owned();
        Some(Reply { id: self.id, ended, took_us: micros(now - self.began), output, cut: self.cut })
    }

    /// Kills all that it started and that stayed in its session's group.
    pub fn end_session(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // ESRCH: nobody is left.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    fn has_exited(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.pidfd, PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    fn give(&mut self) {
        while let Some(pipe) = &mut self.input {
            match pipe.write(self.verdict.get(self.written..).unwrap_or_default()) {
                // All is written: the end of its input tells it so.
                Ok(0) => self.input = None,
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It does not want to know.
                Err(_) => self.input = None,
            }
        }
    }

    fn take(&mut self) {
        let Running { outputs, said, cut, .. } = self;
        outputs.retain_mut(|pipe| {
            let mut buffer = [0; 4096];
            for _ in 0..READS {
                match pipe.read(&mut buffer) {
                    Ok(0) => return false,
                    Ok(read) => {
                        let room = KEPT - said.len();
                        *cut |= read > room;
                        said.extend_from_slice(buffer.get(..read.min(room)).unwrap_or_default());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return false,
                }
            }
            true
        });
    }
}

type Prepared = (OwnedFd, Option<ChildStdin>, Vec<Output>);

fn prepare(child: &mut Child) -> io::Result<Prepared> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let input = child.stdin.take();
    let outputs: Vec<Output> = child.stdout.take().map(Output::Out).into_iter().chain(child.stderr.take().map(Output::Err)).collect();
    for pipe in &outputs {
        fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    }
    if let Some(pipe) = &input {
        fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    }
    Ok((pidfd, input, outputs))
}

fn ended_by(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, signal) => Ended::Signal(signal.unwrap_or(0)),
    }
}

/// The errno that stands for an error of our own, too.
fn errno_of(error: &io::Error) -> i32 {
    let ours = if error.kind() == io::ErrorKind::PermissionDenied { libc::EPERM } else { libc::EINVAL };
    error.raw_os_error().unwrap_or(ours)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
