//! What a policy would do to the groups of this machine, for people and programs that ask beforehand. Nothing here acts, and
//! no daemon is needed.
//!
//! The same code as the daemon's looks, gathers and judges: the tree of `sense`, the court of `gather`, the judge of
//! `decide`, and the words of the journal. What a daemon has and one look has not: when groups were made (only their order
//! is known), growth and stall over the last seconds (watched for a moment where a rule asks), cool-downs, and ladders under way.
//!
//! - [`onlooker`]: one look at the tree.
//! - [`daemon`]: the oomwarden that is running here, whose own group must live.
//! - [`plan`]: whom each rule would kill right now.
//! - [`explain`]: what a policy says of one group.

pub mod daemon;
pub mod explain;
pub mod onlooker;
pub mod plan;

use std::sync::Arc;

use crate::policy::Loaded;
use crate::policy::model::Policy;
use crate::policy::places::Places;

/// The policy that is asked about.
#[derive(Debug)]
pub struct Asked {
    /// As it is.
    pub policy: Arc<Policy>,
    /// Where its entries stand.
    pub places: Places,
    /// The same without conditions: whom it would choose if they held.
    confirmed: Policy,
}

impl Asked {
    /// Where it was read.
    fn files(&self) -> Vec<String> {
        self.places.files.iter().map(ToString::to_string).collect()
    }
}

impl From<Loaded> for Asked {
    fn from(Loaded { policy, places, .. }: Loaded) -> Asked {
        let mut confirmed = policy.clone();
        confirmed.rules.iter_mut().for_each(|rule| rule.only_if.clear());
        Asked { policy: Arc::new(policy), places, confirmed }
    }
}

#[cfg(test)]
pub(crate) mod testing;
