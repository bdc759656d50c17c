//! Who gave an order: the process at the other end of the control socket.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cgroup::path::Escaped;

/// TASK_COMM_LEN.
const COMM_BYTES: usize = 16;

/// A process, as the kernel knew it when it connected (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct By {
    /// Its user.
    pub uid: u32,
    /// Its pid; 0 if it is in a pid namespace that can't be seen from here.
    pub pid: i32,
    comm: [u8; COMM_BYTES],
}

/// As it is written down and shown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    uid: u32,
    pid: i32,
    comm: String,
}

impl By {
    /// With a name that is cut off where the kernel would.
    #[must_use]
    pub fn new(uid: u32, pid: i32, comm: &[u8]) -> By {
        let mut by = By { uid, pid, comm: [0; COMM_BYTES] };
        let room = by.comm.iter_mut().take(COMM_BYTES - 1);
        room.zip(comm).for_each(|(place, byte)| *place = *byte);
        by
    }

    /// The name that the process had when it gave the order; empty if that could not be read.
    #[must_use]
    pub fn comm(&self) -> &[u8] {
        self.comm.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

impl From<Written> for By {
    fn from(written: Written) -> By {
        By::new(written.uid, written.pid, written.comm.as_bytes())
    }
}

impl From<By> for Written {
    fn from(by: By) -> Written {
        Written { uid: by.uid, pid: by.pid, comm: Escaped(by.comm()).to_string() }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}, pid {}", self.uid, self.pid)?;
        if self.comm().is_empty() { Ok(()) } else { write!(f, " ({})", Escaped(self.comm())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_was_survives_being_written_down_and_upsets_no_line() {
        let by = By::new(1000, 42, b"oomwarden");
        assert_eq!(by.to_string(), "uid 1000, pid 42 (oomwarden)");
        let text = serde_json::to_string(&by).expect("text");
        assert_eq!(text, r#"{"uid":1000,"pid":42,"comm":"oomwarden"}"#);
        assert_eq!(serde_json::from_str::<By>(&text).expect("the same"), by);
        assert_eq!(By::new(0, 0, b"").to_string(), "uid 0, pid 0");
        assert_eq!(By::new(0, 1, b"a\nb\x1b[0m").to_string(), "uid 0, pid 1 (a\\x0ab\\x1b[0m)");
        assert_eq!(By::new(0, 1, &[b'x'; 99]).comm().len(), 15);
    }
}
