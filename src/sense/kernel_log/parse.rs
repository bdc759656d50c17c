//! Lines of the kernel's log that tell of an OOM kill (mm/oom_kill.c, 5.4 to 6.12), read as hostile text.
//!
//! A comm may be any 15 bytes and a group's name nearly anything, so that both can hold what looks like the next field. What
//! can't be forged is what the kernel writes behind them: numbers, and slashes, which no name holds. Where a line can still be
//! read in more than one way all readings are given ([`Summary::readings`]); comm and counters tell which one is true.

use std::borrow::Cow;

/// Longest comm: TASK_COMM_LEN less the NUL.
const COMM_BYTES: usize = 15;
/// Ways to read one line that are kept; a line with more of them was made to have them.
const READINGS: usize = 16;
/// Printk cuts what it is given in one piece off at some 1000 bytes: a longer path is not known to its end.
const PATH_BYTES: usize = 900;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The kernel wrote it itself. What programs write to /dev/kmsg never has the kernel's facility.
    pub by_kernel: bool,
    /// Its number; records without a gap are numbered without a gap. `None` in what syslog(2) gives.
    pub number: Option<u64>,
    /// It goes on with a former record that was not ended.
    pub continues: bool,
    /// The text, its bytes as the kernel had them.
    pub text: Cow<'a, [u8]>,
}

/// Whose memory was short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// A group's, by its limit.
    Memcg,
    /// The machine's, or that of some of its nodes.
    Global,
}

impl Scope {
    /// Both.
    pub const ALL: [Scope; 2] = [Scope::Memcg, Scope::Global];

    /// The journal's and the metrics' word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Scope::Memcg => "memcg",
            Scope::Global => "global",
        }
    }
}

/// What the allocation was bound to: `oom_constraint_text` of mm/oom_kill.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// CONSTRAINT_NONE
    None,
    /// CONSTRAINT_CPUSET
    Cpuset,
    /// CONSTRAINT_MEMORY_POLICY
    MemoryPolicy,
    /// CONSTRAINT_MEMCG
    Memcg,
}

impl Constraint {
    /// All.
    pub const ALL: [Constraint; 4] = [Constraint::None, Constraint::Cpuset, Constraint::MemoryPolicy, Constraint::Memcg];

    /// The journal's word: the kernel's, less `CONSTRAINT_`, in small letters.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Constraint::None => "none",
            Constraint::Cpuset => "cpuset",
            Constraint::MemoryPolicy => "memory_policy",
            Constraint::Memcg => "memcg",
        }
    }

    const fn text(self) -> &'static [u8] {
        match self {
            Constraint::None => b"CONSTRAINT_NONE",
            Constraint::Cpuset => b"CONSTRAINT_CPUSET",
            Constraint::MemoryPolicy => b"CONSTRAINT_MEMORY_POLICY",
            Constraint::Memcg => b"CONSTRAINT_MEMCG",
        }
    }
}

/// One way to read the names in a summary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The group at its limit; `None` where the machine's memory was short.
    pub oom_memcg: Option<Vec<u8>>,
    /// The victim's group.
    pub task_memcg: Vec<u8>,
    /// The victim's comm.
    pub comm: Vec<u8>,
}

/// `oom-kill:constraint=...`: why, and who will be killed. The kernel leaves it out when there are many (ten in five seconds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the allocation was bound to.
    pub constraint: Constraint,
    /// The victim.
    pub pid: u32,
    /// Its real user.
    pub uid: u32,
    /// Every way to read the names; empty where they are cut off.
    pub readings: Vec<Reading>,
}

/// `...: Killed process ...`: one process that was killed. The kernel never leaves it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Whose memory was short.
    pub scope: Scope,
    /// The process.
    pub pid: u32,
    /// Its comm.
    pub comm: Vec<u8>,
    /// Its real user; kernels before 5.4 don't say.
    pub uid: Option<u32>,
    /// Its sizes in bytes, as it was killed.
    pub sizes: Sizes,
    /// Its oom_score_adj; kernels before 5.4 don't say.
    pub oom_score_adj: Option<i32>,
}

/// Sizes of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Address space.
    pub total_vm: u64,
    /// Anonymous memory.
    pub anon_rss: u64,
    /// Mapped files.
    pub file_rss: u64,
    /// Shared memory.
    pub shmem_rss: u64,
    /// Page tables; kernels before 5.4 don't say.
    pub page_tables: Option<u64>,
}

