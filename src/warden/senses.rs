//! Everything that is held open, and what a notice means: which rule, which subject.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;

use super::census::Census;
use super::deaf::Deaf;
use super::kernels_turn::KernelsTurn;
use super::let_go::LetGo;
use super::levels::Sample;
use super::oom_group::{News, OomGroups};
use super::pending::{Pending, push, rule_index};
use super::signal::Signal;
use super::stall::Past;
use crate::cgroup::GroupId;
use crate::cgroup::group::{File, ReadBuf};
use crate::cgroup::parse;
use crate::cgroup::root::Root;
use crate::decide::facts::NodeFacts;
use crate::decide::verdict::Notice;
use crate::gather::sight::Sight;
use crate::metrics::counters::{Counters, Dropped, Sensing as Gauge};
use crate::metrics::groups::GroupReader;
use crate::metrics::published::Subject;
use crate::metrics::rules::RuleCounters;
use crate::policy::model::{EventKind, LmsLevel, Policy, Psi, PsiKind, Trigger};
use crate::sense::clerk::{Clerk, Errand, Reply};
use crate::sense::counters;
use crate::sense::glance::Glances;
use crate::sense::lms::Table;
use crate::sense::node::Node;
use crate::sense::poller::{Key, Poller, Token};
use crate::sense::process::Processes;
use crate::sense::psi::{self, Pool, Refused, total_us};
use crate::sense::tree::{Change, Slot, Touched, Tree};
use crate::sense::trend::Trends;

/// How often groups without notices, and triggers without a kernel's trigger, are read.
const TIMER: Duration = Duration::from_millis(250);
/// Groups whose trouble is told in one turn; those beyond tell it again.
const TROUBLED: usize = 64;
/// How soon a changed tree shows in a scrape.
const PUBLISH: Duration = Duration::from_millis(250);

/// What is held and looked at.
#[derive(Debug)]
pub struct Senses {
    /// The groups.
    pub tree: Tree,
    /// PSI triggers.
    pub(super) pool: Pool,
    /// Rules that wait for stall where there is none to read.
    pub(super) deaf: Deaf,
    pub(super) clerk: Clerk,
    /// Where memory.oom.group is to be set.
    pub oom_groups: OomGroups,
    node: Node,
    /// The kernel module's low memory signal.
    pub signal: Signal,
    /// Processes of groups that might die.
    pub processes: Processes,
    /// Growth and pressure over the last seconds.
    pub trends: Trends,
    /// For reading files of groups.
    pub buffer: ReadBuf,
    changes: Vec<Change>,
    pub(super) samples: Vec<Sample>,
    pub(super) renewed: Vec<(GroupId, Psi)>,
    pub(super) troubled: Vec<GroupId>,
    /// Quick looks below groups that are about to die.
    pub(super) glances: Glances,
    /// Notices that there was no room or time for.
    pub(super) let_go: LetGo,
    /// Kills that the kernel makes itself by memory.oom.group.
    pub(super) kernels_turn: KernelsTurn,
    pub(super) timer_due: Option<Duration>,
    pub(super) trend_due: Option<Duration>,
    publish_due: Option<Duration>,
    was_armed: bool,
    was_ready: bool,
    /// Groups that would have triggers found no room.
    pub(super) without_room: bool,
    /// Deeds are paused: memory.oom.group is not set.
    pub hands_off: bool,
}

impl Senses {
    /// Scans the tree and opens what is held.
    ///
    /// # Errors
    /// What could not be opened.
    #[expect(clippy::too_many_arguments, reason = "what it is made of; a struct of them would only rename them")]
    pub fn open(
        root: Arc<Root>,
        policy: &Arc<Policy>,
        psi_groups: usize,
        descriptors: usize,
        signal: Signal,
        mail: Arc<EventFd>,
        oom_groups: OomGroups,
        let_go: LetGo,
    ) -> io::Result<Senses> {
        let mut buffer = ReadBuf::new();
        // Without the right to lock, everything works but is slower when the node starves; the start says so.
        let _ = buffer.lock();
        let glances = Glances::start(Arc::clone(&root), Arc::clone(&mail))?;
        let mut tree = Tree::scan(root, policy, descriptors)?;
        tree.send_scout(Arc::clone(&mail))?;
        let (root, deaf) =
            tree.get(Tree::ROOT).map(|node| (node.group.id, Deaf::look(&node.group, &mut buffer))).ok_or(io::ErrorKind::NotFound)?;
        Ok(Senses {
            tree,
            pool: Pool::new(psi_groups, root),
            deaf,
            clerk: Clerk::start(mail)?,
            oom_groups,
            node: Node::open()?,
            signal,
            processes: Processes::open()?,
            trends: Trends::default(),
            buffer,
            changes: Vec::with_capacity(64),
            samples: Vec::new(),
            renewed: Vec::new(),
            troubled: Vec::with_capacity(TROUBLED),
            glances,
            let_go,
            kernels_turn: KernelsTurn::default(),
            timer_due: None,
            trend_due: None,
            publish_due: None,
            was_armed: false,
            was_ready: false,
            without_room: false,
            hands_off: false,
        })
    }

