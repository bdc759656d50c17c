// SPDX-License-Identifier: GPL-2.0
/*
 * oomwarden's low memory signal.
 *
 * Three things, each of use without the next:
 *
 * - Levels. A kernel thread looks at available memory and free swap, and /proc/oom_notifier tells
 *   their level (ok, warn, kill) to whoever reads or polls it.
 * - The hold. When the kernel is about to kill because the whole machine is out of memory, it first
 *   asks the callbacks of register_oom_notifier(). Ours tells it to try again, for a bounded time,
 *   while the registered handler (the daemon) ends a group of its choice.
 * - The table. Where the handler does not answer in time, or is gone, groups are killed by a policy
 *   that it left here. Where that frees nothing the kernel's own killer goes ahead.
 *
 * The callback runs under the kernel's oom_lock, in the context of whoever could not allocate. So
 * the hold is a state with a deadline and not a sleep: each call sleeps a few milliseconds at most
 * and sends the caller back to try again. Nothing on that way allocates, waits for a sleeping lock
 * or for anybody's death. A caller may be throttled, or have the lowest priority, so what takes
 * longer is not done in its name: looking for a victim and killing it is the realtime thread's
 * work. Order of locks: the kernel's oom_lock, lms.lock. mmap_lock of the caller is only tried, and
 * held together with none of ours.
 *
 * The states of a shortage (enum lms_state). They change under lms.lock: in a call that counts (C),
 * in a sample of the thread or of a reader (S), by the thread (T), or by the handler (H).
 *
 *	from		to		when
 *	IDLE		HOLD		C: lms_consider() says that it begins, and the
 *					handler can be asked
 *	IDLE		TABLE, FAILED	C: the same, but it can't be asked: TABLE if that
 *					may be used
 *	HOLD		TABLE, FAILED	C: the deadline has passed, or the handler is dying;
 *					T: the same, but only without an ack and where next
 *					to nothing came back
 *	HOLD		FAILED		H: pass
 *	TABLE		FAILED		T: there is nobody (more) to kill;
 *					C: the thread does not get there
 *	all		IDLE		S: lms_is_over(): memory came back, or nobody whose
 *					call counts has called for a time
 *
 * What happens to a caller; the first line that fits:
 *
 *	sysrq f					left to the kernel
 *	memory was given back before us		nothing at all
 *	the kernel helps it to die, or would	left to the kernel
 *	choose it first (lms_caller.c)
 *	it is the kernel's victim, and its	sent back at once
 *	reserves are not used up
 *	IDLE, and somebody runs whom the	left to the kernel
 *	kernel would choose first
 *	IDLE, and a victim of the kernel	sent back after a pause
 *	still has its memory
 *	the kernel would kill nobody for it	sent back at once, in HOLD and TABLE after a pause;
 *						never counts
 *	IDLE					as lms_consider() says
 *	FAILED					left to the kernel
 *	HOLD, TABLE				sent back after a pause; who ends without the kernel's
 *						help is helped by us (lms_help_to_end())
 *
 * In the last three its call counts, unless it may be confined to some nodes and there is memory
 * available.
 *
 * A call that counts is one that says something about the memory of the whole machine. The level of
 * available memory begins a shortage at once, but it neither prevents one nor ends one: what could
 * not be had when somebody last called counts for nothing afterwards (lms_came_back()).
 *
 * The format of /proc/oom_notifier is described in README.md beside this file.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpuset.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/limits.h>
#include <linux/mempolicy.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/spinlock.h>

#include "lms.h"

struct lms lms = {
	.lock = __SPIN_LOCK_UNLOCKED(lms.lock),
};

DECLARE_WAIT_QUEUE_HEAD(lms_answered);
static DECLARE_WAIT_QUEUE_HEAD(lms_kick);
static bool lms_kicked;

static struct task_struct *lms_thread;		/* works through a shortage */
static struct task_struct *lms_teller;		/* tells the crowd */

void lms_kick_thread(void)
{
	WRITE_ONCE(lms_kicked, true);
	wake_up(&lms_kick);
}

/* The level that is told. Under lms.lock. */
enum lms_level lms_level(void)
{
	return lms.state == LMS_IDLE ? lms.memory_level : LMS_OOM;
}

