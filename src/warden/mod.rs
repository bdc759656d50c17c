//! The warden: one thread that senses, decides and supervises deeds; it never writes to a file that can block.
//!
//! Each turn of its loop does, in this order: take the kernel's notices, see how the ladders under way stand, judge what is
//! pending, and only then bring the tree up to date, a handful of changes at a time, so that a storm of groups keeps nobody
//! from a trigger. With rules that rest on events and PSI there is no turn while nothing happens.
//!
//! - [`senses`]: everything held open, and what a notice means: which rule, which subject.
//! - [`pending`]: notices that wait to be judged; `judging`: judging them; [`clock`]: the time.
//! - [`stall`]: PSI triggers, and what it means when one fires.
//! - [`levels`]: what is sampled because the kernel has no notice for it.
//! - `facts`: facts for a judgement from what is held open.
//! - [`closer`]: a closer look before a kill, where the tree may lack something.
//! - [`climbs`]: ladders under way.
//! - [`hooks`]: the way to the administrator's programs; [`reach`]: who else is told.
//! - [`signal`]: the kernel module's low memory signal; [`holds`]: what it asks for; [`crate::gather::last_resort`]: the table left with it.
//! - `kernels_turn`: kills that the kernel makes itself by memory.oom.group.
//! - [`oom_group`]: where memory.oom.group is set for `kernel: oom_group`.
//! - [`order`]: which of several notices is judged first.
//! - [`attention`]: gaps in which the warden did not run.
//! - [`switches`]: pause and circuit breakers, which keep it from deeds.
//! - [`vain`]: levels that no kill could lift.
//! - [`deaf`]: rules that wait for stall where there is none to read.
//! - [`let_go`]: notices for which there was no room or time.
//! - [`unmatched`]: exclusions that protect nothing here.

pub mod attention;
mod census;
pub mod climbs;
pub mod clock;
mod closer;
mod deaf;
mod facts;
pub mod holds;
pub mod hooks;
mod judging;
mod kernels_turn;
mod let_go;
pub mod levels;
pub mod oom_group;
mod order;
mod panic_on_oom;
pub mod pending;
pub mod reach;
pub mod senses;
pub mod signal;
mod stall;
pub mod switches;
mod unmatched;
mod vain;

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::cgroup::GroupId;
use crate::cgroup::root::Root;
use crate::control::board::Board;
use crate::control::by::By;
use crate::control::mailbox::{Mailbox, Prepared};
use crate::control::pulse::Pulse;
use crate::decide::history::History;
use crate::decide::verdict::Notice;
use crate::gather::last_resort::{LastResort, Said};
use crate::metrics::counters::Counters;
use crate::metrics::rules::RuleCounters;
use crate::policy::model::Policy;
use crate::record::pool::Pool as Records;
use crate::sense::poller::{Poller, Ready, Token};
use crate::sense::tree::Tree;
use crate::state::StateDir;

use crate::gather::below::below;
use crate::gather::court::Court;
use attention::{Attention, Sign};
use climbs::{Climbs, Means, Relieved};
use clock::Clock;
use closer::Closer;
use let_go::LetGo;
use oom_group::OomGroups;
use pending::{Pending, breaks_group, is_kill};
use reach::Reach;
use senses::Senses;
use signal::Signal as LowMemory;
use switches::Switches;
use vain::Vain;

/// Judgements that wait for their turn; beyond that a notice that will come again is let go.
const PENDING: usize = 256;
/// Pairs of rule and subject whose cool-downs are remembered.
const REMEMBERED: usize = 1024;
/// After an order to stop: how long a kill that was already written may take to be verified.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the warden is started with.
#[derive(Debug)]
pub struct Setup {
    /// The cgroup root.
    pub root: Arc<Root>,
    /// The policy to begin with.
    pub policy: Arc<Policy>,
    /// Groups with PSI triggers at a time.
    pub psi_groups: usize,
    /// Descriptors that groups may hold.
    pub descriptors: usize,
    /// Where records go.
    pub records: Records,
    /// Counters and gauges.
    pub counters: Arc<Counters>,
    /// Questions whether the warden is alive.
    pub pulse: Arc<Pulse>,
    /// New policies.
    pub mailbox: Mailbox,
    /// Orders, and how the warden stands.
    pub board: Arc<Board>,
    /// Where it is remembered in which groups memory.oom.group was set.
    pub state: StateDir,
    /// What is left of a pause from before the start.
    pub paused: Option<(Duration, Option<By>)>,
    /// Signals to the daemon, blocked in every thread.
    pub signals: SignalFd,
    /// The kernel module's file: [`crate::sense::lms::PATH`].
    pub low_memory: PathBuf,
    /// Listeners and hooks.
    pub reach: Reach,
    /// Called once, when the groups are armed.
    pub ready: fn(),
}

