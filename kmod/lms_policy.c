// SPDX-License-Identifier: GPL-2.0
/*
 * The policy that a table carries: groups by id, and rules over the paths of groups. It names no
 * sizes. Who holds how much is found out when somebody is to die, from the processes themselves.
 *
 * A process belongs to the group of its first live thread: the first thread of all may have ended,
 * and moved elsewhere before that. Where that is a threaded group it is the domain above it, which
 * all threads of the process share and which is charged for their memory; a process of which any
 * thread is in a spared group lives.
 *
 * What a group's path and its ancestors' make of it can't change while the table is in force, so it
 * is judged once and remembered by its id. Only what its processes are is looked at anew for each
 * walk.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cgroup.h>
#include <linux/hash.h>
#include <linux/kernfs.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>

#include "lms.h"
#include "lms_glob.h"

#define LMS_TABLE_LINES		1024
#define LMS_ROOT_ID		1	/* the id of the root group */
#define LMS_GROUPS_BITS		14
#define LMS_GROUPS		(1U << LMS_GROUPS_BITS)
#define LMS_GROUPS_USED		(LMS_GROUPS / 4 * 3)	/* so that a search soon comes to a free one */
#define LMS_DEPTH		64	/* levels below the root; what is deeper lives */
#define LMS_NONE		U16_MAX
#define LMS_SOME_END		1	/* of those below a `kill` line some end already */
#define LMS_SOME_LIVE		2	/* some do not */

/* A `kill` or `spare` line. */
struct lms_entry {
	u64 id;
	u16 rank;		/* place in the order of killing */
	bool spare;
};

enum lms_kind { LMS_SPARE_PATH, LMS_SPARE_COMM, LMS_CLASS, LMS_AMONG };

/* A line with a glob. */
struct lms_line {
	enum lms_kind kind;
	u32 glob;		/* where it begins in the table's text */
	s32 value;		/* of a class */
	u16 rule;		/* of an `among` */
	char comm[TASK_COMM_LEN];
};

struct lms_rule {
	unsigned long min_pages;	/* `at_least` */
	bool unkillable;
};

struct lms_table {
	unsigned int len, kills;
	unsigned int lines_len, rules_len, comms, spares;
	u64 root;
	struct lms_entry entries[LMS_TABLE_LINES];	/* by id */
	u64 kill_ids[LMS_TABLE_LINES];			/* by rank */
	struct lms_line lines[LMS_TABLE_LINES];
	struct lms_rule rules[LMS_TABLE_LINES];
	size_t text_len;
	char text[LMS_WRITE_MAX];			/* the globs, each with a NUL behind it */
};

/* What is known about a group. */
struct lms_group {
	u64 id;			/* 0: a free place */

	/* While the table is in force: */
	s32 value;		/* of its class */
	u16 class;		/* the first `class` line that names it or one above it */
	u16 rank;		/* the first `kill` line, the same */
	u16 rule;		/* the first rule that has it among its candidates */
	bool inside;		/* at the table's root or below it, so that it has a path */
	bool spared;

	/* As of one walk: */
	bool marked;		/* by the comm of a process in it; counts for what is below, too */
	bool apart;		/* holds init or the handler; does not count for what is below */
	bool unkillable;	/* holds somebody who is exempt from the kernel's own killer */
	bool found;		/* holds somebody who may die */
	bool ending, alive;	/* of these some end already; some do not */
	u32 walk;
	unsigned long pages;	/* of those who may die */
};

/*
 * All that is needed in a shortage, made when the first table is written. The tables are under
 * lms_table_write while they are written, and where they are read nobody commits; all else belongs
 * to who walks.
 */
struct lms_book {
	struct lms_table tables[2];
	struct lms_group groups[LMS_GROUPS];
	unsigned int used;
	bool full;		/* a group that came up found no place */
	bool lost;		/* and would have been marked, so that nothing is known about those below it */
	bool stale;		/* the groups were judged by another table */
	unsigned int marks;	/* groups that are marked in this walk */
	u32 walk;
	struct pid *handler;
	const u64 *but;		/* no candidates */
	unsigned int but_len;
	u8 ranks[LMS_TABLE_LINES];	/* by rank, who may die by that line as of this walk: */
	char path[PATH_MAX];
};

