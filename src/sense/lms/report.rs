//! The text of /proc/oom_notifier: `key value` lines, whose order means nothing and whose number may grow.

use std::time::Duration;

use crate::cgroup::parse::{ParseError, lines, number};
use crate::decide::facts::LmsFacts;
use crate::policy::model::LmsLevel;

/// What the kernel module says. Amounts in bytes; counts are of this load of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The level; `None` is `ok`.
    pub level: Option<LmsLevel>,
    /// Counts changes of the level and beginnings of holds.
    pub seq: u64,
    /// Memory of the node.
    pub mem_total_bytes: u64,
    /// MemAvailable when it was read.
    pub mem_available_bytes: u64,
    /// Swap of the node; 0 until a handler has told it, since stock kernels keep it from modules.
    pub swap_total_bytes: u64,
    /// Free swap when it was read.
    pub swap_free_bytes: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Share of the memory that `warn_bytes` was made from.
    pub warn_percent: u64,
    /// Share of the memory that `kill_bytes` was made from.
    pub kill_percent: u64,
    /// The handler's pid; `None` if there is none, or it can't be seen from our pid namespace.
    pub handler_pid: Option<u32>,
    /// Holds begun.
    pub holds: u64,
    /// Holds after which no kill by the kernel was needed.
    pub holds_resolved: u64,
    /// Holds that nobody answered in time.
    pub holds_expired: u64,
    /// Holds after which the handler let the kernel go ahead; 0 from a module that does not tell.
    pub holds_passed: u64,
    /// Times that somebody who could not allocate was sent back to try again: while it rises, the shortage lasts.
    pub calls: u64,
    /// Processes signalled by the table.
    pub table_kills: u64,
    /// The `seq` of the hold under way.
    pub hold_seq: Option<u64>,
    /// The bound of a hold: the module's parameter, or what the handler asked for if that is less.
    pub hold: Duration,
    /// The level is `warn` below this much available memory.
    pub warn_bytes: u64,
    /// It is `kill` below this much.
    pub kill_bytes: u64,
    /// Above this much an OOM is left to the kernel.
    pub floor_bytes: u64,
    /// `kill` lines of the table.
    pub table_kill_ids: u64,
    /// `spare` lines of the table.
    pub table_spare_ids: u64,
    /// Rules of the table; 0 from a module that does not tell.
    pub table_rules: u64,
    /// Lines of the table that name by path who must live; likewise.
    pub table_spares: u64,
    /// Which commands and keys the module has, and what they mean; 1 from a module that does not tell.
    pub interface: u64,
    /// OOMs that were left to the kernel at once.
    pub passes: u64,
}

/// The keys that are read. All but the last three, which the first interface lacks, must be there.
const KEYS: [&[u8]; 27] = [
    b"level",
    b"seq",
    b"mem_total_kb",
    b"mem_available_kb",
    b"swap_total_kb",
    b"swap_free_kb",
    b"page_size",
    b"warn_percent",
    b"kill_percent",
    b"handler_pid",
    b"holds",
    b"holds_resolved",
    b"holds_expired",
    b"table_kills",
    b"hold_seq",
    b"hold_ms",
    b"warn_kb",
    b"kill_kb",
    b"floor_kb",
    b"table_kill_ids",
    b"table_spare_ids",
    b"passes",
    b"holds_passed",
    b"calls",
    b"table_rules",
    b"table_spares",
    b"interface",
];

