//! Standard error as systemd's journal takes it: each line begins with its priority, `<3>` and the like (sd-daemon(3)).

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use tracing::Level;

/// Whether standard error is the journal: JOURNAL_STREAM names its device and inode (systemd.exec(5)). The variable alone says
/// nothing, since children inherit it whatever their standard error is.
#[must_use]
pub fn is_stderr() -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr().as_fd()).is_ok_and(|stat| named.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// What the line begins with by which the process ends.
pub const CRITICAL: &str = "<2>";

/// What each line begins with.
#[must_use]
pub fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Says something outside of the log, before it was started or without one.
pub fn say(level: Level, message: &str) {
    let prefix = if is_stderr() { prefix(level) } else { "" };
    let mut text = String::with_capacity(message.len() + 16);
    // Writing to a text can't fail.
    let _ = writeln!(text, "{prefix}oomwarden: {}", with_prefix(message, prefix));
    // Where standard error is gone nobody listens.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// The prefix at the begin of all lines but the first.
fn with_prefix(message: &str, prefix: &str) -> String {
    message.replace('\n', &format!("\n{prefix}"))
}

/// The same for a whole message of the log, which ends with a newline: at the begin of all lines.
#[must_use]
pub fn lines(message: &[u8], prefix: &str) -> Vec<u8> {
    let mut lines = Vec::with_capacity(message.len() + prefix.len());
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        lines.extend_from_slice(prefix.as_bytes());
        lines.extend_from_slice(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_priority() {
        assert_eq!(lines(b"one\ntwo\n", prefix(Level::ERROR)), b"<3>one\n<3>two\n");
        assert_eq!(lines(b"one", prefix(Level::WARN)), b"<4>one");
        assert_eq!([prefix(Level::INFO), prefix(Level::DEBUG), prefix(Level::TRACE)], ["<6>", "<7>", "<7>"]);
        assert_eq!(with_prefix("one\ntwo", "<3>"), "one\n<3>two");
    }
}
