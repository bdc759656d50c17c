//! Slots for records, made beforehand, and the queue between the warden and the recorder.
//!
//! The warden takes a free slot, fills it and submits it. It never waits and never allocates: the lock is held for
//! moving a pointer, by the recorder too, which does its writing outside. When the recorder can't keep up (a disk that
//! stalls), the oldest record that is still queued gives its slot up and is counted as lost; a record that would not have
//! gone to the journal anyway goes first, and uncounted. The counters of the judgement itself were raised when it was
//! submitted, so that they stay true.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounter;

use super::counting;
use super::model::{Blank, JudgementRecord};
use crate::kernel_kills::book::KernelKill;

/// How many slots a daemon needs: ladders that are open at a time, and records that wait while the disk is slow. Each costs
/// about 140 bytes for every group that may be a candidate, in memory that is really there.
pub const SLOTS: usize = 16;

/// Kills by the kernel that wait to be written, at most.
const KERNEL_KILLS: usize = 512;

/// What the recorder is given.
#[derive(Debug)]
pub enum Record {
    /// A judgement; its slot goes back by [`Pool::release`].
    Judgement(Box<JudgementRecord>),
    /// A kill by the kernel.
    KernelKill(Box<KernelKill>),
}

/// The pool of slots; clones share it.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or the pool closed.
    changed: Condvar,
    next_id: AtomicU64,
    /// Room for candidates that every slot should have.
    candidates: AtomicUsize,
    dropped: IntCounter,
    blank: Blank,
}

#[derive(Debug)]
#[expect(clippy::vec_box, reason = "what moves under the lock is a pointer, not half a kilobyte")]
struct State {
    free: Vec<Box<JudgementRecord>>,
    queued: VecDeque<Box<JudgementRecord>>,
    /// None of them is `None`: that is only what the queue's memory was touched with.
    kernel_kills: VecDeque<Option<Box<KernelKill>>>,
    closed: bool,
}

impl State {
    /// All slots that are in nobody's hands.
    fn slots(&mut self) -> impl Iterator<Item = &mut Box<JudgementRecord>> {
        self.free.iter_mut().chain(&mut self.queued)
    }
}