static struct lms_book *lms_book;	/* NULL until a table has been in force */
static struct lms_book *lms_made_book;	/* under lms_table_write; the same from the first table that was understood */
static unsigned int lms_current;	/* which of the tables is in force; changes under lms.lock */

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

/* The place of a group, or a free one. */
static struct lms_group *lms_slot(u64 id)
{
	u32 at = hash_64(id, LMS_GROUPS_BITS);

	while (lms_book->groups[at].id && lms_book->groups[at].id != id)
		at = (at + 1) % LMS_GROUPS;
	return &lms_book->groups[at];
}

static void lms_forget_groups(void)
{
	memset(lms_book->groups, 0, sizeof(lms_book->groups));
	lms_book->used = 0;
	lms_book->full = false;
	lms_book->stale = false;
}

/* The path of a group, counted from the table's root; NULL where it is too long. RCU. */
static const char *lms_path(struct cgroup *group, struct cgroup *root)
{
	int len = kernfs_path_from_node(group->kn, root->kn, lms_book->path, sizeof(lms_book->path));

	return len > 0 && len < (int)sizeof(lms_book->path) ? lms_book->path : NULL;
}

/* What the table says about a group below one that is judged already. RCU. */
static void lms_judge_group(const struct lms_table *table, struct lms_group *g, struct cgroup *group,
			    const struct lms_group *above, struct cgroup *root)
{
	const struct lms_entry *entry;
	const char *path;
	unsigned int at;

	memset(g, 0, sizeof(*g));
	g->id = cgroup_id(group);
	g->class = LMS_NONE;
	g->rank = LMS_NONE;
	g->rule = LMS_NONE;
	if (above) {
		g->value = above->value;
		g->class = above->class;
		g->rank = above->rank;
		g->inside = above->inside;
		g->spared = above->spared;
	}
	entry = lms_find(table, g->id);
	if (entry && entry->spare)
		g->spared = true;
	else if (entry && entry->rank < g->rank)
		g->rank = entry->rank;
	if (g->id == table->root)
		g->inside = true;
	if (g->spared || !g->inside || !table->lines_len)
		return;
	path = lms_path(group, root);
	if (!path) {
		/* It may be one that is to be spared. */
		g->spared = true;
		return;
	}
	for (at = 0; at < table->lines_len; at++) {
		const struct lms_line *line = &table->lines[at];

		if ((line->kind == LMS_CLASS && at >= g->class) || (line->kind == LMS_AMONG && g->rule != LMS_NONE) ||
		    line->kind == LMS_SPARE_COMM || !lms_glob_match(table->text + line->glob, path))
			continue;
		if (line->kind == LMS_SPARE_PATH) {
			g->spared = true;
			return;
		}
		if (line->kind == LMS_CLASS) {
			g->class = at;
			g->value = line->value;
		} else {
			g->rule = line->rule;
		}
	}
}

/*
 * A group as it is known, judged now if it is not; NULL where there is no place left or it is too
 * deep: nobody in it dies by this table then. RCU.
 */
static struct lms_group *lms_known(const struct lms_table *table, struct cgroup *group)
{
	struct lms_group *g = lms_slot(cgroup_id(group)), *above = NULL;
	struct cgroup *root = NULL;
	int level;

	if (!g->id) {
		if (group->level > LMS_DEPTH)
			return NULL;
		for (level = 0; level <= group->level; level++) {
			struct cgroup *one = cgroup_ancestor(group, level);

			if (cgroup_id(one) == table->root)
				root = one;
			g = lms_slot(cgroup_id(one));
			if (!g->id) {
				if (lms_book->used == LMS_GROUPS_USED) {
					lms_book->full = true;
					return NULL;
				}
				lms_book->used++;
				lms_judge_group(table, g, one, above, root);
			}
			above = g;
		}
	}
	if (g->walk != lms_book->walk) {
		g->walk = lms_book->walk;
		g->marked = false;
		g->apart = false;
		g->unkillable = false;
		g->found = false;
		g->ending = false;
		g->alive = false;
		g->pages = 0;
	}
	return g;
}

