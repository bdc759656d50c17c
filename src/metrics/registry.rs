//! Registering metrics.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

pub(super) fn keep<M: Collector + Clone + 'static>(registry: &Registry, metric: &M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric.clone())
}

pub(super) fn int_counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    keep(registry, &IntCounter::new(name, help)?)
}

pub(super) fn int_counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    keep(registry, &IntCounterVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn int_gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    keep(registry, &IntGauge::new(name, help)?)
}

fn int_gauge_vec(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    keep(registry, &IntGaugeVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn int_gauges(registry: &Registry, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    int_gauge_vec(registry, name, help, &[label])
}
