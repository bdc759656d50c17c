//! Who dies and who lives where oomwarden can't answer: groups by id, in the text that the kernel module takes.
//!
//! A table is its text, made line by line in buffers that are there from the start. So it can be made again at any time, also
//! when memory is short, and two tables are the same to the module exactly if they are equal.

use std::fmt::Write as _;
use std::time::Duration;

use super::line::Line;
use crate::cgroup::GroupId;

/// How many ids a table holds.
pub const MOST_IDS: usize = 1024;

/// The longest that a table may outlive the file that wrote it.
pub const LONGEST_KEEP: Duration = Duration::from_secs(3600);

/// What an empty table is written as.
const CLEAR: &[u8] = b"clear\n";
/// The longest first line: `table keep 3600`.
const LONGEST_HEAD: usize = 16;
/// The longest of the others: `spare`, a number of 20 digits.
const LONGEST_LINE: usize = 27;

/// What is to become of a group and everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It dies, those of earlier lines first.
    Kill,
    /// It lives, also as a part of a group that dies.
    Spare,
}

/// A table, empty at first.
#[derive(Debug)]
pub struct Table {
    ids: Vec<GroupId>,
    text: Vec<u8>,
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
        let mut table = Table { ids: Vec::with_capacity(MOST_IDS), text: Vec::with_capacity(LONGEST_HEAD + MOST_IDS * LONGEST_LINE) };
        table.clear(None);
        table
    }

    /// Empties it. With `keep` (whole seconds, 1 s to [`LONGEST_KEEP`]) what is put in afterwards stays so long in force when
    /// the file that wrote it is closed, say because oomwarden was killed; without, it goes with the file. Allocates nothing.
    pub fn clear(&mut self, keep: Option<Duration>) {
        self.ids.clear();
        self.text.clear();
        let mut head = Line::default();
        // A line has room for any number.
        let _ = match keep.map(|keep| keep.min(LONGEST_KEEP).as_secs()).filter(|seconds| *seconds > 0) {
            Some(seconds) => writeln!(head, "table keep {seconds}"),
            None => writeln!(head, "table"),
        };
        self.text.extend_from_slice(head.as_bytes());
    }

    /// Adds a group. `false`: the table is full, or the group stands in it already; then it stays as it is. What must live
    /// should therefore come first. Allocates nothing.
    pub fn push(&mut self, fate: Fate, group: GroupId) -> bool {
        if self.ids.len() >= MOST_IDS || self.ids.contains(&group) || group.0 == 0 {
            return false;
        }
        let mut line = Line::default();
        let verb = match fate {
            Fate::Kill => "kill",
            Fate::Spare => "spare",
        };
        // As above.
        let _ = writeln!(line, "{verb} {}", group.0);
        self.text.extend_from_slice(line.as_bytes());
        self.ids.push(group);
        true
    }

    /// How many groups it names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Makes this table the same as another. Allocates nothing.
    pub fn copy_from(&mut self, other: &Table) {
        self.ids.clear();
        self.ids.extend_from_slice(&other.ids);
        self.text.clear();
        self.text.extend_from_slice(&other.text);
    }

    /// The text for /proc/oom_notifier: `table` and its lines, or `clear` for an empty table.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        if self.ids.is_empty() { CLEAR } else { &self.text }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(table: &Table) -> &str {
        std::str::from_utf8(table.as_bytes()).unwrap()
    }

    #[test]
    fn the_text_is_what_the_module_takes() {
        let mut table = Table::new();
        assert_eq!((text(&table), table.is_empty()), ("clear\n", true));
        assert!(table.push(Fate::Spare, GroupId(7)) && table.push(Fate::Kill, GroupId(u64::MAX)) && table.push(Fate::Kill, GroupId(3)));
        assert_eq!((text(&table), table.len()), ("table\nspare 7\nkill 18446744073709551615\nkill 3\n", 3));
        for (keep, head) in [
            (Duration::from_secs(90), "table keep 90\n"),
            (Duration::from_millis(1999), "table keep 1\n"),
            (Duration::from_millis(999), "table\n"),
            (Duration::MAX, "table keep 3600\n"),
        ] {
            table.clear(Some(keep));
            assert_eq!(text(&table), "clear\n", "an empty table is kept for nobody");
            table.push(Fate::Kill, GroupId(1));
            assert_eq!(text(&table), format!("{head}kill 1\n"));
        }
    }

    #[test]
    fn no_group_stands_in_it_twice_and_none_beyond_the_last() {
        let mut table = Table::new();
        assert!(!table.push(Fate::Kill, GroupId(0)), "0 is no group");
        assert!(table.push(Fate::Kill, GroupId(5)) && !table.push(Fate::Spare, GroupId(5)) && !table.push(Fate::Kill, GroupId(5)));
        for id in 6..=MOST_IDS as u64 + 4 {
            assert!(table.push(Fate::Spare, GroupId(id)));
        }
        assert!(!table.push(Fate::Spare, GroupId(9999)));
        assert_eq!((table.len(), text(&table).lines().count()), (MOST_IDS, MOST_IDS + 1));
        assert!(table.as_bytes().len() < 64 * 1024, "the module takes no more in one write");
    }

    #[test]
    fn the_fullest_table_fits_its_buffers() {
        let mut table = Table::new();
        let before = (table.text.capacity(), table.ids.capacity());
        for round in 0..2 {
            table.clear(Some(LONGEST_KEEP));
            for id in 0..MOST_IDS as u64 {
                assert!(table.push(Fate::Spare, GroupId(u64::MAX - id)), "{round}");
            }
        }
        let mut copy = Table::new();
        copy.copy_from(&table);
        assert_eq!(copy, table);
        assert_eq!((table.text.capacity(), table.ids.capacity()), before);
        assert_eq!((copy.text.capacity(), copy.ids.capacity()), before);
    }

    proptest! {
        #[test]
        fn equal_tables_have_equal_lines(
            a in prop::collection::vec((any::<bool>(), 0u64..6), 0..8),
            b in prop::collection::vec((any::<bool>(), 0u64..6), 0..8),
        ) {
            let fill = |entries: &[(bool, u64)]| {
                let (mut table, mut kept) = (Table::new(), Vec::new());
                for (kill, id) in entries {
                    let entry = (if *kill { Fate::Kill } else { Fate::Spare }, GroupId(*id));
                    if table.push(entry.0, entry.1) {
                        kept.push(entry);
                    }
                }
                (table, kept)
            };
            let ((a, in_a), (b, in_b)) = (fill(&a), fill(&b));
            prop_assert_eq!(a == b, in_a == in_b);
        }
    }
}