/*
 * Somebody of a process who still has memory, or is giving it back: a thread lets go of its mm
 * before that is done. RCU.
 */
static struct task_struct *lms_live_thread(struct task_struct *p)
{
	struct task_struct *t, *ending = NULL;

	for_each_thread(p, t) {
		if (READ_ONCE(t->exit_state))
			continue;
		if (!(READ_ONCE(t->flags) & PF_EXITING))
			return t;
		if (!ending)
			ending = t;
	}
	return ending;
}

/* The group that is charged for a thread's memory. RCU. */
static struct cgroup *lms_domain(struct task_struct *t)
{
	return READ_ONCE(task_dfl_cgroup(t)->dom_cgrp);
}

/* Resident and swapped pages. RCU. */
static unsigned long lms_pages(struct task_struct *p)
{
	unsigned long pages = 0;
	struct task_struct *t;

	for_each_thread(p, t) {
		struct mm_struct *mm;

		/* They are its parent's until it has a program of its own. */
		if (in_vfork(t))
			continue;
		task_lock(t);
		mm = t->mm;
		if (mm)
			pages = get_mm_rss(mm) + get_mm_counter(mm, MM_SWAPENTS);
		task_unlock(t);
		if (mm)
			break;
	}
	return pages;
}

/* Whether a `spare_comm` line is about a process in this group. RCU. */
static bool lms_is_marked_by(const struct lms_table *table, struct task_struct *p, struct cgroup *group)
{
	struct cgroup *root = group;
	const char *path = NULL;
	unsigned int at;

	for (at = 0; at < table->lines_len; at++) {
		const struct lms_line *line = &table->lines[at];

		/* A name that changes meanwhile is one or the other. */
		if (line->kind != LMS_SPARE_COMM || strncmp(line->comm, p->comm, TASK_COMM_LEN))
			continue;
		if (!path) {
			while (root && cgroup_id(root) != table->root)
				root = cgroup_parent(root);
			if (!root)
				return false;
			path = lms_path(group, root);
			if (!path)
				return true;
		}
		if (lms_glob_match(table->text + line->glob, path))
			return true;
	}
	return false;
}

/* Marks what must be known about groups before anybody's death is thought of. */
static void lms_mark_groups(const struct lms_table *table)
{
	struct task_struct *p;

	lms_book->marks = 0;
	lms_book->lost = false;
	rcu_read_lock();
	for_each_process(p) {
		struct task_struct *t;
		struct cgroup *group;
		struct lms_group *g;
		bool apart, marked;

		if (p->flags & PF_KTHREAD)
			continue;
		t = lms_live_thread(p);
		if (!t)
			continue;
		apart = is_global_init(p) || (lms_book->handler && task_tgid(p) == lms_book->handler);
		if (!apart && !table->comms)
			continue;
		group = lms_domain(t);
		marked = table->comms && lms_is_marked_by(table, p, group);
		if (!apart && !marked)
			continue;
		g = lms_known(table, group);
		if (!g) {
			lms_book->lost = true;
			break;
		}
		lms_book->marks += marked;
		g->marked |= marked;
		g->apart |= apart;
	}
	rcu_read_unlock();
}

static void lms_rules_begin(struct pid *handler)
{
	const struct lms_table *table;

	if (!lms_book)
		return;
	table = &lms_book->tables[lms_current];
	lms_book->handler = handler;
	lms_book->walk++;
	/* Most of those who fill it may be gone. */
	if (lms_book->stale || lms_book->full)
		lms_forget_groups();
	lms_mark_groups(table);
	if (lms_book->lost && lms_book->full) {
		lms_forget_groups();
		lms_mark_groups(table);
	}
}

/* Whether a group is marked, or one above it. RCU. */
static bool lms_is_marked(struct cgroup *group)
{
	if (!lms_book->marks)
		return false;
	for (; group; group = cgroup_parent(group)) {
		const struct lms_group *g = lms_slot(cgroup_id(group));

		if (g->id && g->walk == lms_book->walk && g->marked)
			return true;
	}
	return false;
}

