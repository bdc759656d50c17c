//! The compiled policy: what the other rooms read.
//!
//! A value of [`Policy`] is sound by construction: every name is unique, every ladder ends in a kill, every glob is
//! compiled. It is shared as `Arc<Policy>` and never changes; a reload makes a new one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::globs::Globs;
use crate::units::{Bytes, Share};

/// How many rules, and how many exclusions, one policy may hold: classes of groups are sets of fixed size.
pub const MAX_ENTRIES: usize = 256;

/// A set of entries of the policy (rules, exclusions), by index. Fixed size, so that copying one allocates nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntrySet([u64; MAX_ENTRIES / 64]);

impl EntrySet {
    /// The empty set.
    pub const EMPTY: EntrySet = EntrySet([0; MAX_ENTRIES / 64]);

    /// Adds `index`; an index at or above [`MAX_ENTRIES`] is ignored (the compiler refuses such policies).
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether `index` is in the set.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Everything that is in either set.
    #[must_use]
    pub fn union(mut self, other: &EntrySet) -> EntrySet {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }

    /// The indices in the set, rising.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (bit < 64).then(|| {
                    rest &= rest - 1;
                    at * 64 + bit as usize
                })
            })
        })
    }
}

impl FromIterator<usize> for EntrySet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> EntrySet {
        let mut set = EntrySet::EMPTY;
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

/// Judge and act, or judge and record only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Verdicts are carried out.
    Enforce,
    /// Verdicts are recorded, no deed follows.
    Observe,
}

/// A checked policy. See the module text for what that promises.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A short hexadecimal fingerprint of the policy's text, for `policy_hash` in the journal and `oomwarden_policy_info`.
    pub hash: Arc<str>,
    /// For the whole policy; a rule's own mode can only be stricter or looser by its `mode` key (already resolved there).
    pub mode: Mode,
    /// Exclusions, in the order of the text.
    pub exclude: Vec<Exclude>,
    /// Importance, in the order of the text: the first match wins.
    pub importance: Vec<Importance>,
    /// Rules, in the order of the text.
    pub rules: Vec<Rule>,
    /// Groups in which oomwarden sets `memory.oom.group=1`, if the policy asks for that.
    pub oom_group: Option<Globs>,
    /// How long the kernel module may hold an OOM of the whole node back while oomwarden acts: whole milliseconds, 1 ms to
    /// [`LONGEST_HOLD`]. `None`: as long as the module's own parameter says.
    pub hold: Option<Duration>,
    /// The circuit breaker, if the policy has one.
    pub limit: Option<KillLimit>,
    /// `limits: {node: 20 per 10m}`: the same over all rules together but for those about the node itself (`watch: /`).
    pub node_limit: Option<KillLimit>,
    /// Groups that are no unit, such as the scope of a login: where a rule kills a group, here it kills one process, as by `kill: process`.
    /// Covers everything below them.
    pub kill_one_in: Option<Globs>,
    /// `systemd: {oomd_xattrs: ...}`: a victim's directory gets the extended attributes by which
    /// systemd learns that a unit was killed for its memory.
    pub oomd_xattrs: bool,
}

/// `limits: {kills: 5 per 10m}`: beyond it a rule only observes for a subject. Counted for each rule and subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillLimit {
    /// So many, 1 to [`MOST_KILLS`]...
    pub kills: u32,
    /// ...within this time, [`SHORTEST_LIMIT`] to a day.
    pub per: Duration,
}

/// The most kills that a limit can allow.
pub const MOST_KILLS: u32 = 100;
/// The shortest time that a limit can count over.
pub const SHORTEST_LIMIT: Duration = Duration::from_secs(1);

/// The longest hold that can be asked for: the kernel's killer waits as long, and so does everyone who needs memory.
pub const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// One exclusion. Covers a group and everything below it.
#[derive(Clone, Debug)]
pub struct Exclude {
    /// The groups.
    pub group: Globs,
    /// If given, only those of the groups that hold a process with this comm (1 to 15 bytes, compared exactly).
    pub comm: Option<Box<[u8]>>,
    /// The entry in words, for reasons: `/db.slice/** holding comm postgres`.
    pub text: Arc<str>,
}

