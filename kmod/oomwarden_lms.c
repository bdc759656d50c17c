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

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/overflow.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "oomwarden_lms_compat.h"

#define LMS_PROC_NAME		"oom_notifier"
#define LMS_TABLE_IDS		1024
#define LMS_TEXT_MAX		1024	/* what a read gives */
#define LMS_WRITE_MAX		(64 * 1024)
#define LMS_COMMAND_MAX		64	/* a command other than `table`; needs no memory */
#define LMS_KEEP_MAX_S		3600
#define LMS_HOLD_MAX_MS		2000
#define LMS_PAUSE_MS		10	/* one callback's sleep */
#define LMS_WATCH_MS		8	/* how often the end of a shortage is looked for */
#define LMS_QUIET_MS		300	/* nobody has asked for so long with some memory there: the shortage is over */
#define LMS_LONG_QUIET_MS	2000	/* the same with next to no memory, or after the kernel had to go ahead */
#define LMS_DYING_MS		1000	/* how long a group of the table may take to be gone */
#define LMS_DYING_GROUPS	3	/* groups that may be stuck in dying before the kernel goes ahead */
#define LMS_ALONE_MS		50	/* a hold's bound when the handler alone has run out */
#define LMS_ACKS		4	/* further victims of one hold that each have its whole time */
#define LMS_ROOT_ID		1	/* the id of the root group */
#define LMS_RESERVE_ORDER	6	/* pages of one block; large enough to pass by the per-CPU lists */
#define LMS_RESERVE_BLOCKS	32
#define LMS_RESERVE_AGAIN_S	10

#define PAGES_PER_MB		(1UL << (20 - PAGE_SHIFT))
#define PAGES_TO_KB(pages)	((unsigned long)(pages) << (PAGE_SHIFT - 10))

enum lms_level { LMS_OK, LMS_WARN, LMS_KILL, LMS_OOM };

static const char *const lms_level_names[] = { "ok", "warn", "kill", "oom" };

/* How far a shortage of the whole machine has come. */
enum lms_state {
	LMS_IDLE,	/* there is none */
	LMS_HOLD,	/* the handler was told and has until the deadline */
	LMS_TABLE,	/* the table's groups are killed, one after the other */
	LMS_FAILED,	/* the kernel's own killer goes ahead */
};

/* One open file. */
struct lms_file {
	struct mutex lock;	/* text and length */
	u64 seen;		/* seq as it was last read */
	size_t len;
	char text[LMS_TEXT_MAX];
};

struct lms_entry {
	u64 id;
	u16 rank;		/* place in the order of killing */
	bool spare;
};

struct lms_table {
	unsigned int len;
	unsigned int kills;
	struct lms_entry entries[LMS_TABLE_IDS];	/* by id */
	u64 kill_ids[LMS_TABLE_IDS];			/* by rank */
};

/* What is sampled, in pages. */
struct lms_memory {
	unsigned long total;
	unsigned long available;
	unsigned long swap_free;
};

static struct {
	spinlock_t lock;
	enum lms_level memory_level;	/* by the thresholds alone */
	enum lms_state state;
	u64 seq;			/* level changes and beginnings of holds */
	u64 hold_seq;			/* seq of the hold under way, else 0 */
	bool others_ask;		/* somebody else than the handler has asked in the hold under way */
	bool acked;
	unsigned int acks;		/* how often that gave the hold its time anew */
	bool silent;			/* the handler let a hold expire and has not been heard of since */
	unsigned long deadline;		/* of the hold, in jiffies */
	unsigned long last_call;	/* of the callback, in jiffies */
	struct lms_file *handler;
	struct pid *handler_pid;	/* its thread group */
	unsigned int handler_hold_ms;
	unsigned long swap_total;	/* pages; as the handler says */
	struct lms_file *table_owner;
	unsigned int table_keep_s;	/* 0: the table goes with its owner */
	unsigned long table_until;	/* once the owner is gone, in jiffies */
	u64 stuck[LMS_DYING_GROUPS];	/* groups of the table that were killed and are still there */
	unsigned int stuck_len;
	u64 dying_id;			/* the group that is killed and has its time to be gone; 0: none */
	unsigned long gone_at;		/* when the last such group was gone, in jiffies */
	bool gone;
	unsigned long dying_since;
	u64 holds, holds_resolved, holds_expired, holds_passed;
	u64 table_kills, passes, calls;
	unsigned long oom_available;	/* pages, at the last call that was not left to the kernel at once */
} lms;

