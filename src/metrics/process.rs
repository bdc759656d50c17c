//! The daemon's own numbers, `process_*` by the names that Prometheus' clients agreed on, read at scrape time.
//!
//! What can't be read is left out of the scrape.

use procfs::process::{LimitValue, Process, Stat};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Reads /proc/self.
pub(super) struct ProcessCollector {
    /// The time of boot, seconds since 1970; read once, because later readings of it drift with the clock.
    boot_seconds: Option<u64>,
    template: Families,
}

struct Families {
    cpu: Counter,
    resident: Gauge,
    virtual_memory: Gauge,
    start_time: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        Ok(Families {
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time spent.")?,
            resident: Gauge::new("process_resident_memory_bytes", "Resident memory.")?,
            virtual_memory: Gauge::new("process_virtual_memory_bytes", "Virtual memory.")?,
            start_time: Gauge::new("process_start_time_seconds", "When the process started, seconds since 1970.")?,
            threads: Gauge::new("process_threads", "Threads.")?,
            open_fds: Gauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: Gauge::new("process_max_fds", "The limit of open file descriptors.")?,
        })
    }
}

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<ProcessCollector> {
        Ok(ProcessCollector { boot_seconds: procfs::boot_time_secs().ok(), template: Families::new()? })
    }

    fn of_stat(&self, families: &Families, stat: &Stat) -> Vec<MetricFamily> {
        let ticks = procfs::ticks_per_second().max(1) as f64;
        families.cpu.inc_by((stat.utime + stat.stime) as f64 / ticks);
        families.resident.set((stat.rss * procfs::page_size()) as f64);
        families.virtual_memory.set(stat.vsize as f64);
        families.threads.set(stat.num_threads as f64);
        let mut all =
            [families.cpu.collect(), families.resident.collect(), families.virtual_memory.collect(), families.threads.collect()].concat();
        if let Some(boot) = self.boot_seconds {
            families.start_time.set(boot as f64 + stat.starttime as f64 / ticks);
            all.extend(families.start_time.collect());
        }
        all
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let Families { cpu, resident, virtual_memory, start_time, threads, open_fds, max_fds } = &self.template;
        let gauges = [resident, virtual_memory, start_time, threads, open_fds, max_fds];
        cpu.desc().into_iter().chain(gauges.into_iter().flat_map(Collector::desc)).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Ok(families), Ok(process)) = (Families::new(), Process::myself()) else { return Vec::new() };
        let mut all = process.stat().map_or_else(|_| Vec::new(), |stat| self.of_stat(&families, &stat));
        if let Ok(open) = process.fd_count() {
            families.open_fds.set(open as f64);
            all.extend(families.open_fds.collect());
        }
        if let Ok(limits) = process.limits() {
            let max = match limits.max_open_files.soft_limit {
                LimitValue::Unlimited => f64::INFINITY,
                LimitValue::Value(value) => value as f64,
            };
            families.max_fds.set(max);
            all.extend(families.max_fds.collect());
        }
        all
    }
}
