// SPDX-License-Identifier: GPL-2.0
/*
 * oomwarden's low memory signal.
 *
 * Three things, each of use without the next:
 *
 * - Levels. A kernel thread looks at available memory and free swap, and /proc/oom_notifier tells their level (ok, warn,
 *   kill) to whoever reads or polls it.
 * - The hold. When the kernel is about to kill because the whole machine is out of memory, it first asks the callbacks of
 *   register_oom_notifier(). Ours tells it to try again, for a bounded time, while the registered handler (the daemon)
 *   ends a group of its choice.
 * - The table. Where the handler does not answer in time, or is gone, the first group of a list that it left here is
 *   killed. Where that frees nothing the kernel's own killer goes ahead.
 *
 * The callback runs under the kernel's oom_lock, in the context of whoever could not allocate. So the hold is a state with
 * a deadline and not a sleep: each call sleeps a few milliseconds at most and sends the caller back to try again. Nothing
 * on that way allocates, takes a sleeping lock or waits for anybody's death.
 *
 * The format of /proc/oom_notifier is described in README.md beside this file.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "lms.h"

struct lms lms = {
	.lock = __SPIN_LOCK_UNLOCKED(lms.lock),
};

DECLARE_WAIT_QUEUE_HEAD(lms_changed);
DECLARE_WAIT_QUEUE_HEAD(lms_answered);
static DECLARE_WAIT_QUEUE_HEAD(lms_kick);
static bool lms_kicked;

static struct task_struct *lms_thread;

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
	lms.stuck_len = 0;
	lms.dying_id = 0;
	lms.gone = false;
}

/* Where a hold ends without an effect, or there can be none. */
static void lms_after_hold(void)
{
	lms_end_hold();
	lms.state = lms_table_usable() ? LMS_TABLE : LMS_FAILED;
}

/*
 * Whether the shortage is over: there is memory again, or nobody has asked for a time. Who was told to try again may be
 * busy with reclaim for seconds, so where nothing was done about it silence says nothing. Under lms.lock.
 */
static bool lms_is_over(const struct lms_memory *memory)
{
	unsigned long floor = lms_floor_pages(memory->total);
	unsigned int quiet = LMS_LONG_QUIET_MS;

	if (memory->available > max(lms_kill_pages(memory->total), floor))
		return true;
	if (memory->available > floor && lms.state != LMS_FAILED)
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
	if (memory.available <= lms_floor_pages(memory.total) && !lms.acked)
		expired = lms_expire();
	spin_unlock(&lms.lock);
	return expired;
}

static void lms_say_expired(void)
{
	wake_up(&lms_answered);
	pr_notice_ratelimited("out of memory: the hold has expired\n");
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
		wake_up_interruptible_poll(&lms_changed, EPOLLPRI);
		pr_notice_ratelimited("level %s (was %s): %lu of %lu MiB available, %lu MiB of swap free\n",
				      lms_level_name(after), lms_level_name(before),
				      memory.available / PAGES_PER_MB, memory.total / PAGES_PER_MB,
				      memory.swap_free / PAGES_PER_MB);
	}
	if (after == LMS_OOM)
		return LMS_WATCH_MS;
	return lms_next_look_ms(&memory, after);
}

/*
 * A shortage is worked through here too, not only by those who ask: they may be busy with reclaim for seconds between two
 * calls, with everybody else waiting.
 */
static int lms_run(void *unused)
{
	while (!kthread_should_stop()) {
		unsigned int wait = lms_sample();

		if (lms_expire_unasked())
			lms_say_expired();
		if (READ_ONCE(lms.state) == LMS_TABLE && !lms_use_table())
			wake_up(&lms_answered);
		while (!kthread_should_stop() && lms_fill_reserve())
			cond_resched();
		wait_event_idle_timeout(lms_kick, READ_ONCE(lms_kicked) || kthread_should_stop(), msecs_to_jiffies(wait));
		WRITE_ONCE(lms_kicked, false);
	}
	return 0;
}

/* Whether the caller of the OOM is none that may be kept waiting, or whose trouble is not ours. */
static bool lms_is_the_kernels(void)
{
	struct lms_memory memory;

	/* The kernel helps the one to die, and chooses the other. */
	if (lms_kernel_helps() || lms_origin_calls())
		return true;
	/*
	 * What its end needs belongs to the shortage that is being dealt with, however much is
	 * available by now.
	 */
	if (lms_caller_ends() && READ_ONCE(lms.state) != LMS_IDLE)
		return false;
	/* With memory to be had elsewhere this is about a NUMA node, a cpuset or a zone. */
	lms_read_memory(&memory);
	if (memory.available > lms_floor_pages(memory.total))
		return true;
	WRITE_ONCE(lms.oom_available, memory.available);
	return false;
}

/* Under lms.lock. */
static bool lms_is_handler(void)
{
	return lms.handler && task_tgid(current) == lms.handler_pid;
}

static int lms_pass(void)
{
	spin_lock(&lms.lock);
	lms.passes++;
	spin_unlock(&lms.lock);
	return NOTIFY_OK;
}

