//! Units as types: a share of something, in integers.
//!
//! Bytes are `u64` with a `_bytes` name or the type [`Bytes`] where a policy gives them; durations are
//! [`std::time::Duration`]. A share is kept in hundredths of a percent so that judging never touches floating point.

use std::fmt;

/// An amount of memory in bytes, as a policy states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// The largest binary unit that keeps at most one decimal: `512B`, `1.5GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (unit, size) in UNITS {
            if self.0 >= size {
                let tenths = self.0 / size * 10 + self.0 % size * 10 / size;
                return match tenths % 10 {
                    0 => write!(f, "{}{unit}", tenths / 10),
                    tenth => write!(f, "{}.{tenth}{unit}", tenths / 10),
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A share in hundredths of a percent: `95%` is 9500. From 0 to 10 000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

impl Share {
    /// The whole: 100 %.
    pub const WHOLE: Share = Share(10_000);

    /// From hundredths of a percent; `None` above the whole.
    #[must_use]
    pub const fn from_hundredths(hundredths: u16) -> Option<Share> {
        if hundredths <= 10_000 { Some(Share(hundredths)) } else { None }
    }

    /// From whole percent; values above 100 become the whole.
    #[must_use]
    pub const fn percent(percent: u16) -> Share {
        if percent >= 100 { Share::WHOLE } else { Share(percent * 100) }
    }

    /// Hundredths of a percent.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub const fn of(self, whole: u64) -> u64 {
        let share = self.0 as u64;
        whole / 10_000 * share + whole % 10_000 * share / 10_000
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            rest => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_print_as_written() {
        assert_eq!(Share::percent(95).of(1000), 950);
        assert_eq!(Share::WHOLE.of(u64::MAX), u64::MAX);
        assert_eq!(Share::from_hundredths(10_001), None);
        for (hundredths, text) in [(9500, "95%"), (250, "2.5%"), (1205, "12.05%"), (5, "0.05%")] {
            assert_eq!(Share::from_hundredths(hundredths).map(|s| s.to_string()).as_deref(), Some(text));
        }
    }

    #[test]
    fn bytes_print_in_the_largest_fitting_unit() {
        for (bytes, text) in [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (3 << 29, "1.5GiB"), (u64::MAX, "16777215.9TiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