/// One line of `importance`. The lowest value dies first, strictly.
#[derive(Clone, Debug)]
pub struct Importance {
    /// The groups; covers descendants.
    pub group: Globs,
    /// 0 is what a group has where nothing matches.
    pub value: i64,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Unique in the policy.
    pub name: Arc<str>,
    /// The rule's own mode, or else the policy's.
    pub mode: Mode,
    /// Time after a deed in which the same rule does nothing to the same subject.
    pub cooldown: Duration,
    /// Each matching group is a subject of its own.
    pub watch: Globs,
    /// Any of these starts a judgement. Never empty.
    pub when: Vec<Trigger>,
    /// All of these must hold on fresh facts.
    pub only_if: Vec<Condition>,
    /// Who may die.
    pub victim: Victim,
    /// How. Never empty; `Kill` is last and only there.
    pub ladder: Vec<Rung>,
    /// A group that holds a process with oom_score_adj -1000 is no victim, which is the default. Without it such a group may die whole;
    /// oomwarden's own group and that of process 1 never do.
    pub spare_unkillable: bool,
}

impl Rule {
    /// Whether a kill by this rule takes a single process of a group of this class.
    #[must_use]
    pub fn kills_one(&self, class: &GroupClass) -> bool {
        class.kill_one || matches!(self.ladder.last(), Some(Rung::Kill(KillWhat::Process)))
    }
}

/// What starts a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A PSI trigger of memory.pressure: Documentation/accounting/psi.rst.
    Psi(Psi),
    /// A counter of memory.events rose: Documentation/admin-guide/cgroup-v2.rst.
    Event(EventKind),
    /// Usage above a share or an amount, for some time.
    Usage(UsageTest, Duration),
    /// MemAvailable of the node below a level, for some time.
    Available(Level, Duration),
    /// SwapFree of the node below a level, for some time.
    SwapFree(Level, Duration),
    /// The kernel module reports this level, or a worse one.
    Lms(LmsLevel),
}

/// A level of the kernel module's low memory signal that is worse than `ok`; the later the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LmsLevel {
    /// Available memory is below the module's first threshold.
    Warn,
    /// It is below the second.
    Kill,
    /// An allocation found none: the kernel is about to kill, or was a moment ago.
    Oom,
}

/// What must hold besides, on fresh facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Usage of the subject.
    Usage(UsageTest),
    /// MemAvailable of the node.
    Available(Level),
    /// SwapFree of the node. A node without swap has no free swap: the condition holds.
    SwapFree(Level),
}

/// `some` or `full` of a PSI file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PsiKind {
    /// At least one task stalled.
    Some,
    /// All non-idle tasks stalled at once.
    Full,
}

/// A PSI trigger as the policy words it, before any fall-back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Psi {
    /// Which line.
    pub kind: PsiKind,
    /// Stall time within the window; above zero and at most the window.
    pub stall: Duration,
    /// The window; 1 ms to 10 s.
    pub window: Duration,
}

/// A counter of memory.events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// Reclaimed although below memory.low.
    Low,
    /// Throttled over memory.high.
    High,
    /// About to go over memory.max.
    Max,
    /// At the limit and an allocation was about to fail.
    Oom,
    /// A process was killed by any kind of kernel OOM killer.
    OomKill,
    /// A whole group was killed by the kernel.
    OomGroupKill,
}

/// What a usage is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageOf {
    /// The smallest memory.max along the ancestors.
    Max,
    /// The smallest memory.high along the ancestors.
    High,
    /// MemTotal of the node.
    Node,
}

/// `usage: {above: 95%, of: max}` or `usage: {above: 512MiB}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageTest {
    /// Above this share. Where nothing sets the limit the test never holds.
    Share(Share, UsageOf),
    /// Above this amount.
    Amount(Bytes),
}

/// `below: 5%`, `below: 512MiB` or `below: {share: 5%, at_most: 1GiB}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Below this share of the node's total (memory or swap).
    pub share: Option<Share>,
    /// Below this amount; together with `share` the smaller of the two counts.
    pub at_most: Option<Bytes>,
}

impl Level {
    /// The level in bytes for a node with `total_bytes`; 0 (never below) if the policy gave neither.
    #[must_use]
    pub fn bytes(&self, total_bytes: u64) -> u64 {
        match (self.share, self.at_most) {
            (Some(share), Some(most)) => share.of(total_bytes).min(most.0),
            (Some(share), None) => share.of(total_bytes),
            (None, Some(most)) => most.0,
            (None, None) => 0,
        }
    }
}