impl Pool {
    /// Makes `slots` slots (at least one), each with room for `candidates`. Lost records are counted in `dropped`.
    #[must_use]
    pub fn new(slots: usize, candidates: usize, dropped: IntCounter) -> Pool {
        let slots = slots.max(1);
        let blank = Blank::default();
        let free = (0..slots).map(|_| blank.slot(candidates)).collect();
        Pool(Arc::new(Shared {
            state: Mutex::new(State { free, queued: VecDeque::with_capacity(slots), kernel_kills: touched(), closed: false }),
            changed: Condvar::new(),
            next_id: AtomicU64::new(1),
            candidates: AtomicUsize::new(candidates),
            dropped,
            blank,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cleared slot with a new id. Give it back by [`Pool::submit`] or [`Pool::discard`]; one that is merely dropped is
    /// lost to the pool.
    ///
    /// `None` when every slot is in somebody's hands, which takes more open ladders than there are slots; the judgement
    /// then goes on without a record, and that is counted.
    #[must_use]
    pub fn take(&self) -> Option<Box<JudgementRecord>> {
        let mut state = self.lock();
        let slot = state.free.pop().map(|slot| (slot, false)).or_else(|| oldest(&mut state.queued).map(|slot| (slot, true)));
        drop(state);
        let Some((mut slot, was_queued)) = slot else {
            self.0.dropped.inc();
            return None;
        };
        if was_queued {
            if slot.is_for_the_journal() {
                self.0.dropped.inc();
            }
            self.0.blank.clear(&mut slot);
        }
        slot.id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Counts the judgement and queues its record. The only place that raises a rule's counters, but for its triggers'.
    pub fn submit(&self, slot: Box<JudgementRecord>) {
        if let Some(counters) = slot.counters.get(usize::from(slot.rule)) {
            counting::count(counters, &slot);
        }
        self.lock().queued.push_back(slot);
        self.0.changed.notify_one();
    }

    /// Queues a kill by the kernel; beyond a bound the oldest is lost, and counted. Allocates, but not while it holds the lock that
    /// the warden takes: not for the warden, who has nothing to do with these.
    pub fn submit_kernel_kill(&self, kill: KernelKill) {
        let kill = Some(Box::new(kill));
        let mut state = self.lock();
        let lost = if state.kernel_kills.len() == KERNEL_KILLS { state.kernel_kills.pop_front() } else { None };
        state.kernel_kills.push_back(kill);
        drop(state);
        if lost.is_some() {
            self.0.dropped.inc();
        }
        self.0.changed.notify_one();
    }

    /// Gives a slot back unrecorded and uncounted.
    pub fn discard(&self, slot: Box<JudgementRecord>) {
        self.release(slot);
    }

    /// Makes room for `candidates` in every slot. Allocates, outside of the lock: for the paths that find groups, not for those that
    /// judge. A slot that is in use meanwhile grows when it comes back.
    pub fn reserve(&self, candidates: usize) {
        if self.0.candidates.load(Ordering::Relaxed) >= candidates {
            return;
        }
        // With some to spare, so that groups which come one by one don't cost a new buffer each.
        let candidates = (candidates + candidates / 4).next_multiple_of(64);
        self.0.candidates.store(candidates, Ordering::Relaxed);
        while self.lock().slots().any(|slot| !slot.has_room(candidates)) {
            let mut larger = self.0.blank.slot(candidates);
            let mut state = self.lock();
            if let Some(slot) = state.slots().find(|slot| !slot.has_room(candidates)) {
                slot.trade_buffers(&mut larger);
            }
            drop(state);
            // Its old buffers are freed here, with the lock released.
            drop(larger);
        }
    }

    /// For the recorder: the next record; waits for one. `None` once the pool is closed and the queue is empty.
    #[must_use]
    pub fn next(&self) -> Option<Record> {
        let mut state = self.lock();
        loop {
            if let Some(slot) = state.queued.pop_front() {
                return Some(Record::Judgement(slot));
            }
            if let Some(kill) = state.kernel_kills.pop_front().flatten() {
                return Some(Record::KernelKill(kill));
            }
            if state.closed {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// For the recorder: gives a slot back.
    pub fn release(&self, mut slot: Box<JudgementRecord>) {
        self.0.blank.clear(&mut slot);
        self.0.blank.make_room(&mut slot, self.0.candidates.load(Ordering::Relaxed));
        self.lock().free.push(slot);
    }

    /// Whether nothing waits to be recorded.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let state = self.lock();
        state.queued.is_empty() && state.kernel_kills.is_empty()
    }

    /// No more records will come; the recorder ends when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }
}

/// An empty queue with room for as many as may wait, its memory touched: adding one takes no page fault.
fn touched() -> VecDeque<Option<Box<KernelKill>>> {
    let mut queue: VecDeque<_> = std::iter::repeat_with(|| None).take(KERNEL_KILLS).collect();
    queue.clear();
    queue
}

/// The queued record that is missed least: the oldest that the journal doesn't want, else the oldest.
fn oldest(queued: &mut VecDeque<Box<JudgementRecord>>) -> Option<Box<JudgementRecord>> {
    let unwanted = queued.iter().position(|slot| !slot.is_for_the_journal());
    queued.remove(unwanted.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::model::Outcome;
    use super::super::testing;
    use super::*;

    fn pool(slots: usize) -> (Pool, IntCounter) {
        let dropped = IntCounter::new("dropped_total", "for the test").expect("a sound name");
        (Pool::new(slots, 4, dropped.clone()), dropped)
    }

    fn next(pool: &Pool) -> Option<Box<JudgementRecord>> {
        match pool.next() {
            Some(Record::Judgement(slot)) => Some(slot),
            Some(Record::KernelKill(_)) | None => None,
        }
    }

    fn submit(pool: &Pool, outcome: Outcome) -> u64 {
        let mut slot = pool.take().expect("a slot");
        slot.outcome = outcome;
        let id = slot.id;
        pool.submit(slot);
        id
    }

    #[test]
    fn records_come_out_in_order_and_slots_come_back() {
        let (pool, dropped) = pool(2);
        for _ in 0..10 {
            let ids = [submit(&pool, Outcome::Killed), submit(&pool, Outcome::NoVictim)];
            for id in ids {
                let slot = next(&pool).expect("queued");
                assert_eq!(slot.id, id);
                pool.release(slot);
            }
        }
        assert!(pool.is_drained());
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts_it() {
        let (pool, dropped) = pool(3);
        let ids: Vec<u64> = (0..5).map(|_| submit(&pool, Outcome::Killed)).collect();
        assert_eq!(dropped.get(), 2);
        let left: Vec<u64> = (0..3).filter_map(|_| next(&pool)).map(|slot| slot.id).collect();
        assert_eq!(left, ids[2..]);
    }

    #[test]
    fn what_the_journal_does_not_want_is_dropped_first_and_not_counted() {
        let (pool, dropped) = pool(2);
        let killed = submit(&pool, Outcome::Killed);
        submit(&pool, Outcome::NotConfirmed);
        let later = submit(&pool, Outcome::Failed);
        assert_eq!(dropped.get(), 0);
        assert_eq!([next(&pool), next(&pool)].map(|slot| slot.map(|slot| slot.id)), [Some(killed), Some(later)]);
    }

    #[test]
    fn with_every_slot_in_hand_there_is_none_to_take() {
        let (pool, dropped) = pool(1);
        let held = pool.take().expect("a slot");
        assert!(pool.take().is_none());
        assert_eq!(dropped.get(), 1);
        pool.discard(held);
        assert!(pool.take().is_some());
    }

    #[test]
    fn reserving_reaches_every_slot_in_the_end() {
        let (pool, _) = pool(3);
        let held = pool.take().expect("a slot");
        submit(&pool, Outcome::Killed);
        pool.reserve(100);
        pool.reserve(50);
        pool.discard(held);
        assert!((0..3).filter_map(|_| pool.take()).all(|slot| slot.candidates.capacity() >= 100));
    }

    #[test]
    fn kills_by_the_kernel_wait_in_order_and_beyond_a_bound_the_oldest_is_lost() {
        let (pool, dropped) = pool(1);
        let room = || pool.lock().kernel_kills.capacity();
        let before = room();
        for processes in 0..KERNEL_KILLS as u64 + 2 {
            pool.submit_kernel_kill(KernelKill { processes, ..testing::kernel_kill() });
        }
        assert_eq!(dropped.get(), 2);
        assert_eq!(room(), before, "it grows while the warden may wait for the lock");
        pool.close();
        let mut expected = 2..;
        while let Some(Record::KernelKill(kill)) = pool.next() {
            assert_eq!(Some(kill.processes), expected.next());
        }
        assert_eq!(expected.next(), Some(KERNEL_KILLS as u64 + 2));
        assert!(pool.is_drained());
    }

    #[test]
    fn closing_lets_the_recorder_end_after_the_last_record() {
        let (pool, _) = pool(2);
        submit(&pool, Outcome::Killed);
        pool.close();
        assert!(pool.next().is_some());
        assert!(pool.next().is_none());
    }
}
