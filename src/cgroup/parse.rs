//! Parsers of the kernel's cgroup v2 files: bytes in, numbers out, nothing allocated.
//!
//! Formats: Documentation/admin-guide/cgroup-v2.rst and Documentation/accounting/psi.rst. A key that a kernel does not
//! have is `None`; a file that ends in mid-line, or holds what the format does not allow, is an error. Values are found
//! by name, never by position.

use super::Limit;

/// Why a file's text could not be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text stops before its newline, or there is none at all.
    #[error("the file ends in mid-line")]
    Short,
    /// A value is not a number, or does not fit.
    #[error("not a number where one belongs")]
    Number,
    /// A line has another shape than the format says.
    #[error("a line of another shape than the kernel documents")]
    Shape,
}

/// A decimal number, digits only.
pub(crate) fn number(text: &[u8]) -> Result<u64, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Number);
    }
    text.iter().try_fold(0u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0')).ok_or(ParseError::Number)?;
        value.checked_mul(10).and_then(|value| value.checked_add(digit)).ok_or(ParseError::Number)
    })
}

/// The lines of a text, each without its newline; a last line without one is an error.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = Result<&[u8], ParseError>> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").ok_or(ParseError::Short))
}

/// The only line of a single-value file.
fn single(text: &[u8]) -> Result<&[u8], ParseError> {
    let mut lines = lines(text);
    let line = lines.next().ok_or(ParseError::Short)??;
    if lines.next().is_some() { Err(ParseError::Shape) } else { Ok(line) }
}

/// memory.current, memory.swap.current, memory.low: one number.
///
/// # Errors
/// Anything else.
pub fn value(text: &[u8]) -> Result<u64, ParseError> {
    number(single(text)?)
}

/// memory.max, memory.high, memory.low, memory.min, memory.swap.max: one number or `max`.
///
/// # Errors
/// Anything else.
pub fn limit(text: &[u8]) -> Result<Limit, ParseError> {
    match single(text)? {
        b"max" => Ok(Limit::Unlimited),
        digits => number(digits).map(Limit::Bytes),
    }
}

/// memory.oom.group: 0 or 1.
///
/// # Errors
/// Anything else.
pub fn flag(text: &[u8]) -> Result<bool, ParseError> {
    match single(text)? {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(ParseError::Shape),
    }
}

/// Calls `take` with each key and value of a flat keyed file.
fn flat_keyed(text: &[u8], mut take: impl FnMut(&[u8], u64)) -> Result<(), ParseError> {
    if text.is_empty() {
        return Err(ParseError::Short);
    }
    for line in lines(text) {
        let line = line?;
        let space = line.iter().position(|byte| *byte == b' ').ok_or(ParseError::Shape)?;
        take(&line[..space], number(&line[space + 1..])?);
    }
    Ok(())
}

/// memory.events or memory.events.local: how often each thing happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Reclaimed although below memory.low.
    pub low: Option<u64>,
    /// Throttled over memory.high.
    pub high: Option<u64>,
    /// About to go over memory.max.
    pub max: Option<u64>,
    /// An allocation was about to fail.
    pub oom: Option<u64>,
    /// Processes killed by the kernel's OOM killer.
    pub oom_kill: Option<u64>,
    /// Whole-group kills by the kernel (5.12 and later).
    pub oom_group_kill: Option<u64>,
}

/// memory.events, memory.events.local.
///
/// # Errors
/// A broken line.
pub fn events(text: &[u8]) -> Result<Events, ParseError> {
    let mut events = Events::default();
    flat_keyed(text, |key, value| {
        let field = match key {
            b"low" => &mut events.low,
            b"high" => &mut events.high,
            b"max" => &mut events.max,
            b"oom" => &mut events.oom,
            b"oom_kill" => &mut events.oom_kill,
            b"oom_group_kill" => &mut events.oom_group_kill,
            _ => return,
        };
        *field = Some(value);
    })?;
    Ok(events)
}

/// The keys of memory.stat that are used, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Anonymous memory; dies with its processes.
    pub anon: Option<u64>,
    /// tmpfs and shared memory.
    pub shmem: Option<u64>,
    /// All page cache: files, tmpfs and shared memory.
    pub file: Option<u64>,
    /// Page cache, tmpfs and shared memory that processes have mapped.
    pub file_mapped: Option<u64>,
    /// File cache on the inactive list.
    pub inactive_file: Option<u64>,
    /// File cache on the active list.
    pub active_file: Option<u64>,
    /// Locked memory, anonymous or of files.
    pub unevictable: Option<u64>,
    /// Kernel objects that reclaim can free: dentries, inodes.
    pub slab_reclaimable: Option<u64>,
    /// Kernel objects that it can't.
    pub slab_unreclaimable: Option<u64>,
    /// File cache that must be written first.
    pub file_dirty: Option<u64>,
    /// File cache being written.
    pub file_writeback: Option<u64>,
}

