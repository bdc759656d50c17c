//! The groups that a scrape shows: read by the server thread, so that a scrape costs the warden nothing.

use std::cell::RefCell;

use crate::cgroup::group::{File, Group, ReadBuf, ReadError};
use crate::cgroup::parse::{self, ParseError};
use crate::cgroup::path::GroupPath;
use crate::metrics::groups::GroupReader;
use crate::policy::model::EntrySet;

thread_local! {
    static BUFFER: RefCell<ReadBuf> = RefCell::new(ReadBuf::new());
}

/// A watched subject with the groups above it, whose limits count too. Nothing is held: a read of a file that the warden
/// holds would keep it from reading meanwhile.
#[derive(Debug)]
pub struct Subject {
    /// The subject.
    pub group: Group,
    /// Its ancestors.
    pub above: Vec<Group>,
    /// The rules that watch it, by index into the policy that was in force when this was published.
    pub rules: EntrySet,
    /// It has PSI triggers, or the warden reads its stall on a timer.
    pub psi: bool,
}

fn read<T>(group: &Group, file: File, parse: fn(&[u8]) -> Result<T, ParseError>) -> Option<T> {
    let result: Result<Option<T>, ReadError> = BUFFER.with_borrow_mut(|buffer| group.read(file, buffer, parse));
    result.ok().flatten()
}

impl GroupReader for Subject {
    fn path(&self) -> &GroupPath {
        &self.group.path
    }

    fn watched_by(&self) -> EntrySet {
        self.rules
    }

    fn has_psi(&self) -> bool {
        self.psi
    }

    fn memory_current(&self) -> Option<u64> {
        read(&self.group, File::Current, parse::value)
    }

    fn limit(&self) -> Option<u64> {
        let line = std::iter::once(&self.group).chain(&self.above);
        line.filter_map(|group| read(group, File::Max, parse::limit)?.bytes()).min()
    }

    fn psi_totals_us(&self) -> Option<(u64, u64)> {
        let pressure = read(&self.group, File::Pressure, parse::pressure)?;
        Some((pressure.some_us?, pressure.full_us?))
    }
}
