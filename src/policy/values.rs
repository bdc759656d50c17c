//! Single values as text: bytes, shares, times, levels, PSI terms, rank keys, names. Pure; where a value stands is
//! the caller's business.

use std::time::Duration;

use super::diagnostic::{Bad, plain, shown};
use super::model::{EventKind, KillLimit, LONGEST_HOLD, Level, LmsLevel, MOST_KILLS, Psi, RankBy, SHORTEST_LIMIT, WarnSignal};
use super::words::{EVENTS, LMS_LEVELS, RANK_KEYS, event_named, lms_level_named, psi_kind_named, rank_key_named};
use crate::units::{Bytes, Share};

/// The longest time that means anything in a policy.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) const BYTE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// In microseconds. Weeks are longer than any time may be: who writes one is told that, not that
/// there is no such unit.
pub(super) const TIME_UNITS: [(&str, u64); 6] =
    [("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 24 * 3_600_000_000), ("w", 7 * 24 * 3_600_000_000)];

/// Rank keys that need what this version does not know of a group.
const LATER_RANK_KEYS: [&str; 3] = ["over_request", "qos", "pod_priority"];

/// A decimal number and what follows it: digits before and after the point.
struct Quantity<'t> {
    whole: u64,
    /// The digits after the point, as a number, and how many they are.
    fraction: (u64, u32),
    unit: &'t str,
}

impl<'t> Quantity<'t> {
    fn read(text: &'t str) -> Option<Quantity<'t>> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(end)?;
        let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, fraction)| (whole, Some(fraction)));
        let digits = |text: &str, most: usize| (!text.is_empty() && text.len() <= most).then(|| text.parse::<u64>().ok()).flatten();
        let fraction = match fraction {
            Some(digits_after) => (digits(digits_after, 9)?, u32::try_from(digits_after.len()).ok()?),
            None => (0, 0),
        };
        Some(Quantity { whole: digits(whole, 18)?, fraction, unit })
    }

    /// The number times `unit`, rounded down.
    fn times(&self, unit: u64) -> Option<u64> {
        let fraction = u128::from(self.fraction.0) * u128::from(unit) / 10_u128.pow(self.fraction.1);
        u64::try_from(u128::from(self.whole) * u128::from(unit) + fraction).ok()
    }
}

fn number_and_unit(text: &str, units: &[(&str, u64)], what: &str, examples: &str, suggest: &dyn Fn(&str) -> String) -> Result<u64, Bad> {
    let Some(quantity) = Quantity::read(text) else {
        return Err(Bad::new(
            format!("{} is not an amount of {what}", shown(text)),
            format!("write a number and a unit, such as {examples}"),
        ));
    };
    if quantity.unit.is_empty() {
        return Err(Bad::new(format!("{} has no unit", shown(text)), suggest(text)));
    }
    let Some((_, size)) = units.iter().find(|(unit, _)| *unit == quantity.unit) else {
        let all: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
        let message = format!("{} is no unit of {what}", shown(quantity.unit));
        let hint = format!("the units are {}, right behind the number, as in {examples}", all.join(", "));
        return Err(Bad::new(message, hint));
    };
    quantity.times(*size).ok_or_else(|| Bad::new(format!("{} is too much", shown(text)), format!("write less {what}")))
}

/// An amount of memory: `256MiB`, `1.5GiB`, `1GB`.
pub(super) fn bytes(text: &str) -> Result<Bytes, Bad> {
    let suggest = |number: &str| format!("write {0}MiB, {0}GiB or another unit", plain(number));
    number_and_unit(text, &BYTE_UNITS, "memory", "`256MiB` or `1GB`", &suggest).map(Bytes)
}

/// A share above nothing: `95%`, `2.5%`.
pub(super) fn share(text: &str) -> Result<Share, Bad> {
    let refused = |why: &str| Bad::new(format!("{} {why}", shown(text)), "a share is above 0% and at most 100%, such as `95%` or `2.5%`");
    let quantity = Quantity::read(text).ok_or_else(|| refused("is no share"))?;
    match quantity.unit {
        "%" => {}
        "" => return Err(Bad::new(format!("{} has no unit", shown(text)), format!("write {}%", plain(text)))),
        _ => return Err(refused("is no share")),
    }
    if quantity.fraction.1 > 2 {
        return Err(Bad::new(format!("{} is finer than can be measured", shown(text)), "a share has at most two digits after the point"));
    }
    let share = quantity.times(100).and_then(|hundredths| u16::try_from(hundredths).ok()).and_then(Share::from_hundredths);
    share.filter(|share| share.hundredths() > 0).ok_or_else(|| refused("is out of range"))
}

/// A time: `150ms`, `2s`, `10m`, `1h`. May be zero.
pub(super) fn duration(text: &str) -> Result<Duration, Bad> {
    let time = any_duration(text)?;
    if time > LONGEST {
        return Err(Bad::new(format!("{} is too long", shown(text)), "a time is at most 24h"));
    }
    Ok(time)
}

