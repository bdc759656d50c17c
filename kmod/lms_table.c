// SPDX-License-Identifier: GPL-2.0
/*
 * The table: whose it is, how long it is in force, and the killing by it, one victim after the
 * other. Who that is, the policy behind struct lms_policy says.
 *
 * The module's thread alone looks at the machine and kills (lms_use_table()). Who could not allocate
 * holds oom_lock and may be throttled, or of the lowest priority, and others would wait for that.
 *
 * Locks, in their order: lms_table_write (writers, from one who parses to the exchange), lms.lock.
 * While the thread is in the policy table.in_use is set, and writers wait to exchange tables. Nobody
 * who holds something that the thread waits for can lose the processor, so it is no lock: a writer
 * may be throttled too.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "lms.h"

#define LMS_DYING_NS		(1000 * (u64)NSEC_PER_MSEC)	/* how long those who were killed may take to be gone */
#define LMS_STUCK		3	/* victims that may take longer before the kernel goes ahead */
#define LMS_WAITS		8	/* of those that end by themselves, before others die */
#define LMS_TIMES		4	/* how often one that comes back is killed, and for so long at least, before others */
#define LMS_TIMES_NS		LMS_DYING_NS
#define LMS_VICTIMS		16	/* victims of a shortage that are remembered */

/* A victim of the shortage under way. */
struct lms_victim {
	u64 id;
	u64 first;		/* when it was killed for the first time, as ktime_get_ns() counts */
	unsigned int times;	/* it was killed, and came back in between */
	bool over;		/* is no candidate any more: it is stuck, or comes back again and again */
};

/* All of it under lms.lock. */
static struct {
	struct lms_file *owner;
	struct pid *owner_pid;		/* its process; put when the file is closed or another table is written */
	bool orphaned;			/* the process is dead, but somebody still has its file */
	unsigned int keep_s;		/* 0: the table goes with its owner */
	unsigned long until;		/* once the owner is gone, in jiffies */

	u64 shortage;			/* counts shortages: nobody is killed for one that is over */
	struct lms_victim victims[LMS_VICTIMS];
	unsigned int victims_len;
	unsigned int stuck;
	struct lms_victim *dying;	/* the one that is killed and has its time to be gone */
	u64 since;			/* from when on that time counts, as ktime_get_ns() does */
	u64 signalled;			/* the end of the last round of signals for it, the same */
	unsigned long signalled_at;		/* the same in jiffies */
	bool gone;			/* the last victim is gone, since: */
	unsigned long gone_at;
	bool waits;			/* the dying one ends by itself, and nobody in it was sent anything */
	unsigned int waited;		/* so many were waited for like that; of these in vain: */
	unsigned int waited_in_vain;
	bool listed;			/* pages are in the processors' lists; known since: */
	unsigned long listed_at;

	bool in_use;			/* the thread is in the policy */
} table;

static DEFINE_MUTEX(lms_table_write);
static DECLARE_WAIT_QUEUE_HEAD(lms_unused);	/* writers, for table.in_use */
static const struct lms_policy *const lms_policy = &lms_rules;

#ifdef LMS_TEST
/*
 * Between the choice of a victim and its death there are so many milliseconds, or fewer if this is
 * set to 0 meanwhile: a test lets memory come back there.
 */
static unsigned int test_delay_ms;
module_param(test_delay_ms, uint, 0644);

/* How long it took to look at the machine and to choose, at most since it was set to 0. */
static unsigned int test_choose_us;
module_param(test_choose_us, uint, 0644);

/* When the time of the dying victim began, in ms of the monotonic clock. */
static unsigned long test_since_ms;
module_param(test_since_ms, ulong, 0444);

/* How many victims were chosen since it was set to 0; one that is chosen again counts again. */
static unsigned int test_chosen;
module_param(test_chosen, uint, 0644);

/* While this is 1 the thread gets nowhere with the table. */
static bool test_stuck;
module_param(test_stuck, bool, 0644);

/* So many victims are remembered. */
static unsigned int test_victims = LMS_VICTIMS;
module_param(test_victims, uint, 0644);

static unsigned int lms_victims_max(void)
{
	return clamp(test_victims, 1U, (unsigned int)LMS_VICTIMS);
}

static void lms_test_delay(void)
{
	unsigned long end = jiffies + msecs_to_jiffies(READ_ONCE(test_delay_ms));

	while (READ_ONCE(test_delay_ms) && time_before(jiffies, end)) {
		/* It is not stuck. */
		lms_served();
		msleep(10);
	}
}

static void lms_test_stuck(void)
{
	while (READ_ONCE(test_stuck))
		msleep(10);
}

