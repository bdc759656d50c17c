// SPDX-License-Identifier: GPL-2.0
/* The table: who dies where the handler does not answer, and the killing by it. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cgroup.h>
#include <linux/oom.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sort.h>
#include <linux/string.h>

#include "lms.h"

#define LMS_TABLE_IDS		1024
#define LMS_ROOT_ID		1	/* the id of the root group */

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

/* A table is parsed into the spare one, under lms_table_write, and then takes the other's place under lms_table_lock. */
static struct lms_table lms_tables[2];
static struct lms_table *lms_table = &lms_tables[0];
static DEFINE_MUTEX(lms_table_write);
static DEFINE_MUTEX(lms_table_lock);

/*
 * Whether the table may be used: it is its owner's wish while the owner is the handler, or where the owner asked for it
 * to be kept. Under lms.lock; whether there is anything in it shows when it is used.
 */
bool lms_table_usable(void)
{
	if (lms.table_owner)
		return lms.table_owner == lms.handler || lms.table_keep_s;
	return lms.table_keep_s && time_before(jiffies, lms.table_until);
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
bool lms_use_table(void)
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
		lms_hasten_ends();
		spin_lock(&lms.lock);
		lms.table_kills += killed;
		spin_unlock(&lms.lock);
		pr_warn_ratelimited("no answer: killed %u processes of group %llu by the table\n", killed, id);
	}
	put_pid(handler);
	mutex_unlock(&lms_table_lock);
	return more;
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

/* How many groups it holds, for people. */
void lms_table_counts(unsigned int *kills, unsigned int *spares)
{
	const struct lms_table *table = READ_ONCE(lms_table);

	*kills = table->kills;
	*spares = table->len - table->kills;
}

/* An open file is closed: what it wrote goes with it, or has so much longer. */
void lms_table_release(struct lms_file *f)
{
	bool clear = false;

	mutex_lock(&lms_table_write);
	spin_lock(&lms.lock);
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

int lms_write_table(struct lms_file *f, const char *text)
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
