//! Every metric of the daemon: docs/metrics.md says what each one means.
//!
//! The warden raises atomics through handles; names and labels are resolved when a policy is loaded, never when
//! something happens. Encoding, and everything that reads files for a scrape, happens on the thread that asks.
//!
//! A rule's counters exist at 0 from the start, so that `increase()` sees the first kill. They outlive reloads: a rule
//! of the same name goes on counting, one that is gone keeps its sums. Only the info series follow the policy ([`super::in_force`]).
//!
//! A scrape reads files that may not answer for seconds. It holds nothing meanwhile that the warden takes.

use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::eventfd::EventFd;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::groups::{GroupCollector, Published};
use super::in_force::{InForce, PolicyCollector};
use super::lms::LmsMetrics;
use super::process::ProcessCollector;
use super::registry::{int_counter, int_counters, int_gauge, int_gauges, keep};
use super::rules::{FailureReason, Phase, RuleCounters};
use crate::act::outcome::Outcome;
use crate::degraded::{Degraded, Reason};
use crate::kernel_kills::log::parse::Scope;
use crate::policy::model::{Policy, Rule};
use crate::policy::words::Trigger;
use crate::sense::lms::Report;
use crate::threads::WATCHED;

/// Upper bounds of the reaction histogram, seconds: a judgement takes microseconds, a death up to its deadline.
const BUCKETS: [f64; 16] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// How a group is sensed: the label of `oomwarden_groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sensing {
    /// By the kernel's notices for the group itself.
    Trigger,
    /// By an ancestor's.
    Ancestor,
    /// By reading it on a timer.
    Timer,
}

impl Sensing {
    /// All ways, in their order.
    pub const ALL: [Sensing; 3] = [Sensing::Trigger, Sensing::Ancestor, Sensing::Timer];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Sensing::Trigger => "trigger",
            Sensing::Ancestor => "ancestor",
            Sensing::Timer => "timer",
        }
    }
}

/// Why a notice was let go: the label of `oomwarden_notices_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// More came at once than can wait to be judged.
    QueueFull,
    /// More groups told of trouble in one turn than can be given triggers.
    TroubledFull,
    /// There was no place for one more ladder.
    NoPlace,
    /// It waited for a closer look for too long.
    TooLate,
    /// The table of cool-downs and kept events was full.
    TableFull,
}

impl Dropped {
    /// All reasons, in their order.
    pub const ALL: [Dropped; 5] = [Dropped::QueueFull, Dropped::TroubledFull, Dropped::NoPlace, Dropped::TooLate, Dropped::TableFull];

    /// The label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Dropped::QueueFull => "queue_full",
            Dropped::TroubledFull => "troubled_full",
            Dropped::NoPlace => "no_place",
            Dropped::TooLate => "too_late",
            Dropped::TableFull => "table_full",
        }
    }
}

/// The registry and the handles.
#[derive(Debug)]
pub struct Counters {
    registry: Registry,
    published: Arc<Published>,
    in_force: Arc<InForce>,
    degraded: Arc<Degraded>,
    groups: [IntGauge; Sensing::ALL.len()],
    psi_triggers: IntGauge,
    listeners: IntGauge,
    trigger_events: IntCounterVec,
    notices_dropped: [IntCounter; Dropped::ALL.len()],
    judgements: IntCounterVec,
    kills: IntCounterVec,
    processes: IntCounterVec,
    failures: IntCounterVec,
    freed: IntCounterVec,
    phases: [Histogram; Phase::ALL.len()],
    paused: IntGauge,
    breakers: IntGauge,
    oom_group_resets: IntCounter,
    thread_deaths: IntCounterVec,
    journal_dropped: IntCounter,
    reloads: IntCounter,
    reload_failures: IntCounter,
    reload_successful: IntGauge,
    reload_time: Gauge,
    lms: LmsMetrics,
    kernel_kills: [IntCounter; Scope::ALL.len()],
    /// Whoever counts the kernel's kills is asked to look by this, when somebody wants to know.
    kernel_counts: OnceLock<Arc<EventFd>>,
}