static void lms_test_chosen(u64 begun)
{
	test_choose_us = max_t(u64, test_choose_us, (ktime_get_ns() - begun) / NSEC_PER_USEC);
}

static void lms_test_since(u64 since)
{
	test_since_ms = since / NSEC_PER_MSEC;
	test_chosen++;
}
#else
static unsigned int lms_victims_max(void)
{
	return LMS_VICTIMS;
}

static void lms_test_delay(void)
{
}

static void lms_test_stuck(void)
{
}

static void lms_test_chosen(u64 begun)
{
}

static void lms_test_since(u64 since)
{
}
#endif

/* Under lms.lock. */
static void lms_orphan_table(void)
{
	table.until = jiffies + table.keep_s * HZ;
	table.orphaned = true;
}

/*
 * A table is its owner's wish while the owner's process lives, and not for as long as somebody has
 * its file: a child may have inherited that. Under lms.lock.
 */
static void lms_look_for_owner(void)
{
	struct task_struct *task;

	if (!table.owner || table.orphaned)
		return;
	rcu_read_lock();
	task = pid_task(table.owner_pid, PIDTYPE_TGID);
	if (!task || lms_is_dying(task))
		lms_orphan_table();
	rcu_read_unlock();
}

/*
 * From the thread, so that the time of `keep` begins when the owner dies and not when somebody
 * asks.
 */
void lms_table_look_after(void)
{
	spin_lock(&lms.lock);
	lms_look_for_owner();
	spin_unlock(&lms.lock);
}

/*
 * Whether the table may be used: while its owner is the handler, or where the owner asked for it to
 * be kept. Under lms.lock; whether there is anybody in it shows when it is used.
 */
bool lms_table_usable(void)
{
	lms_look_for_owner();
	if (table.owner && !table.orphaned)
		return table.owner == lms.handler || table.keep_s;
	return table.keep_s && time_before(jiffies, table.until);
}

/* A shortage is over. Under lms.lock. */
void lms_table_reset(void)
{
	table.shortage++;
	table.victims_len = 0;
	table.stuck = 0;
	table.dying = NULL;
	table.gone = false;
	table.waited = 0;
	table.waited_in_vain = 0;
	table.listed = false;
}

/* Whether the shortage for which somebody is to be killed still is one. Under lms.lock. */
static bool lms_same_shortage(u64 shortage)
{
	return lms.state == LMS_TABLE && table.shortage == shortage && lms_table_usable();
}

static u64 lms_shortage;	/* for which a victim is chosen; the thread's own */

/* Looks at memory too: nobody else may have done so since somebody asked. */
static bool lms_may_kill(void)
{
	bool may;

	lms_sample();
	spin_lock(&lms.lock);
	may = lms_same_shortage(lms_shortage);
	spin_unlock(&lms.lock);
	return may;
}

/*
 * The place of a victim among those of this shortage. Where there is none it is that of the one
 * that was chosen longest ago, but not of one that is over, which would have its turn again. NULL:
 * all are. Under lms.lock.
 */
static struct lms_victim *lms_remember(u64 id)
{
	struct lms_victim *victim;
	unsigned int at;

	for (at = 0; at < table.victims_len; at++) {
		if (table.victims[at].id == id)
			return &table.victims[at];
	}
	if (table.victims_len >= lms_victims_max()) {
		for (at = 0; at < table.victims_len && table.victims[at].over; at++)
			;
		if (at == table.victims_len)
			return NULL;
		table.victims_len--;
		memmove(&table.victims[at], &table.victims[at + 1],
			(table.victims_len - at) * sizeof(table.victims[0]));
	}
	victim = &table.victims[table.victims_len++];
	memset(victim, 0, sizeof(*victim));
	victim->id = id;
	return victim;
}

/*
 * One that was killed comes back, or its successors do: a service that is started anew, say. That
 * does not make it stuck, but others must have their turn where it gives back too little again and
 * again. Whether they have. Under lms.lock.
 */
static bool lms_comes_back(struct lms_victim *victim, u64 now)
{
	if (!victim->times++)
		victim->first = now;
	return victim->times > LMS_TIMES && now - victim->first > LMS_TIMES_NS;
}

/*
 * No candidate any more; LMS_STUCK of them are as many as are waited for. One that was to end by
 * itself and does not stays a candidate: somebody may live in it yet. Under lms.lock.
 */
static void lms_give_up_on(struct lms_victim *victim, bool stuck)
{
	if (table.waits) {
		table.waited_in_vain++;
		stuck = false;
	} else {
		victim->over = true;
	}
	table.dying = NULL;
	/* What it has given back may be enough: only somebody who asks can say that it was not. */
	table.gone = true;
	table.gone_at = jiffies;
	table.stuck += stuck;
	if (table.stuck == LMS_STUCK)
		lms.state = LMS_FAILED;
}

