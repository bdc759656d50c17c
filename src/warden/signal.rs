//! The kernel module's low memory signal: what it says, whether we are its handler, and which holds were answered.
//!
//! Reading the module's file takes its notice back, whoever reads. So every reading goes through [`Signal::look`], which
//! remembers that there was news.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use super::panic_on_oom::{self, PanicOnOom};
use crate::cgroup::GroupId;
use crate::cgroup::buffer::ReadBuf;
use crate::decide::facts::{LmsFacts, NodeFacts};
use crate::gather::last_resort::answering;
use crate::policy::model::Policy;
use crate::sense::clerk::{Clerk, Errand, Tabled, Wanted};
use crate::sense::lms::{INTERFACE, Lms, Report, Table};

/// How often the table is looked at at the most.
pub const TABLE_PAUSE: Duration = Duration::from_secs(1);
/// How soon after a victim's end it is looked whether somebody still asks for memory: those who were sent back to try again
/// have done so by then, if there is any.
const RELOOK: Duration = Duration::from_millis(20);
/// How soon a registration that was refused is tried again.
const ENLIST_AGAIN: Duration = Duration::from_secs(30);
/// How long the table stays in force when oomwarden is gone without a word: time for whoever starts it again.
pub const TABLE_KEEP: Duration = Duration::from_secs(600);

/// The open file and what is known from it.
#[derive(Debug)]
pub struct Signal {
    device: Option<Arc<Lms>>,
    report: Option<Report>,
    news: bool,
    answered: Option<u64>,
    /// A victim of the hold under way is gone: when to look again, and the module's calls then.
    relieved: Option<(Duration, u64)>,
    /// We are the handler.
    enlisted: bool,
    /// Why the module has not taken us as its handler, and when that is tried again.
    refusal: Option<Errno>,
    enlist_due: Option<Duration>,
    /// The table that the module has, and one to be filled; `None` while the clerk has it.
    table: Table,
    spare: Option<Box<Table>>,
    /// Rises whenever what the clerk may be about to write must not come into force; and where it stood when that was sent.
    changes: Arc<AtomicU64>,
    sent: u64,
    /// The module may have another table than `table`: it refused to empty it. When that is tried again.
    unsure: bool,
    empty_due: Option<Duration>,
    told_unsure: bool,
    table_due: Option<Duration>,
    table_made: Option<Duration>,
    refused: bool,
    /// The kernel is to panic where it would kill; and whether that makes a difference to the policy.
    panic_on_oom: PanicOnOom,
    minds_panic: bool,
    /// That the module speaks another language was said.
    told_interface: bool,
}

impl Signal {
    /// Opens the module's file; all else is as without a module where there is none.
    #[must_use]
    pub fn open(path: &Path) -> Signal {
        let device = Lms::open(path).unwrap_or_else(|error| {
            tracing::warn!("{}: {error}: the kernel module's signal is not heard", path.display());
            None
        });
        Signal {
            device: device.map(Arc::new),
            report: None,
            news: false,
            answered: None,
            relieved: None,
            enlisted: false,
            refusal: None,
            enlist_due: None,
            table: Table::new(),
            spare: Some(Box::default()),
            changes: Arc::default(),
            sent: 0,
            unsure: false,
            empty_due: None,
            told_unsure: false,
            table_due: None,
            table_made: None,
            refused: false,
            panic_on_oom: PanicOnOom::beside(path),
            minds_panic: false,
            told_interface: false,
        }
    }

    /// The open file.
    #[must_use]
    pub fn device(&self) -> Option<&Arc<Lms>> {
        self.device.as_ref()
    }

    /// What the module said last.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Reads the file anew.
    pub fn look(&mut self, buffer: &mut ReadBuf) -> Option<LmsFacts> {
        let report = self.device.as_ref()?.read(buffer);
        match report {
            Ok(report) => {
                self.news |= self.report.is_none_or(|before| before.seq != report.seq);
                if self.report.replace(report).is_none() && self.enlisted {
                    // There was nobody to write a table for.
                    self.table_due = Some(Duration::ZERO);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::error!("{error}: the kernel module's signal is not understood");
                }
                // The gauges have to say so too.
                self.news |= self.report.take().is_some();
            }
        }
        self.report.map(|report| report.facts())
    }