/// Who may die.
#[derive(Clone, Debug)]
pub enum Victim {
    /// The whole subject.
    Subject,
    /// One of the leaves of what is named here.
    Among(Among),
}

/// `victim: {among: ...}`.
#[derive(Clone, Debug)]
pub struct Among {
    /// Whose leaves are the candidates.
    pub groups: AmongGroups,
    /// Not worth killing below.
    pub at_least: Bytes,
    /// If all are below `at_least`, take the largest all the same.
    pub or_largest: bool,
    /// After strict importance. Never empty.
    pub rank: Vec<RankBy>,
}

/// The groups that `among` names.
#[derive(Clone, Debug)]
pub enum AmongGroups {
    /// By globs over the whole tree.
    Globs(Globs),
    /// `leaves`: the leaves below (or the same as) the subject.
    Leaves,
}

/// One rank key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RankBy {
    /// What is compared.
    pub key: RankKey,
    /// Values that differ by at most this share of the larger one count as equal, so that the next key decides.
    pub within: Option<Share>,
}

/// What candidates are compared by. The first named is the one that dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankKey {
    /// anon + swap; larger first.
    Usage,
    /// memory.swap.current; larger first.
    Swap,
    /// Usage gained per second over the last 10 s; larger first.
    Growth,
    /// Stall (full) in the last second; larger first.
    Pressure,
    /// Usage above memory.low; larger first.
    Overage,
    /// The largest oom_score of its processes; larger first.
    OomScore,
    /// Younger dies first.
    Age,
}

/// One rung of the ladder. Cloning one allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Whoever listens is told, and whoever handles the signal gets it; then wait.
    Warn {
        /// The signal, if there is to be one.
        signal: Option<WarnSignal>,
        /// Time to free memory.
        wait: Duration,
    },
    /// A program of the administrator's is run.
    Hook(Arc<Hook>),
    /// SIGTERM to every process, then wait.
    Term {
        /// Grace time.
        wait: Duration,
    },
    /// SIGKILL.
    Kill(KillWhat),
}

/// A signal that programs may give a meaning of their own: SIGUSR1, SIGUSR2, or a real-time signal (signal(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarnSignal(i32);

/// Where real-time signals begin, as glibc counts: the kernel's first two are kept by the C library.
const RT_MIN: i32 = 34;
/// The last of them.
const RT_MAX: i32 = 64;

impl WarnSignal {
    /// SIGUSR1.
    pub const USR1: WarnSignal = WarnSignal(10);
    /// SIGUSR2.
    pub const USR2: WarnSignal = WarnSignal(12);

    /// SIGRTMIN plus so many; `None` beyond SIGRTMAX.
    #[must_use]
    pub fn real_time(above: u8) -> Option<WarnSignal> {
        let number = RT_MIN + i32::from(above);
        (number <= RT_MAX).then_some(WarnSignal(number))
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for WarnSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            WarnSignal::USR1 => f.write_str("SIGUSR1"),
            WarnSignal::USR2 => f.write_str("SIGUSR2"),
            WarnSignal(RT_MIN) => f.write_str("SIGRTMIN"),
            WarnSignal(number) => write!(f, "SIGRTMIN+{}", number - RT_MIN),
        }
    }
}

/// What a hook runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program by its absolute path, then its arguments. Never empty, no NUL.
    pub exec: Vec<String>,
    /// How long it may take; above zero.
    pub timeout: Duration,
}

/// What the last rung kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillWhat {
    /// The group and everything below it.
    Group,
    /// Its single process with the highest oom_score, then RSS.
    Process,
}

/// What a policy says of one group, worked out once when the group is found, so that judging needs no globs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupClass {
    /// The exclusion (without comm) that covers the group, its own or an ancestor's.
    pub excluded: Option<u16>,
    /// Exclusions with a comm that cover the group if it holds such a process; an ancestor's included.
    pub comm_excludes: EntrySet,
    /// Matched lines of `importance`, an ancestor's included: needed to class children.
    pub importance_entries: EntrySet,
    /// The value of the first of them, else 0.
    pub importance: i64,
    /// Rules of which the group is a subject.
    pub subject_of: EntrySet,
    /// Rules whose `among` globs name the group itself.
    pub among: EntrySet,
    /// `kernel: oom_group` names it.
    pub oom_group: bool,
    /// `kill_one_in` names it or an ancestor.
    pub kill_one: bool,
}
