//! In which groups oomwarden has set memory.oom.group: kept, so that it takes back after a restart
//! what it set, and nothing else.
//!
//! A group is known by its id and its path. Ids are unique only until the machine is booted anew,
//! so the file also says which boot it is about; one of another boot is void.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{StateDir, boot_id};
use crate::cgroup::GroupId;
use crate::cgroup::path::GroupPath;

/// The file.
pub const NAME: &str = "oom-group.json";
/// The most that is read of it: tens of thousands of groups.
const MOST_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    boot: String,
    groups: Vec<KeptGroup>,
}

#[derive(Serialize, Deserialize)]
struct KeptGroup {
    id: u64,
    path: KeptPath,
}

/// A path may hold any bytes; most are text, which people can read in the file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeptPath {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<&GroupPath> for KeptPath {
    fn from(path: &GroupPath) -> KeptPath {
        match std::str::from_utf8(path.as_bytes()) {
            Ok(text) => KeptPath::Text(text.to_owned()),
            Err(_) => KeptPath::Bytes(path.as_bytes().to_vec()),
        }
    }
}

impl From<&KeptPath> for GroupPath {
    fn from(path: &KeptPath) -> GroupPath {
        GroupPath::from_bytes(match path {
            KeptPath::Text(text) => text.as_bytes(),
            KeptPath::Bytes(bytes) => bytes,
        })
    }
}

/// A ledger that was there and could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; {}", path.display(), Aside(aside))]
pub struct Unreadable {
    path: PathBuf,
    error: io::Error,
    /// Where it is kept for whoever can read it, such as a newer oomwarden.
    aside: io::Result<PathBuf>,
}

/// What became of the file, in words.
struct Aside<'a>(&'a io::Result<PathBuf>);

impl fmt::Display for Aside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(path) => write!(f, "the file is now {}", path.display()),
            Err(error) => write!(f, "it could not be renamed ({error}) and will be overwritten"),
        }
    }
}

/// The groups in which memory.oom.group is 1 because oomwarden wrote it.
#[derive(Debug)]
pub struct Ledger {
    state: StateDir,
    boot: String,
    groups: BTreeMap<GroupId, GroupPath>,
    /// The file does not say the same.
    changed: bool,
}

impl Ledger {
    /// Reads what an earlier oomwarden of this boot has left. A file that can't be read is renamed
    /// and is an error, which comes with an empty ledger: what was set before then stays set.
    pub fn open(state: StateDir) -> (Ledger, Result<(), Unreadable>) {
        let boot = boot_id();
        Ledger::of_boot(state, boot)
    }

    fn of_boot(state: StateDir, boot: String) -> (Ledger, Result<(), Unreadable>) {
        let mut ledger = Ledger { state, boot, groups: BTreeMap::new(), changed: false };
        let result = ledger.load().map_err(|error| Unreadable { path: ledger.path(), error, aside: ledger.state.set_aside(NAME) });
        (ledger, result)
    }