/// As [`duration`], however long: for callers with a limit of their own.
pub(super) fn any_duration(text: &str) -> Result<Duration, Bad> {
    let suggest = |number: &str| format!("write {0}ms or {0}s", plain(number));
    number_and_unit(text, &TIME_UNITS, "time", "`150ms` or `2s`", &suggest).map(Duration::from_micros)
}

/// What usage may be compared with: a share or an amount.
pub(super) enum Quantum {
    /// `95%`
    Share(Share),
    /// `512MiB`
    Amount(Bytes),
}

/// A share or an amount above nothing.
pub(super) fn quantum(text: &str) -> Result<Quantum, Bad> {
    if text.ends_with('%') {
        return share(text).map(Quantum::Share);
    }
    let amount = bytes(text).map_err(|bad| match Quantity::read(text) {
        Some(Quantity { unit: "", .. }) => Bad::new(bad.message, format!("write {0}% or {0}MiB", plain(text))),
        Some(_) => bad,
        None => Bad::new(
            format!("{} is neither a share nor an amount of memory", shown(text)),
            "write a share such as `5%` or an amount such as `512MiB`",
        ),
    })?;
    if amount.0 == 0 {
        return Err(Bad::new(format!("{} is nothing", shown(text)), "write a share such as `5%` or an amount such as `512MiB`"));
    }
    Ok(Quantum::Amount(amount))
}

impl From<Quantum> for Level {
    fn from(quantum: Quantum) -> Level {
        match quantum {
            Quantum::Share(share) => Level { share: Some(share), at_most: None },
            Quantum::Amount(bytes) => Level { share: None, at_most: Some(bytes) },
        }
    }
}

/// A PSI term: `some|full STALL/WINDOW`.
pub(super) fn psi(text: &str) -> Result<Psi, Bad> {
    const FORM: &str = "write `some` or `full`, then stall/window, as in `full 100ms/500ms`";
    let unreadable = || Bad::new(format!("{} is no PSI term", shown(text)), FORM);
    let (kind, times) = text.split_once(' ').ok_or_else(unreadable)?;
    let kind = psi_kind_named(kind).ok_or_else(|| Bad::new(format!("{} is no kind of pressure", shown(kind)), FORM))?;
    let (stall, window) = times.split_once('/').ok_or_else(unreadable)?;
    let (stall, window) = (duration(stall.trim())?, duration(window.trim())?);
    if window < Duration::from_millis(1) || window > Duration::from_secs(10) {
        return Err(Bad::new(
            format!("the window of {} is out of range", shown(text)),
            "a window is 1ms to 10s; kernels before 6.5 take no less than 500ms, and are then asked for more with the same ratio",
        ));
    }
    if stall.is_zero() || stall > window {
        return Err(Bad::new(
            format!("the stall time of {} does not fit its window", shown(text)),
            "stall is above zero and at most the window, as in `full 100ms/500ms`",
        ));
    }
    Ok(Psi { kind, stall, window })
}

/// A counter of memory.events.
pub(super) fn event(text: &str) -> Result<EventKind, Bad> {
    event_named(text).ok_or_else(|| unknown("event", text, EVENTS.iter().map(|(name, _)| *name)))
}

/// A level of the kernel module's signal.
pub(super) fn lms(text: &str) -> Result<LmsLevel, Bad> {
    lms_level_named(text).ok_or_else(|| unknown("level of the kernel module", text, LMS_LEVELS.iter().map(|(name, _)| *name)))
}

/// How long the kernel module may hold an OOM back: whole milliseconds, above zero and at most [`LONGEST_HOLD`].
pub(super) fn hold(text: &str) -> Result<Duration, Bad> {
    let time = duration(text)?;
    if time.subsec_nanos() % 1_000_000 != 0 {
        return Err(Bad::new(
            format!("{} is finer than the kernel module counts", shown(text)),
            "write whole milliseconds, such as `500ms`",
        ));
    }
    if time.is_zero() || time > LONGEST_HOLD {
        return Err(Bad::new(
            format!("a hold of {} is out of range", shown(text)),
            "a hold is 1ms to 2s, such as `500ms`; without it the module's own parameter hold_ms counts",
        ));
    }
    Ok(time)
}

