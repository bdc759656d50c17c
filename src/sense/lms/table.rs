//! Who may die and who lives where oomwarden can't answer, in the text that the kernel module takes.
//!
//! A table is its text, put together from prepared lines in a buffer that is there from the start. So it can be made again at any
//! time, also when memory is short, and two tables are the same to the module exactly if they are equal.

use std::fmt::Write as _;
use std::time::Duration;

use super::line::Line;
use crate::cgroup::GroupId;

/// The interface of the module that this text is for: what its `interface` key says.
pub const INTERFACE: u64 = 2;

/// How many lines the module takes after the first.
pub const MOST_LINES: usize = 1024;
/// How much it takes in one write.
pub const MOST_BYTES: usize = 64 * 1024;
/// The longest glob that it takes.
pub const LONGEST_GLOB: usize = 1024;

/// The longest that a table may outlive the file that wrote it.
pub const LONGEST_KEEP: Duration = Duration::from_secs(3600);

/// What an empty table is written as.
const CLEAR: &[u8] = b"clear\n";

/// Lines of a table, made before they are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    text: Vec<u8>,
    number: usize,
    rules: usize,
}

impl Lines {
    /// How many bytes they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Every group whose path matches, and everything below it, lives. `false`, for all lines with a glob: it is too long, or there are more
    /// lines already than any table has room for.
    pub fn spare_path(&mut self, glob: &str) -> bool {
        self.with_glob(format_args!("spare_path"), glob)
    }

    /// The same for those that hold a process with this comm.
    pub fn spare_comm(&mut self, comm: &[u8], glob: &str) -> bool {
        let mut word = String::with_capacity(4 * comm.len());
        for byte in comm {
            let _ = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => write!(word, "{}", char::from(*byte)),
                byte => write!(word, "\\x{byte:02x}"),
            };
        }
        self.with_glob(format_args!("spare_comm {word}"), glob)
    }

    /// The importance of every group whose path matches, and of everything below it, unless an earlier line matches.
    pub fn class(&mut self, value: i32, glob: &str) -> bool {
        self.with_glob(format_args!("class {value}"), glob)
    }

    /// Begins a rule: its candidates follow. Those below `at_least_kb` come last; `unkillable`: so may groups with a process at
    /// oom_score_adj -1000.
    pub fn rule(&mut self, at_least_kb: u64, unkillable: bool) {
        let at_least = if at_least_kb > 0 { format!(" at_least={at_least_kb}") } else { String::new() };
        let unkillable = if unkillable { " unkillable" } else { "" };
        self.line(format_args!("rule{at_least}{unkillable}"));
        self.rules += 1;
    }

    /// Groups whose path matches, and that have no groups below them, are candidates of the rule.
    pub fn among(&mut self, glob: &str) -> bool {
        self.with_glob(format_args!("among"), glob)
    }

    fn with_glob(&mut self, words: std::fmt::Arguments<'_>, glob: &str) -> bool {
        let fits = glob.len() <= LONGEST_GLOB && self.number < MOST_LINES && self.text.len() < MOST_BYTES;
        if fits {
            self.line(format_args!("{words} {glob}"));
        }
        fits
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.extend_from_slice(line.to_string().as_bytes());
        self.text.push(b'\n');
        self.number += 1;
    }
}

/// A table, empty at first.
#[derive(Debug)]
pub struct Table {
    text: Vec<u8>,
    lines: usize,
    rules: usize,
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Table) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Table {}

impl Table {
    /// An empty table with all the room that it can ever need.
    #[must_use]
    pub fn new() -> Table {
        let mut table = Table { text: Vec::with_capacity(MOST_BYTES), lines: 0, rules: 0 };
        table.clear(None);
        table
    }

    /// Empties it. With `keep` (whole seconds, 1 s to [`LONGEST_KEEP`]) what is put in afterwards stays so long in force when
    /// the file that wrote it is closed, say because oomwarden was killed; without, it goes with the file. Allocates nothing.
    pub fn clear(&mut self, keep: Option<Duration>) {
        self.text.clear();
        (self.lines, self.rules) = (0, 0);
        let mut head = Line::default();
        // A line has room for any number.
        let _ = match keep.map(|keep| keep.min(LONGEST_KEEP).as_secs()).filter(|seconds| *seconds > 0) {
            Some(seconds) => writeln!(head, "table keep {seconds}"),
            None => writeln!(head, "table"),
        };
        self.text.extend_from_slice(head.as_bytes());
    }

    /// Adds prepared lines, all of them or none: `false` if there is no room. Allocates nothing.
    pub fn push(&mut self, lines: &Lines) -> bool {
        let fits = self.add(lines.number, &[&lines.text]);
        if fits {
            self.rules += lines.rules;
        }
        fits
    }

    /// Paths are counted from this group's directory. To stand before all paths. Allocates nothing.
    pub fn root(&mut self, group: GroupId) -> bool {
        self.with_id("root", group)
    }

    /// This group and everything below it lives. Allocates nothing.
    pub fn spare(&mut self, group: GroupId) -> bool {
        self.with_id("spare", group)
    }

    /// So does every group with this path, also one that comes later. `false` if there is no room, or the path is too long to be said.
    /// Allocates nothing.
    pub fn spare_at(&mut self, path: &[u8]) -> bool {
        const WORD: &[u8] = b"spare_path ";
        let special = path.iter().filter(|byte| is_special(**byte)).count();
        let length = path.len() + 2 * special;
        if length > LONGEST_GLOB || !self.has_room(1, WORD.len() + length + 1) {
            return false;
        }
        self.text.extend_from_slice(WORD);
        for byte in path {
            match byte {
                // The end of a line, which no glob holds.
                b'\n' => self.text.push(b'?'),
                byte if is_special(*byte) => self.text.extend_from_slice(&[b'[', *byte, b']']),
                byte => self.text.push(*byte),
            }
        }
        self.text.push(b'\n');
        self.lines += 1;
        true
    }

