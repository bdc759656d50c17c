//! A short line of text on the stack: what is written on the kill path is put into words without allocating.

use std::fmt;

/// Longer than any command: `ack` and two numbers of 20 digits.
const ROOM: usize = 48;

/// Text of up to [`ROOM`] bytes.
#[derive(Debug)]
pub(super) struct Line {
    bytes: [u8; ROOM],
    filled: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line { bytes: [0; ROOM], filled: 0 }
    }
}

impl Line {
    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.filled..self.filled + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.filled += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn it_takes_the_longest_command_and_refuses_what_is_longer() {
        let mut line = Line::default();
        writeln!(line, "ack {0} {0}", u64::MAX).unwrap();
        assert_eq!(line.as_bytes(), b"ack 18446744073709551615 18446744073709551615\n");
        assert!(write!(line, "123").is_err());
        assert_eq!(line.as_bytes(), b"ack 18446744073709551615 18446744073709551615\n");
    }
}
