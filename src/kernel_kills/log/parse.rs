//! Lines of the kernel's log that tell of an OOM kill (mm/oom_kill.c, 5.2 to 6.17), read as hostile
//! text.
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

/// What a kill is introduced by.
const MESSAGES: [(&[u8], Scope); 3] = [
    (b"Memory cgroup out of memory: ", Scope::Memcg),
    (b"Out of memory: ", Scope::Global),
    (b"Out of memory (oom_kill_allocating_task): ", Scope::Global),
];
/// In the place of a path that the kernel has no room for (beyond 4096 bytes), or can't make.
const NO_PATHS: [&[u8]; 2] = [b"(name too long)", b"(error)"];

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The kernel wrote it itself. What programs write to /dev/kmsg never has the kernel's facility.
    pub by_kernel: bool,
    /// Its number; records without a gap are numbered without a gap. `None` in what syslog(2) gives.
    pub number: Option<u64>,
    /// It goes on with a former record that was not ended.
    pub continues: bool,
    /// Records between the last one and this were lost.
    pub after_gap: bool,
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
    /// The victim: always a process.
    pub pid: u32,
    /// Its real user. The kernel writes it as a signed number, those from 2^31 on as negative ones.
    pub uid: u32,
    /// Every way to read the names; empty where they are cut off.
    pub readings: Vec<Reading>,
}

/// `...: Killed process ...`: one process that was killed. The kernel never leaves it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Killed {
    /// Whose memory was short.
    pub scope: Scope,
    /// The process; of one whose main thread has exited, the thread that holds its memory.
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
    /// `...: OOM victim PID (COMM) is already exiting. Skip killing the task`: what a summary
    /// announced was not needed.
    Skipped,
    /// Records were lost here: what follows need not belong to what was before.
    Gap,
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
    Some(Record {
        by_kernel: priority >> 3 == 0,
        number: Some(number),
        continues: flags.contains(&b'c'),
        after_gap: false,
        text: unescaped(text),
    })
}

/// A line as syslog(2) gives it: `<PRIORITY>[TIME] TEXT`, perhaps with `[CALLER]` behind the time.
/// It does not tell what goes on with a former record; parts of a summary begin with a comma or a
/// slash, and hardly anything else does.
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
    Some(Record {
        by_kernel: priority >> 3 == 0,
        number: None,
        continues: text.starts_with(b",") || text.starts_with(b"/"),
        after_gap: false,
        text: Cow::Borrowed(text),
    })
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
    if is_skipped(text) {
        return Some(Line::Skipped);
    }
    killed(text).map(Line::Killed)
}

/// Whether a text is the begin of a line that may come in several records.
#[must_use]
pub fn is_begun(text: &[u8]) -> bool {
    text.starts_with(b"oom-kill:") || text.starts_with(b"Tasks in ")
}

fn killed(text: &[u8]) -> Option<Killed> {
    let (rest, scope) = MESSAGES.iter().find_map(|(message, scope)| Some((text.strip_prefix(*message)?, *scope)))?;
    let rest = rest.strip_prefix(b"Killed process ")?;
    let (pid, rest) = split_at(rest, b" (")?;
    // The last one: behind the true one stand numbers and fixed words only.
    let at = rfind(rest, b") total-vm:")?;
    let (comm, tail) = (rest.get(..at)?, rest.get(at + b") ".len()..)?);
    let (total_vm, tail) = field(tail, b"total-vm:", b"kB, ")?;
    let (anon_rss, tail) = field(tail, b"anon-rss:", b"kB, ")?;
    let (file_rss, tail) = field(tail, b"file-rss:", b"kB, ")?;
    let (shmem_rss, tail) = field(tail, b"shmem-rss:", b"kB")?;
    if comm.len() > COMM_BYTES {
        return None;
    }
    let Tail { uid, page_tables, oom_score_adj } = killed_tail(tail)?;
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

/// What some kernels write behind the sizes.
#[derive(Default)]
struct Tail {
    uid: Option<u32>,
    page_tables: Option<u64>,
    oom_score_adj: Option<i32>,
}

/// Nothing before 5.4; `, UID:N` alone in some distributions' kernels; since 5.4
/// `, UID:N pgtables:NkB oom_score_adj:N`. More of the kind, as vendors' patches write it, is
/// passed over; anything else is no such line.
fn killed_tail(text: &[u8]) -> Option<Tail> {
    let mut tail = Tail::default();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.strip_prefix(b", ").or_else(|| rest.strip_prefix(b" "))?;
        let end = rest.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(rest.len());
        let (name, value) = split_at(rest.get(..end)?, b":")?;
        rest = rest.get(end..)?;
        let number = value.strip_suffix(b"kB").unwrap_or(value);
        match name {
            b"UID" => tail.uid = Some(user(number)?),
            b"pgtables" => tail.page_tables = Some(self::number(number)?.checked_mul(1024)?),
            b"oom_score_adj" => tail.oom_score_adj = Some(i32::try_from(signed(number)?).ok()?),
            _ => {
                signed(number)?;
            }
        }
    }
    Some(tail)
}

/// Whether a `Killed process` line says that there was nobody to kill any more.
fn is_skipped(text: &[u8]) -> bool {
    MESSAGES.iter().any(|(message, _)| {
        let rest = text.strip_prefix(*message).and_then(|rest| rest.strip_prefix(b"OOM victim "));
        rest.is_some_and(|rest| {
            rest.first().is_some_and(u8::is_ascii_digit) && rest.ends_with(b") is already exiting. Skip killing the task")
        })
    })
}

fn summary(text: &[u8]) -> Option<Summary> {
    let rest = text.strip_prefix(b"oom-kill:constraint=")?;
    let (word, rest) = split_at(rest, b",")?;
    let constraint = Constraint::ALL.into_iter().find(|constraint| constraint.text() == word)?;
    // From the right: these are numbers, whatever stands before them.
    let at = rfind(rest, b",uid=")?;
    let (rest, uid) = (rest.get(..at)?, user(rest.get(at + b",uid=".len()..)?)?);
    let at = rfind(rest, b",pid=")?;
    let (rest, pid) = (rest.get(..at)?, small(rest.get(at + b",pid=".len()..)?)?);
    // Before them stands the name of a cpuset's group, which has no slash in it: the first of these with a slash is the kernel's.
    let memcg = find(rest, b",oom_memcg=/").map(|at| (at, b",oom_memcg=".len(), true));
    let global = find(rest, b",global_oom,task_memcg=/").map(|at| (at, b",global_oom,task_memcg=".len(), false));
    let unnamed = NO_PATHS.iter().any(|path| find(rest, &[b"memcg=", *path].concat()).is_some());
    let Some((at, length, limited)) = [memcg, global].into_iter().flatten().min_by_key(|(at, ..)| *at) else {
        return unnamed.then(|| Summary { constraint, pid, uid, readings: Vec::new() });
    };
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
    } else if readings.is_empty() && !unnamed {
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

/// A number that may be negative.
fn signed(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-");
    let number = i64::try_from(number(digits.unwrap_or(text))?).ok()?;
    Some(if digits.is_some() { -number } else { number })
}

/// A user id, which is unsigned whatever the kernel makes of it.
fn user(text: &[u8]) -> Option<u32> {
    let number = signed(text)?;
    u32::try_from(number).ok().or_else(|| i32::try_from(number).ok().map(i32::cast_unsigned))
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