impl Counters {
    /// Registers everything.
    ///
    /// # Errors
    /// A metric's name or labels that the registry refuses: an error in the program, not in its surroundings.
    pub fn new() -> prometheus::Result<Counters> {
        let registry = Registry::new();
        let published = Arc::new(Published::default());
        let series_dropped = IntCounter::new(
            "oomwarden_series_dropped_total",
            "Series of groups that were left out of a scrape because there were too many, counted in each scrape.",
        )?;
        registry.register(Box::new(series_dropped.clone()))?;
        registry.register(Box::new(GroupCollector::new(Arc::clone(&published), series_dropped)?))?;
        registry.register(Box::new(ProcessCollector::new()?))?;
        let in_force = Arc::new(InForce::default());
        registry.register(Box::new(PolicyCollector::new(Arc::clone(&in_force))?))?;
        let build_info = IntGaugeVec::new(Opts::new("oomwarden_build_info", "The running version; the value is 1."), &["version"])?;
        keep(&registry, &build_info)?.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let groups = int_gauges(&registry, "oomwarden_groups", "Groups that are watched, by how they are sensed.", "sensing")?;
        let phases = HistogramVec::new(
            HistogramOpts::new(
                "oomwarden_reaction_duration_seconds",
                "Time from a notice's arrival to the end of a phase: notice (the judgement begins), decide (the verdict), kill (sent), empty (verified).",
            )
            .buckets(BUCKETS.to_vec()),
            &["phase"],
        )?;
        registry.register(Box::new(phases.clone()))?;
        let r = &registry;
        let kernel_kills = int_counters(
            r,
            "oomwarden_kernel_oom_kills_total",
            "Processes that the kernel's own OOM killer ended: by a group's limit (memcg), or because the machine was out of memory (global).",
            &["scope"],
        )?;
        let thread_deaths = int_counters(
            r,
            "oomwarden_thread_deaths_total",
            "How often a thread of the daemon died of a panic, or of a failure that ended its work, and was begun anew or left.",
            &["thread"],
        )?;
        for name in WATCHED {
            thread_deaths.with_label_values(&[name]);
        }
        let dropped = int_counters(
            r,
            "oomwarden_notices_dropped_total",
            "Notices that were let go for want of room or time, by reason; what lasts is noticed again, an event is not.",
            &["reason"],
        )?;
        let counters = Counters {
            notices_dropped: Dropped::ALL.map(|why| dropped.with_label_values(&[why.word()])),
            kernel_kills: Scope::ALL.map(|scope| kernel_kills.with_label_values(&[scope.word()])),
            kernel_counts: OnceLock::new(),
            in_force,
            groups: Sensing::ALL.map(|sensing| groups.with_label_values(&[sensing.word()])),
            psi_triggers: int_gauge(r, "oomwarden_psi_triggers", "PSI triggers that are armed in the kernel.")?,
            listeners: int_gauge(r, "oomwarden_pressure_listeners", "Connections at the pressure socket.")?,
            trigger_events: int_counters(r, "oomwarden_trigger_events_total", "Notices that a rule's trigger gave.", &["rule", "trigger"])?,
            judgements: int_counters(r, "oomwarden_judgements_total", "Judgements, by how they ended.", &["rule", "outcome"])?,
            kills: int_counters(r, "oomwarden_kills_total", "Victims that were killed and verified to be gone.", &["rule"])?,
            processes: int_counters(r, "oomwarden_killed_processes_total", "Processes that died by the daemon's deeds.", &["rule"])?,
            failures: int_counters(r, "oomwarden_kill_failures_total", "Attempts to kill that failed, by reason.", &["rule", "reason"])?,
            freed: int_counters(r, "oomwarden_freed_bytes_total", "Anonymous memory and swap that victims gave back.", &["rule"])?,
            phases: Phase::ALL.map(|phase| phases.with_label_values(&[phase.word()])),
            paused: int_gauge(r, "oomwarden_paused", "Whether deeds are paused (1) or not (0).")?,
            breakers: int_gauge(
                r,
                "oomwarden_breaker_open",
                "Circuit breakers that are open: pairs of rule and subject for which the rule only observes, and the node's own.",
            )?,
            oom_group_resets: int_counter(
                r,
                "oomwarden_oom_group_resets_total",
                "How often somebody else reset memory.oom.group of a group of `kernel: oom_group`, and it was set again.",
            )?,
            thread_deaths,
            journal_dropped: int_counter(
                r,
                "oomwarden_journal_dropped_total",
                "Records that did not reach the journal: the queue was full, or a write failed.",
            )?,
            reloads: int_counter(r, "oomwarden_policy_reloads_total", "Policies taken over after the start.")?,
            reload_failures: int_counter(r, "oomwarden_policy_reload_failures_total", "Policies refused after the start.")?,
            reload_successful: int_gauge(
                r,
                "oomwarden_policy_last_reload_successful",
                "Whether the last policy that was offered was taken over (1) or refused (0).",
            )?,
            reload_time: keep(
                r,
                &Gauge::new(
                    "oomwarden_policy_last_reload_success_timestamp_seconds",
                    "When the policy in force was taken over, seconds since 1970.",
                )?,
            )?,
            lms: LmsMetrics::new(r)?,
            degraded: Arc::new(Degraded::new(r)?),
            published,
            registry,
        };
        Ok(counters)
    }

    /// The handles of a policy's rules, in their order. Allocates, and waits for a scrape that is just gathering them: for whoever loads a
    /// policy, not for the warden.
    #[must_use]
    pub fn for_policy(&self, policy: &Policy) -> Arc<[RuleCounters]> {
        policy.rules.iter().map(|rule| self.for_rule(rule)).collect()
    }