impl Stat {
    /// What reclaim can take without killing, swapping or writing: file cache, used of late or not,
    /// less what must be written first, and reclaimable slab.
    ///
    /// A kernel that does not tell the file cache leaves the sum unknown: as 0 it would make a
    /// healthy group look full. What is not told of unwritten pages counts as 0, which makes a
    /// group look emptier. Slab that is not told is 0 as well: a kernel without that key does not
    /// charge slab to groups.
    #[must_use]
    pub fn reclaimable(&self) -> Option<u64> {
        let unwritten = self.file_dirty.unwrap_or(0).saturating_add(self.file_writeback.unwrap_or(0));
        let clean = self.inactive_file?.saturating_add(self.active_file?).saturating_sub(unwritten);
        Some(clean.saturating_add(self.slab_reclaimable.unwrap_or(0)))
    }

    /// Page cache that surely stays where it is when every process ends: files and tmpfs. At least
    /// so much: shared memory that is mapped may be anonymous and die with its processes, and what
    /// is locked becomes reclaimable by their death.
    #[must_use]
    pub fn outlives(&self) -> Option<u64> {
        Some(self.file?.saturating_sub(self.file_mapped?.min(self.shmem?)).saturating_sub(self.unevictable?))
    }

    /// tmpfs that surely stays charged when every process ends: of [`Stat::outlives`] what can't be
    /// reclaimed afterwards. Unwritten file cache is not counted, since it is written when nobody
    /// dirties it any more.
    #[must_use]
    pub fn tmpfs(&self) -> Option<u64> {
        Some(self.shmem?.saturating_sub(self.file_mapped?).saturating_sub(self.unevictable?))
    }
}

/// memory.stat.
///
/// # Errors
/// A broken line.
pub fn stat(text: &[u8]) -> Result<Stat, ParseError> {
    let mut stat = Stat::default();
    flat_keyed(text, |key, value| {
        let field = match key {
            b"anon" => &mut stat.anon,
            b"shmem" => &mut stat.shmem,
            b"file" => &mut stat.file,
            b"file_mapped" => &mut stat.file_mapped,
            b"inactive_file" => &mut stat.inactive_file,
            b"active_file" => &mut stat.active_file,
            b"unevictable" => &mut stat.unevictable,
            b"slab_reclaimable" => &mut stat.slab_reclaimable,
            b"slab_unreclaimable" => &mut stat.slab_unreclaimable,
            b"file_dirty" => &mut stat.file_dirty,
            b"file_writeback" => &mut stat.file_writeback,
            _ => return,
        };
        *field = Some(value);
    })?;
    Ok(stat)
}

/// cgroup.events: whether any process is in the group or below.
///
/// # Errors
/// A broken line.
pub fn populated(text: &[u8]) -> Result<Option<bool>, ParseError> {
    let mut populated = None;
    flat_keyed(text, |key, value| {
        if key == b"populated" {
            populated = Some(value != 0);
        }
    })?;
    Ok(populated)
}

/// cgroup.stat: how many groups stand below, dying ones left out.
///
/// # Errors
/// A broken line.
pub fn descendants(text: &[u8]) -> Result<Option<u64>, ParseError> {
    let mut descendants = None;
    flat_keyed(text, |key, value| {
        if key == b"nr_descendants" {
            descendants = Some(value);
        }
    })?;
    Ok(descendants)
}

/// Stall totals of a pressure file, microseconds. Averages are left out on purpose: they lag by seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// At least one task stalled.
    pub some_us: Option<u64>,
    /// All non-idle tasks stalled at once.
    pub full_us: Option<u64>,
}

/// memory.pressure.
///
/// # Errors
/// A broken line, or one without `total`.
pub fn pressure(text: &[u8]) -> Result<Pressure, ParseError> {
    let mut pressure = Pressure::default();
    if text.is_empty() {
        return Err(ParseError::Short);
    }
    for line in lines(text) {
        let mut words = line?.split(|byte| *byte == b' ');
        let field = match words.next() {
            Some(b"some") => &mut pressure.some_us,
            Some(b"full") => &mut pressure.full_us,
            _ => continue,
        };
        let total = words.find_map(|word| word.strip_prefix(b"total=")).ok_or(ParseError::Shape)?;
        *field = Some(number(total)?);
    }
    Ok(pressure)
}

/// cgroup.type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary group, or the root of a threaded subtree: owns its memory.
    Domain,
    /// A member of a threaded subtree, or a group that can only become one: no memory of its own.
    Threaded,
}

/// cgroup.type.
///
/// # Errors
/// A type that the kernel does not document.
pub fn kind(text: &[u8]) -> Result<Kind, ParseError> {
    match single(text)? {
        b"domain" | b"domain threaded" => Ok(Kind::Domain),
        b"threaded" | b"domain invalid" => Ok(Kind::Threaded),
        _ => Err(ParseError::Shape),
    }
}