/* Wakes readers and pollers, callers that are held, and the sampling thread. */
static DECLARE_WAIT_QUEUE_HEAD(lms_changed);
static DECLARE_WAIT_QUEUE_HEAD(lms_answered);
static DECLARE_WAIT_QUEUE_HEAD(lms_kick);
static bool lms_kicked;

/* A table is parsed into the spare one, under lms_table_write, and then takes the other's place under lms_table_lock. */
static struct lms_table lms_tables[2];
static struct lms_table *lms_table = &lms_tables[0];
static DEFINE_MUTEX(lms_table_write);
static DEFINE_MUTEX(lms_table_lock);

static struct task_struct *lms_thread;

/*
 * Memory for the handler's own allocations during a hold. An answer takes a few: descriptors, lists of processes. Without
 * it the handler would be one of those who wait for the answer. Under lms.lock.
 */
static struct page *lms_reserve[LMS_RESERVE_BLOCKS];
static unsigned int lms_reserve_len;
static unsigned long lms_reserve_again;	/* when to try again to fill it, in jiffies; the thread's own */

/* Parameters. Checked when written; relations between them once all have been given at load. */

static unsigned int warn_percent = 20;
static unsigned int kill_percent = 10;
static unsigned int warn_max_mb = 4096;
static unsigned int kill_max_mb = 2048;
static unsigned int interval_ms = 500;
static unsigned int hold_ms = 500;
static unsigned int floor_mb;
static bool lms_loaded;

struct lms_param {
	unsigned int *value;
	unsigned int min, max;
	const unsigned int *at_least;	/* another parameter that this one must not fall below */
	const unsigned int *at_most;	/* or rise above */
};

static void lms_kick_thread(void)
{
	WRITE_ONCE(lms_kicked, true);
	wake_up(&lms_kick);
}

static int lms_param_set(const char *text, const struct kernel_param *kp)
{
	const struct lms_param *param = kp->arg;
	unsigned int value;
	int error;

	error = kstrtouint(text, 10, &value);
	if (error)
		return -EINVAL;
	if (value < param->min || value > param->max)
		return -EINVAL;
	if (lms_loaded && param->at_least && value < *param->at_least)
		return -EINVAL;
	if (lms_loaded && param->at_most && value > *param->at_most)
		return -EINVAL;
	WRITE_ONCE(*param->value, value);
	if (lms_loaded)
		lms_kick_thread();
	return 0;
}

static int lms_param_get(char *buffer, const struct kernel_param *kp)
{
	const struct lms_param *param = kp->arg;

	return scnprintf(buffer, PAGE_SIZE, "%u\n", READ_ONCE(*param->value));
}

static const struct kernel_param_ops lms_param_ops = {
	.set = lms_param_set,
	.get = lms_param_get,
};