const char *lms_level_name(enum lms_level level)
{
	static const char *const names[] = { "ok", "warn", "kill", "oom" };

	return names[level];
}

/* The handler, unless it is about to die: then it answers nobody. Under lms.lock. */
bool lms_handler_lives(void)
{
	struct task_struct *task;
	bool lives;

	if (!lms.handler)
		return false;
	rcu_read_lock();
	task = pid_task(lms.handler_pid, PIDTYPE_TGID);
	lives = task && !lms_is_dying(task);
	rcu_read_unlock();
	return lives;
}

/* Under lms.lock. */
unsigned int lms_hold_bound(void)
{
	unsigned int bound = lms_hold_param_ms();

	return lms.handler_hold_ms ? min(bound, lms.handler_hold_ms) : bound;
}

/* Under lms.lock, as the two below. */
void lms_end_hold(void)
{
	lms.hold_seq = 0;
	lms.acked = false;
}

static void lms_go_idle(void)
{
	lms_end_hold();
	lms.state = LMS_IDLE;
	lms.killed = false;
	lms.unserved = false;
	lms_table_reset();
	lms.doubt.calls = 0;
}

/* Where a hold ends without an effect, or there can be none. */
static void lms_after_hold(void)
{
	lms_end_hold();
	lms.state = lms_table_usable() ? LMS_TABLE : LMS_FAILED;
}

/*
 * Pages that came back since somebody last asked: what was available then and nobody could have
 * counts for nothing now, but for what is free by now. Swap that was given back counts, because
 * reclaim can go on with it. Under lms.lock.
 */
static unsigned long lms_came_back(const struct lms_memory *memory)
{
	unsigned long back = memory->available > lms.useless ? memory->available - lms.useless : 0;
	unsigned long swap = memory->swap_free > lms.swap_then ? memory->swap_free - lms.swap_then : 0;

	return max3(back, memory->free, swap);
}

/* Whether so much came back that silence means something. Under lms.lock. */
static bool lms_some_came_back(const struct lms_memory *memory)
{
	return lms_came_back(memory) > lms_floor_pages(memory->total) / 2;
}

/*
 * Whether the shortage is over: there is memory again, or nobody has asked for a time. Who was told to try again may be
 * busy with reclaim for seconds, so where nothing was done about it silence says nothing. Under lms.lock.
 */
static bool lms_is_over(const struct lms_memory *memory)
{
	unsigned int quiet = LMS_LONG_QUIET_MS;

	if (lms_came_back(memory) > max(lms_kill_pages(memory->total), lms_floor_pages(memory->total)))
		return true;
	if (lms_some_came_back(memory) && lms.state != LMS_FAILED)
		quiet = LMS_QUIET_MS;
	else if (lms.state == LMS_HOLD && !lms.acked)
		return false;
	return time_after(jiffies, lms.last_call + msecs_to_jiffies(quiet));
}

/* Ends a hold whose time is over or that nobody can answer any more. Whether it did. Under lms.lock. */
static bool lms_expire(void)
{
	if (lms.state != LMS_HOLD || (time_before(jiffies, lms.deadline) && lms_handler_lives()))
		return false;
	lms.holds_expired++;
	lms.silent = !lms.acked;
	lms_after_hold();
	return true;
}

/*
 * The same in nobody's name: only where there still is nothing, and not after an ack. Whom the handler had killed may have
 * been enough, and only somebody who asks after the deadline can say that it was not.
 */
static bool lms_expire_unasked(void)
{
	struct lms_memory memory;
	bool expired = false;

	lms_read_memory(&memory);
	spin_lock(&lms.lock);
	if (!lms_some_came_back(&memory) && !lms.acked)
		expired = lms_expire();
	spin_unlock(&lms.lock);
	return expired;
}

static void lms_say_expired(void)
{
	wake_up(&lms_answered);
	pr_notice_ratelimited("out of memory: the hold has expired\n");
}

/* Whether much is free that anybody can have. */
static bool lms_is_plenty(const struct lms_memory *memory)
{
	return memory->free > lms_floor_pages(memory->total) / 4;
}