/// A line that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Why, and who will be killed.
    Summary(Summary),
    /// Who was killed.
    Killed(Killed),
    /// `Tasks in PATH are going to be killed due to memory.oom.group set`: everybody below that group goes as well.
    WholeGroup(Vec<u8>),
}

/// A record as one read of /dev/kmsg gives it (Documentation/ABI/testing/dev-kmsg): `PRIORITY,NUMBER,TIME,FLAGS[,...];TEXT`, with
/// bytes that are no printable ASCII, and backslashes, as `\xNN`.
#[must_use]
pub fn kmsg(record: &[u8]) -> Option<Record<'_>> {
    let (head, text) = split_at(record, b";")?;
    let mut fields = head.split(|byte| *byte == b',');
    let priority = number(fields.next()?)?;
    let number = number(fields.next()?)?;
    let flags = fields.nth(1)?;
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Some(Record { by_kernel: priority >> 3 == 0, number: Some(number), continues: flags.contains(&b'c'), text: unescaped(text) })
}

/// A line as syslog(2) gives it: `<PRIORITY>[TIME] TEXT`, perhaps with `[CALLER]` behind the time.
#[must_use]
pub fn syslog(line: &[u8]) -> Option<Record<'_>> {
    let (priority, mut text) = split_at(line.strip_prefix(b"<")?, b">")?;
    let priority = number(priority)?;
    for _ in 0..2 {
        let stamp = text.strip_prefix(b"[").and_then(|rest| split_at(rest, b"]"));
        let is_stamp = |stamp: &[u8]| stamp.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b' ' | b'.' | b'T' | b'C'));
        match stamp {
            Some((stamp, rest)) if is_stamp(stamp) => text = rest,
            _ => break,
        }
    }
    let text = text.strip_prefix(b" ").unwrap_or(text);
    Some(Record { by_kernel: priority >> 3 == 0, number: None, continues: false, text: Cow::Borrowed(text) })
}

/// Takes `\xNN` back. Nothing else is escaped, a backslash itself is.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.strip_prefix(b"x").and_then(|digits| digits.get(..2)).filter(|_| *first == b'\\').and_then(hex);
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(bytes)
}

fn hex(digits: &[u8]) -> Option<u8> {
    digits.iter().all(u8::is_ascii_hexdigit).then(|| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()).flatten()
}

/// A kernel's line that tells of an OOM kill; `None` for all others, and for those that are not whole.
#[must_use]
pub fn line(text: &[u8]) -> Option<Line> {
    if text.starts_with(b"oom-kill:") {
        return summary(text).map(Line::Summary);
    }
    if let Some(rest) = text.strip_prefix(b"Tasks in ") {
        let path = rest.strip_suffix(b" are going to be killed due to memory.oom.group set")?;
        return is_path(path).then(|| Line::WholeGroup(path.to_vec()));
    }
    killed(text).map(Line::Killed)
}

/// Whether a text is the begin of a line that may come in several records.
#[must_use]
pub fn is_begun(text: &[u8]) -> bool {
    text.starts_with(b"oom-kill:") || text.starts_with(b"Tasks in ")
}

fn killed(text: &[u8]) -> Option<Killed> {
    const MESSAGES: [(&[u8], Scope); 3] = [
        (b"Memory cgroup out of memory: Killed process ", Scope::Memcg),
        (b"Out of memory: Killed process ", Scope::Global),
        (b"Out of memory (oom_kill_allocating_task): Killed process ", Scope::Global),
    ];
    let (rest, scope) = MESSAGES.iter().find_map(|(message, scope)| Some((text.strip_prefix(*message)?, *scope)))?;
    let (pid, rest) = split_at(rest, b" (")?;
    // The last one: behind the true one stand numbers and fixed words only.
    let at = rfind(rest, b") total-vm:")?;
    let (comm, tail) = (rest.get(..at)?, rest.get(at + b") ".len()..)?);
    let (total_vm, tail) = field(tail, b"total-vm:", b"kB, ")?;
    let (anon_rss, tail) = field(tail, b"anon-rss:", b"kB, ")?;
    let (file_rss, tail) = field(tail, b"file-rss:", b"kB, ")?;
    let (shmem_rss, mut tail) = field(tail, b"shmem-rss:", b"kB")?;
    let (mut uid, mut page_tables, mut oom_score_adj) = (None, None, None);
    if let Some((user, rest)) = field(tail, b", UID:", b" ") {
        let (tables, rest) = field(rest, b"pgtables:", b"kB ")?;
        let adj = std::str::from_utf8(rest.strip_prefix(b"oom_score_adj:")?).ok()?;
        (uid, page_tables, oom_score_adj) = (Some(u32::try_from(user).ok()?), Some(tables.checked_mul(1024)?), Some(adj.parse().ok()?));
        tail = b"";
    }
    if !tail.is_empty() || comm.len() > COMM_BYTES {
        return None;
    }
    let bytes = |kib: u64| kib.checked_mul(1024);
    let sizes = Sizes {
        total_vm: bytes(total_vm)?,
        anon_rss: bytes(anon_rss)?,
        file_rss: bytes(file_rss)?,
        shmem_rss: bytes(shmem_rss)?,
        page_tables,
    };
    Some(Killed { scope, pid: small(pid)?, comm: comm.to_vec(), uid, sizes, oom_score_adj })
}