#define LMS_PARAM(name, low, high, over, under, text)						\
	static const struct lms_param lms_param_##name = {					\
		.value = &name, .min = low, .max = high, .at_least = over, .at_most = under,	\
	};											\
	module_param_cb(name, &lms_param_ops, (void *)&lms_param_##name, 0644);		\
	MODULE_PARM_DESC(name, text)

LMS_PARAM(warn_percent, 1, 99, &kill_percent, NULL, "available memory below this share is level warn (20)");
LMS_PARAM(kill_percent, 1, 99, NULL, &warn_percent, "available memory below this share is level kill (10)");
LMS_PARAM(warn_max_mb, 1, UINT_MAX / 1024, &kill_max_mb, NULL, "level warn never begins above this many MiB (4096)");
LMS_PARAM(kill_max_mb, 1, UINT_MAX / 1024, NULL, &warn_max_mb, "level kill never begins above this many MiB (2048)");
LMS_PARAM(interval_ms, 50, 10000, NULL, NULL, "how often memory is sampled far from any threshold, in ms (500)");
LMS_PARAM(hold_ms, 0, LMS_HOLD_MAX_MS, NULL, NULL, "how long an OOM may be held for the handler, in ms (500; 0: never)");
LMS_PARAM(floor_mb, 0, UINT_MAX / 1024, NULL, NULL,
	  "an OOM with more available memory than this is left to the kernel, in MiB (0: 2% of memory, 32 to 256)");

static void lms_read_memory(struct lms_memory *memory)
{
	memory->total = totalram_pages();
	memory->available = max(si_mem_available(), 0L);
	memory->swap_free = max(get_nr_swap_pages(), 0L);
}

static unsigned long lms_threshold(unsigned long total, unsigned int percent, unsigned int max_mb)
{
	return min(total / 100 * percent + total % 100 * percent / 100, max_mb * PAGES_PER_MB);
}

static unsigned long lms_warn_pages(unsigned long total)
{
	return lms_threshold(total, READ_ONCE(warn_percent), READ_ONCE(warn_max_mb));
}

static unsigned long lms_kill_pages(unsigned long total)
{
	return lms_threshold(total, READ_ONCE(kill_percent), READ_ONCE(kill_max_mb));
}

static unsigned long lms_floor_pages(unsigned long total)
{
	unsigned long floor = READ_ONCE(floor_mb) * PAGES_PER_MB;

	/* The DMA zone's 16 MiB count as available, and boosted watermarks take some more, in any shortage. */
	return floor ? floor : clamp(total / 50, 32 * PAGES_PER_MB, 256 * PAGES_PER_MB);
}

/*
 * Below a threshold are both available memory and free swap: a machine with much free swap is not low. Of swap the same
 * share counts where its total is known, else the same amount. Who is below comes back only an eighth above.
 */
static bool lms_is_below(const struct lms_memory *memory, unsigned long swap_total, unsigned int percent,
			 unsigned int max_mb, bool was_below)
{
	unsigned long ram = lms_threshold(memory->total, percent, max_mb);
	unsigned long swap = swap_total ? lms_threshold(swap_total, percent, max_mb) : ram;

	if (was_below) {
		ram += ram / 8;
		swap += swap / 8;
	}
	return memory->available < ram && memory->swap_free < max(swap, 1UL);
}

static enum lms_level lms_judge(const struct lms_memory *memory, unsigned long swap_total, enum lms_level before)
{
	if (lms_is_below(memory, swap_total, READ_ONCE(kill_percent), READ_ONCE(kill_max_mb), before >= LMS_KILL))
		return LMS_KILL;
	if (lms_is_below(memory, swap_total, READ_ONCE(warn_percent), READ_ONCE(warn_max_mb), before >= LMS_WARN))
		return LMS_WARN;
	return LMS_OK;
}

/* The level that is told. Under lms.lock. */
static enum lms_level lms_level(void)
{
	return lms.state == LMS_IDLE ? lms.memory_level : LMS_OOM;
}

/* The handler, unless it is about to die: then it answers nobody. Under lms.lock. */
static bool lms_handler_lives(void)
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
static unsigned int lms_hold_bound(void)
{
	unsigned int bound = READ_ONCE(hold_ms);

	return lms.handler_hold_ms ? min(bound, lms.handler_hold_ms) : bound;
}

/*
 * Whether the table may be used: it is its owner's wish while the owner is the handler, or where the owner asked for it
 * to be kept. Under lms.lock; whether there is anything in it shows when it is used.
 */
static bool lms_table_usable(void)
{
	if (lms.table_owner)
		return lms.table_owner == lms.handler || lms.table_keep_s;
	return lms.table_keep_s && time_before(jiffies, lms.table_until);
}

/* Under lms.lock, as the two below. */
static void lms_end_hold(void)
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

/* A 128th of memory, at most 8 MiB (with pages of 4 KiB). */
static unsigned int lms_reserve_wanted(void)
{
	return clamp(totalram_pages() / 128 >> LMS_RESERVE_ORDER, 1UL, (unsigned long)LMS_RESERVE_BLOCKS);
}

/* Fills the reserve by one block, while memory is easily had. Whether there is more to do. */
static bool lms_fill_reserve(void)
{
	struct lms_memory memory;
	struct page *page;
	bool wanted;

	spin_lock(&lms.lock);
	wanted = lms.state == LMS_IDLE && lms_reserve_len < lms_reserve_wanted();
	spin_unlock(&lms.lock);
	lms_read_memory(&memory);
	/* It must not be what makes memory short. */
	if (!wanted || memory.available < lms_kill_pages(memory.total) + lms_floor_pages(memory.total))
		return false;
	if (time_before(jiffies, lms_reserve_again))
		return false;
	page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, LMS_RESERVE_ORDER);
	if (!page) {
		/* Fragmented: not worth an effort twice a second. */
		lms_reserve_again = jiffies + LMS_RESERVE_AGAIN_S * HZ;
		return false;
	}
	/* Only the thread fills it. */
	spin_lock(&lms.lock);
	lms_reserve[lms_reserve_len++] = page;
	spin_unlock(&lms.lock);
	return true;
}

