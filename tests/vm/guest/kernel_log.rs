//! The kernel's log from a moment on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use crate::outcome::{Doing, Outcome};

/// What no healthy kernel says. Reports of an OOM, with their stack traces, hold none of these.
const COMPLAINTS: [&str; 15] = [
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "general protection",
    "unable to handle",
    "refcount_t",
    "list_add corruption",
    "list_del corruption",
    "self-detected stall",
    "detected stalls on CPUs",
    "rcu_tasks_wait_gp",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
];

/// Faults of the kernels themselves that ordinary use brings out, with no part of ours in the kernel: "psi: trigger leak", once a
/// boot, where a group is removed while somebody arms a trigger there. oomwarden arms none in groups without processes, so it takes a
/// group whose last process ends and that is removed within a moment.
const KNOWN: [&str; 1] = ["psi_cgroup_free"];

/// A line of the log.
pub struct Record {
    /// Not a program's.
    pub by_kernel: bool,
    /// When it was written, by a clock of its own.
    pub time_us: u64,
    /// What it says.
    pub text: String,
}

/// A place in the log.
pub struct KernelLog(File);

impl KernelLog {
    /// Behind the last line that is there now.
    pub fn from_now() -> Outcome<KernelLog> {
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").doing("open /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).doing("go to the end of the kernel's log")?;
        Ok(KernelLog(file))
    }

    /// The lines that came since the last call, but for those that programs wrote.
    pub fn lines(&mut self) -> Outcome<Vec<String>> {
        Ok(self.records()?.into_iter().filter(|record| record.by_kernel).map(|record| record.text).collect())
    }

    /// All that came since the last call.
    pub fn records(&mut self) -> Outcome<Vec<Record>> {
        let mut records = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    // `facility * 8 + level,number,time,flags;text`, further lines begin with a space. What programs write is not
                    // of the kernel's facility, 0.
                    let (head, text) = text.split_once(';').unwrap_or(("", &text));
                    let mut numbers = head.split(',').map(|number| number.parse::<u64>().ok());
                    let by_kernel = numbers.next().flatten().is_some_and(|number| number < 8);
                    let time_us = numbers.nth(1).flatten().unwrap_or(0);
                    records.extend(text.lines().next().map(|line| Record { by_kernel, time_us, text: line.to_owned() }));
                }
                // What was not read in time was overwritten; the next read goes on with what is there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    records.push(Record { by_kernel: true, time_us: 0, text: "(lines of the kernel's log were lost)".to_owned() });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(records),
                Err(error) => return Err(format!("could not read the kernel's log: {error}")),
            }
        }
    }

    /// The first of those that came since the last call that no healthy kernel says, with a few that follow it.
    pub fn complaint(&mut self) -> Outcome<Option<String>> {
        let lines = self.lines()?;
        let known = |line: &String| KNOWN.iter().any(|known| line.contains(known));
        let first = lines.iter().position(|line| COMPLAINTS.iter().any(|complaint| line.contains(complaint)) && !known(line));
        Ok(first.map(|at| lines[at..lines.len().min(at + 12)].join(" | ")))
    }
}