/// One line of cgroup.procs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// A process by its id in our pid namespace.
    Pid(i32),
    /// A process that our pid namespace does not show; the kernel prints 0. Never to be signalled.
    Hidden,
}

/// One line of cgroup.procs, without its newline.
///
/// # Errors
/// Not a process id.
pub fn process(line: &[u8]) -> Result<Process, ParseError> {
    match i32::try_from(number(line)?) {
        Ok(0) => Ok(Process::Hidden),
        Ok(pid) => Ok(Process::Pid(pid)),
        Err(_) => Err(ParseError::Number),
    }
}

/// /proc/PID/oom_score_adj, oom_score: one number that may be negative.
///
/// # Errors
/// Anything else.
pub fn signed(text: &[u8]) -> Result<i32, ParseError> {
    let line = single(text)?;
    let (digits, sign) = line.strip_prefix(b"-").map_or((line, 1), |digits| (digits, -1));
    i32::try_from(number(digits)?).map(|value| value * sign).map_err(|_| ParseError::Number)
}

/// What a process holds in memory and in swap by /proc/PID/status (VmRSS and VmSwap), bytes. `None` for one without memory
/// of its own: a zombie, or a thread of the kernel.
///
/// # Errors
/// A broken value behind one of the keys.
pub fn process_memory(text: &[u8]) -> Result<Option<u64>, ParseError> {
    let (mut resident, mut swapped) = (None, None);
    for line in lines(text) {
        let line = line?;
        // A process's name can't forge a line: the kernel escapes its newlines.
        let (field, value) = match (line.strip_prefix(b"VmRSS:"), line.strip_prefix(b"VmSwap:")) {
            (Some(value), _) => (&mut resident, value),
            (_, Some(value)) => (&mut swapped, value),
            _ => continue,
        };
        let kilobytes = value.trim_ascii().strip_suffix(b" kB").ok_or(ParseError::Shape)?;
        *field = Some(number(kilobytes.trim_ascii())?.saturating_mul(1024));
    }
    Ok(resident.map(|resident: u64| resident.saturating_add(swapped.unwrap_or(0))))
}

/// Whether SIGKILL is on its way to a process, by /proc/PID/status (SigPnd and ShdPnd, hexadecimal): it dies when
/// it leaves the kernel.
#[must_use]
pub fn is_being_killed(text: &[u8]) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    text.split(|byte| *byte == b'\n').any(|line| {
        let pending = line.strip_prefix(b"SigPnd:").or_else(|| line.strip_prefix(b"ShdPnd:")).map(<[u8]>::trim_ascii);
        let pending = pending.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        pending.is_some_and(|signals| signals & SIGKILL != 0)
    })
}

/// The values of /proc/meminfo that are used, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meminfo {
    /// MemTotal.
    pub total: Option<u64>,
    /// MemAvailable.
    pub available: Option<u64>,
    /// SwapTotal.
    pub swap_total: Option<u64>,
    /// SwapFree.
    pub swap_free: Option<u64>,
    /// Shmem: tmpfs and shared memory.
    pub shmem: Option<u64>,
    /// Slab.
    pub slab: Option<u64>,
    /// SUnreclaim: the part of Slab that reclaim can't free.
    pub slab_unreclaimable: Option<u64>,
}

/// /proc/meminfo (values in kB).
///
/// # Errors
/// A broken value behind one of the keys.
pub fn meminfo(text: &[u8]) -> Result<Meminfo, ParseError> {
    let mut meminfo = Meminfo::default();
    for line in lines(text) {
        let line = line?;
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Err(ParseError::Shape) };
        let field = match &line[..colon] {
            b"MemTotal" => &mut meminfo.total,
            b"MemAvailable" => &mut meminfo.available,
            b"SwapTotal" => &mut meminfo.swap_total,
            b"SwapFree" => &mut meminfo.swap_free,
            b"Shmem" => &mut meminfo.shmem,
            b"Slab" => &mut meminfo.slab,
            b"SUnreclaim" => &mut meminfo.slab_unreclaimable,
            _ => continue,
        };
        let kilobytes = line[colon + 1..].trim_ascii().strip_suffix(b" kB").ok_or(ParseError::Shape)?;
        *field = Some(number(kilobytes.trim_ascii())?.saturating_mul(1024));
    }
    Ok(meminfo)
}

/// Our line of /proc/self/cgroup: the path behind `0::`. `None` on a machine without cgroup v2.
#[must_use]
pub fn own_group(text: &[u8]) -> Option<&[u8]> {
    let at = if text.starts_with(b"0::") { 0 } else { text.windows(4).position(|window| window == b"\n0::")? + 1 };
    // The path may hold anything, a newline too, so it reaches to the end: the v2 line is the last that the kernel prints.
    text[at + 3..].strip_suffix(b"\n")
}

#[cfg(test)]
mod tests;