/// The warden.
#[derive(Debug)]
pub struct Warden {
    clock: Clock,
    policy: Arc<Policy>,
    rules: Arc<[RuleCounters]>,
    senses: Senses,
    court: Court,
    climbs: Climbs,
    history: History,
    switches: Switches,
    /// What the kernel module's table says of the policy, and how much of it was said last.
    last_resort: Arc<LastResort>,
    told_table: Option<Said>,
    /// Whether the kernel module is of another version is still to be shown.
    untold_lack: bool,
    vain: Vain,
    pending: Vec<Pending>,
    batch: Vec<Pending>,
    order: order::Order,
    /// Subjects for which a ladder was begun, or brought forward, in the batch that is being judged.
    explained: Vec<GroupId>,
    closer: Closer,
    records: Records,
    counters: Arc<Counters>,
    pulse: Arc<Pulse>,
    mailbox: Mailbox,
    signals: SignalFd,
    /// The process was stopped, and goes on (SIGCONT).
    continued: bool,
    mail: Arc<EventFd>,
    timer: TimerFd,
    timer_at: Option<Duration>,
    poller: Poller,
    ready: Vec<Ready>,
    announce: Option<fn()>,
    stopping: Option<Duration>,
    /// What [`History::lost`] said last.
    forgotten: u64,
    /// A ladder in the node's own trouble has ended.
    relieved_node: bool,
    /// This thread runs before ordinary ones.
    runs_first: bool,
    /// That it may not was said.
    told_rank: bool,
}