    /// Whether something has changed since this was asked last.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Whether [`Signal::take_news`] would say so.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// The hold under way that is ours to answer.
    #[must_use]
    pub fn hold(&self) -> Option<u64> {
        self.report?.hold_seq.filter(|_| self.enlisted)
    }

    /// The hold under way, if no answer was begun yet.
    pub fn take_unanswered(&mut self) -> Option<u64> {
        let hold = self.hold().filter(|hold| self.answered != Some(*hold))?;
        self.answered = Some(hold);
        Some(hold)
    }

    /// Somebody is gone while a hold is open. That may have been enough: it is to be answered once more only if somebody
    /// asks for memory after this.
    pub fn relieved(&mut self, now: Duration) {
        self.relieved = self.hold().and(self.report).map(|report| (now + RELOOK, report.calls));
    }

    /// When to look whether somebody has asked since.
    #[must_use]
    pub fn relook_due(&self) -> Option<Duration> {
        self.relieved.map(|(due, _)| due)
    }

    /// Looks, if it is time; [`Signal::look`] has just been done.
    pub fn relook(&mut self, now: Duration) {
        let Some((_, calls)) = self.relieved else { return };
        self.relieved = self.hold().map(|_| (now + RELOOK, calls));
        if self.hold().is_some() && self.report.is_some_and(|report| report.calls > calls) {
            self.relieved = None;
            self.answered = None;
        }
    }

    /// The answer to the hold under way was put off: it can be given now.
    pub fn answer_again(&mut self) {
        self.answered = None;
    }

    /// Tells the module that signals are delivered, and to whom.
    pub fn ack(&self, hold: u64, victim: GroupId) {
        if let Some(device) = &self.device {
            // Over by now: nobody waits for the answer any more.
            let _ = device.ack(hold, Some(victim));
        }
    }

    /// Tells the module that nobody will be killed.
    pub fn pass(&self, hold: u64) {
        if let Some(device) = &self.device {
            // As above.
            let _ = device.pass(hold);
        }
    }

    /// Whether there is anybody who would answer a hold, were it not for vm.panic_on_oom.
    pub fn mind_panic(&mut self, minds: bool) {
        self.minds_panic = minds && self.device.is_some();
    }

    /// Looks whether the kernel is to panic where it would kill: then nobody answers a hold, and there is to be none. Whether that
    /// has changed.
    ///
    /// That comes before a kill, which can't be taken back. It is one pread(2) of a file that is
    /// held open, into the stack: we allocate nothing for it. The kernel does: each read below
    /// /proc/sys takes a small buffer (kvzalloc() in proc_sys_call_handler()), for which, as for
    /// our other reads, the module frees half of its reserve when a hold begins.
    pub fn look_at_panic(&mut self, now: Duration) -> bool {
        let changed = self.minds_panic && self.panic_on_oom.look(now);
        if changed && self.kernel_panics() {
            tracing::warn!("{}", panic_on_oom::LACK);
        } else if changed {
            tracing::info!("vm.panic_on_oom is 0 again: the kernel's killer is held back for oomwarden's answer");
        }
        changed
    }

    /// What the last look found.
    #[must_use]
    pub fn kernel_panics(&self) -> bool {
        self.panic_on_oom.is_set()
    }

    /// When to look again, where it makes a difference.
    #[must_use]
    pub fn panic_due(&self) -> Option<Duration> {
        let differs = self.minds_panic && (self.enlisted || self.kernel_panics());
        differs.then(|| self.panic_on_oom.due())
    }