/* Gives a block of the reserve back to the kernel, for whoever is next. Whether there was one. */
static bool lms_use_reserve(void)
{
	struct page *page = NULL;

	spin_lock(&lms.lock);
	if (lms_reserve_len)
		page = lms_reserve[--lms_reserve_len];
	spin_unlock(&lms.lock);
	if (page)
		__free_pages(page, LMS_RESERVE_ORDER);
	return page;
}

/* Takes a new sample; how long to wait for the next one, in ms. */
static unsigned int lms_sample(void)
{
	enum lms_level before, after;
	struct lms_memory memory;
	unsigned long next, left;
	unsigned int wait, interval = READ_ONCE(interval_ms);

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
				      lms_level_names[after], lms_level_names[before],
				      memory.available / PAGES_PER_MB, memory.total / PAGES_PER_MB,
				      memory.swap_free / PAGES_PER_MB);
	}
	if (after == LMS_OOM)
		return LMS_WATCH_MS;
	/* The nearer the next threshold, the sooner: down to a tenth, and 10 ms. */
	next = after == LMS_OK ? lms_warn_pages(memory.total) : lms_kill_pages(memory.total);
	left = memory.available > next && after != LMS_KILL ? memory.available - next : 0;
	wait = left >= next ? interval : (unsigned int)(interval * left / max(next, 1UL));
	return max3(wait, interval / 10, 10U);
}

static int lms_compare_entries(const void *left, const void *right)
{
	const struct lms_entry *a = left, *b = right;

	return a->id < b->id ? -1 : a->id > b->id;
}