/* Called by out_of_memory() before it chooses a victim; above 0, *data sends the caller back to try once more. */
static int lms_oom_callback(struct notifier_block *block, unsigned long unused, void *data)
{
	unsigned long *freed = data;
	enum lms_state state;
	bool begun = false, expired = false, handler;
	long pause;

	if (lms_is_the_kernels())
		return lms_pass();
	if (lms_caller_has_reserves()) {
		*freed += 1;
		return NOTIFY_OK;
	}
	if (READ_ONCE(lms.state) == LMS_IDLE && lms_origin_runs())
		return lms_pass();

	spin_lock(&lms.lock);
	/*
	 * Waiting for the daemon in its own name would last to the deadline. So its threads never sleep for it: they are
	 * given of the reserve and try again at once, or else each allocation on the way to an answer would set the killer
	 * off. If they run out even so and nobody else asks, they are the ones who take the memory: no use in waiting.
	 */
	handler = lms_is_handler();
	/*
	 * Kernel threads hold up everybody, so they never wait, and begin nothing: sysrq-f comes from a worker, and kills
	 * whatever is said here. Any other comes again soon enough.
	 */
	if (current->flags & PF_KTHREAD) {
		bool open = lms.state == LMS_HOLD || lms.state == LMS_TABLE;

		lms.calls += open;
		spin_unlock(&lms.lock);
		if (!open)
			return lms_pass();
		*freed += 1;
		return NOTIFY_OK;
	}
	if (lms.state == LMS_IDLE) {
		unsigned int bound = lms_hold_bound();

		if (lms_handler_lives() && !lms.silent && bound) {
			lms.state = LMS_HOLD;
			lms.hold_seq = ++lms.seq;
			lms.acked = false;
			lms.deadline = jiffies + msecs_to_jiffies(bound);
			lms.holds++;
			lms.others_ask = false;
			lms.acks = 0;
		} else {
			lms_after_hold();
			lms.seq++;
		}
		begun = true;
	} else {
		expired = lms_expire();
	}
	lms.last_call = jiffies;
	lms.calls++;
	if (!handler)
		lms.others_ask = true;
	state = lms.state;
	spin_unlock(&lms.lock);

	if (begun) {
		unsigned int part = state == LMS_HOLD ? lms_reserve_blocks() / 2 : 0;

		/*
		 * The first half beforehand, while most of those who would take it sleep: an allocation that fails goes
		 * through a second of reclaim before it comes here. The other half is for those that fail even so.
		 */
		while (part-- && lms_use_reserve())
			;
		wake_up_interruptible_poll(&lms_changed, EPOLLPRI);
		/* Sampled every few milliseconds from now on. */
		lms_kick_thread();
		pr_notice_ratelimited("out of memory: %s\n", state == LMS_HOLD ? "held for the handler" :
				      state == LMS_TABLE ? "nobody is there to be asked, the table is used" :
				      "left to the kernel");
	}
	if (expired)
		lms_say_expired();

	if (state == LMS_TABLE && !lms_use_table())
		state = LMS_FAILED;
	if (state == LMS_FAILED)
		return lms_pass();

	if (lms_caller_ends()) {
		lms_help_to_end();
		*freed += 1;
		return NOTIFY_OK;
	}
	if (handler) {
		if (lms_use_reserve()) {
			*freed += 1;
			return NOTIFY_OK;
		}
		spin_lock(&lms.lock);
		if (lms.state == LMS_HOLD && !lms.others_ask &&
		    time_before(jiffies + msecs_to_jiffies(LMS_ALONE_MS), lms.deadline))
			lms.deadline = jiffies + msecs_to_jiffies(LMS_ALONE_MS);
		spin_unlock(&lms.lock);
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
};
static int __init lms_init(void)
{
	int error;

	if (!lms_params_fit()) {
		pr_err("kill_percent and kill_max_mb must not be above warn_percent and warn_max_mb\n");
		return -EINVAL;
	}
	lms_thread = kthread_run(lms_run, NULL, KBUILD_MODNAME);
	if (IS_ERR(lms_thread))
		return PTR_ERR(lms_thread);
	error = register_oom_notifier(&lms_oom_block);
	if (error)
		goto stop_thread;
	error = lms_create_file();
	if (error)
		goto unregister;
	lms_loaded = true;
	return 0;

unregister:
	unregister_oom_notifier(&lms_oom_block);
stop_thread:
	kthread_stop(lms_thread);
	lms_empty_reserve();
	return error;
}

static void __exit lms_exit(void)
{
	/* Nobody has the file open, or we would be pinned. */
	lms_remove_file();
	unregister_oom_notifier(&lms_oom_block);
	kthread_stop(lms_thread);
	lms_empty_reserve();
}

module_init(lms_init);
module_exit(lms_exit);

MODULE_DESCRIPTION("oomwarden's low memory signal: levels, a bounded hold before the OOM killer, a table for the last resort");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