    /// Becomes the handler where the policy has rules that can answer, or stops being it. To be called at the start and for
    /// each policy.
    pub fn enlist(&mut self, policy: &Policy, node: &NodeFacts, now: Duration) {
        if answering(policy).next().is_none() {
            return self.retire(now);
        }
        // First, so that no hold of ours ends by it.
        let left = !self.enlisted && self.may_have_table() && !self.empty_table(now);
        let Some(device) = self.device.clone() else { return };
        // Without `kernel: hold` the module's own parameter is the bound.
        let registered = device.register(policy.hold.unwrap_or(crate::policy::model::LONGEST_HOLD));
        match registered.and_then(|()| device.tell_swap_total(node.swap_total_bytes)) {
            Ok(()) => {
                self.enlisted = true;
                self.enlist_due = None;
                if self.refusal.take().is_some() {
                    tracing::info!("the kernel module holds an OOM for us now");
                }
                if left {
                    // Its handler may have ended since, and have left the table in force. Now it is
                    // ours to empty.
                    self.empty_table(now);
                }
                self.table_due = Some(now);
                self.look_at_interface(now);
            }
            Err(errno) => {
                if self.enlisted {
                    // The table of the policy before would stay in force without us.
                    self.retire(now);
                } else {
                    // Registered but for the rest of it: a hold that nobody answers would only delay the kernel. ENOENT if not.
                    let _ = device.release();
                }
                // What we may not do now we may not do later.
                self.enlist_due = (!is_forbidden(errno)).then_some(now + ENLIST_AGAIN);
                if self.refusal.replace(errno) != Some(errno) {
                    tracing::warn!("{}", not_held(errno));
                }
            }
        }
    }

    /// When to try again to become the handler.
    #[must_use]
    pub fn enlist_due(&self) -> Option<Duration> {
        self.enlist_due
    }

