//! Memory of the watched groups at scrape time.
//!
//! Whoever watches groups publishes readers of them; the thread that is scraped reads. The warden is not asked, and a
//! group that is gone yields nothing. The number of series, and the length of their labels, is bounded: names of groups
//! are other people's text.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntCounter, Opts};

use crate::cgroup::path::GroupPath;
use crate::policy::model::EntrySet;

/// Series of each metric in one scrape, at most.
pub const MAX_SERIES: usize = 1000;

/// Bytes of all labels of one metric in one scrape, at most.
pub const MAX_LABEL_BYTES: usize = 256 * 1024;

/// Microseconds in a second.
const MICROS: f64 = 1e6;

/// Reads one group through files that are held open. `None` is "could not be read", or that there is no such value.
///
/// Each method is called once for a scrape, and scrapes are far enough apart (see `Limits::fresh` of the server): who
/// reads memory.pressure in a tight loop falsifies its totals.
pub trait GroupReader: Send + Sync {
    /// The group.
    fn path(&self) -> &GroupPath;
    /// memory.current, bytes.
    fn memory_current(&self) -> Option<u64>;
    /// The smallest memory.max along the ancestors, bytes; `None` if nothing limits the group.
    fn limit(&self) -> Option<u64>;
    /// `total` of the lines `some` and `full` of memory.pressure, microseconds.
    fn psi_totals_us(&self) -> Option<(u64, u64)>;
    /// The rules that watch it, by index into the policy that was in force when it was published.
    fn watched_by(&self) -> EntrySet {
        EntrySet::EMPTY
    }
    /// Whether its stall is noticed: by PSI triggers, or on a timer where the kernel refused them.
    fn has_psi(&self) -> bool {
        false
    }
}

/// The groups that a scrape shows: set by whoever watches them, read by the server.
#[derive(Default)]
pub struct Published {
    groups: Mutex<Arc<[Arc<dyn GroupReader>]>>,
}

impl Published {
    /// Shows these groups from now on.
    pub fn publish(&self, groups: Arc<[Arc<dyn GroupReader>]>) {
        let old = std::mem::replace(&mut *self.groups.lock().unwrap_or_else(PoisonError::into_inner), groups);
        // Its files are closed here, with the lock released.
        drop(old);
    }

    /// The groups shown.
    #[must_use]
    pub fn groups(&self) -> Arc<[Arc<dyn GroupReader>]> {
        Arc::clone(&self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Published({} groups)", self.groups().len())
    }
}

/// The metrics of groups. The families registered are templates: each scrape fills new ones, so that no series outlives
/// its group.
pub(super) struct GroupCollector {
    published: Arc<Published>,
    dropped: IntCounter,
    template: Families,
}

struct Families {
    memory: GaugeVec,
    limit: GaugeVec,
    waiting: CounterVec,
    stalled: CounterVec,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["cgroup"]);
        let counter = |name: &str, help: &str| CounterVec::new(Opts::new(name, help), &["cgroup"]);
        Ok(Families {
            memory: gauge("oomwarden_group_memory_bytes", "memory.current of a watched group.")?,
            limit: gauge(
                "oomwarden_group_memory_limit_bytes",
                "The smallest memory.max along a watched group and its ancestors; no series where nothing limits it.",
            )?,
            waiting: counter(
                "oomwarden_group_memory_pressure_waiting_seconds_total",
                "Time in which at least one task of a watched group waited for memory (PSI some).",
            )?,
            stalled: counter(
                "oomwarden_group_memory_pressure_stalled_seconds_total",
                "Time in which all tasks of a watched group waited for memory at once (PSI full).",
            )?,
        })
    }

    fn add(&self, label: &str, group: &dyn GroupReader) {
        if let Some(bytes) = group.memory_current() {
            self.memory.with_label_values(&[label]).set(bytes as f64);
        }
        if let Some(bytes) = group.limit() {
            self.limit.with_label_values(&[label]).set(bytes as f64);
        }
        if let Some((some, full)) = group.psi_totals_us() {
            self.waiting.with_label_values(&[label]).inc_by(some as f64 / MICROS);
            self.stalled.with_label_values(&[label]).inc_by(full as f64 / MICROS);
        }
    }
}

impl GroupCollector {
    pub(super) fn new(published: Arc<Published>, dropped: IntCounter) -> prometheus::Result<GroupCollector> {
        Ok(GroupCollector { published, dropped, template: Families::new()? })
    }
}

impl Collector for GroupCollector {
    fn desc(&self) -> Vec<&Desc> {
        let Families { memory, limit, waiting, stalled } = &self.template;
        [memory.desc(), limit.desc(), waiting.desc(), stalled.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(families) = Families::new() else { return Vec::new() };
        let groups = self.published.groups();
        let mut seen: HashSet<String> = HashSet::with_capacity(groups.len().min(MAX_SERIES));
        let mut label_bytes = 0;
        for group in groups.iter() {
            let label = group.path().to_string();
            // Two groups can look alike once their names are escaped; one series can't be both.
            if seen.len() == MAX_SERIES || label_bytes + label.len() > MAX_LABEL_BYTES || seen.contains(&label) {
                self.dropped.inc();
                continue;
            }
            families.add(&label, &**group);
            label_bytes += label.len();
            seen.insert(label);
        }
        let Families { memory, limit, waiting, stalled } = families;
        [memory.collect(), limit.collect(), waiting.collect(), stalled.collect()].concat()
    }
}

#[cfg(test)]
mod tests;