static const struct lms_entry *lms_find(const struct lms_table *table, u64 id)
{
	unsigned int low = 0, high = table->len;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;

		if (table->entries[middle].id == id)
			return &table->entries[middle];
		if (table->entries[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* The first place in the order of killing that a group or one above it has, but for stuck ones; -1: none, or spared. RCU. */
static int lms_rank_of(const struct lms_table *table, struct task_struct *p, const u64 *stuck, unsigned int stuck_len)
{
	struct cgroup *group;
	int rank = -1;

	for (group = task_dfl_cgroup(p); group; group = cgroup_parent(group)) {
		const struct lms_entry *entry = lms_find(table, cgroup_id(group));
		unsigned int at;

		if (!entry)
			continue;
		if (entry->spare)
			return -1;
		for (at = 0; at < stuck_len && stuck[at] != entry->id; at++)
			;
		if (at == stuck_len && (rank < 0 || entry->rank < rank))
			rank = entry->rank;
	}
	return rank;
}

/* Whether any of its threads still has memory, or is giving it back: a thread lets go of its mm before that is done. RCU. */
static bool lms_holds_memory(struct task_struct *p)
{
	struct task_struct *t;

	for_each_thread(p, t) {
		if (!READ_ONCE(t->exit_state))
			return true;
	}
	return false;
}

/* Never: kernel threads, init, the handler, who is exempt from the kernel's own killer. RCU. */
static bool lms_may_kill(struct task_struct *p, struct pid *handler)
{
	if ((p->flags & PF_KTHREAD) || is_global_init(p))
		return false;
	if (handler && task_tgid(p) == handler)
		return false;
	if (READ_ONCE(p->signal->oom_score_adj) == OOM_SCORE_ADJ_MIN)
		return false;
	return lms_holds_memory(p);
}

/*
 * Kills the table's first group that still holds memory, or waits for it where it was killed before. Whether the kernel
 * is to try again: false when there is nobody (more) to kill.
 */
static bool lms_use_table(void)
{
	unsigned int stuck_len, killed = 0;
	u64 stuck[LMS_DYING_GROUPS], id = 0;
	const struct lms_table *table;
	struct task_struct *p;
	struct pid *handler;
	bool more = true;
	int first = -1;

	/* Taken by a writer for the moment of exchanging tables: come again. */
	if (!mutex_trylock(&lms_table_lock))
		return true;
	table = lms_table;

	spin_lock(&lms.lock);
	if (lms.state != LMS_TABLE || !lms_table_usable()) {
		if (lms.state == LMS_TABLE)
			lms.state = LMS_FAILED;
		spin_unlock(&lms.lock);
		mutex_unlock(&lms_table_lock);
		return false;
	}
	stuck_len = lms.stuck_len;
	memcpy(stuck, lms.stuck, sizeof(stuck));
	handler = get_pid(lms.handler_pid);
	spin_unlock(&lms.lock);

	rcu_read_lock();
	for_each_process(p) {
		int rank;

		if (!lms_may_kill(p, handler))
			continue;
		rank = lms_rank_of(table, p, stuck, stuck_len);
		if (rank >= 0 && (first < 0 || rank < first))
			first = rank;
	}
	if (first >= 0)
		id = table->kill_ids[first];

	spin_lock(&lms.lock);
	if (lms.dying_id && lms.dying_id != id) {
		lms.dying_id = 0;
		lms.gone = true;
		lms.gone_at = jiffies;
	}
	if (!lms.dying_id && lms.gone && time_after_eq(lms.gone_at, lms.last_call)) {
		/* One is gone and nobody has asked since: it may have been enough. */
		id = 0;
	} else if (first < 0) {
		more = false;
	} else if (!lms.dying_id) {
		lms.dying_id = id;
		lms.dying_since = jiffies;
	} else if (time_after(jiffies, lms.dying_since + msecs_to_jiffies(LMS_DYING_MS))) {
		/* It can't die. The next one is looked for when somebody comes again. */
		lms.stuck[lms.stuck_len++] = id;
		lms.dying_id = 0;
		id = 0;
		more = lms.stuck_len < LMS_DYING_GROUPS;
	}
	if (!more)
		lms.state = LMS_FAILED;
	spin_unlock(&lms.lock);

	if (more && id) {
		for_each_process(p) {
			if (!lms_may_kill(p, handler) || lms_is_dying(p) ||
			    lms_rank_of(table, p, stuck, stuck_len) != first)
				continue;
			/* To the process: its first thread may have gone without the others. */
			if (!kill_pid(task_tgid(p), SIGKILL, 1))
				killed++;
		}
	}
	rcu_read_unlock();

	if (killed) {
		spin_lock(&lms.lock);
		lms.table_kills += killed;
		spin_unlock(&lms.lock);
		pr_warn_ratelimited("no answer: killed %u processes of group %llu by the table\n", killed, id);
	}
	put_pid(handler);
	mutex_unlock(&lms_table_lock);
	return more;
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

	/* A victim: the kernel gives it what it needs to die. */
	if ((current->flags & PF_EXITING) || fatal_signal_pending(current))
		return true;
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
		unsigned int part = state == LMS_HOLD ? READ_ONCE(lms_reserve_len) / 2 : 0;

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
	if (wait_event_killable_timeout(lms_answered, READ_ONCE(lms.state) != state, pause) < 0)
		return NOTIFY_OK;
	if (fatal_signal_pending(current))
		return NOTIFY_OK;
	*freed += 1;
	return NOTIFY_OK;
}

static struct notifier_block lms_oom_block = {
	.notifier_call = lms_oom_callback,
};

static size_t lms_render(char *text, u64 *seen)
{
	const struct lms_table *table = READ_ONCE(lms_table);
	struct lms_memory memory;
	size_t len;

	/* The level and the numbers that it is told with belong together. */
	lms_sample();
	lms_read_memory(&memory);
	spin_lock(&lms.lock);
	*seen = lms.seq;
	len = scnprintf(text, LMS_TEXT_MAX,
			"level %s\n"
			"seq %llu\n"
			"mem_total_kb %lu\n"
			"mem_available_kb %lu\n"
			"swap_total_kb %lu\n"
			"swap_free_kb %lu\n"
			"page_size %lu\n"
			"warn_percent %u\n"
			"kill_percent %u\n"
			"handler_pid %d\n"
			"holds %llu\n"
			"holds_resolved %llu\n"
			"holds_expired %llu\n"
			"table_kills %llu\n"
			"hold_seq %llu\n"
			"hold_ms %u\n"
			"warn_kb %lu\n"
			"kill_kb %lu\n"
			"floor_kb %lu\n"
			"table_kill_ids %u\n"
			"table_spare_ids %u\n"
			"passes %llu\n"
			"holds_passed %llu\n"
			"oom_available_kb %lu\n"
			"reserve_kb %lu\n"
			"calls %llu\n",
			lms_level_names[lms_level()], lms.seq,
			PAGES_TO_KB(memory.total), PAGES_TO_KB(memory.available),
			PAGES_TO_KB(lms.swap_total), PAGES_TO_KB(memory.swap_free), PAGE_SIZE,
			READ_ONCE(warn_percent), READ_ONCE(kill_percent),
			lms.handler ? pid_vnr(lms.handler_pid) : 0,
			lms.holds, lms.holds_resolved, lms.holds_expired, lms.table_kills,
			lms.hold_seq, lms_hold_bound(),
			PAGES_TO_KB(lms_warn_pages(memory.total)), PAGES_TO_KB(lms_kill_pages(memory.total)),
			PAGES_TO_KB(lms_floor_pages(memory.total)),
			table->kills, table->len - table->kills,
			lms.passes, lms.holds_passed, PAGES_TO_KB(lms.oom_available),
			PAGES_TO_KB((unsigned long)lms_reserve_len << LMS_RESERVE_ORDER), lms.calls);
	spin_unlock(&lms.lock);
	return len;
}

static int lms_open(struct inode *inode, struct file *file)
{
	struct lms_file *f;

	/* procfs keeps nobody from unloading us under a reader or a poller. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	if (!f) {
		module_put(THIS_MODULE);
		return -ENOMEM;
	}
	mutex_init(&f->lock);
	spin_lock(&lms.lock);
	f->seen = lms.seq;
	spin_unlock(&lms.lock);
	file->private_data = f;
	return 0;
}

/* Forgets the handler. Under lms.lock; the caller puts the pid. */
static struct pid *lms_drop_handler(void)
{
	struct pid *pid = lms.handler_pid;

	lms.handler = NULL;
	lms.handler_pid = NULL;
	lms.handler_hold_ms = 0;
	lms.silent = false;
	return pid;
}

static void lms_exchange_tables(void)
{
	mutex_lock(&lms_table_lock);
	WRITE_ONCE(lms_table, lms_table == &lms_tables[0] ? &lms_tables[1] : &lms_tables[0]);
	mutex_unlock(&lms_table_lock);
}

static struct lms_table *lms_spare_table(void)
{
	return lms_table == &lms_tables[0] ? &lms_tables[1] : &lms_tables[0];
}

static int lms_release(struct inode *inode, struct file *file)
{
	struct lms_file *f = file->private_data;
	struct pid *pid = NULL;
	bool clear = false;

	mutex_lock(&lms_table_write);
	spin_lock(&lms.lock);
	if (lms.handler == f)
		pid = lms_drop_handler();
	if (lms.table_owner == f) {
		lms.table_owner = NULL;
		lms.table_until = jiffies + lms.table_keep_s * HZ;
		clear = !lms.table_keep_s;
	}
	spin_unlock(&lms.lock);
	if (clear) {
		lms_spare_table()->len = 0;
		lms_spare_table()->kills = 0;
		lms_exchange_tables();
	}
	mutex_unlock(&lms_table_write);

	put_pid(pid);
	kfree(f);
	/* remove_proc_entry() in lms_exit() waits for the end of this function. */
	module_put(THIS_MODULE);
	return 0;
}

static ssize_t lms_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	struct lms_file *f = file->private_data;
	ssize_t done;

	if (mutex_lock_interruptible(&f->lock))
		return -ERESTARTSYS;
	if (*pos == 0) {
		u64 seen;

		f->len = lms_render(f->text, &seen);
		WRITE_ONCE(f->seen, seen);
	}
	done = simple_read_from_buffer(to, count, pos, f->text, f->len);
	mutex_unlock(&f->lock);

	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.silent = false;
	spin_unlock(&lms.lock);
	return done;
}

static __poll_t lms_poll(struct file *file, poll_table *wait)
{
	struct lms_file *f = file->private_data;
	__poll_t mask = EPOLLIN | EPOLLRDNORM;

	poll_wait(file, &lms_changed, wait);
	spin_lock(&lms.lock);
	if (READ_ONCE(f->seen) != lms.seq)
		mask |= EPOLLPRI;
	spin_unlock(&lms.lock);
	return mask;
}

/* Takes the word at the front, if it is there and ends there. */
static bool lms_word(const char **text, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*text, word, len) || ((*text)[len] && (*text)[len] != ' ' && (*text)[len] != '\n'))
		return false;
	*text += len;
	return true;
}

/* Takes a blank and a decimal number of digits alone. */
static bool lms_number(const char **text, u64 *number)
{
	const char *at = *text;
	u64 value = 0;

	if (*at++ != ' ' || *at < '0' || *at > '9')
		return false;
	for (; *at >= '0' && *at <= '9'; at++) {
		if (check_mul_overflow(value, (u64)10, &value) || check_add_overflow(value, (u64)(*at - '0'), &value))
			return false;
	}
	*text = at;
	*number = value;
	return true;
}

static int lms_write_handler(struct lms_file *f, const char *text)
{
	struct pid *pid, *old = NULL;
	u64 ms = 0;
	int error = 0;

	if (*text && (!lms_number(&text, &ms) || *text || ms < 1 || ms > LMS_HOLD_MAX_MS))
		return -EINVAL;
	pid = get_pid(task_tgid(current));
	spin_lock(&lms.lock);
	if (lms.handler && lms.handler != f && lms_handler_lives()) {
		error = -EBUSY;
		old = pid;
	} else {
		old = lms_drop_handler();
		lms.handler = f;
		lms.handler_pid = pid;
		lms.handler_hold_ms = ms;
	}
	spin_unlock(&lms.lock);
	put_pid(old);
	return error;
}

static int lms_write_release(struct lms_file *f)
{
	struct pid *pid = NULL;
	int error = -ENOENT;

	spin_lock(&lms.lock);
	if (lms.handler == f) {
		pid = lms_drop_handler();
		error = 0;
	}
	spin_unlock(&lms.lock);
	put_pid(pid);
	return error;
}

static int lms_write_answer(struct lms_file *f, const char *text, bool pass)
{
	int error = 0;
	u64 seq;

	if (!lms_number(&text, &seq) || *text)
		return -EINVAL;
	spin_lock(&lms.lock);
	if (lms.handler != f) {
		error = -EPERM;
	} else if (lms.state != LMS_HOLD || seq < lms.hold_seq || seq > lms.seq) {
		error = -ESTALE;
	} else if (pass) {
		lms_end_hold();
		lms.state = LMS_FAILED;
		lms.holds_passed++;
	} else {
		/* One victim was not enough: the next one has its time too, but not for ever. */
		if (lms.acked && lms.acks < LMS_ACKS) {
			lms.acks++;
			lms.deadline = jiffies + msecs_to_jiffies(lms_hold_bound());
		}
		lms.acked = true;
	}
	spin_unlock(&lms.lock);
	if (!error)
		wake_up(&lms_answered);
	return error;
}

static int lms_write_swap_total(struct lms_file *f, const char *text)
{
	int error = 0;
	u64 kb;

	if (!lms_number(&text, &kb) || *text || kb > (u64)LONG_MAX >> 10)
		return -EINVAL;
	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.swap_total = kb >> (PAGE_SHIFT - 10);
	else
		error = -EPERM;
	spin_unlock(&lms.lock);
	if (!error)
		lms_kick_thread();
	return error;
}

/* The lines after `table`, into the spare table. Under lms_table_write. */
static int lms_parse_table(const char *text, struct lms_table *table)
{
	unsigned int at;

	table->len = 0;
	table->kills = 0;
	if (!strcmp(text, "clear"))
		return 0;
	while (*text) {
		struct lms_entry *entry = &table->entries[table->len];
		bool spare;

		if (lms_word(&text, "kill"))
			spare = false;
		else if (lms_word(&text, "spare"))
			spare = true;
		else
			return -EINVAL;
		if (table->len == LMS_TABLE_IDS)
			return -EINVAL;
		if (!lms_number(&text, &entry->id) || !entry->id)
			return -EINVAL;
		/* The root holds everybody. */
		if (!spare && entry->id == LMS_ROOT_ID)
			return -EINVAL;
		if (*text && *text++ != '\n')
			return -EINVAL;
		entry->spare = spare;
		entry->rank = 0;
		if (!spare) {
			entry->rank = table->kills;
			table->kill_ids[table->kills++] = entry->id;
		}
		table->len++;
	}
	if (!table->len)
		return -EINVAL;
	sort(table->entries, table->len, sizeof(table->entries[0]), lms_compare_entries, NULL);
	for (at = 1; at < table->len; at++) {
		if (table->entries[at].id == table->entries[at - 1].id)
			return -EINVAL;
	}
	return 0;
}

static int lms_write_table(struct lms_file *f, const char *text)
{
	u64 keep = 0;
	int error;

	/* The word and the option may stand on a line of their own, or be left out. */
	if (lms_word(&text, "table")) {
		if (lms_word(&text, " keep") && (!lms_number(&text, &keep) || !keep || keep > LMS_KEEP_MAX_S))
			return -EINVAL;
		if (*text != ' ' && *text != '\n')
			return -EINVAL;
		text++;
	}
	error = mutex_lock_interruptible(&lms_table_write);
	if (error)
		return error;
	error = lms_parse_table(text, lms_spare_table());
	if (!error) {
		spin_lock(&lms.lock);
		if (lms.handler && lms.handler != f && lms_handler_lives()) {
			error = -EBUSY;
		} else {
			lms.table_owner = f;
			lms.table_keep_s = keep;
		}
		spin_unlock(&lms.lock);
	}
	if (!error)
		lms_exchange_tables();
	mutex_unlock(&lms_table_write);
	return error;
}

static int lms_command(struct lms_file *f, char *text, size_t len)
{
	const char *at = text;

	if (len && text[len - 1] == '\n')
		text[--len] = '\0';
	if (!len || strlen(text) != len)
		return -EINVAL;
	if (lms_word(&at, "handler"))
		return lms_write_handler(f, at);
	if (lms_word(&at, "ack"))
		return lms_write_answer(f, at, false);
	if (lms_word(&at, "pass"))
		return lms_write_answer(f, at, true);
	if (lms_word(&at, "swap_total"))
		return lms_write_swap_total(f, at);
	if (!strcmp(text, "release"))
		return lms_write_release(f);
	return lms_write_table(f, text);
}

static ssize_t lms_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct lms_file *f = file->private_data;
	char small[LMS_COMMAND_MAX + 1];
	int error;

	/* Root of a container may be the file's owner too: what a table does takes more than that. */
	if (!capable(CAP_KILL) || !capable(CAP_SYS_RESOURCE))
		return -EPERM;
	if (!count)
		return -EINVAL;
	if (count > LMS_WRITE_MAX)
		return -E2BIG;
	if (count <= LMS_COMMAND_MAX) {
		/* An answer under memory pressure must not need memory. */
		if (copy_from_user(small, from, count))
			return -EFAULT;
		small[count] = '\0';
		error = lms_command(f, small, count);
	} else {
		char *text = memdup_user_nul(from, count);

		if (IS_ERR(text))
			return PTR_ERR(text);
		error = lms_command(f, text, count);
		kfree(text);
	}
	if (error)
		return error;
	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.silent = false;
	spin_unlock(&lms.lock);
	/* The position stays, so that a read after a write begins at the beginning. */
	return count;
}