    /// Why we are not the handler, while that is tried again.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.enlist_due.and(self.refusal).map(not_held)
    }

    /// Why no table can be left with the module that is loaded, if that is so.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        let interface = self.report?.interface;
        (interface != INTERFACE).then(|| {
            format!(
                "the kernel module that is loaded has interface {interface}, and this oomwarden knows {INTERFACE}: it answers holds and hears levels, but leaves no table for when it can't answer; load the module that belongs to this version (kmod/README.md), by a reboot if need be"
            )
        })
    }

    /// Leaves the table of a module that would read it otherwise, or not at all, empty.
    fn look_at_interface(&mut self, now: Duration) {
        let Some(lack) = self.lacks() else { return };
        self.table_due = None;
        // What an oomwarden before this one may have left. Whether it is understood can't be told.
        self.empty_table(now);
        if !std::mem::replace(&mut self.told_interface, true) {
            tracing::error!("{lack}");
        }
    }

    /// Stops being the handler and takes the table back: no deeds means none.
    pub fn retire(&mut self, now: Duration) {
        (self.refusal, self.enlist_due) = (None, None);
        if !std::mem::take(&mut self.enlisted) {
            return;
        }
        self.table_due = None;
        // Both, whatever comes of the first: each alone could still have somebody killed.
        self.empty_table(now);
        if let Some(Err(errno)) = self.device.as_ref().map(|device| device.release()) {
            tracing::error!("oomwarden could not stop being the kernel module's handler: {errno}");
        }
    }

    /// Takes back what a daemon before this one, that died without a word, may have left: its table stays in force for a while.
    pub fn clear_left_over(&mut self, now: Duration) {
        if !self.enlisted && self.may_have_table() {
            self.empty_table(now);
        }
    }

    /// Whether there may be a table by which somebody could die: without a word of the module there
    /// may.
    fn may_have_table(&self) -> bool {
        self.report.is_none_or(|report| report.table_rules > 0 || report.table_kill_ids > 0)
    }

    /// Takes the table back at once while another one is made: somebody in it must not be killed by it any more.
    pub fn withdraw_table(&mut self, now: Duration) {
        if self.enlisted {
            self.empty_table(now);
            self.table_due = Some(now);
        }
    }

    /// Empties the module's table, and has what the clerk may be about to write come to nothing. If
    /// that is refused it is tried again. Whether the module has emptied it.
    fn empty_table(&mut self, now: Duration) -> bool {
        let Some(device) = &self.device else { return true };
        // Before the module's table is emptied: see the clerk.
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.table.clear(None);
        let emptied = device.clear_table();
        self.emptied(emptied, now);
        emptied.is_ok()
    }

    /// The module's table was emptied, or not.
    fn emptied(&mut self, result: Result<(), Errno>, now: Duration) {
        match result {
            Ok(()) => self.is_sure(),
            // Another process is the handler, and the table is its own affair.
            Err(Errno::BUSY) if !self.enlisted => self.is_sure(),
            Err(errno) => {
                // What we may not do now we may not do later.
                let forbidden = is_forbidden(errno);
                (self.unsure, self.empty_due) = (true, (!forbidden).then_some(now + TABLE_PAUSE));
                if !std::mem::replace(&mut self.told_unsure, true) {
                    let again = if forbidden { "" } else { "; it is tried again each second" };
                    tracing::error!("the kernel module's table could not be emptied: {errno}{again}");
                }
            }
        }
    }

    /// The module has `table`.
    fn is_sure(&mut self) {
        (self.unsure, self.empty_due, self.told_unsure) = (false, None, false);
    }

    /// Tries again, if it is time, to empty a table that the module did not let go of.
    pub fn empty_again(&mut self, now: Duration) {
        // The clerk may be writing the one that takes its place.
        if self.spare.is_some() && self.empty_due.is_some_and(|due| due <= now) {
            self.empty_table(now);
        }
    }

    /// Whether we are the handler.
    #[must_use]
    pub fn is_enlisted(&self) -> bool {
        self.enlisted
    }

    /// Whether nothing that was asked of the clerk is under way, nor anything to be tried again.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.spare.is_some() && self.empty_due.is_none()
    }

    /// What the table says may have to change: which rules answer, or which groups must live whatever the policy says.
    pub fn table_outdated(&mut self, now: Duration) {
        if self.enlisted {
            let soonest = self.table_made.map_or(now, |made| made + TABLE_PAUSE).max(now);
            self.table_due = Some(self.table_due.map_or(soonest, |due| due.min(soonest)));
        }
    }

    /// When the table is to be made anew. `None` while nothing of the kind has changed: it says nothing of what groups hold.
    #[must_use]
    pub fn table_due(&self) -> Option<Duration> {
        let due = [self.table_due, self.empty_due].into_iter().flatten().min();
        due.filter(|_| self.spare.is_some())
    }

    /// A table to be filled, if it is time; to be given back by [`Signal::write_table`].
    pub fn begin_table(&mut self, now: Duration) -> Option<Box<Table>> {
        self.table_due.filter(|due| *due <= now && self.enlisted && self.spare.is_some())?;
        self.table_due = None;
        // As long as it is not understood what the module says, it need not understand us; then this is asked again.
        if self.report?.interface != INTERFACE {
            self.look_at_interface(now);
            return None;
        }
        let mut table = self.spare.take()?;
        self.table_made = Some(now);
        table.clear(Some(TABLE_KEEP));
        Some(table)
    }

    /// Has the table written where it differs from the module's.
    pub fn write_table(&mut self, table: Box<Table>, clerk: &Clerk) {
        match &self.device {
            Some(device) if self.unsure || *table != self.table => {
                self.sent = self.changes.load(Ordering::SeqCst);
                clerk.send(Errand::Table(Arc::clone(device), table, Wanted::now(&self.changes)));
            }
            _ => self.spare = Some(table),
        }
    }

    /// The clerk is done with a table.
    pub fn table_written(&mut self, table: Box<Table>, tabled: Tabled, now: Duration) {
        let void = self.sent != self.changes.load(Ordering::SeqCst);
        match tabled {
            // It was emptied after that.
            Tabled::Written(_) if void => {}
            Tabled::Unwanted => {}
            Tabled::TakenBack(result) => self.emptied(result, now),
            Tabled::Written(Ok(())) => {
                self.table.copy_from(&table);
                self.is_sure();
            }
            Tabled::Written(Err(Errno::INVAL)) => {
                tracing::error!("the kernel module does not understand the table: where oomwarden can't answer, the kernel's killer acts");
                // The one before may let somebody die who must live by now. The same text is not tried again.
                self.empty_table(now);
                self.table.copy_from(&table);
            }
            Tabled::Written(Err(errno)) => {
                tracing::warn!("the kernel module did not take the table: {errno}");
                self.table_due = self.enlisted.then_some(now + TABLE_PAUSE);
            }
        }
        self.spare = Some(table);
    }
}

/// Whether what was refused takes rights that we don't have.
fn is_forbidden(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// What it means that the module has not taken us as its handler, for log and status.
fn not_held(errno: Errno) -> String {
    let why = match errno {
        Errno::BUSY => "another process is its handler",
        errno if is_forbidden(errno) => "that takes root with CAP_KILL and CAP_SYS_RESOURCE",
        _ => "see `oomwarden doctor`",
    };
    let again = if is_forbidden(errno) { "" } else { "; it is tried again every 30 s" };
    format!("the kernel module holds no OOM for us: {errno} ({why}); its levels are heard{again}")
}

#[cfg(test)]
mod tests;