/* Takes a new sample; how long to wait for the next one, in ms. */
unsigned int lms_sample(void)
{
	enum lms_level before, after;
	struct lms_memory memory;

	lms_read_memory(&memory);

	spin_lock(&lms.lock);
	before = lms_level();
	lms.memory_level = lms_judge(&memory, lms.swap_total, lms.memory_level);
	/* What the kernel's victims gave back was of use: whoever waits for the next ones begins anew. */
	if (lms_is_plenty(&memory))
		lms.doubt.awaits = false;
	if (lms.state != LMS_IDLE && lms_is_over(&memory)) {
		if (lms.state == LMS_HOLD)
			lms.holds_resolved++;
		lms_go_idle();
	}
	after = lms_level();
	if (after != before)
		lms.seq++;
	spin_unlock(&lms.lock);

	if (after != before) {
		wake_up(&lms_answered);
		lms_notify();
		pr_notice_ratelimited("level %s (was %s): %lu of %lu MiB available, %lu MiB of swap free\n",
				      lms_level_name(after), lms_level_name(before),
				      memory.available / PAGES_PER_MB, memory.total / PAGES_PER_MB,
				      memory.swap_free / PAGES_PER_MB);
	}
	if (after == LMS_OOM)
		return LMS_WATCH_MS;
	return lms_next_look_ms(&memory, after);
}

/* The thread has had a turn: whoever waited for one does not any more. */
void lms_served(void)
{
	spin_lock(&lms.lock);
	lms.unserved = false;
	spin_unlock(&lms.lock);
}

/*
 * Somebody waits for the thread to work by the table. It is there at once, as a rule. Where it is
 * not (realtime tasks above it have all processors) the kernel goes ahead after a time. Under
 * lms.lock.
 */
static void lms_wait_for_thread(void)
{
	if (!lms.unserved) {
		lms.unserved = true;
		lms.unserved_since = jiffies;
	} else if (time_after(jiffies, lms.unserved_since + msecs_to_jiffies(LMS_UNSERVED_MS))) {
		lms.state = LMS_FAILED;
	}
}

/*
 * Works through a shortage: its end, holds that nobody asks about any more, the table. Those who
 * ask may be busy with reclaim for seconds between two calls, with everybody else waiting, and what
 * they do on the way may take them any time: see lms_table.c. So it is a realtime task, above those
 * whose ends it hastens.
 */
static int lms_run(void *unused)
{
	sched_set_fifo(current);
	while (!kthread_should_stop()) {
		unsigned long begun = jiffies;
		unsigned int wait = lms_sample();

		lms_table_look_after();
		if (lms_expire_unasked())
			lms_say_expired();
		/* So that those who ask find what a victim gave back. */
		if (READ_ONCE(lms.state) == LMS_HOLD && READ_ONCE(lms.killed))
			lms_lists_give_back();
		if (READ_ONCE(lms.state) == LMS_TABLE) {
			lms_use_table();
			if (READ_ONCE(lms.state) == LMS_FAILED)
				wake_up(&lms_answered);
			lms_served();
			/*
			 * Each call kicks. Those who die need the processor too, of which there
			 * may be one.
			 */
			schedule_timeout_idle(jiffies - begun + 1);
		}
		lms_served();
		while (!kthread_should_stop() && lms_fill_reserve())
			cond_resched();
		wait_event_idle_timeout(lms_kick, READ_ONCE(lms_kicked) || kthread_should_stop(), msecs_to_jiffies(wait));
		WRITE_ONCE(lms_kicked, false);
	}
	return 0;
}

/* Whether the caller of the OOM is one that the kernel helps to die, or that it chooses first. */
static bool lms_is_the_kernels(void)
{
	return lms_kernel_helps() || lms_origin_calls();
}

/*
 * Whether the kernel would kill nobody for the caller, because reclaim in its name may not enter
 * file systems: it is only sent back, and others come who can say more. Of allocations that have
 * GFP_NOFS in their own flags we are not told.
 */
static bool lms_is_only_sent_back(void)
{
	return !(current_gfp_context(GFP_KERNEL) & __GFP_FS);
}

#ifdef CONFIG_NUMA
/* Of the policies only MPOL_BIND leaves nodes out; others fall back to all before anybody is killed. */
static bool lms_is_narrow(const struct mempolicy *policy)
{
	return policy && policy->mode == MPOL_BIND && !nodes_subset(node_states[N_MEMORY], lms_policy_nodes(policy));
}

