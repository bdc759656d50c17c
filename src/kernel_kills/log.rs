//! The kernel's log, from a moment on: what it says of OOM kills. It only describes; kills are counted by counters
//! ([`super::census`]), so a lost line costs a name and no count.
//!
//! /dev/kmsg is read where it may be opened: it gives notice (`poll`), numbers its records, and every reader has a place of its
//! own. Where only syslog(2) is allowed (a container's device rules), the whole ring is read whenever a counter has risen, and
//! what was there at the last time is left out.

pub mod parse;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use parse::{Line, Record};

use crate::sys;

/// The longest record: CONSOLE_EXT_LOG_MAX of the kernel.
const RECORD_BYTES: usize = 8192;
/// How much of the ring's end is remembered to know it again.
const TAIL_BYTES: usize = 256;
/// The largest ring that is read by syslog(2); of a larger one, its end.
const RING_BYTES: usize = 4 << 20;
/// Records in one reading: a flood must not keep the reader from what else it has to do.
const AT_ONCE: usize = 4096;
/// Records that may come between the parts of one line.
const PATIENCE: u32 = 64;
/// The longest line in parts: two paths and the rest.
const WHOLE_BYTES: usize = 16 * 1024;

/// An open log.
#[derive(Debug)]
pub struct KernelLog {
    source: Source,
    parts: Parts,
}

#[derive(Debug)]
enum Source {
    Kmsg { file: File, next: Option<u64>, record: Box<[u8]> },
    Ring { ring: Box<[u8]>, tail: Vec<u8> },
}

/// What a reading came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Lines that tell of OOM kills.
    pub lines: usize,
    /// Records were overwritten before they could be read.
    pub lost: bool,
}

impl KernelLog {
    /// Opens the log at its end.
    ///
    /// # Errors
    /// EPERM where neither /dev/kmsg nor syslog(2) may be read (CAP_SYSLOG, kernel.dmesg_restrict).
    pub fn open() -> io::Result<KernelLog> {
        let source = match open_kmsg() {
            Ok(file) => Source::Kmsg { file, next: None, record: vec![0; RECORD_BYTES].into() },
            Err(_) => {
                let ring = vec![0; sys::kernel_log_size()?.clamp(RECORD_BYTES, RING_BYTES)];
                Source::Ring { ring: ring.into(), tail: Vec::new() }
            }
        };
        let mut log = KernelLog { source, parts: Parts::default() };
        if let Source::Ring { .. } = log.source {
            log.read(|_| {})?;
        }
        Ok(log)
    }

    /// How it is read, in words.
    #[must_use]
    pub fn way(&self) -> &'static str {
        match self.source {
            Source::Kmsg { .. } => "/dev/kmsg",
            Source::Ring { .. } => "syslog(2)",
        }
    }

    /// The descriptor that is readable when there is news; syslog(2) has none.
    #[must_use]
    pub fn notice(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::Kmsg { file, .. } => Some(file.as_fd()),
            Source::Ring { .. } => None,
        }
    }

    /// Reads what is new, in order.
    ///
    /// # Errors
    /// The errno of the read; the next one goes on behind it.
    pub fn read(&mut self, mut each: impl FnMut(Line)) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let parts = &mut self.parts;
        let mut take = |record: &Record<'_>| {
            if record.after_gap {
                parts.begun.clear();
                each(Line::Gap);
            }
            if let Some(line) = parts.take(record) {
                reading.lines += 1;
                each(line);
            }
        };
        let lost = match &mut self.source {
            Source::Kmsg { file, next, record } => read_kmsg(file, next, record, &mut take)?,
            Source::Ring { ring, tail } => read_ring(ring, tail, &mut take)?,
        };
        reading.lost = lost;
        Ok(reading)
    }
}

fn open_kmsg() -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    if !file.metadata()?.file_type().is_char_device() {
        return Err(io::Error::other("/dev/kmsg is no device"));
    }
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