static const struct proc_ops lms_proc_ops = {
	.proc_open = lms_open,
	.proc_read = lms_read,
	.proc_write = lms_write,
	.proc_poll = lms_poll,
	.proc_lseek = default_llseek,
	.proc_release = lms_release,
};

static int __init lms_init(void)
{
	int error;

	if (kill_percent > warn_percent || kill_max_mb > warn_max_mb) {
		pr_err("kill_percent and kill_max_mb must not be above warn_percent and warn_max_mb\n");
		return -EINVAL;
	}
	spin_lock_init(&lms.lock);
	lms_reserve_again = jiffies;
	lms_thread = kthread_run(lms_run, NULL, KBUILD_MODNAME);
	if (IS_ERR(lms_thread))
		return PTR_ERR(lms_thread);
	error = register_oom_notifier(&lms_oom_block);
	if (error)
		goto stop_thread;
	if (!proc_create(LMS_PROC_NAME, 0644, NULL, &lms_proc_ops)) {
		pr_err("/proc/%s can't be made: is it there already?\n", LMS_PROC_NAME);
		error = -EEXIST;
		goto unregister;
	}
	lms_loaded = true;
	return 0;

unregister:
	unregister_oom_notifier(&lms_oom_block);
stop_thread:
	kthread_stop(lms_thread);
	while (lms_use_reserve())
		;
	return error;
}

static void __exit lms_exit(void)
{
	/* Waits for those who are in one of our functions; nobody has the file open, or we would be pinned. */
	remove_proc_entry(LMS_PROC_NAME, NULL);
	unregister_oom_notifier(&lms_oom_block);
	kthread_stop(lms_thread);
	while (lms_use_reserve())
		;
}

module_init(lms_init);
module_exit(lms_exit);

MODULE_DESCRIPTION("oomwarden's low memory signal: levels, a bounded hold before the OOM killer, a table for the last resort");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