/* Whether part of the caller's memory must come from some nodes alone. */
static bool lms_has_bound_mapping(struct mm_struct *mm)
{
	unsigned int left = DEFAULT_MAX_MAP_COUNT;
	struct vm_area_struct *vma;
	bool bound = false;

	/*
	 * mmap_lock is taken before oom_lock elsewhere, so here it must not be waited for. Who
	 * faults holds it for reading already, which is no hindrance. Who changes its mappings
	 * asks for no page of them; if it is confined even so, plenty is free elsewhere.
	 */
	if (!mmap_read_trylock(mm))
		return false;
	lms_for_each_vma(mm, vma) {
		bound = !left-- || lms_is_narrow(vma_policy(vma));
		if (bound)
			break;
	}
	mmap_read_unlock(mm);
	return bound;
}

/*
 * Whether the caller may be confined to a part of the machine's nodes: its shortage need not be the
 * machine's. Not seen: a policy that belongs to a file (tmpfs).
 */
static bool lms_is_bound(void)
{
	if (num_node_state(N_MEMORY) < 2)
		return false;
	if (!nodes_subset(node_states[N_MEMORY], cpuset_current_mems_allowed))
		return true;
	if (lms_is_narrow(current->mempolicy))
		return true;
	return current->mm && lms_has_bound_mapping(current->mm);
}
#else
static bool lms_is_bound(void)
{
	return false;
}
#endif

/* Under lms.lock, as the two below. */
static bool lms_is_handler(void)
{
	return lms.handler && task_tgid(current) == lms.handler_pid;
}

static bool lms_can_hold(void)
{
	return lms_handler_lives() && !lms.silent && lms_hold_bound();
}

enum lms_verdict {
	LMS_LEAVE,	/* to the kernel */
	LMS_RETRY,	/* send the caller back */
	LMS_BEGIN,	/* this is a shortage of the whole machine */
};

/*
 * Whether a victim of the kernel that still has its memory is to be waited for. The kernel does so
 * without a bound; here there is one, because a tenant can have one of its processes after the other
 * killed at its own limit. Under lms.lock.
 */
static bool lms_may_await(struct lms_doubt *doubt)
{
	if (!doubt->awaits || time_after(jiffies, doubt->awaits_last + msecs_to_jiffies(LMS_FORGET_MS)))
		doubt->awaits_first = jiffies;
	doubt->awaits = true;
	doubt->awaits_last = jiffies;
	return time_before(jiffies, doubt->awaits_first + msecs_to_jiffies(LMS_REAPED_MS));
}

/*
 * What to do about a call while there is no shortage. While a victim of the kernel is on its way the
 * kernel would kill nobody, so the caller is sent back.
 *
 * Next to nothing available: it begins. With more than that it is not clear what the call means,
 * because the kernel's figure is an expectation. So the caller is sent back once or twice, with a
 * short pause, to see what becomes of it:
 *
 * - Nobody calls again: reclaim got there after all.
 * - There are calls again, the last one LMS_AGAIN_MS or more after the first, and nothing that
 *   anybody could have: what counts as available is out of reach. It begins.
 * - There are calls again, and at each one there was plenty that anybody could have: they want
 *   something else than any page (a policy of a file, pages in a row). That is the kernel's to deal
 *   with.
 *
 * Where nobody could be asked and there is no table, there is nothing to wait for.
 */
static enum lms_verdict lms_consider(const struct lms_memory *memory, bool bound, bool awaits)
{
	struct lms_doubt *doubt = &lms.doubt;
	bool plenty = lms_is_plenty(memory);

	/* Whether the kernel would wait for its victim in a shortage of some nodes it knows better. */
	if (awaits && !bound && lms_may_await(doubt))
		return LMS_RETRY;
	if (memory->available <= lms_floor_pages(memory->total))
		return LMS_BEGIN;
	if (bound)
		return LMS_LEAVE;
	/* Memory was given back meanwhile: begin anew. */
	if ((plenty && !doubt->plenty) ||
	    time_after(jiffies, doubt->last + msecs_to_jiffies(LMS_FORGET_MS)))
		doubt->calls = 0;
	if (!doubt->calls++)
		doubt->first = jiffies;
	doubt->last = jiffies;
	doubt->plenty = plenty;
	if (!plenty && !lms_can_hold() && !lms_table_usable())
		return LMS_BEGIN;
	if (doubt->calls < (plenty ? 3 : 2) ||
	    time_before(jiffies, doubt->first + msecs_to_jiffies(LMS_AGAIN_MS)))
		return LMS_RETRY;
	return plenty ? LMS_LEAVE : LMS_BEGIN;
}