/*
 * Whether any thread of a process in a domain with threaded groups is in one that is spared. RCU.
 */
static bool lms_has_spared_thread(const struct lms_table *table, struct task_struct *p)
{
	struct task_struct *t;

	for_each_thread(p, t) {
		struct cgroup *group = task_dfl_cgroup(t);
		const struct lms_group *g;

		if (READ_ONCE(t->exit_state))
			continue;
		g = lms_known(table, group);
		if (!g || g->spared)
			return true;
	}
	return false;
}

static bool lms_is_no_candidate(u64 id)
{
	unsigned int at;

	for (at = 0; at < lms_book->but_len; at++) {
		if (lms_book->but[at] == id)
			return true;
	}
	return false;
}

/*
 * The first `kill` line that names a group or one above it, but for those that are no candidates.
 * RCU.
 */
static u16 lms_rank(const struct lms_table *table, const struct lms_group *g, struct cgroup *group)
{
	u16 rank = LMS_NONE;

	if (g->rank == LMS_NONE || !lms_is_no_candidate(table->kill_ids[g->rank]))
		return g->rank;
	for (; group; group = cgroup_parent(group)) {
		const struct lms_entry *entry = lms_find(table, cgroup_id(group));

		if (entry && !entry->spare && entry->rank < rank && !lms_is_no_candidate(entry->id))
			rank = entry->rank;
	}
	return rank;
}

/*
 * The group of a process that may die; NULL: it may not. Never: kernel threads, init and its
 * neighbours, the handler and its own, who is spared, and who is exempt from the kernel's own
 * killer. RCU.
 */
static struct lms_group *lms_victims_group(const struct lms_table *table, struct task_struct *p, struct cgroup **group)
{
	struct task_struct *t;
	struct lms_group *g;

	if ((p->flags & PF_KTHREAD) || is_global_init(p) || (lms_book->handler && task_tgid(p) == lms_book->handler))
		return NULL;
	t = lms_live_thread(p);
	if (!t)
		return NULL;
	*group = lms_domain(t);
	g = lms_known(table, *group);
	if (!g || g->spared || g->apart || lms_is_marked(*group))
		return NULL;
	if (READ_ONCE((*group)->nr_threaded_children) && lms_has_spared_thread(table, p))
		return NULL;
	if (READ_ONCE(p->signal->oom_score_adj) == OOM_SCORE_ADJ_MIN) {
		g->unkillable = true;
		return NULL;
	}
	return g;
}

/* Whether a group has a memory controller that is its own, as its memory files show. RCU. */
static bool lms_counts_memory(struct cgroup *group)
{
	struct cgroup_subsys_state *css = rcu_dereference(group->subsys[memory_cgrp_id]);

	return css && (READ_ONCE(css->flags) & CSS_VISIBLE);
}

/*
 * Whether a rule may name a group: there are no groups below it but threaded ones, beside which no
 * others can hold anybody, and its memory is counted for it alone. Without a controller it is a part
 * of the group above, of which others may be spared. RCU.
 */
static bool lms_is_leaf(struct cgroup *group)
{
	return cgroup_parent(group) && lms_counts_memory(group) &&
	       (!READ_ONCE(group->nr_descendants) || READ_ONCE(group->nr_threaded_children));
}

/* Whether all of a candidate ends already, say because the handler has killed it. */
static bool lms_is_ending(const struct lms_group *g)
{
	return g->ending && !g->alive;
}

/*
 * Whether the first of two candidates is to die before the other. One that ends already comes before
 * all others: it is waited for, and may be enough. What it still holds can't be seen any more.
 */
static bool lms_comes_before(const struct lms_table *table, const struct lms_group *a, const struct lms_group *b)
{
	bool a_is_small = a->pages < table->rules[a->rule].min_pages;
	bool b_is_small = b->pages < table->rules[b->rule].min_pages;

	if (lms_is_ending(a) != lms_is_ending(b))
		return lms_is_ending(a);
	/* Its rule would pass over it, and the next rule be asked. */
	if (a_is_small != b_is_small)
		return b_is_small;
	if (a->rule != b->rule)
		return a->rule < b->rule;
	if (a->value != b->value)
		return a->value < b->value;
	return a->pages > b->pages;
}