    fn with_id(&mut self, word: &str, group: GroupId) -> bool {
        let mut line = Line::default();
        // As above.
        let _ = writeln!(line, "{word} {}", group.0);
        group.0 != 0 && self.add(1, &[line.as_bytes()])
    }

    fn has_room(&self, lines: usize, bytes: usize) -> bool {
        self.lines + lines <= MOST_LINES && self.text.len() + bytes <= MOST_BYTES
    }

    fn add(&mut self, lines: usize, texts: &[&[u8]]) -> bool {
        let fits = self.has_room(lines, texts.iter().map(|text| text.len()).sum());
        if fits {
            texts.iter().for_each(|text| self.text.extend_from_slice(text));
            self.lines += lines;
        }
        fits
    }

    /// How many rules it has.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.rules
    }

    /// Makes this table the same as another. Allocates nothing.
    pub fn copy_from(&mut self, other: &Table) {
        self.text.clear();
        self.text.extend_from_slice(&other.text);
        (self.lines, self.rules) = (other.lines, other.rules);
    }

    /// The text for /proc/oom_notifier: `table` and its lines, or `clear` for one without rules, which lets nobody die.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.rules == 0 { CLEAR } else { &self.text }
    }
}

/// Whether a byte of a path means something else in a glob, of the policy or of the module, and can be put in brackets.
fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'{' | b'}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(table: &Table) -> &str {
        std::str::from_utf8(table.as_bytes()).unwrap()
    }

    fn one_rule() -> Lines {
        let mut lines = Lines::default();
        lines.rule(0, false);
        assert!(lines.among("/t/*"));
        lines
    }

    #[test]
    fn the_text_is_what_the_module_takes() {
        let mut table = Table::new();
        assert_eq!((text(&table), table.rules()), ("clear\n", 0));
        assert!(table.root(GroupId(1)) && table.spare(GroupId(u64::MAX)) && table.spare_at(b"/a b\\x2d/[*?]{}\n"));
        assert_eq!(text(&table), "clear\n", "there is nobody to spare where nobody dies");
        let mut lines = Lines::default();
        assert!(lines.spare_path("/db/**") && lines.spare_comm(b"p-g_1.\\ \xff", "/x y") && lines.class(i32::MIN, "/batch"));
        lines.rule(8192, false);
        assert!(lines.among("/t/*"));
        lines.rule(0, true);
        assert!(lines.among("/**"));
        assert!(table.push(&lines));
        let expected = "table\nroot 1\nspare 18446744073709551615\nspare_path /a b\\x2d/[[][*][?]][{][}]?\nspare_path /db/**\n\
            spare_comm p-g_1.\\x5c\\x20\\xff /x y\nclass -2147483648 /batch\nrule at_least=8192\namong /t/*\nrule unkillable\namong /**\n";
        assert_eq!((text(&table), table.rules()), (expected, 2));
        for (keep, head) in [
            (Duration::from_secs(90), "table keep 90\n"),
            (Duration::from_millis(1999), "table keep 1\n"),
            (Duration::from_millis(999), "table\n"),
            (Duration::MAX, "table keep 3600\n"),
        ] {
            table.clear(Some(keep));
            assert_eq!(text(&table), "clear\n", "an empty table is kept for nobody");
            assert!(table.push(&one_rule()));
            assert_eq!(text(&table), format!("{head}rule\namong /t/*\n"));
        }
    }

    #[test]
    fn lines_find_room_whole_or_not_at_all() {
        let mut table = Table::new();
        assert!(!table.spare(GroupId(0)), "0 is no group");
        let mut many = Lines::default();
        (0..MOST_LINES - 1).for_each(|_| many.rule(0, false));
        assert!(table.push(&many));
        assert!(!table.push(&one_rule()), "two lines where one has room");
        assert!(table.spare(GroupId(1)) && !table.spare(GroupId(2)) && !table.spare_at(b"/a"));
        assert_eq!(text(&table).lines().count(), MOST_LINES + 1);
        let mut long = Lines::default();
        let glob = format!("/{}", "x".repeat(LONGEST_GLOB - 1));
        assert!(!long.among(&format!("{glob}x")), "longer than the module takes");
        (0..63).for_each(|_| assert!(long.among(&glob)));
        table.clear(None);
        assert!(table.push(&one_rule()) && table.push(&long));
        assert!(!table.push(&long));
        assert!(table.as_bytes().len() <= MOST_BYTES);
        assert!(!table.spare_at(format!("{}*", &glob[..LONGEST_GLOB - 2]).as_bytes()), "the brackets make it too long");
    }

    #[test]
    fn the_fullest_table_fits_its_buffer() {
        let mut table = Table::new();
        let before = table.text.capacity();
        let mut line = Lines::default();
        line.among(&format!("/{}", "x".repeat(600)));
        for _ in 0..2 {
            table.clear(Some(LONGEST_KEEP));
            assert!(table.push(&one_rule()));
            while table.push(&line) {}
            while table.spare(GroupId(u64::MAX)) {}
        }
        let mut copy = Table::new();
        copy.copy_from(&table);
        assert_eq!((&copy, copy.rules()), (&table, 1));
        assert_eq!((table.text.capacity(), copy.text.capacity()), (before, before));
    }
}