/* What is to be done next about a shortage. */
enum lms_step {
	LMS_STEP_WAIT,		/* nothing */
	LMS_STEP_AGAIN,		/* newcomers of the dying victim are sent after the others */
	LMS_STEP_NEXT,		/* another one is chosen */
};

/*
 * How far the dying victim is. Its killed processes are known by when they began: whoever began
 * after the last round of signals is a newcomer, of a victim that is gone or not.
 */
static enum lms_step lms_follow(u64 id, u64 since, u64 signalled)
{
	bool old = lms_policy->is_dying(id, since);
	bool new = !old && signalled != since && lms_policy->is_dying(id, signalled);
	enum lms_step step = LMS_STEP_WAIT;
	u64 now = ktime_get_ns();

	spin_lock(&lms.lock);
	if (!lms_same_shortage(lms_shortage) || !table.dying)
		goto unlock;
	if (old && now - since > LMS_DYING_NS) {
		/* It can't die. The next one is looked for when somebody comes again. */
		lms_give_up_on(table.dying, true);
	} else if (new && lms_comes_back(table.dying, now)) {
		lms_give_up_on(table.dying, false);
		step = LMS_STEP_NEXT;
	} else if (old || new) {
		if (new)
			table.since = signalled;
		/* A group dies whole: who came into it since dies too where that was not enough. */
		if (!table.waits && time_after(lms.last_call, table.signalled_at))
			step = LMS_STEP_AGAIN;
	} else {
		table.dying = NULL;
		table.gone = true;
		table.gone_at = jiffies;
		step = LMS_STEP_NEXT;
	}
unlock:
	spin_unlock(&lms.lock);
	return step;
}

/* The victim is dying from now on. */
static void lms_kill_victim(u64 id)
{
	unsigned int killed = lms_policy->kill(id, lms_may_kill);
	u64 now = ktime_get_ns();

	spin_lock(&lms.lock);
	lms.table_kills += killed;
	if (killed)
		lms.killed = true;
	if (table.shortage == lms_shortage && table.dying) {
		if (killed)
			table.signalled = now;
		table.signalled_at = jiffies;
	}
	spin_unlock(&lms.lock);
	if (!killed)
		return;
	pr_warn_ratelimited("no answer: killed %u processes of group %llu by the table\n", killed, id);
}

/*
 * What the last victim gave back may be in the lists of processors, where those who ask don't find
 * it. Whether to wait until it is in the zones, and somebody has asked since. Only for a time:
 * somebody may be taking pages and giving them back all the while.
 */
static bool lms_wait_for_lists(void)
{
	bool much = READ_ONCE(lms.killed) && lms_lists_give_back();
	bool wait;

	spin_lock(&lms.lock);
	if (much && !table.listed) {
		table.listed = true;
		table.listed_at = jiffies;
	}
	wait = much && time_before(jiffies, table.listed_at + msecs_to_jiffies(LMS_LISTS_MS));
	if (wait) {
		table.gone = true;
		table.gone_at = jiffies;
	}
	spin_unlock(&lms.lock);
	return wait;
}

/*
 * Chooses the next victim, if somebody has asked since the last one was gone, and kills it; or waits
 * for one that ends by itself.
 */
static void lms_kill_next(struct pid *handler)
{
	u64 over[LMS_VICTIMS], begun, id;
	struct lms_victim *victim;
	unsigned int at, len = 0;
	bool may, wait;

	spin_lock(&lms.lock);
	/* One is gone and nobody has asked since: it may have been enough. */
	may = lms_same_shortage(lms_shortage) && !(table.gone && time_after_eq(table.gone_at, lms.last_call));
	for (at = 0; at < table.victims_len; at++) {
		if (table.victims[at].over)
			over[len++] = table.victims[at].id;
	}
	wait = table.waited < LMS_WAITS && !table.waited_in_vain;
	spin_unlock(&lms.lock);
	if (!may || lms_wait_for_lists())
		return;
	begun = ktime_get_ns();
	lms_policy->begin(handler);
	id = lms_policy->choose(over, len, &wait);
	lms_test_chosen(begun);
	lms_test_delay();
	/*
	 * Who is dying is known before the first signal, so that whoever comes meanwhile waits for
	 * that.
	 */
	may = lms_may_kill();
	spin_lock(&lms.lock);
	may = may && lms_same_shortage(lms_shortage);
	/* Where all others end for ever there is nobody to kill. */
	if (wait && table.waited_in_vain == LMS_STUCK)
		id = 0;
	victim = may && id ? lms_remember(id) : NULL;
	if (!victim) {
		id = 0;
		if (may)
			lms.state = LMS_FAILED;
	} else {
		table.since = ktime_get_ns();
		lms_test_since(table.since);
		table.waits = wait;
		if (wait)
			table.waited++;
		/* It is killed once more, and then no longer a candidate. */
		else if (lms_comes_back(victim, table.since))
			victim->over = true;
		table.listed = false;
		table.dying = victim;
		table.signalled = table.since;
		table.signalled_at = jiffies;
		table.gone = false;
	}
	spin_unlock(&lms.lock);
	if (id && !wait)
		lms_kill_victim(id);
}