/*
 * The first `kill` line below which all who may die end already; else the first below which anybody
 * may die. Those that end are waited for before anybody else dies: that may be enough.
 */
static u16 lms_first_rank(const struct lms_table *table, bool *ending)
{
	u16 at, first = LMS_NONE;

	*ending = false;
	for (at = 0; at < table->kills; at++) {
		if (lms_book->ranks[at] == LMS_SOME_END) {
			*ending = true;
			return at;
		}
		if (lms_book->ranks[at] && first == LMS_NONE)
			first = at;
	}
	return first;
}

static u64 lms_rules_choose(const u64 *but, unsigned int len)
{
	const struct lms_group *first = NULL;
	const struct lms_table *table;
	struct task_struct *p;
	unsigned int at;
	bool ending;
	u16 rank;

	/* Without knowing who is marked nobody may die. */
	if (!lms_book || lms_book->lost)
		return 0;
	table = &lms_book->tables[lms_current];
	lms_book->but = but;
	lms_book->but_len = len;
	memset(lms_book->ranks, 0, table->kills);
	rcu_read_lock();
	for_each_process(p) {
		struct cgroup *group;
		struct lms_group *g = lms_victims_group(table, p, &group);
		u16 own;

		if (!g)
			continue;
		own = lms_rank(table, g, group);
		if (own != LMS_NONE) {
			lms_book->ranks[own] |= lms_ends(p) ? LMS_SOME_END : LMS_SOME_LIVE;
		} else if (g->rule != LMS_NONE && !lms_is_no_candidate(g->id) && lms_is_leaf(group)) {
			g->found = true;
			if (lms_ends(p))
				g->ending = true;
			else
				g->alive = true;
			g->pages += lms_pages(p);
		}
	}
	rcu_read_unlock();
	lms_book->but_len = 0;
	rank = lms_first_rank(table, &ending);
	for (at = 0; at < LMS_GROUPS; at++) {
		const struct lms_group *g = &lms_book->groups[at];

		if (!g->id || g->walk != lms_book->walk || !g->found)
			continue;
		if (g->unkillable && !table->rules[g->rule].unkillable)
			continue;
		if (!first || lms_comes_before(table, g, first))
			first = g;
	}
	if (rank != LMS_NONE && (ending || !first || !lms_is_ending(first)))
		return table->kill_ids[rank];
	return first ? first->id : 0;
}

/* Whether a group is a victim, or below one. RCU. */
static bool lms_is_of(struct cgroup *group, u64 victim)
{
	for (; group; group = cgroup_parent(group)) {
		if (cgroup_id(group) == victim)
			return true;
	}
	return false;
}

static bool lms_rules_is_dying(u64 victim, u64 begun_before)
{
	struct task_struct *p;
	bool dying = false;

	rcu_read_lock();
	for_each_process(p) {
		struct task_struct *t;

		if ((p->flags & PF_KTHREAD) || p->start_time > begun_before || !lms_ends(p))
			continue;
		t = lms_live_thread(p);
		if (t && lms_is_of(task_dfl_cgroup(t), victim)) {
			dying = true;
			break;
		}
	}
	rcu_read_unlock();
	return dying;
}

static unsigned int lms_rules_kill(u64 victim, bool (*may)(void))
{
	const struct lms_table *table;
	const struct lms_entry *entry;
	unsigned int killed = 0;
	bool asked = false;
	struct task_struct *p;

	if (!lms_book || lms_book->lost)
		return 0;
	table = &lms_book->tables[lms_current];
	entry = lms_find(table, victim);
	rcu_read_lock();
	for_each_process(p) {
		struct cgroup *group;
		struct lms_group *g = lms_victims_group(table, p, &group);

		if (!g || lms_ends(p))
			continue;
		/*
		 * One that a `kill` line names dies with all that is below it, one of a rule alone.
		 */
		if (entry ? !lms_is_of(group, victim) : g->id != victim || g->rule == LMS_NONE)
			continue;
		if (!asked && !may())
			break;
		asked = true;
		/* To the process: its first thread may have gone without the others. */
		if (kill_pid(task_tgid(p), SIGKILL, 1))
			continue;
		killed++;
		lms_hasten_end(p);
	}
	rcu_read_unlock();
	return killed;
}