impl Report {
    /// Reads the text. Keys that are not known are passed over, whatever their value. Allocates nothing.
    ///
    /// # Errors
    /// A text that ends in mid-line; a line without a value; a known key that is missing or stands there twice; a value
    /// that is no number, or none that could be.
    pub fn parse(text: &[u8]) -> Result<Report, ParseError> {
        let mut found: [Option<&[u8]>; KEYS.len()] = [None; KEYS.len()];
        for line in lines(text) {
            let line = line?;
            let space = line.iter().position(|byte| *byte == b' ').ok_or(ParseError::Shape)?;
            let (key, value) = (&line[..space], &line[space + 1..]);
            if let Some(at) = KEYS.iter().position(|known| *known == key)
                && found[at].replace(value).is_some()
            {
                return Err(ParseError::Shape);
            }
        }
        let found = |key: &[u8]| KEYS.iter().position(|known| *known == key).and_then(|at| found[at]);
        let value = |key: &[u8]| found(key).ok_or(ParseError::Shape);
        let count = |key: &[u8]| number(value(key)?);
        let count_or = |key: &[u8], default: u64| found(key).map_or(Ok(default), number);
        let bytes = |key: &[u8]| count(key)?.checked_mul(1024).ok_or(ParseError::Number);
        let level = match value(b"level")? {
            b"ok" => None,
            b"warn" => Some(LmsLevel::Warn),
            b"kill" => Some(LmsLevel::Kill),
            b"oom" => Some(LmsLevel::Oom),
            _ => return Err(ParseError::Shape),
        };
        let handler = u32::try_from(count(b"handler_pid")?).map_err(|_too_large| ParseError::Number)?;
        Ok(Report {
            level,
            seq: count(b"seq")?,
            mem_total_bytes: bytes(b"mem_total_kb")?,
            mem_available_bytes: bytes(b"mem_available_kb")?,
            swap_total_bytes: bytes(b"swap_total_kb")?,
            swap_free_bytes: bytes(b"swap_free_kb")?,
            page_size: count(b"page_size")?,
            warn_percent: count(b"warn_percent")?,
            kill_percent: count(b"kill_percent")?,
            handler_pid: (handler != 0).then_some(handler),
            holds: count(b"holds")?,
            holds_resolved: count(b"holds_resolved")?,
            holds_expired: count(b"holds_expired")?,
            holds_passed: count(b"holds_passed")?,
            calls: count(b"calls")?,
            table_kills: count(b"table_kills")?,
            hold_seq: Some(count(b"hold_seq")?).filter(|seq| *seq != 0),
            hold: Duration::from_millis(count(b"hold_ms")?),
            warn_bytes: bytes(b"warn_kb")?,
            kill_bytes: bytes(b"kill_kb")?,
            floor_bytes: bytes(b"floor_kb")?,
            table_kill_ids: count(b"table_kill_ids")?,
            table_spare_ids: count(b"table_spare_ids")?,
            table_rules: count_or(b"table_rules", 0)?,
            table_spares: count_or(b"table_spares", 0)?,
            interface: count_or(b"interface", 1)?,
            passes: count(b"passes")?,
        })
    }