static void lms_begin(const struct lms_memory *memory)
{
	if (lms_can_hold()) {
		lms.state = LMS_HOLD;
		lms.hold_seq = ++lms.seq;
		lms.acked = false;
		lms.deadline = jiffies + msecs_to_jiffies(lms_hold_bound());
		lms.holds++;
		lms.others_ask = false;
		lms.acks = 0;
	} else {
		lms_after_hold();
		lms.seq++;
	}
	lms.oom_available = memory->available;
	lms.doubt.calls = 0;
	lms.doubt.awaits = false;
}

static int lms_pass(void)
{
	spin_lock(&lms.lock);
	lms.passes++;
	spin_unlock(&lms.lock);
	return NOTIFY_OK;
}

static void lms_say_begun(enum lms_state state)
{
	unsigned int part = state == LMS_HOLD ? lms_reserve_blocks() / 2 : 0;

	/*
	 * The first half beforehand, while most of those who would take it sleep: an allocation
	 * that fails goes through a second of reclaim before it comes here. The other half is for
	 * those that fail even so.
	 */
	while (part-- && lms_use_reserve())
		;
	/* The thread samples every few milliseconds from now on. */
	lms_notify();
	pr_notice_ratelimited("out of memory: %s\n", state == LMS_HOLD ? "held for the handler" :
			      state == LMS_TABLE ? "nobody is there to be asked, the table is used" :
			      "left to the kernel");
}

/* The handler has run out in a shortage. Whether it was given of the reserve, to try again. */
static bool lms_help_handler(void)
{
	if (lms_use_reserve())
		return true;
	spin_lock(&lms.lock);
	if (lms.state == LMS_HOLD && !lms.others_ask &&
	    time_before(jiffies + msecs_to_jiffies(LMS_ALONE_MS), lms.deadline))
		lms.deadline = jiffies + msecs_to_jiffies(LMS_ALONE_MS);
	spin_unlock(&lms.lock);
	return false;
}