/* The rest of a line, without what ends it; NULL: there is nothing. */
static const char *lms_rest(const char **text, size_t *len)
{
	const char *from = *text;

	if (*from++ != ' ')
		return NULL;
	*len = strcspn(from, "\n");
	*text = from + *len;
	return *len ? from : NULL;
}

/* Takes a glob, to the end of the line. */
static int lms_parse_glob(const char **text, struct lms_table *table, struct lms_line *line)
{
	size_t len;
	const char *from = lms_rest(text, &len);
	char *to = table->text + table->text_len;

	/* It ends with a NUL where it was followed by a newline, so there is always place. */
	if (!from || len > LMS_GLOB_MAX || table->text_len + len + 1 > sizeof(table->text))
		return -EINVAL;
	memcpy(to, from, len);
	to[len] = '\0';
	if (!lms_glob_valid(to))
		return -EINVAL;
	line->glob = table->text_len;
	table->text_len += len + 1;
	return 0;
}

static int lms_hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Takes a blank and a comm, in which \xHH stands for a byte. */
static int lms_parse_comm(const char **text, char *comm)
{
	const char *at = *text;
	unsigned int len = 0;

	if (*at++ != ' ')
		return -EINVAL;
	memset(comm, 0, TASK_COMM_LEN);
	for (; *at && *at != ' ' && *at != '\n'; at++) {
		char c = *at;

		if (c == '\\') {
			if (at[1] != 'x' || lms_hex(at[2]) < 0 || lms_hex(at[3]) < 0)
				return -EINVAL;
			c = lms_hex(at[2]) << 4 | lms_hex(at[3]);
			at += 3;
			if (!c)
				return -EINVAL;
		}
		if (len == TASK_COMM_LEN - 1)
			return -EINVAL;
		comm[len++] = c;
	}
	*text = at;
	return len ? 0 : -EINVAL;
}

/* Takes a blank and a signed number. */
static int lms_parse_value(const char **text, s32 *value)
{
	char digits[16] = " ";
	const char *rest = digits;
	const char *at = *text;
	bool negative;
	size_t len;
	u64 number;

	if (*at++ != ' ')
		return -EINVAL;
	negative = *at == '-';
	at += negative;
	len = strspn(at, "0123456789");
	if (!len || len > 10)
		return -EINVAL;
	memcpy(digits + 1, at, len);
	if (!lms_number(&rest, &number) || number > (u64)S32_MAX + negative)
		return -EINVAL;
	*value = negative ? -(s64)number : number;
	*text = at + len;
	return 0;
}

static int lms_parse_rule(const char **text, struct lms_rule *rule)
{
	u64 kb = 0;

	rule->min_pages = 0;
	rule->unkillable = false;
	if (!strncmp(*text, " at_least=", 10)) {
		char digits[24] = " ";
		const char *rest = digits;
		size_t len = strspn(*text + 10, "0123456789");

		if (!len || len > 20)
			return -EINVAL;
		memcpy(digits + 1, *text + 10, len);
		if (!lms_number(&rest, &kb) || kb > (u64)LONG_MAX >> 10)
			return -EINVAL;
		rule->min_pages = DIV_ROUND_UP(kb, PAGE_SIZE / 1024);
		*text += 10 + len;
	}
	if (**text == ' ') {
		(*text)++;
		if (!lms_word(text, "unkillable"))
			return -EINVAL;
		rule->unkillable = true;
	}
	return 0;
}