impl Warden {
    /// Opens everything that is held and rehearses a judgement.
    ///
    /// # Errors
    /// What could not be opened or started.
    pub fn new(setup: Setup) -> io::Result<Warden> {
        let Setup {
            root,
            policy,
            psi_groups,
            descriptors,
            records,
            counters,
            pulse,
            mailbox,
            board,
            state,
            paused,
            signals,
            low_memory,
            reach,
            ready,
        } = setup;
        let clock = Clock::start();
        let mail = mailbox.mail();
        let poller = Poller::new(64)?;
        let low_memory = LowMemory::open(&low_memory);
        if let Some(device) = low_memory.device() {
            // EPERM for an ordinary file, which has no notices.
            let _ = poller.add_notice(device.as_ref(), Token::Signal);
        }
        let oom_groups = OomGroups::start(Arc::clone(&root), state, counters.oom_group_resets())?;
        let let_go = LetGo::new(counters.notices_dropped());
        let senses = Senses::open(Arc::clone(&root), &policy, psi_groups, descriptors, low_memory, Arc::clone(&mail), oom_groups, let_go)?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        poller.add_readable(senses.tree.watches(), Token::Watches)?;
        poller.add_readable(timer.as_fd(), Token::Timer)?;
        poller.add_readable(signals.as_fd(), Token::Signals)?;
        poller.add_readable(mail.as_fd(), Token::Mail)?;
        poller.add_readable(pulse.as_fd(), Token::Mail)?;
        let root_group = senses.tree.get(Tree::ROOT).map(|node| Arc::clone(&node.group)).ok_or(io::ErrorKind::NotFound)?;
        let climbs = Climbs::start(Arc::clone(&mail), senses.tree.len(), &policy, &root_group, reach)?;
        let rules = counters.for_policy(&policy);
        counters.in_force().set(&policy);
        let mut warden = Warden {
            clock,
            rules,
            senses,
            court: Court::open()?,
            climbs,
            history: History::with_capacity(REMEMBERED),
            switches: Switches::new(board, &policy),
            last_resort: Arc::new(LastResort::of(&policy)),
            told_table: None,
            untold_lack: false,
            vain: Vain::default(),
            pending: Vec::with_capacity(PENDING),
            batch: Vec::with_capacity(PENDING),
            order: order::Order::with_capacity(PENDING),
            explained: Vec::with_capacity(PENDING),
            closer: Closer::default(),
            records,
            counters,
            pulse,
            mailbox,
            signals,
            continued: false,
            mail,
            timer,
            timer_at: None,
            poller,
            ready: Vec::with_capacity(64),
            announce: Some(ready),
            stopping: None,
            forgotten: 0,
            relieved_node: false,
            runs_first: false,
            told_rank: false,
            policy,
        };
        warden.court.find_own(&warden.senses.tree)?;
        // Before anything is asked of the kernel on behalf of deeds.
        if let Some((time, by)) = paused {
            warden.pause(time, by);
        }
        let now = clock.now();
        warden.tree_changed(now);
        warden.senses.start_samplers(&warden.policy, now);
        warden.rehearse();
        warden.enlist();
        unmatched::tell(&warden.policy, &warden.senses.tree);
        Ok(warden)
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// When epoll itself fails.
    pub fn run(self) -> io::Result<()> {
        self.run_watched(|| {})
    }

    /// As [`Warden::run`], with a call after every turn of the loop.
    ///
    /// # Errors
    /// As [`Warden::run`].
    pub fn run_watched(mut self, mut turned: impl FnMut()) -> io::Result<()> {
        let mut attention = Attention::begin(self.clock.now(), &mut self.senses.buffer);
        if let Some(file) = attention.group_events() {
            // EPERM where an ordinary file stands in for it.
            let _ = self.poller.add_notice(file, Token::Own);
        }
        let mut gap = None;
        loop {
            self.set_timer()?;
            let mut ready = std::mem::take(&mut self.ready);
            let planned = self.timer_at;
            let mut told = self.poller.wait(&mut ready)?.then_some(Sign::Stopped);
            // A stop interrupts no epoll that has something to tell, nor a turn.
            self.signal();
            if std::mem::take(&mut self.continued) {
                told = Some(Sign::Stopped);
            }
            if ready.iter().any(|one| one.token == Token::Own) {
                attention.heard(&mut self.senses.buffer);
                told = Some(Sign::Frozen);
            }
            let now = self.clock.now();
            gap = attention.gap(now, told, planned, &mut self.senses.buffer).or(gap);
            let mut tree_moved = false;
            for one in &ready {
                // Latched, who knows since when; all triggers are armed anew.
                if gap.is_none() || !matches!(one.token, Token::Psi(_)) {
                    tree_moved |= self.notice(*one, now);
                }
            }
            self.ready = ready;
            if let Some(sign) = gap.take() {
                self.begin_anew(sign, now);
            }
            self.clerk_replies();
            self.supervise();
            // A hold is answered first: no command to the module may be in the way of that.
            self.heed_signal();
            self.mind_switches();
            self.samples();
            self.senses.arm_troubled(self.clock.now(), &self.policy, &self.poller);
            self.judge_pending();
            let moved = self.update_tree(tree_moved);
            if moved | self.take_up() {
                // What inotify and the scout brought is judged in this turn: nothing else may wake us.
                self.senses.arm_troubled(self.clock.now(), &self.policy, &self.poller);
                self.answer_hold();
                self.judge_pending();
                self.forget_looks();
            }
            self.settle_relieved();
            self.keep_table();
            self.mind_oom_groups();
            self.publish();
            gap = attention.turned(now, self.clock.now());
            turned();
            if self.stopped() {
                self.senses.oom_groups.end();
                return Ok(());
            }
        }
    }

    /// The warden did not run for a while: what was noticed before is void, and whatever could tell of it begins anew. A kill
    /// by the kernel is none of that: a group that lost a process does not heal.
    fn begin_anew(&mut self, sign: Sign, now: Duration) {
        tracing::warn!("oomwarden did not run for a while ({sign}): what it noticed before counts no more, all triggers are armed anew");
        let Warden { senses, policy, rules, poller, pending, .. } = self;
        senses.forget_the_past(now, policy, rules, poller, pending);
        self.pending.retain(|pending| breaks_group(&pending.notice));
        self.closer.retain(|pending| breaks_group(&pending.notice));
        self.history.drop_pending(|_, kind| !is_kill(kind));
        self.climbs.doubt(now);
    }

    /// Takes one ready descriptor; whether inotify has something.
    fn notice(&mut self, ready: Ready, now: Duration) -> bool {
        match ready.token {
            Token::Watches => return true,
            Token::Timer => {
                // Read so that it is not ready any more; EAGAIN where it was set anew meanwhile.
                let _ = nix::unistd::read(&self.timer, &mut [0; 8]);
                self.timer_at = None;
            }
            // Read at the begin of each turn.
            Token::Signals => {}
            Token::Mail => self.take_mail(),
            Token::Events(key) => self.senses.events(key, now, &self.policy, &self.rules, &mut self.pending),
            Token::Psi(key) => self.senses.fired(key, ready.error, now, &self.policy, &self.rules, &self.poller, &mut self.pending),
            Token::Populated(key) | Token::Pid(key) => self.climbs.stir(key),
            Token::Signal => {
                self.senses.read_node();
            }
            // Dealt with before all others.
            Token::Own => {}
        }
        false
    }

    fn signal(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo.cast_signed()) {
                Ok(Signal::SIGHUP) => self.mailbox.ask(),
                Ok(Signal::SIGCONT) => self.continued = true,
                Ok(_) => {
                    self.stopping.get_or_insert(self.clock.now());
                }
                Err(_) => {}
            }
        }
    }

    fn take_mail(&mut self) {
        // EAGAIN where only the pulse was beating.
        let _ = self.mail.read();
        self.pulse.answer();
        if let Some(policy) = self.mailbox.take() {
            self.adopt(policy);
        }
        self.take_order();
    }

    /// Takes another policy over: groups are classed anew, cool-downs stay with rules of the same name, ladders under way
    /// end by the policy that began them.
    fn adopt(&mut self, Prepared { policy, rules, last_resort }: Prepared) {
        let now = self.clock.now();
        // Before all else, which may take seconds: whoever dies by the old table may have to live by now.
        if last_resort != self.last_resort {
            self.senses.signal.withdraw_table(now);
        }
        let old = std::mem::replace(&mut self.policy, policy);
        self.rules = rules;
        self.counters.in_force().set(&self.policy);
        (self.last_resort, self.told_table) = (last_resort, None);
        let policy = &Arc::clone(&self.policy);
        let renumbered = |rule: u16| {
            let name = &old.rules.get(usize::from(rule))?.name;
            let index = policy.rules.iter().position(|rule| rule.name == *name)?;
            u16::try_from(index).ok()
        };
        self.history.renumber(renumbered);
        self.climbs.policy_replaced(renumbered);
        self.switches.adopt(now, policy, renumbered);
        // Until the new table is written a shortage finds none, and what follows may take long.
        self.keep_table();
        let renumber = |pending: &mut Pending| renumbered(pending.rule).map(|rule| pending.rule = rule).is_some();
        self.pending.retain_mut(renumber);
        self.closer.retain(renumber);
        self.closer.policy_replaced();
        self.senses.kernels_turn.policy_replaced();
        self.vain.clear();
        self.senses.adopt(policy, now, &self.poller);
        unmatched::tell(policy, &self.senses.tree);
        self.tree_changed(now);
        self.enlist();
    }

    /// Brings the tree up to date with a handful of what the scout has found, and has it look at what a handful of inotify
    /// notices tell of. Whether there was anything.
    fn update_tree(&mut self, notices: bool) -> bool {
        let now = self.clock.now();
        if notices && let Err(error) = self.senses.tree.update(now) {
            tracing::error!("inotify: {error}: the tree of groups is read anew");
            self.senses.tree.rescan();
        }
        let found = self.senses.tree.take_findings(now);
        if notices || found {
            self.tree_changed(now);
        }
        notices || found
    }

    /// Registers what came and forgets what went.
    fn tree_changed(&mut self, now: Duration) {
        let (history, climbs) = (&mut self.history, &mut self.climbs);
        self.senses.apply_changes(
            now,
            &self.policy,
            &self.rules,
            &self.poller,
            &mut self.pending,
            |gone| history.forget(gone),
            |touched| climbs.stir_group(touched),
        );
        let groups = self.senses.tree.len();
        self.court.reserve(groups, self.senses.tree.places());
        self.climbs.reserve(groups);
        self.records.reserve(groups);
    }

    fn clerk_replies(&mut self) {
        self.senses.clerk_replies(self.clock.now(), &self.policy, &self.poller);
        if self.senses.is_armed()
            && let Some(announce) = self.announce.take()
        {
            // Who asks whether it is ready finds what it lacks; `publish` tells it otherwise.
            let _ = self.senses.tell_deaf(&self.policy, self.counters.degraded());
            self.pulse.set_armed(true);
            announce();
        }
    }

    /// Looks at what has no notice: levels, groups on a timer.
    fn samples(&mut self) {
        let now = self.clock.now();
        if self.senses.timer_due(now) {
            self.senses.read_unnoticed(now, &self.policy, &self.rules, &mut self.pending);
            self.tree_changed(now);
        }
        if self.senses.tree.next_settled().is_some_and(|due| due <= now) {
            self.senses.tree.settle_due(now);
            self.tree_changed(now);
        }
        self.senses.sample(now, &self.policy, &self.rules, &mut self.pending);
    }

    /// Feeds the ladders: finished deeds, victims that are gone, deadlines.
    fn supervise(&mut self) {
        let Warden { clock, court, senses, history, records, poller, climbs, switches, .. } = self;
        climbs.advance(&mut Means { clock, court, senses, history, records, poller, switches });
        self.settle_relieved();
    }

    /// Ladders have ended: their troubles are evidence no more. To be done in the turn in which they end, since what is noticed in
    /// the next one is fresh.
    fn settle_relieved(&mut self) {
        // What was noticed in a scope before its victim was gone is no fresh evidence; a kill by the kernel stays one.
        while let Some(Relieved { scope, gone }) = self.climbs.take_relieved() {
            if let Some(gone) = gone {
                // Whatever was counted in the victim concerns the dead, not who starts there next.
                self.senses.recount_below(gone);
                let tree = &self.senses.tree;
                self.history.drop_pending(|subject, _| below(tree, subject, gone));
                self.pending.retain(|pending| !below(tree, pending.subject, gone));
                self.closer.retain(|pending| !below(tree, pending.subject, gone));
            }
            let tree = &self.senses.tree;
            // Stall of the victim is in the windows of all above it as well.
            let echoes = |pending: &Pending| {
                below(tree, pending.subject, scope) || (matches!(pending.notice, Notice::Psi(_)) && below(tree, scope, pending.subject))
            };
            let is_fresh = |pending: &Pending| breaks_group(&pending.notice) || !echoes(pending);
            self.pending.retain(is_fresh);
            self.closer.retain(|pending| is_fresh(pending));
            self.history.drop_pending(|subject, kind| !is_kill(kind) && below(tree, subject, scope));
            self.senses.renew_triggers(scope, self.clock.now(), &self.poller);
            self.senses.doubt_above(scope, self.clock.now());
            self.note_relief(scope);
            self.history.wake(self.clock.now());
            self.senses.wake_samples(self.clock.now());
        }
    }

    fn publish(&mut self) {
        self.tell_lack();
        if self.senses.publish(self.clock.now(), &self.policy, &self.counters, &self.poller) {
            self.switches.changed();
        }
    }

    /// Whether all is done after an order to stop.
    fn stopped(&mut self) -> bool {
        let Some(since) = self.stopping else { return false };
        let now = self.clock.now();
        let late = now.saturating_sub(since) >= STOP_GRACE;
        self.climbs.interrupt(late, &self.clock, &mut self.senses.buffer, &self.records);
        self.senses.signal.retire(now);
        self.climbs.is_idle() && (late || self.senses.signal.is_settled())
    }

    fn set_timer(&mut self) -> io::Result<()> {
        let stop = self.stopping.map(|since| since + STOP_GRACE);
        let next = [
            self.senses.next_look(),
            self.climbs.next_deadline(),
            self.history.next_due(),
            self.switches.next_due(),
            self.closer.next_due(),
            stop,
        ]
        .into_iter()
        .flatten()
        .min();
        if next == self.timer_at {
            return Ok(());
        }
        match next {
            None => self.timer.unset()?,
            Some(at) => {
                // Zero would disarm it.
                let wait = at.saturating_sub(self.clock.now()).max(Duration::from_micros(1));
                self.timer.set(Expiration::OneShot(TimeSpec::from_duration(wait)), TimerSetTimeFlags::empty())?;
            }
        }
        self.timer_at = next;
        Ok(())
    }
}