    fn for_rule(&self, rule: &Rule) -> RuleCounters {
        let name = &*rule.name;
        let trigger = |trigger| self.trigger_events.with_label_values(&[name, &Trigger(trigger).to_string()]);
        RuleCounters {
            triggers: rule.when.iter().map(trigger).collect(),
            judgements: Outcome::ALL.map(|outcome| self.judgements.with_label_values(&[name, outcome.word()])),
            kills: self.kills.with_label_values(&[name]),
            processes: self.processes.with_label_values(&[name]),
            freed: self.freed.with_label_values(&[name]),
            failures: FailureReason::ALL.map(|reason| self.failures.with_label_values(&[name, reason.word()])),
            phases: self.phases.clone(),
        }
    }

    /// Which policy is in force, as the info series tell.
    #[must_use]
    pub fn in_force(&self) -> &InForce {
        &self.in_force
    }

    /// The policy that the daemon starts with was taken over.
    pub fn policy_started(&self, now: SystemTime) {
        self.degraded.clear(Reason::Policy);
        self.reload_successful.set(1);
        self.reload_time.set(now.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));
    }

    /// A policy was taken over after the start.
    pub fn policy_reloaded(&self, now: SystemTime) {
        self.reloads.inc();
        self.policy_started(now);
    }

    /// A policy was refused after the start; the old one stays. `text` says in one line what is wrong and what is in force.
    pub fn policy_refused(&self, text: String) {
        self.degraded.set(Reason::Policy, text);
        // The count last: who sees it rise finds the state already told.
        self.reload_successful.set(0);
        self.reload_failures.inc();
    }

    /// How many groups are sensed that way. Allocates nothing.
    pub fn set_groups(&self, sensing: Sensing, groups: usize) {
        self.groups[sensing as usize].set(i64::try_from(groups).unwrap_or(i64::MAX));
    }

    /// So many listen at the pressure socket.
    pub fn set_listeners(&self, count: usize) {
        self.listeners.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many PSI triggers are armed. Allocates nothing.
    pub fn set_psi_triggers(&self, triggers: usize) {
        self.psi_triggers.set(i64::try_from(triggers).unwrap_or(i64::MAX));
    }

    /// Whether deeds are paused. Allocates nothing.
    pub fn set_paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
    }

    /// How many circuit breakers are open. Allocates nothing.
    pub fn set_breakers(&self, open: usize) {
        self.breakers.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// How many victims a rule has killed since the start, whatever became of the rule. Allocates.
    #[must_use]
    pub fn kills(&self, rule: &str) -> u64 {
        self.kills.get_metric_with_label_values(&[rule]).map_or(0, |kills| kills.get())
    }

    /// Whether the policy that was offered last is in force.
    #[must_use]
    pub fn is_last_policy_in_force(&self) -> bool {
        self.reload_successful.get() == 1
    }

    /// The daemon starts with another policy, taken over at `since`, because the one that it was given is refused: `text` as above.
    pub fn policy_fell_back(&self, since: SystemTime, text: String) {
        self.policy_started(since);
        self.degraded.set(Reason::Policy, text);
        self.reload_successful.set(0);
    }

    /// What the kernel module says; `None`: it isn't loaded, or can't be read. To be called with each reading, by one thread.
    /// Allocates nothing.
    pub fn set_lms(&self, report: Option<&Report>) {
        self.lms.set(report);
    }

    /// The kernel's own OOM killer ended so many processes.
    pub fn kernel_killed(&self, scope: Scope, processes: u64) {
        self.kernel_kills[scope as usize].inc_by(processes);
    }

    /// `wake` is written to at each scrape: where nothing gives notice of the kernel's kills, they are looked for then.
    pub fn on_scrape(&self, wake: Arc<EventFd>) {
        // Set once, by the only one who counts.
        let _ = self.kernel_counts.set(wake);
    }

    /// The counter of groups whose memory.oom.group somebody else reset, for the thread that sets
    /// it again.
    #[must_use]
    pub fn oom_group_resets(&self) -> IntCounter {
        self.oom_group_resets.clone()
    }

    /// The counter of threads that died, by thread.
    #[must_use]
    pub fn thread_deaths(&self) -> &IntCounterVec {
        &self.thread_deaths
    }

    /// The counter of lost records, for the pool and the recorder.
    #[must_use]
    pub fn journal_dropped(&self) -> IntCounter {
        self.journal_dropped.clone()
    }

    /// The counters of notices that are let go, in the order of [`Dropped::ALL`].
    #[must_use]
    pub fn notices_dropped(&self) -> [IntCounter; Dropped::ALL.len()] {
        self.notices_dropped.clone()
    }

    /// The groups whose memory a scrape shows.
    #[must_use]
    pub fn published(&self) -> &Arc<Published> {
        &self.published
    }

    /// What keeps the daemon from doing all that it was set up for.
    #[must_use]
    pub fn degraded(&self) -> &Arc<Degraded> {
        &self.degraded
    }

    /// Everything in the text format of Prometheus. Allocates and reads files: not for the warden.
    ///
    /// # Errors
    /// Metrics that can't be encoded: an error in the program.
    pub fn encode(&self) -> prometheus::Result<String> {
        if let Some(wake) = self.kernel_counts.get() {
            // Fails only at its limit: then it is awake already.
            let _ = wake.write(1);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