/* Called by out_of_memory() before it chooses a victim; above 0, *data sends the caller back to try once more. */
static int lms_oom_callback(struct notifier_block *block, unsigned long unused, void *data)
{
	bool begun = false, expired = false, handler, counts, bound, nobody_dies, open, idle;
	enum lms_chosen chosen = LMS_CHOSEN_NOBODY;
	unsigned long *freed = data;
	struct lms_memory memory;
	enum lms_state state;
	long pause;

	/* It kills whatever is said here, and says nothing about anybody's want of memory. */
	if (lms_is_sysrq())
		return lms_pass();
	/* Somebody before us gave memory back: nobody needs to die. */
	if (*freed)
		return NOTIFY_OK;
	if (lms_is_the_kernels())
		return lms_pass();
	if (lms_caller_has_reserves()) {
		*freed += 1;
		return NOTIFY_OK;
	}
	idle = READ_ONCE(lms.state) == LMS_IDLE;
	if (idle)
		chosen = lms_kernels_choice();
	if (chosen == LMS_CHOSEN_RUNS)
		return lms_pass();

	lms_read_memory(&memory);
	bound = memory.available > lms_floor_pages(memory.total) && lms_is_bound();
	nobody_dies = lms_is_only_sent_back();

	spin_lock(&lms.lock);
	open = lms.state == LMS_HOLD || lms.state == LMS_TABLE;
	/*
	 * Whoever gets here has found no page, some time ago: it may have been preempted since, while
	 * a victim gave back what it wants.
	 */
	counts = !bound && !nobody_dies && !(open && memory.free >= LMS_HAD_PAGES);
	/*
	 * Waiting for the daemon in its own name would last to the deadline. So its threads never sleep for it: they are
	 * given of the reserve and try again at once, or else each allocation on the way to an answer would set the killer
	 * off. If they run out even so and nobody else asks, they are the ones who take the memory: no use in waiting.
	 */
	handler = lms_is_handler();
	/* A shortage has ended since memory was read: what was read says nothing about another one. */
	if ((nobody_dies && !open) || (!idle && lms.state == LMS_IDLE)) {
		spin_unlock(&lms.lock);
		*freed += 1;
		return NOTIFY_OK;
	}
	if (lms.state == LMS_IDLE) {
		enum lms_verdict verdict = lms_consider(&memory, bound, chosen == LMS_CHOSEN_ENDS);

		if (verdict == LMS_LEAVE) {
			lms.passes++;
			spin_unlock(&lms.lock);
			return NOTIFY_OK;
		}
		begun = verdict == LMS_BEGIN;
		if (begun)
			lms_begin(&memory);
	} else if (counts) {
		/* Others can't say that what was done was not enough. */
		expired = lms_expire();
	}
	if (counts) {
		lms.last_call = jiffies;
		lms.useless = memory.available > memory.free ? memory.available - memory.free : 0;
		lms.swap_then = memory.swap_free;
		lms.calls++;
		if (!handler)
			lms.others_ask = true;
		if (lms.state == LMS_TABLE)
			lms_wait_for_thread();
	}
	state = lms.state;
	spin_unlock(&lms.lock);

	if (begun)
		lms_say_begun(state);
	if (expired)
		lms_say_expired();

	/* It works by the table, and looks whether somebody has asked since its last turn. */
	if (state == LMS_TABLE && counts)
		lms_kick_thread();
	if (state == LMS_FAILED)
		return lms_pass();

	if (lms_caller_ends()) {
		/* The reserve is for a shortage. */
		if (state == LMS_IDLE)
			schedule_timeout_uninterruptible(1);
		else
			lms_help_to_end();
		*freed += 1;
		return NOTIFY_OK;
	}
	if (handler && state != LMS_IDLE && lms_help_handler()) {
		*freed += 1;
		return NOTIFY_OK;
	}
	/* Woken when the hold is over. */
	pause = handler ? 1 : msecs_to_jiffies(LMS_PAUSE_MS);
	wait_event_killable_timeout(lms_answered, READ_ONCE(lms.state) != state, pause);
	/* Who was killed meanwhile gets the kernel's help at once, or ours when it comes again. */
	if (!lms_kernel_helps())
		*freed += 1;
	return NOTIFY_OK;
}

static struct notifier_block lms_oom_block = {
	.notifier_call = lms_oom_callback,
	/* The last: if somebody else who is asked gives memory back, nobody needs to die. */
	.priority = INT_MIN,
};

static int __init lms_init(void)
{
	int error;

	if (!lms_params_fit()) {
		pr_err("kill_percent and kill_max_mb must not be above warn_percent and warn_max_mb\n");
		return -EINVAL;
	}
	lms_init_queues();
	lms_teller = kthread_run(lms_tell_crowd, NULL, "oomwarden_crowd");
	if (IS_ERR(lms_teller))
		return PTR_ERR(lms_teller);
	lms_thread = kthread_run(lms_run, NULL, KBUILD_MODNAME);
	if (IS_ERR(lms_thread)) {
		error = PTR_ERR(lms_thread);
		goto stop_teller;
	}
	error = lms_start_lister();
	if (error)
		goto stop_thread;
	error = register_oom_notifier(&lms_oom_block);
	if (error)
		goto stop_lister;
	error = lms_create_file();
	if (error)
		goto unregister;
	lms_loaded = true;
	return 0;

unregister:
	unregister_oom_notifier(&lms_oom_block);
stop_lister:
	lms_stop_lister();
stop_thread:
	kthread_stop(lms_thread);
	lms_empty_reserve();
stop_teller:
	kthread_stop(lms_teller);
	return error;
}

static void __exit lms_exit(void)
{
	/* Nobody has the file open, or we would be pinned. */
	lms_remove_file();
	unregister_oom_notifier(&lms_oom_block);
	lms_stop_lister();
	kthread_stop(lms_thread);
	kthread_stop(lms_teller);
	lms_table_free();
	lms_empty_reserve();
}

module_init(lms_init);
module_exit(lms_exit);

MODULE_DESCRIPTION("oomwarden's low memory signal: levels, a bounded hold before the OOM killer, a table for the last resort");
MODULE_LICENSE("GPL");
MODULE_VERSION(LMS_VERSION);