fn read_kmsg(file: &mut File, next: &mut Option<u64>, buffer: &mut [u8], take: &mut impl FnMut(&Record<'_>)) -> io::Result<bool> {
    let mut lost = false;
    for _ in 0..AT_ONCE {
        let length = match file.read(buffer) {
            Ok(0) => return Ok(lost),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lost),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Overwritten before it was read: the next read goes on with the oldest that is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                lost = true;
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(mut record) = buffer.get(..length).and_then(parse::kmsg) else { continue };
        record.after_gap = next.is_some_and(|next| record.number.is_some_and(|number| number != next));
        lost |= record.after_gap;
        *next = record.number.map(|number| number.wrapping_add(1));
        take(&record);
    }
    Ok(lost)
}

fn read_ring(ring: &mut [u8], tail: &mut Vec<u8>, take: &mut impl FnMut(&Record<'_>)) -> io::Result<bool> {
    let length = sys::read_kernel_log(ring)?;
    let text = ring.get(..length).unwrap_or_default();
    let (new, lost) = news(text, tail);
    let mut gap = lost;
    for mut record in new.split(|byte| *byte == b'\n').filter_map(parse::syslog) {
        record.after_gap = std::mem::take(&mut gap);
        take(&record);
    }
    tail.clear();
    tail.extend_from_slice(text.get(text.len().saturating_sub(TAIL_BYTES)..).unwrap_or_default());
    Ok(lost)
}

/// What stands behind the former end of the ring, and whether that end is no longer there.
fn news<'a>(text: &'a [u8], tail: &[u8]) -> (&'a [u8], bool) {
    if tail.is_empty() {
        return (text, false);
    }
    // From the right: most often nothing or little is new.
    match text.windows(tail.len()).rposition(|part| part == tail) {
        Some(at) => (text.get(at + tail.len()..).unwrap_or_default(), false),
        None => (text, true),
    }
}

/// Puts lines together that the kernel wrote in parts: what other processors say meanwhile comes in between, and a long path
/// makes a record too long.
#[derive(Debug, Default)]
struct Parts {
    begun: Vec<u8>,
    since: u32,
}

impl Parts {
    fn take(&mut self, record: &Record<'_>) -> Option<Line> {
        if !record.by_kernel {
            return None;
        }
        let whole = parse::line(&record.text);
        if whole.is_some() || parse::is_begun(&record.text) {
            self.begun.clear();
            self.since = 0;
            if whole.is_none() {
                self.begun.extend_from_slice(&record.text);
            }
            return whole;
        }
        if self.begun.is_empty() {
            return None;
        }
        self.since += 1;
        if record.continues && self.begun.len() + record.text.len() <= WHOLE_BYTES {
            self.begun.extend_from_slice(&record.text);
            let whole = parse::line(&self.begun);
            if whole.is_some() {
                self.begun.clear();
            }
            return whole;
        }
        if self.since > PATIENCE {
            self.begun.clear();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str, by_kernel: bool, continues: bool) -> Record<'_> {
        Record { by_kernel, number: None, continues, after_gap: false, text: text.as_bytes().into() }
    }

    const KILLED: &str = "Out of memory: Killed process 4 (x) total-vm:1kB, anon-rss:1kB, file-rss:1kB, shmem-rss:1kB";

    #[test]
    fn what_a_program_writes_is_no_kill() {
        let mut parts = Parts::default();
        assert_eq!(parts.take(&record(KILLED, false, false)), None);
        assert!(matches!(parts.take(&record(KILLED, true, false)), Some(Line::Killed(_))));
    }

    #[test]
    fn a_line_in_parts_is_put_together_whatever_comes_between() {
        let mut parts = Parts::default();
        let begin = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a";
        assert_eq!(parts.take(&record(begin, true, false)), None);
        assert_eq!(parts.take(&record("usb 1-1: new device", true, false)), None);
        assert_eq!(parts.take(&record(",task_memcg=/a/b", true, true)), None);
        assert_eq!(parts.take(&record(",task=x,pid=1,uid=0", false, true)), None);
        let Some(Line::Summary(summary)) = parts.take(&record(",task=x,pid=2,uid=0", true, true)) else { panic!("no summary") };
        assert_eq!((summary.pid, &summary.readings[0].task_memcg[..]), (2, &b"/a/b"[..]));
        assert_eq!(parts.take(&record(",task=x,pid=2,uid=0", true, true)), None);
    }

    /// syslog(2) does not mark what goes on with a former record.
    #[test]
    fn a_line_in_parts_is_put_together_from_the_ring_too() {
        let mut parts = Parts::default();
        let ring = "<6>[    1.0][  T7] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null)\n<6>[    1.0][  T7] ,cpuset=/,mems_allowed=0\n\
            <4>[    1.0][   C1] net_ratelimit: 3 callbacks suppressed\n<6>[    1.0][  T7] ,oom_memcg=\n<6>[    1.0][  T7] /a\n\
            <6>[    1.0][  T7] ,task_memcg=/a/b\n<6>[    1.0][  T7] ,task=x,pid=2,uid=-2\n";
        let lines: Vec<Line> = ring.lines().filter_map(|line| parts.take(&parse::syslog(line.as_bytes())?)).collect();
        let [Line::Summary(summary)] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((summary.pid, summary.uid, &summary.readings[0].task_memcg[..]), (2, u32::MAX - 1, &b"/a/b"[..]));
    }

    /// What was begun before records were lost does not go on behind the gap, and whoever joins
    /// lines is told of it.
    #[test]
    fn a_gap_is_told_where_it_is() {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        let mut log = KernelLog {
            source: Source::Kmsg { file: file.try_clone().unwrap(), next: None, record: vec![0; 4096].into() },
            parts: Parts::default(),
        };
        let mut seen = Vec::new();
        for record in ["6,7,1,-;oom-kill:constraint=CONSTRAINT_NONE", &format!("3,9,1,-;{KILLED}"), &format!("3,10,1,-;{KILLED}")] {
            // One read of an ordinary file gives one record, as from the device.
            file.set_len(0).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(record.as_bytes()).unwrap();
            file.seek(SeekFrom::Start(0)).unwrap();
            log.read(|line| seen.push(line)).unwrap();
        }
        assert!(matches!(&seen[..], [Line::Gap, Line::Killed(_), Line::Killed(_)]), "{seen:?}");
    }

    #[test]
    fn of_the_ring_only_what_is_new_is_read() {
        let text = b"<6>[1.0] a\n<6>[2.0] b\n<6>[3.0] c\n";
        assert_eq!(news(text, b""), (&text[..], false));
        assert_eq!(news(text, b"<6>[2.0] b\n"), (&b"<6>[3.0] c\n"[..], false));
        assert_eq!(news(text, b"<6>[3.0] c\n"), (&b""[..], false));
        assert_eq!(news(text, b"<6>[0.5] z\n"), (&text[..], true));
    }

    #[test]
    fn records_in_a_file_are_read_in_order_and_a_gap_is_told() {
        // What one read of an ordinary file gives is one record here, as from the device.
        let mut file = tempfile::tempfile().unwrap();
        let mut read = |text: &str, next: &mut Option<u64>| {
            use std::io::Write as _;
            file.write_all(text.as_bytes()).unwrap();
            file.seek(SeekFrom::Current(-i64::try_from(text.len()).unwrap())).unwrap();
            let mut seen = 0;
            let lost = read_kmsg(&mut file, next, &mut [0; 512], &mut |_| seen += 1).unwrap();
            (seen, lost)
        };
        let mut next = None;
        assert_eq!(read("6,7,1,-;a\n", &mut next), (1, false));
        assert_eq!(read("6,8,1,-;a\n", &mut next), (1, false));
        assert_eq!(read("6,10,1,-;a\n", &mut next), (1, true));
        assert_eq!(read("broken", &mut next), (0, false));
    }
}