static int lms_parse_id(const char **text, struct lms_table *table, bool spare)
{
	struct lms_entry *entry = &table->entries[table->len++];

	if (!lms_number(text, &entry->id) || !entry->id)
		return -EINVAL;
	/* The root holds everybody. */
	if (!spare && entry->id == LMS_ROOT_ID)
		return -EINVAL;
	entry->spare = spare;
	entry->rank = 0;
	if (!spare) {
		entry->rank = table->kills;
		table->kill_ids[table->kills++] = entry->id;
	}
	return 0;
}

/* One line, but for what ends it. There is place for it. */
static int lms_parse_line(const char **text, struct lms_table *table)
{
	struct lms_line *line = &table->lines[table->lines_len];
	int error = 0;

	if (lms_word(text, "kill"))
		return lms_parse_id(text, table, false);
	if (lms_word(text, "spare"))
		return lms_parse_id(text, table, true);
	if (lms_word(text, "root")) {
		/* Once, and before what is counted from it. */
		if (table->root || table->lines_len)
			return -EINVAL;
		return lms_number(text, &table->root) && table->root ? 0 : -EINVAL;
	}
	if (lms_word(text, "rule"))
		return lms_parse_rule(text, &table->rules[table->rules_len++]);
	if (lms_word(text, "among")) {
		if (!table->rules_len)
			return -EINVAL;
		line->kind = LMS_AMONG;
		line->rule = table->rules_len - 1;
	} else if (lms_word(text, "class")) {
		line->kind = LMS_CLASS;
		error = lms_parse_value(text, &line->value);
	} else if (lms_word(text, "spare_path")) {
		line->kind = LMS_SPARE_PATH;
		table->spares++;
	} else if (lms_word(text, "spare_comm")) {
		line->kind = LMS_SPARE_COMM;
		table->spares++;
		table->comms++;
		error = lms_parse_comm(text, line->comm);
	} else {
		return -EINVAL;
	}
	table->lines_len++;
	return error ? error : lms_parse_glob(text, table, line);
}

static int lms_parse_table(const char *text, struct lms_table *table)
{
	unsigned int at, lines = 0;

	table->len = 0;
	table->kills = 0;
	table->lines_len = 0;
	table->rules_len = 0;
	table->comms = 0;
	table->spares = 0;
	table->root = 0;
	table->text_len = 0;
	while (*text) {
		int error;

		if (lines++ == LMS_TABLE_LINES)
			return -EINVAL;
		error = lms_parse_line(&text, table);
		if (error)
			return error;
		if (*text && *text++ != '\n')
			return -EINVAL;
	}
	if (!table->root)
		table->root = LMS_ROOT_ID;
	sort(table->entries, table->len, sizeof(table->entries[0]), lms_compare_entries, NULL);
	for (at = 1; at < table->len; at++) {
		if (table->entries[at].id == table->entries[at - 1].id)
			return -EINVAL;
	}
	return 0;
}

static int lms_rules_set(const char *text)
{
	if (!lms_made_book) {
		if (!*text)
			return 0;
		/* The machine's own and not the writer's, who may be gone long before it. */
		lms_made_book = kvzalloc(sizeof(*lms_made_book), GFP_KERNEL);
		if (!lms_made_book)
			return -ENOMEM;
	}
	return lms_parse_table(text, &lms_made_book->tables[!lms_current]);
}

static void lms_rules_commit(void)
{
	if (!lms_made_book)
		return;
	lms_book = lms_made_book;
	lms_book->stale = true;
	lms_current = !lms_current;
}

static void lms_rules_counts(struct lms_table_counts *counts)
{
	const struct lms_table *table;

	memset(counts, 0, sizeof(*counts));
	if (!lms_book)
		return;
	table = &lms_book->tables[lms_current];
	counts->kill_ids = table->kills;
	counts->spare_ids = table->len - table->kills;
	counts->rules = table->rules_len;
	counts->spares = table->spares;
}

static void lms_rules_free(void)
{
	kvfree(lms_made_book);
}

const struct lms_policy lms_rules = {
	.set = lms_rules_set,
	.commit = lms_rules_commit,
	.counts = lms_rules_counts,
	.begin = lms_rules_begin,
	.choose = lms_rules_choose,
	.is_dying = lms_rules_is_dying,
	.kill = lms_rules_kill,
	.free = lms_rules_free,
};