    /// What a judgement needs of it.
    #[must_use]
    pub fn facts(&self) -> LmsFacts {
        LmsFacts { level: self.level, warn_bytes: self.warn_bytes, kill_bytes: self.kill_bytes }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A report as the module writes it.
    pub(crate) const TEXT: &str = "level kill\nseq 7\nmem_total_kb 1000000\nmem_available_kb 90000\nswap_total_kb 0\nswap_free_kb 16\n\
        page_size 4096\nwarn_percent 20\nkill_percent 10\nhandler_pid 321\nholds 3\nholds_resolved 2\nholds_expired 1\ntable_kills 5\n\
        hold_seq 6\nhold_ms 500\nwarn_kb 200000\nkill_kb 100000\nfloor_kb 50000\ntable_kill_ids 4\ntable_spare_ids 9\npasses 8\n\
        holds_passed 4\noom_available_kb 20000\ncalls 9\ninterface 2\ntable_rules 3\ntable_spares 6\n";

    /// Keys that the first interface lacks.
    const LATER: usize = 3;

    fn with(key: &str, value: &str) -> String {
        TEXT.lines()
            .map(|line| if line.starts_with(&format!("{key} ")) { format!("{key} {value}\n") } else { format!("{line}\n") })
            .collect()
    }

    #[test]
    fn every_value_finds_its_field() {
        let kib = |kib: u64| kib * 1024;
        let report = Report {
            level: Some(LmsLevel::Kill),
            seq: 7,
            mem_total_bytes: kib(1_000_000),
            mem_available_bytes: kib(90_000),
            swap_total_bytes: 0,
            swap_free_bytes: kib(16),
            page_size: 4096,
            warn_percent: 20,
            kill_percent: 10,
            handler_pid: Some(321),
            holds: 3,
            holds_resolved: 2,
            holds_expired: 1,
            holds_passed: 4,
            calls: 9,
            table_kills: 5,
            hold_seq: Some(6),
            hold: Duration::from_millis(500),
            warn_bytes: kib(200_000),
            kill_bytes: kib(100_000),
            floor_bytes: kib(50_000),
            table_kill_ids: 4,
            table_spare_ids: 9,
            table_rules: 3,
            table_spares: 6,
            interface: 2,
            passes: 8,
        };
        assert_eq!(Report::parse(TEXT.as_bytes()), Ok(report));
        let facts = LmsFacts { level: Some(LmsLevel::Kill), warn_bytes: kib(200_000), kill_bytes: kib(100_000) };
        assert_eq!(report.facts(), facts);
        for (word, level) in [("ok", None), ("warn", Some(LmsLevel::Warn)), ("oom", Some(LmsLevel::Oom))] {
            assert_eq!(Report::parse(with("level", word).as_bytes()).map(|report| report.level), Ok(level));
        }
        let idle = Report::parse(with("handler_pid", "0").replace("hold_seq 6", "hold_seq 0").as_bytes()).unwrap();
        assert_eq!((idle.handler_pid, idle.hold_seq), (None, None));
    }

    #[test]
    fn order_and_further_keys_mean_nothing() {
        let told = Report::parse(TEXT.as_bytes()).unwrap();
        let turned: String = TEXT.lines().rev().map(|line| format!("{line}\nnew_key any value, \u{e9}\nseq_of_later -1\n")).collect();
        assert_eq!(Report::parse(turned.as_bytes()), Ok(told));
    }

    #[test]
    fn the_first_interface_lacks_some_keys() {
        let kept = |line: &&str| !["interface ", "table_rules ", "table_spares "].iter().any(|key| line.starts_with(key));
        let first: String = TEXT.split_inclusive('\n').filter(kept).collect();
        let report = Report { interface: 1, table_rules: 0, table_spares: 0, ..Report::parse(TEXT.as_bytes()).unwrap() };
        assert_eq!(Report::parse(first.as_bytes()), Ok(report));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for key in KEYS {
            let key = std::str::from_utf8(key).unwrap();
            let (lines, without): (Vec<&str>, Vec<&str>) =
                TEXT.split_inclusive('\n').partition(|line| line.starts_with(&format!("{key} ")));
            let (without, twice) = (without.concat(), format!("{TEXT}{}", lines[0]));
            for (text, error) in [(twice, ParseError::Shape), (with(key, ""), refusal(key))] {
                assert_eq!(Report::parse(text.as_bytes()), Err(error), "{text}");
            }
            if KEYS[..KEYS.len() - LATER].contains(&key.as_bytes()) {
                assert_eq!(Report::parse(without.as_bytes()), Err(ParseError::Shape), "{without}");
            }
            for value in ["-1", "1 ", " 1", "0x1", "18446744073709551616", "1kB"] {
                assert_eq!(Report::parse(with(key, value).as_bytes()), Err(refusal(key)), "{key} {value}");
            }
        }
        for key in ["mem_total_kb", "warn_kb", "floor_kb"] {
            assert_eq!(Report::parse(with(key, "18014398509481984").as_bytes()), Err(ParseError::Number), "{key} does not fit in bytes");
        }
        assert_eq!(Report::parse(with("handler_pid", "4294967296").as_bytes()), Err(ParseError::Number));
        for (text, error) in [
            ("", ParseError::Shape),
            (TEXT.trim_end(), ParseError::Short),
            (&TEXT[..TEXT.len() / 2], ParseError::Short),
            ("level\n", ParseError::Shape),
            ("\n", ParseError::Shape),
        ] {
            assert_eq!(Report::parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    fn refusal(key: &str) -> ParseError {
        if key == "level" { ParseError::Shape } else { ParseError::Number }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            // Random bytes hold no level.
            prop_assert!(Report::parse(&bytes).is_err());
        }

        #[test]
        fn a_damaged_report_is_refused_or_holds_what_it_says(
            at in any::<prop::sample::Index>(),
            cut in 0usize..6,
            piece in prop::collection::vec(prop::sample::select(b"0123456789 \n\0-klo\xff".to_vec()), 0..6),
        ) {
            let at = at.index(TEXT.len());
            let end = (at + cut).min(TEXT.len());
            let bytes = [&TEXT.as_bytes()[..at], &piece, &TEXT.as_bytes()[end..]].concat();
            if Report::parse(&bytes).is_ok() {
                prop_assert_eq!(bytes.last(), Some(&b'\n'));
                for (at, key) in KEYS.iter().enumerate() {
                    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| line.split(|byte| *byte == b' ').next() == Some(*key));
                    let number = lines.count();
                    prop_assert!(number == 1 || number == 0 && at >= KEYS.len() - LATER);
                }
            }
        }
    }
}