    fn load(&mut self) -> io::Result<()> {
        let Some(content) = self.state.read(NAME, MOST_BYTES)? else { return Ok(()) };
        // Whatever it is, the next one takes its place.
        self.changed = true;
        let kept: Kept = serde_json::from_slice(&content)?;
        if kept.v != 1 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its version is {}, not 1", kept.v)));
        }
        if !self.boot.is_empty() && kept.boot == self.boot {
            self.groups = kept.groups.iter().map(|group| (GroupId(group.id), GroupPath::from(&group.path))).collect();
            self.changed = false;
        }
        Ok(())
    }

    /// Where it is kept.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.state.path_of(NAME)
    }

    /// Whether the 1 in this group is oomwarden's.
    #[must_use]
    pub fn holds(&self, id: GroupId) -> bool {
        self.groups.contains_key(&id)
    }

    /// The path of a group in which the 1 is oomwarden's.
    #[must_use]
    pub fn path_of(&self, id: GroupId) -> Option<&GroupPath> {
        self.groups.get(&id)
    }

    /// Whether the file lacks something.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The groups, by their ids.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupPath)> {
        self.groups.iter().map(|(id, path)| (*id, path))
    }

    /// oomwarden is about to write 1 in this group.
    pub fn add(&mut self, id: GroupId, path: GroupPath) {
        self.changed |= self.groups.insert(id, path).is_none();
    }

    /// oomwarden has taken its 1 back, or left the group to somebody else.
    pub fn remove(&mut self, id: GroupId) {
        self.changed |= self.groups.remove(&id).is_some();
    }

    /// The group is no more. Its id comes to nobody else in this boot, so that the file need not be
    /// written for this alone.
    pub fn forget(&mut self, id: GroupId) {
        self.groups.remove(&id);
    }

    /// Writes the file, or takes it away where there is nothing to say. May block as long as the
    /// disk does.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&mut self) -> io::Result<()> {
        if self.groups.is_empty() {
            self.state.remove(NAME)?;
        } else {
            let groups = self.groups.iter().map(|(id, path)| KeptGroup { id: id.0, path: path.into() }).collect();
            self.state.write(NAME, &serde_json::to_vec(&Kept { v: 1, boot: self.boot.clone(), groups })?)?;
        }
        self.changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &tempfile::TempDir, boot: &str) -> (Ledger, Result<(), Unreadable>) {
        Ledger::of_boot(StateDir::new(dir.path()), boot.to_owned())
    }

    fn path(bytes: &[u8]) -> GroupPath {
        GroupPath::from_bytes(bytes)
    }

    #[test]
    fn what_was_set_is_known_after_a_restart_whatever_bytes_its_name_has() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, read) = open(&dir, "one");
        read.unwrap();
        assert!(!ledger.holds(GroupId(7)) && !ledger.is_changed());
        let names = [(GroupId(7), path(b"/t/a\\x2db")), (GroupId(8), path(b"/t/\xff\n"))];
        for (id, name) in &names {
            ledger.add(*id, name.clone());
        }
        assert!(ledger.is_changed());
        ledger.save().unwrap();
        let (mut ledger, read) = open(&dir, "one");
        read.unwrap();
        assert_eq!(ledger.groups().map(|(id, path)| (id, path.clone())).collect::<Vec<_>>(), names);
        assert!(!ledger.is_changed());
        ledger.remove(GroupId(7));
        assert!(ledger.is_changed());
        ledger.forget(GroupId(8));
        ledger.save().unwrap();
        assert!(!dir.path().join(NAME).exists(), "nothing is left to say");
    }

    #[test]
    fn after_another_boot_ids_mean_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ledger, _) = open(&dir, "one");
        ledger.add(GroupId(7), path(b"/t/a"));
        ledger.save().unwrap();
        for boot in ["two", ""] {
            let (ledger, read) = open(&dir, boot);
            read.unwrap();
            assert!(!ledger.holds(GroupId(7)), "boot {boot:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_an_empty_ledger_and_kept_under_another_name() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "{", "[]", r#"{"v":2,"boot":"one","groups":[]}"#, r#"{"v":1,"boot":"one","groups":[{"id":"x"}]}"#] {
            std::fs::write(dir.path().join(NAME), content).unwrap();
            let (ledger, read) = open(&dir, "one");
            let error = read.unwrap_err().to_string();
            assert!(ledger.groups().count() == 0, "{content:?}");
            let aside = dir.path().join("oom-group.json.bad");
            assert!(error.contains("oom-group.json: ") && error.ends_with(&format!("; the file is now {}", aside.display())), "{error}");
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), content);
            assert!(!dir.path().join(NAME).exists());
        }
    }

    #[test]
    fn a_file_that_cannot_be_renamed_is_said_to_be_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "{").unwrap();
        // A file does not take the place of a directory.
        std::fs::create_dir(dir.path().join("oom-group.json.bad")).unwrap();
        let (ledger, read) = open(&dir, "one");
        assert!(read.unwrap_err().to_string().contains("it could not be renamed ("));
        assert!(ledger.is_changed(), "the next file takes its place");
    }

    #[test]
    fn what_cannot_be_written_down_is_an_error() {
        let (mut ledger, _) = Ledger::of_boot(StateDir::new(std::path::Path::new("/nowhere")), "one".to_owned());
        ledger.add(GroupId(7), path(b"/t/a"));
        assert!(ledger.save().is_err() && ledger.is_changed());
    }
}