    /// What a judgement looks at.
    pub fn sight(&mut self) -> Sight<'_> {
        let Senses { tree, processes, trends, buffer, .. } = self;
        Sight { tree, processes, trends, buffer }
    }

    /// The node's memory now.
    pub fn read_node(&mut self) -> NodeFacts {
        let mut node = self.node.read(&mut self.buffer);
        node.lms = self.signal.look(&mut self.buffer);
        node
    }

    /// Whether every trigger that was asked for is armed, or known to be refused.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.pool.asked() == 0
    }

    /// Registers what came into the tree, forgets what went, and reads what was touched.
    #[expect(clippy::too_many_arguments, reason = "what a change concerns; a struct of borrows would only rename them")]
    pub fn apply_changes(
        &mut self,
        now: Duration,
        policy: &Policy,
        rules: &[RuleCounters],
        poller: &Poller,
        pending: &mut Vec<Pending>,
        mut gone: impl FnMut(GroupId),
        mut touched: impl FnMut(GroupId),
    ) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.clear();
        self.tree.take_changes(&mut changes);
        for change in &changes {
            match *change {
                Change::Added(slot) => {
                    self.tell_oom_groups(slot, News::Came, policy);
                    self.register(slot, poller);
                    let key = self.tree.key(slot);
                    self.events(key, now, policy, rules, pending);
                }
                Change::Settled(slot) => {
                    self.signal.table_outdated(now);
                    self.register(slot, poller);
                    self.arm(slot, now, policy, false, Past::None, poller);
                    self.tell_oom_groups(slot, News::Settled, policy);
                    self.add_samples(slot, policy, now);
                    self.changed_at(now);
                }
                Change::Removed(_, id) => {
                    self.signal.table_outdated(now);
                    self.drop_triggers(poller, |entry| entry == id);
                    self.samples.retain(|sample| sample.subject != id);
                    self.trends.forget(id);
                    if self.tree.slot_of(id).is_none() {
                        self.oom_groups.heard(News::Gone(id), policy);
                        gone(id);
                    }
                    self.changed_at(now);
                }
                Change::Touched(slot, Touched::Events) => {
                    let key = self.tree.key(slot);
                    self.events(key, now, policy, rules, pending);
                }
                Change::Touched(slot, Touched::Populated) => {
                    // We, or process 1, may have come into it.
                    self.signal.table_outdated(now);
                    if let Some(node) = self.tree.get(slot) {
                        touched(node.group.id);
                    }
                    self.arm_populated(slot, now, policy, poller);
                }
                Change::Touched(slot, Touched::OomGroup) => self.tell_oom_groups(slot, News::Written, policy),
                Change::Touched(slot, Touched::PressureSwitch) => self.pressure_switched(slot, now, policy, poller),
                Change::NoticesLost => {
                    self.oom_groups.heard(News::Lost, policy);
                    for slot in (0..).take(self.tree.places()) {
                        self.arm_populated(slot, now, policy, poller);
                    }
                }
            }
        }
        self.changes = changes;
        self.plan_timer(now);
    }

    pub(super) fn changed_at(&mut self, now: Duration) {
        self.publish_due.get_or_insert(now + PUBLISH);
    }

    fn plan_timer(&mut self, now: Duration) {
        let needed = if self.tree.needs_timer() || self.pool.timed() > 0 {
            Some(TIMER)
        } else {
            // Only to be tried again.
            self.pool.dead().next().map(|_| psi::RETRY)
        };
        self.timer_due = needed.map(|after| self.timer_due.map_or(now + after, |due| due.min(now + after)));
    }

    fn register(&mut self, slot: Slot, poller: &Poller) {
        let Some(node) = self.tree.get(slot) else { return };
        let Some(fd) = node.group.held(File::EventsLocal).or_else(|| node.group.held(File::Events)) else { return };
        // EEXIST after a reload; beyond the system's limits inotify and the timer remain.
        let _ = poller.add_notice(fd, Token::Events(self.tree.key(slot)));
    }

    fn tell_oom_groups(&mut self, slot: Slot, news: fn(GroupId) -> News, policy: &Policy) {
        if let Some(node) = self.tree.get(slot) {
            self.oom_groups.heard(news(node.group.id), policy);
        }
    }

    /// Makes the kernel module's table anew, if it is time: `fill` is given the empty one.
    pub fn renew_table(&mut self, now: Duration, fill: impl FnOnce(&mut Table, &mut Senses)) {
        if let Some(mut table) = self.signal.begin_table(now) {
            fill(&mut table, self);
            self.signal.write_table(table, &self.clerk);
        }
    }

    /// While the node is out of memory nothing is opened: an open may wait for a task that waits for memory, and the answer to
    /// that is ours to give. Groups that come are then held whole from the beginning, which begins when memory gets short.
    pub fn heed_shortage(&mut self) {
        let level = self.signal.report().and_then(|report| report.level);
        let out = level == Some(LmsLevel::Oom) || self.signal.hold().is_some();
        self.buffer.only_held(out);
        self.processes.only_held(out);
        self.tree.set_urgent(level.is_some() || out);
    }

    /// Takes what the clerk has done.
    pub fn clerk_replies(&mut self, now: Duration, policy: &Policy, poller: &Poller) {
        while let Some(reply) = self.clerk.reply() {
            match reply {
                Reply::Armed(key, fd, unprivileged) => {
                    let register = |fd: &OwnedFd| poller.add_notice(fd, Token::Psi(key)).is_ok();
                    if let Some(unwanted) = self.pool.armed_now(key, fd, unprivileged, now, register) {
                        self.clerk.send(Errand::Close(unwanted));
                    }
                    self.changed_at(now);
                }
                Reply::Empty(key) => self.without_processes(key, now, policy, poller),
                Reply::Refused(key, refused) => {
                    self.pool.refused(key, refused);
                    match refused {
                        Refused::Readable => self.timer_due = Some(Duration::ZERO),
                        Refused::Unreadable => self.changed_at(now),
                    }
                    self.plan_timer(now);
                }
                Reply::Table(table, result) => self.signal.table_written(table, result, now),
            }
        }
    }

    /// Takes the counters of a group and all below it as they are: what they told is dealt with.
    pub fn recount_below(&mut self, top: GroupId) {
        let Senses { tree, buffer, .. } = self;
        let Some(top) = tree.slot_of(top) else { return };
        let mut next = Some(top);
        while let Some(slot) = next {
            next = tree.next_in_preorder(top, slot);
            if let Some(node) = tree.get_mut(slot).filter(|node| node.counted)
                && let Ok(Some(events)) = counters::read(&node.group, node.first_child.is_some(), buffer)
            {
                node.events = events;
            }
        }
    }

    /// Whether there are as many groups below one as the kernel says; `judged`: how many a judgement saw there. Where that can't be
    /// read it is not assumed.
    ///
    /// The tree may have as many all the same: a group was removed and another was made under its name, and nobody looked at that one.
    pub fn knows_all_below(&mut self, top: Slot, judged: Option<u64>) -> bool {
        let Senses { tree, buffer, .. } = self;
        let Some(node) = tree.get(top) else { return true };
        // Kernels before 4.14 have no such file.
        let counted = node.group.read(File::GroupStat, buffer, parse::descendants);
        counted.is_ok_and(|count| count.flatten().is_none_or(|count| count == judged.unwrap_or_else(|| tree.count_below(top))))
    }

    /// Reads a group's counters and makes notices of those that rose.
    pub fn events(&mut self, key: Key, now: Duration, policy: &Policy, rules: &[RuleCounters], pending: &mut Vec<Pending>) {
        let Some(node) = self.tree.find(key).filter(|node| node.counted) else { return };
        // A failed read is no zero: the counters stay as they were, and the next notice looks again.
        let Ok(Some(read)) = counters::read(&node.group, node.first_child.is_some(), &mut self.buffer) else { return };
        let (before, group) = (node.events, node.group.id);
        if read == before {
            return;
        }
        if let Some(node) = self.tree.get_mut(key.slot) {
            node.events = read;
        }
        for (kind, from, to) in counters::risen(&before, &read) {
            if kind == EventKind::OomGroupKill {
                self.kernels_turn.killed(now, group);
            }
            self.risen(key.slot, Notice::Event(kind, from, to), kind, now, policy, rules, pending);
        }
    }

    /// Adds a notice. Whether it, or another one for its sake, was let go: that is counted.
    pub fn notice(&mut self, pending: &mut Vec<Pending>, one: Pending) -> bool {
        let let_go = push(pending, one);
        if let_go {
            self.let_go.count(Dropped::QueueFull, 1);
        }
        let_go
    }

    /// A counter rose at `place`: who is the subject?
    #[expect(clippy::too_many_arguments, reason = "what a notice concerns; a struct of borrows would only rename them")]
    fn risen(
        &mut self,
        place: Slot,
        notice: Notice,
        kind: EventKind,
        now: Duration,
        policy: &Policy,
        rules: &[RuleCounters],
        pending: &mut Vec<Pending>,
    ) {
        let Some(covered) = self.tree.get(place).map(|node| node.covered) else { return };
        for rule in covered.iter() {
            let Some(the_rule) = policy.rules.get(rule) else { continue };
            // The nearest of the group and its ancestors that the rule watches: only the deepest match is judged.
            let mut at = Some(place);
            let subject = loop {
                let Some(node) = at.and_then(|slot| self.tree.get(slot)) else { break None };
                if node.class.subject_of.contains(rule) {
                    break Some(node.group.id);
                }
                at = node.parent;
            };
            let Some(subject) = subject else { continue };
            let tells_trouble = matches!(kind, EventKind::High | EventKind::Max | EventKind::Oom);
            if tells_trouble && !self.troubled.contains(&subject) {
                if self.troubled.len() < TROUBLED {
                    self.troubled.push(subject);
                } else {
                    self.let_go.count(Dropped::TroubledFull, 1);
                }
            }
            for (index, when) in the_rule.when.iter().enumerate() {
                if *when == Trigger::Event(kind) {
                    if let Some(counters) = rules.get(rule) {
                        counters.trigger_event(index);
                    }
                    self.notice(pending, Pending { rule: rule_index(rule), subject, notice, arrived: now, weight: (0, 0) });
                }
            }
        }
    }

    /// Whether it is time to read what has no notices.
    #[must_use]
    pub fn timer_due(&self, now: Duration) -> bool {
        self.timer_due.is_some_and(|due| due <= now)
    }

    /// Reads what has no notices: groups without a watch, counters without a held file, triggers that the kernel refused.
    pub fn read_unnoticed(&mut self, now: Duration, policy: &Policy, rules: &[RuleCounters], pending: &mut Vec<Pending>) {
        if self.tree.needs_timer() {
            self.tree.rescan_unwatched();
            let unnoticed: Vec<Slot> = self.tree.degraded_slots().collect();
            for slot in unnoticed {
                self.events(self.tree.key(slot), now, policy, rules, pending);
            }
            self.oom_groups.read_unnoticed(now, &self.tree);
        }
        if self.pool.timed() > 0 {
            let Senses { pool, tree, buffer, .. } = self;
            let mut fired = Vec::new();
            let total = |group: GroupId, kind: PsiKind| {
                let node = tree.get(tree.slot_of(group)?)?;
                let pressure = node.group.read(File::Pressure, buffer, parse::pressure).ok()??;
                total_us(&pressure, kind)
            };
            pool.tick(now, total, |group, psi| fired.push((group, psi)));
            for (group, psi) in fired {
                self.stalled(group, psi, now, policy, rules, pending);
            }
        }
        // What refused a trigger may take one by now: a group's owner can switch its pressure off and on.
        while let Some(one) = self.pool.retry(now) {
            self.try_again(one);
        }
        self.timer_due = None;
        self.plan_timer(now);
    }

    /// Takes another policy over.
    pub fn adopt(&mut self, policy: &Arc<Policy>, now: Duration, poller: &Poller) {
        self.tree.reclass(policy);
        self.glances.policy_replaced();
        self.drop_triggers(poller, |_| true);
        let slots: Vec<Slot> = self.tree.slots().collect();
        for slot in slots {
            self.register(slot, poller);
            self.arm(slot, now, policy, false, Past::Watched, poller);
        }
        self.oom_groups.look_anew();
        self.start_samplers(policy, now);
        self.changed_at(now);
    }

    /// Reads what [`super::order`] goes by.
    pub fn weigh(&mut self, batch: &mut [Pending]) {
        let Senses { tree, buffer, .. } = self;
        for pending in batch {
            let node = tree.slot_of(pending.subject).and_then(|slot| tree.get(slot));
            let current = node.and_then(|node| node.group.read(File::Current, buffer, parse::value).ok().flatten());
            pending.weight = (node.map_or(0, |node| node.class.importance), current.unwrap_or(0));
        }
    }

    /// Nobody looked for a while: what was counted meanwhile goes to `pending`, and everything that could tell of
    /// stall or of a level from before begins anew.
    pub fn forget_the_past(&mut self, now: Duration, policy: &Policy, rules: &[RuleCounters], poller: &Poller, pending: &mut Vec<Pending>) {
        for slot in (0..).take(self.tree.places()) {
            self.events(self.tree.key(slot), now, policy, rules, pending);
        }
        self.forget_samples();
        self.trends.forget_stall();
        self.pool.forget_windows();
        if let Some(root) = self.tree.get(Tree::ROOT).map(|node| node.group.id) {
            self.renew_triggers(root, now, poller);
        }
    }

    /// When something must be looked at without a notice.
    #[must_use]
    pub fn next_look(&self) -> Option<Duration> {
        let samples = self.samples.iter().filter_map(|sample| sample.due).min();
        let news = self.signal.has_news().then_some(Duration::ZERO);
        let table = self.signal.table_due();
        let relook = self.signal.relook_due();
        let panic = self.signal.panic_due();
        let enlist = self.signal.enlist_due();
        let news = news.or(self.tree.has_more().then_some(Duration::ZERO));
        let oom_groups = self.oom_groups.due();
        [
            samples,
            self.timer_due,
            self.trend_due,
            self.publish_due,
            self.tree.next_settled(),
            news,
            table,
            relook,
            panic,
            enlist,
            oom_groups,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How many there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let (timed_groups, timed_triggers) = (self.tree.degraded(), self.pool.timed());
        Census { groups: self.tree.len(), timed_groups, armed: self.pool.armed(), timed_triggers }
    }

    /// Brings gauges, the groups that a scrape shows and what is degraded up to date; whether it was time for that.
    pub fn publish(&mut self, now: Duration, policy: &Policy, counters: &Counters, poller: &Poller) -> bool {
        let armed = self.is_armed();
        if armed && !self.was_armed {
            // The start is complete; later ones may be anybody's doing, and are told at the usual pace.
            self.publish_due =
                if std::mem::replace(&mut self.was_ready, true) { self.publish_due.or(Some(now + PUBLISH)) } else { Some(now) };
        }
        self.was_armed = armed;
        if self.publish_due.is_none_or(|due| due > now) {
            return false;
        }
        self.publish_due = None;
        self.share_room(now, policy, poller);
        if !self.tell_deaf(policy, counters.degraded()) {
            self.changed_at(now);
        }
        let timed = self.tree.degraded().max(self.pool.timed());
        counters.set_groups(Gauge::Timer, timed);
        counters.set_groups(Gauge::Trigger, self.tree.len().saturating_sub(timed));
        counters.set_psi_triggers(self.pool.armed());
        let subject = |slot: Slot| {
            let node = self.tree.get(slot).filter(|node| !node.class.subject_of.is_empty() && slot != Tree::ROOT)?;
            let (mut above, mut at) = (Vec::new(), node.parent);
            while let Some(node) = at.and_then(|slot| self.tree.get(slot)) {
                above.push(node.group.unheld());
                at = node.parent;
            }
            let (rules, psi) = (node.class.subject_of, self.pool.hears(node.group.id));
            Some(Arc::new(Subject { group: node.group.unheld(), above, rules, psi }) as Arc<dyn GroupReader>)
        };
        counters.published().publish(self.tree.slots().filter_map(subject).collect());
        true
    }
}