/*
 * Kills the policy's first victim, or looks whether the last one is gone. By the thread, in each of
 * its turns while the state is TABLE. Where there is nobody (more) to kill the state is FAILED
 * afterwards.
 */
void lms_use_table(void)
{
	u64 id = 0, since = 0, signalled = 0;
	enum lms_step step = LMS_STEP_NEXT;
	struct pid *handler;

	lms_test_stuck();
	spin_lock(&lms.lock);
	lms_shortage = table.shortage;
	if (!lms_same_shortage(lms_shortage)) {
		if (lms.state == LMS_TABLE)
			lms.state = LMS_FAILED;
		spin_unlock(&lms.lock);
		return;
	}
	if (table.dying) {
		id = table.dying->id;
		since = table.since;
		signalled = table.signalled;
	}
	handler = get_pid(lms.handler_pid);
	table.in_use = true;
	spin_unlock(&lms.lock);

	if (id)
		step = lms_follow(id, since, signalled);
	if (step == LMS_STEP_AGAIN) {
		lms_policy->begin(handler);
		lms_kill_victim(id);
	} else if (step == LMS_STEP_NEXT) {
		lms_kill_next(handler);
	}

	spin_lock(&lms.lock);
	table.in_use = false;
	spin_unlock(&lms.lock);
	wake_up(&lms_unused);
	put_pid(handler);
}

/* What is in force, for people. */
void lms_table_counts(struct lms_table_counts *counts)
{
	spin_lock(&lms.lock);
	lms_policy->counts(counts);
	spin_unlock(&lms.lock);
}

/*
 * Puts what was set in force; whose it is, and for how long, changes in the same moment. Under
 * lms_table_write.
 */
static int lms_exchange(struct lms_file *f, bool by_handler, unsigned int keep_s)
{
	struct pid *old = NULL;
	int error = 0;

	spin_lock(&lms.lock);
	while (table.in_use) {
		spin_unlock(&lms.lock);
		wait_event(lms_unused, !READ_ONCE(table.in_use));
		spin_lock(&lms.lock);
	}
	if (by_handler && lms.handler && lms.handler != f && lms_handler_lives()) {
		error = -EBUSY;
	} else {
		lms_policy->commit();
		old = table.owner_pid;
		table.owner = f;
		table.owner_pid = NULL;
		/* Another process may write for its handler, whose death is what counts. */
		if (f)
			table.owner_pid = get_pid(lms.handler == f ? lms.handler_pid : task_tgid(current));
		table.orphaned = false;
		table.keep_s = keep_s;
	}
	spin_unlock(&lms.lock);
	put_pid(old);
	return error;
}

/* An open file is closed: what it wrote goes with it, or has so much longer. */
void lms_table_release(struct lms_file *f)
{
	struct pid *pid = NULL;
	bool clear = false;

	mutex_lock(&lms_table_write);
	spin_lock(&lms.lock);
	if (table.owner == f) {
		if (!table.orphaned)
			lms_orphan_table();
		clear = !table.keep_s;
		pid = table.owner_pid;
		table.owner = NULL;
		table.owner_pid = NULL;
	}
	spin_unlock(&lms.lock);
	if (clear && !lms_policy->set(""))
		lms_exchange(NULL, false, 0);
	mutex_unlock(&lms_table_write);
	put_pid(pid);
}

int lms_write_table(struct lms_file *f, const char *text)
{
	u64 keep = 0;
	int error;

	/* The word and the option may stand on a line of their own, or be left out. */
	if (!strcmp(text, "clear")) {
		text = "";
	} else if (lms_word(&text, "table")) {
		if (lms_word(&text, " keep") && (!lms_number(&text, &keep) || !keep || keep > LMS_KEEP_MAX_S))
			return -EINVAL;
		if (*text != ' ' && *text != '\n')
			return -EINVAL;
		text++;
		if (!*text)
			return -EINVAL;
	}
	error = mutex_lock_interruptible(&lms_table_write);
	if (error)
		return error;
	error = lms_policy->set(text);
	if (!error)
		error = lms_exchange(f, true, keep);
	mutex_unlock(&lms_table_write);
	return error;
}

void lms_table_free(void)
{
	put_pid(table.owner_pid);
	lms_policy->free();
}
