//! The policy in force, for the info series: what a scrape shows of it is made when the scrape comes.
//!
//! The warden only moves a pointer here, and whoever reads copies it; no lock is held for longer than that, so that a scrape which reads
//! a file that does not answer keeps no policy from taking over.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::policy::model::Policy;
use crate::policy::words::mode_word;

/// Which policy is in force, once one is.
#[derive(Debug, Default)]
pub struct InForce(Mutex<Option<Arc<Policy>>>);

impl InForce {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Policy>>> {
        // A pointer is whole, whoever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This one is from now on.
    pub fn set(&self, policy: &Arc<Policy>) {
        let old = self.lock().replace(Arc::clone(policy));
        // Its last owner frees it: with the lock released.
        drop(old);
    }

    /// The policy in force.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Policy>> {
        self.lock().clone()
    }
}

/// The info series. Both are made of one look at the policy, so that no scrape sees a policy without its rules, or with another's.
pub(super) struct PolicyCollector {
    in_force: Arc<InForce>,
    template: Families,
}

struct Families {
    policy: IntGaugeVec,
    rules: IntGaugeVec,
}

impl Families {
    fn new() -> prometheus::Result<Families> {
        let gauges = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Families {
            policy: gauges("oomwarden_policy_info", "The policy in force, by its fingerprint; the value is 1.", &["hash"])?,
            rules: gauges(
                "oomwarden_rule_info",
                "The rules in force, with their mode (enforce or observe); the value is 1.",
                &["rule", "mode"],
            )?,
        })
    }
}

impl PolicyCollector {
    pub(super) fn new(in_force: Arc<InForce>) -> prometheus::Result<PolicyCollector> {
        Ok(PolicyCollector { in_force, template: Families::new()? })
    }
}

impl Collector for PolicyCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.template.policy.desc(), self.template.rules.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(policy), Ok(families)) = (self.in_force.get(), Families::new()) else { return Vec::new() };
        families.policy.with_label_values(&[&*policy.hash]).set(1);
        for rule in &policy.rules {
            families.rules.with_label_values(&[&*rule.name, mode_word(rule.mode)]).set(1);
        }
        [families.policy.collect(), families.rules.collect()].concat()
    }
}