fn summary(text: &[u8]) -> Option<Summary> {
    let rest = text.strip_prefix(b"oom-kill:constraint=")?;
    let (word, rest) = split_at(rest, b",")?;
    let constraint = Constraint::ALL.into_iter().find(|constraint| constraint.text() == word)?;
    // From the right: these are numbers, whatever stands before them.
    let at = rfind(rest, b",uid=")?;
    let (rest, uid) = (rest.get(..at)?, small(rest.get(at + b",uid=".len()..)?)?);
    let at = rfind(rest, b",pid=")?;
    let (rest, pid) = (rest.get(..at)?, small(rest.get(at + b",pid=".len()..)?)?);
    // Before them stands the name of a cpuset's group, which has no slash in it: the first of these with a slash is the kernel's.
    let memcg = find(rest, b",oom_memcg=/").map(|at| (at, b",oom_memcg=".len(), true));
    let global = find(rest, b",global_oom,task_memcg=/").map(|at| (at, b",global_oom,task_memcg=".len(), false));
    let (at, length, limited) = [memcg, global].into_iter().flatten().min_by_key(|(at, ..)| *at)?;
    let names = rest.get(at + length..)?;
    let mut readings = Vec::new();
    let mut is_cut = false;
    for task in positions(names, b",task=") {
        let (before, comm) = (names.get(..task)?, names.get(task + b",task=".len()..)?);
        if comm.len() > COMM_BYTES {
            continue;
        }
        let mut read = |oom_memcg: Option<&[u8]>, task_memcg: &[u8]| {
            is_cut |= task_memcg.len() >= PATH_BYTES || readings.len() >= READINGS;
            readings.push(Reading { oom_memcg: oom_memcg.map(<[u8]>::to_vec), task_memcg: task_memcg.to_vec(), comm: comm.to_vec() });
        };
        if !limited {
            read(None, before);
            continue;
        }
        for at in positions(before, b",task_memcg=/") {
            let (limit, task) = (before.get(..at)?, before.get(at + b",task_memcg=".len()..)?);
            if is_at_or_below(task, limit) {
                read(Some(limit), task);
            }
        }
    }
    if is_cut {
        readings.clear();
    } else if readings.is_empty() {
        return None;
    }
    Some(Summary { constraint, pid, uid, readings })
}

/// Whether a path is `top` or stands below it.
#[must_use]
pub fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    top == b"/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn is_path(text: &[u8]) -> bool {
    text.starts_with(b"/") && text.len() < PATH_BYTES
}

fn field<'a>(text: &'a [u8], name: &[u8], end: &[u8]) -> Option<(u64, &'a [u8])> {
    let rest = text.strip_prefix(name)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some((number(rest.get(..digits)?)?, rest.get(digits..)?.strip_prefix(end)?))
}

fn number(digits: &[u8]) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    are_digits.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

fn small(digits: &[u8]) -> Option<u32> {
    number(digits).and_then(|number| u32::try_from(number).ok())
}

fn positions<'a>(text: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.windows(what.len()).enumerate().filter(move |(_, part)| *part == what).map(|(at, _)| at)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|part| part == what)
}

fn split_at<'a>(text: &'a [u8], what: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(text, what)?;
    Some((text.get(..at)?, text.get(at + what.len()..)?))
}

#[cfg(test)]
mod tests;
