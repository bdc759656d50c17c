//! What is said of a policy that is refused: the whole, and the gist of it.

/// What a refusal for what is wrong in the text begins with; a line for each fault follows, with indented hints.
pub const BAD_POLICY: &str = "bad policy";

/// What [`faults`] says, in words.
#[must_use]
pub fn gist(message: &str) -> String {
    match faults(message) {
        (first, 0) => first.to_owned(),
        (first, more) => format!("{first} (and {more} more, see the log)"),
    }
}

/// The first fault of a refusal in one line, and how many more there are.
#[must_use]
pub fn faults(message: &str) -> (&str, usize) {
    let mut faults = message.lines().filter(|line| *line != BAD_POLICY && !line.starts_with(' '));
    (faults.next().unwrap_or(BAD_POLICY), faults.count())
}
