//! The policy between text and compiled form: every value read, every place kept, nothing compared with anything else.
//!
//! Rules that could not be read whole are left out; their names are kept, so that a name given twice is noticed all
//! the same. Nobody compiles a draft while the report holds errors.

use std::time::Duration;

use super::diagnostic::Place;
use super::model::{Condition, KillLimit, Mode, RankBy, Rung, Trigger};
use crate::units::Bytes;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub at: Place,
    pub value: T,
}

impl<T> At<T> {
    pub fn new(at: Place, value: T) -> At<T> {
        At { at, value }
    }
}

/// Globs as written.
pub(super) type Patterns = Vec<At<String>>;

/// All sources together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub mode: Option<At<Mode>>,
    pub cooldown: Option<At<Duration>>,
    pub exclude: Vec<At<Exclude>>,
    pub importance: Vec<At<Importance>>,
    pub names: Vec<At<String>>,
    pub rules: Vec<Rule>,
    /// How many entries of `rules` there are, readable or not.
    pub rule_count: usize,
    pub oom_group: Option<Patterns>,
    pub hold: Option<At<Duration>>,
    pub limit: Option<At<KillLimit>>,
    pub node_limit: Option<At<KillLimit>>,
    pub kill_one_in: Option<Patterns>,
    pub oomd_xattrs: Option<At<bool>>,
}

#[derive(Debug)]
pub(super) struct Exclude {
    pub group: Patterns,
    pub comm: Option<(String, Box<[u8]>)>,
}

#[derive(Debug)]
pub(super) struct Importance {
    pub group: Patterns,
    pub value: i64,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub name: At<String>,
    pub mode: Option<Mode>,
    pub cooldown: Option<Duration>,
    pub watch: Patterns,
    pub when: Vec<At<Trigger>>,
    pub only_if: Vec<At<Condition>>,
    pub victim: At<Victim>,
    pub ladder: Vec<Rung>,
    pub spare_unkillable: bool,
}

#[derive(Debug)]
pub(super) enum Victim {
    Subject,
    Among(Among),
}

#[derive(Debug)]
pub(super) struct Among {
    /// `None` is `leaves`.
    pub groups: Option<Patterns>,
    pub at_least: Bytes,
    pub or_largest: bool,
    pub rank: Vec<RankBy>,
}