/// The circuit breaker's limit: `5 per 10m`.
pub(super) fn kill_limit(text: &str) -> Result<KillLimit, Bad> {
    const FORM: &str = "write how many kills and in which time, as in `5 per 10m`";
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let [count, "per", time] = words[..] else {
        return Err(Bad::new(format!("{} is no limit of kills", shown(text)), FORM));
    };
    let sound = count.len() <= 3 && !count.starts_with('0') && count.bytes().all(|byte| byte.is_ascii_digit());
    let kills = count.parse().ok().filter(|kills| sound && (1..=MOST_KILLS).contains(kills)).ok_or_else(|| {
        let hint = format!("a limit is 1 to {MOST_KILLS} kills, as in `5 per 10m`; a rule that may not kill at all says `mode: observe`");
        Bad::new(format!("{} kills can't be a limit", shown(count)), hint)
    })?;
    let per = duration(time)?;
    if per < SHORTEST_LIMIT {
        return Err(Bad::new(format!("{} does not fit a limit of kills", shown(time)), "its time is 1s to 24h, as in `5 per 10m`"));
    }
    Ok(KillLimit { kills, per })
}

/// Signals that say something else already; some runtimes (Go's for SIGHUP) handle them by ending the program.
const TAKEN_SIGNALS: [&str; 15] = [
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGPIPE", "SIGALRM", "SIGCHLD", "SIGCONT", "SIGTSTP", "SIGWINCH", "SIGURG", "SIGIO", "SIGPWR",
    "SIGSEGV", "SIGABRT", "SIGBUS",
];

/// The signal of a warning: `SIGUSR1`, `SIGUSR2`, `SIGRTMIN+3`.
pub(super) fn warn_signal(text: &str) -> Result<WarnSignal, Bad> {
    const HINT: &str =
        "write `SIGUSR1`, `SIGUSR2` or `SIGRTMIN+N` (0 to 30); without `signal` only listeners at the pressure socket are told";
    let real_time = |rest: &str| match rest.strip_prefix('+') {
        None if rest.is_empty() => WarnSignal::real_time(0),
        Some(digits) if digits.len() <= 2 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().and_then(WarnSignal::real_time)
        }
        _ => None,
    };
    let found = match text {
        "SIGUSR1" => Some(WarnSignal::USR1),
        "SIGUSR2" => Some(WarnSignal::USR2),
        _ => text.strip_prefix("SIGRTMIN").and_then(real_time),
    };
    let why = match text {
        "SIGKILL" | "SIGSTOP" => "can't be handled by any process",
        "SIGTERM" => "is what the rung `term` sends",
        taken if TAKEN_SIGNALS.contains(&taken) => "means something else to programs, also to those that handle it",
        _ => "is no signal for warnings",
    };
    found.ok_or_else(|| Bad::new(format!("{} {why}", shown(text)), HINT))
}

/// One rank key: `usage`, `usage within 10%`.
pub(super) fn rank(text: &str) -> Result<RankBy, Bad> {
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let name = words.next().unwrap_or_default();
    if LATER_RANK_KEYS.contains(&name) {
        return Err(later(name));
    }
    let key = rank_key_named(name).ok_or_else(|| unknown("rank key", name, RANK_KEYS.iter().map(|(name, _)| *name)))?;
    let within = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some("within"), Some(limit), None) => Some(share(limit)?),
        _ => return Err(Bad::new(format!("{} is no rank key", shown(text)), format!("write `{name}` or `{name} within 10%`"))),
    };
    Ok(RankBy { key, within })
}

/// A rule's name.
pub(super) fn name(text: &str) -> Result<(), Bad> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 63 || !text.chars().all(allowed) {
        return Err(Bad::new(
            format!("{} can't be a rule's name", if text.is_empty() { "an empty text".to_owned() } else { shown(text) }),
            "1 to 63 letters, digits, `.`, `_` and `-`: it becomes a label of metrics",
        ));
    }
    Ok(())
}

/// A comm, as the kernel keeps it.
pub(super) fn comm(text: &str) -> Result<Box<[u8]>, Bad> {
    match text.len() {
        0 => Err(Bad::new("the comm is empty", "name a process as `ps -o comm` shows it, or leave the key out")),
        1..=15 => Ok(text.as_bytes().into()),
        _ => Err(Bad::new(
            format!("the comm {} is longer than 15 bytes", shown(text)),
            "the kernel keeps 15 bytes of a process's name, so this would match nothing; exclude the group instead",
        )),
    }
}

/// For a key or word that a later version will know.
pub(super) fn later(word: &str) -> Bad {
    Bad::new(format!("{} is not supported by this version of oomwarden", shown(word)), "leave it out; what it would do is not done yet")
}

/// For a word that is none of the known ones: the nearest of them, or all.
pub(super) fn unknown<'k>(what: &str, word: &str, known: impl Iterator<Item = &'k str>) -> Bad {
    let known: Vec<&str> = known.collect();
    let hint = match nearest(word, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ")),
    };
    Bad::new(format!("unknown {what} {}", shown(word)), hint)
}

/// The known word that a misspelt one most likely means.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer words are no slips of the pen, and comparing takes time in proportion to the length.
    if word.len() > 40 {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let near = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&word, &known.replace('-', "_")), *known))
        .min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, known)| *distance <= 1.max(known.len() / 3)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
