//! Tables and colours for people. Colours are written always; who prints them takes them out where they are not wanted.

use std::fmt::{self, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// What stands out.
pub const STRONG: Style = Style::new().bold();
/// What would die.
pub const DEADLY: Style = AnsiColor::Red.on_default().bold();
/// What holds.
pub const HOLDS: Style = AnsiColor::Yellow.on_default();
/// What is safe.
pub const SAFE: Style = AnsiColor::Green.on_default();
/// What is of less interest.
pub const FAINT: Style = Style::new().dimmed();

/// A text in a style.
#[derive(Clone, Copy, Debug)]
pub struct Styled<T>(pub Style, pub T);

impl<T: fmt::Display> fmt::Display for Styled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Styled(style, text) = self;
        write!(f, "{style}{text}{style:#}")
    }
}

/// Rows in columns: a line each, each row in its own style.
#[derive(Debug)]
pub struct Columns {
    table: Table,
    styles: Vec<Style>,
    indent: usize,
}

impl Columns {
    /// An empty table whose lines begin with so many spaces.
    #[must_use]
    pub fn new(indent: usize) -> Columns {
        let mut table = Table::new();
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.load_style(comfy_table::presets::NOTHING);
        Columns { table, styles: Vec::new(), indent }
    }

    /// The same with a line of headings.
    #[must_use]
    pub fn headed(indent: usize, headings: &[&str]) -> Columns {
        let mut columns = Columns::new(indent);
        columns.table.set_header(headings.iter().copied());
        columns.styles.push(FAINT);
        columns
    }

    /// Adds a row.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, style: Style, cells: I) {
        self.table.add_row(cells);
        self.styles.push(style);
    }

    /// Aligns a column of numbers.
    #[must_use]
    pub fn right(mut self, column: usize) -> Columns {
        self.align(column);
        self
    }

    fn align(&mut self, column: usize) {
        self.table.discover_columns();
        if let Some(column) = self.table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    /// Appends the lines, each ended by a newline.
    pub fn write(mut self, out: &mut String) {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for (line, style) in self.table.lines().zip(self.styles) {
            // Writing to a text can't fail.
            let _ = writeln!(out, "{:indent$}{}", "", Styled(style, line.trim_end()), indent = self.indent);
        }
    }
}

/// A number of things: `1 group`, `2 groups`.
#[must_use]
pub fn many(number: usize, thing: &str) -> String {
    let plural = match (number, thing.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_aligned_and_styled_as_a_whole() {
        let mut columns = Columns::headed(2, &["group", "usage"]).right(1);
        columns.row(DEADLY, ["/a".to_owned(), "1GiB".to_owned()]);
        columns.row(Style::new(), ["/größe".to_owned(), "512.5MiB".to_owned()]);
        let mut out = String::new();
        columns.write(&mut out);
        let plain = anstream::adapter::strip_str(&out).to_string();
        assert_eq!(plain, "  group      usage\n  /a          1GiB\n  /größe  512.5MiB\n");
        assert!(out.lines().nth(1).unwrap().starts_with("  \u{1b}["));
    }

    #[test]
    fn numbers_of_things() {
        assert_eq!([many(0, "group"), many(1, "process"), many(2, "process")], ["0 groups", "1 process", "2 processes"]);
    }
}
