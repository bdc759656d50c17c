//! One ladder under way.

use super::*;

/// A ladder, with its victim and what it was begun for.
#[derive(Debug)]
pub(super) struct Climb {
    pub(super) policy: Arc<Policy>,
    pub(super) rule: u16,
    pub(super) subject: GroupId,
    /// Its name, for the breaker.
    pub(super) subject_path: GroupPath,
    pub(super) scope: GroupId,
    pub(super) victim: Arc<Group>,
    pub(super) notice: Notice,
    pub(super) arrived: Duration,
    pub(super) record: Option<Box<JudgementRecord>>,
    pub(super) rungs: Vec<RungRecord>,
    pub(super) ladder: Ladder,
    pub(super) attempt: u32,
    pub(super) before: Option<ScopeFacts>,
    pub(super) usage: Option<u64>,
    /// Processes in the victim at the verdict, at the last look at it, and when the kill was handed
    /// over.
    pub(super) processes: Option<u32>,
    pub(super) present: Option<u32>,
    pub(super) at_kill: Option<u32>,
    pub(super) first_kill: FirstKill,
    /// An actor has the kill and has not reported.
    pub(super) in_flight: bool,
    pub(super) one: bool,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) failed: [Option<GroupId>; TRIES],
    /// The rule's index in the policy in force, for its cool-down; `None` once a reload dropped the rule.
    pub(super) key: Option<u16>,
    /// The kernel's hold that the next kill answers.
    pub(super) hold: Option<u64>,
    /// Another policy is in force: this one's indices mean nothing to the groups any more.
    pub(super) superseded: bool,
    pub(super) look_at: Option<Duration>,
    /// A kill of the present victim was handed to an actor.
    pub(super) begun: bool,
    /// The verdict, or the last look at the victim, is of this turn.
    pub(super) fresh: bool,
    /// The next rung waits for a closer look at the victim, since then.
    pub(super) looking: Option<(Next, Duration)>,
    /// That look was taken, or took too long: the rung is judged on what is known.
    pub(super) looked: bool,
    /// It took too long.
    pub(super) overdue: bool,
    /// The evidence is from before a gap in the warden's attention, and the trouble was not noticed since.
    pub(super) stale: bool,
    /// Another rule's verdict named the victim too.
    pub(super) hurried: Option<Hurried>,
}

impl Climb {
    pub(super) fn rule(&self) -> Option<&Rule> {
        self.policy.rules.get(usize::from(self.rule))
    }

    /// Whether SIGKILL was sent, or is about to be by an actor. A kill that waits for a closer look was not.
    pub(super) fn is_killing(&self) -> bool {
        self.begun && self.ladder.is_killing()
    }

    /// How many processes SIGKILL is for, or was: those that were there when it was handed over.
    pub(super) fn to_be_killed(&self) -> Option<u32> {
        if self.one { Some(1) } else { self.at_kill.or(self.processes) }
    }

    /// Time since the notice: the ladder's clock.
    pub(super) fn since(&self, now: Duration) -> Duration {
        now.saturating_sub(self.arrived)
    }

    /// The closer look that the next rung waited for is done, or took too long: what that rung does.
    pub(super) fn looked_at(&mut self, now: Duration) -> Next {
        self.looked = true;
        // The rung's time begins with it.
        self.ladder.begin_rung(now.saturating_sub(self.arrived));
        self.looking.take().map_or(Next::Wait, |(next, _)| next)
    }

    /// Takes over when the first SIGKILL went out, whether or not its deed has reported.
    pub(super) fn note_first_kill(&mut self, clock: &Clock) {
        if let Some(moment) = self.first_kill.sent() {
            let at = self.since(clock.at(moment));
            self.ladder.killed_by(at);
        }
    }

    /// The victim is gone: what the ladder says then.
    pub(super) fn gone(&mut self, clock: &Clock) -> Next {
        self.note_first_kill(clock);
        let now = self.since(clock.now());
        self.ladder.gone(now, &mut self.rungs)
    }

    /// Whether an actor is about to kill and nobody can say yet whether it reached somebody.
    pub(super) fn is_undecided(&self) -> bool {
        self.in_flight && self.ladder.is_sending() && self.first_kill.sent().is_none()
    }

    /// Whether the victim is gone: the single process has ended, or nobody is in the group any more.
    pub(super) fn is_gone(&self, senses: &mut Senses) -> bool {
        if self.one {
            let Some(pidfd) = &self.pidfd else { return false };
            let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
            return poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0);
        }
        // A directory can only be removed when nobody is left in it.
        if senses.tree.slot_of(self.victim.id).is_none() {
            return true;
        }
        match self.victim.read(File::GroupEvents, &mut senses.buffer, parse::populated) {
            Ok(populated) => populated.flatten() == Some(false),
            Err(error) => error.is_gone(),
        }
    }
}
