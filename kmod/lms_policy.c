// SPDX-License-Identifier: GPL-2.0
/*
 * The policy that a table carries: groups by id, and rules over the paths of groups. It names no
 * sizes. Who holds how much is found out when somebody is to die, from the processes themselves.
 *
 * A process is in the group of its first live thread: the first thread of all may have ended, and
 * moved elsewhere before that. Where that is a threaded group it is the domain above it, which all
 * threads of the process share. This is its home. For rules it belongs to its unit: the nearest
 * group, the home or one above it, that has a memory controller of its own, and so is charged for
 * it. A unit dies whole, with all homes that belong to it, or lives whole: if one of them is
 * spared, all are. A unit's memory controller is not handed down to groups below it, or no process
 * could belong to it; so no unit contains another, and no group that is made below one makes it
 * any less a candidate.
 *
 * What a group's path and those of the groups above it make of it can't change while the table is
 * in force, so it is judged once and remembered by its id. Only groups that are a home or a unit
 * are. What their processes are is looked at anew in each walk.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitmap.h>
#include <linux/cgroup.h>
#include <linux/hash.h>
#include <linux/jiffies.h>
#include <linux/limits.h>
#include <linux/memcontrol.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/oom.h>
#include <linux/page_counter.h>
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
#define LMS_PARTS		16	/* in which units are looked at, at most, where they don't all fit */
#define LMS_MARKS_BITS		20
#define LMS_MARKS		(1U << LMS_MARKS_BITS)
#define LMS_NONE		U16_MAX
#define LMS_SOME_END		1	/* of those below a `kill` line some end already */
#define LMS_SOME_LIVE		2	/* some do not */

/*
 * Levels below the root at which groups are told apart by lines: no path of PATH_MAX bytes has
 * more. What is deeper is part of the group at this level.
 */
#define LMS_DEPTH		(PATH_MAX / 2)

#ifdef LMS_TEST
/* How many groups are remembered. */
static unsigned int test_groups = LMS_GROUPS_USED;
module_param(test_groups, uint, 0444);
#define LMS_GROUPS_MAX		min(test_groups, LMS_GROUPS_USED)
#else
#define LMS_GROUPS_MAX		LMS_GROUPS_USED
#endif

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

/* What the processes of a group make of it, as of one walk. */
struct lms_findings {
	/* Of a home, or a unit: */
	bool marked;		/* it, or one above it, is marked by the comm of a process */

	/* Of a unit: */
	bool apart;		/* somebody in it must live, and so all do */
	bool unkillable;	/* holds somebody who is exempt from the kernel's own killer */
	bool found;		/* holds somebody who may die by a rule */
	bool ending, alive;	/* of these some end already; some do not */
	s32 value;		/* of its class, or the highest one of its homes' */
	unsigned long pages;	/* of those who may die, added up */
	unsigned long most;	/* of the one among them who has the most */
	unsigned long charged;	/* to the unit */
};

/* What is known about a group. */
struct lms_group {
	u64 id;			/* 0: a free place */

	/* While the table is in force: */
	s32 value;		/* of its class */
	u16 rank;		/* the first `kill` line that names it or one above it */
	u16 rule;		/* the first rule that has it among its candidates */
	bool spared;

	u32 walk;
	struct lms_findings now;
};

/*
 * All that is needed in a shortage, made when the first table is written. The tables are under
 * lms_table_write while they are written, and where they are read nobody commits; all else belongs
 * to who walks.
 */
struct lms_book {
	struct lms_table tables[2];
	struct lms_group groups[LMS_GROUPS];
	struct lms_group other;	/* a home that found no place */
	unsigned int used;
	bool full;		/* a unit that came up found no place */
	bool stale;		/* the groups were judged by another table */
	unsigned int marks;	/* groups that are marked */
	/*
	 * Which ones, by two bits for each. This may say so of a group that is not, which lives then;
	 * never the other way round.
	 */
	DECLARE_BITMAP(marked, LMS_MARKS);
	u32 walk;
	struct pid *handler;
	u64 apart[2];		/* the homes of init and the handler */
	bool waits;		/* those that end by themselves come before all others, else after them */
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

/* The deepest level, of a group and those above it, that lines can be about. */
static int lms_last_level(struct cgroup *group)
{
	return min_t(int, group->level, LMS_DEPTH);
}

/*
 * The path of a group, counted from the table's root; NULL where it is not below that. Of one that
 * is too long or too deep as many names as fit: the path of the nearest group above it that a line
 * can name. kernfs_path_from_node() would cut it in the middle of a name, and takes steps by the
 * square of the depth with interrupts off. RCU.
 */
static const char *lms_path(const struct lms_table *table, struct cgroup *group)
{
	int level, last = lms_last_level(group);
	char *path = lms_book->path;
	bool inside = false;
	size_t len = 0;

	for (level = 0; level <= last; level++) {
		struct cgroup *one = cgroup_ancestor(group, level);
		ssize_t more;

		if (!inside) {
			inside = cgroup_id(one) == table->root;
			continue;
		}
		more = strscpy(path + len + 1, lms_group_name(one), sizeof(lms_book->path) - len - 1);
		if (more < 0)
			break;
		path[len] = '/';
		len += more + 1;
	}
	if (!inside)
		return NULL;
	if (!len)
		return "/";
	path[len] = '\0';
	return path;
}

/* What the table says about a group. RCU. */
static void lms_judge_group(const struct lms_table *table, struct lms_group *g, struct cgroup *group)
{
	int level, last = lms_last_level(group);
	bool has_class = false;
	const char *path;
	unsigned int at;

	memset(g, 0, sizeof(*g));
	g->id = cgroup_id(group);
	g->rank = LMS_NONE;
	g->rule = LMS_NONE;
	for (level = 0; level <= last; level++) {
		const struct lms_entry *entry = lms_find(table, cgroup_id(cgroup_ancestor(group, level)));

		if (!entry)
			continue;
		if (entry->spare)
			g->spared = true;
		else
			g->rank = min(g->rank, entry->rank);
	}
	if (g->spared || !table->lines_len)
		return;
	path = lms_path(table, group);
	if (!path)
		return;
	for (at = 0; at < table->lines_len; at++) {
		const struct lms_line *line = &table->lines[at];
		const char *glob = table->text + line->glob;

		switch (line->kind) {
		case LMS_SPARE_PATH:
			if (lms_glob_match_above(glob, path)) {
				g->spared = true;
				return;
			}
			break;
		case LMS_CLASS:
			if (!has_class && lms_glob_match_above(glob, path)) {
				has_class = true;
				g->value = line->value;
			}
			break;
		case LMS_AMONG:
			/* The root is no candidate, whatever names it. */
			if (g->rule == LMS_NONE && group->level && lms_glob_match(glob, path))
				g->rule = line->rule;
			break;
		case LMS_SPARE_COMM:
			break;
		}
	}
}

/* The two bits of a group among the marks: different bits of one product. */
static void lms_mark_bits(u64 id, unsigned int bits[2])
{
	u64 hash = id * GOLDEN_RATIO_64;

	bits[0] = hash >> (64 - LMS_MARKS_BITS);
	bits[1] = (hash >> (64 - 2 * LMS_MARKS_BITS)) % LMS_MARKS;
}

/* Whether a group is marked, or one above it. RCU. */
static bool lms_is_marked(struct cgroup *group)
{
	int level, last = lms_last_level(group);

	for (level = 0; lms_book->marks && level <= last; level++) {
		unsigned int bits[2];

		lms_mark_bits(cgroup_id(cgroup_ancestor(group, level)), bits);
		if (test_bit(bits[0], lms_book->marked) && test_bit(bits[1], lms_book->marked))
			return true;
	}
	return false;
}

/*
 * A group as it is known, judged now if it is not. A unit that finds no place is NULL; what that
 * means, lms_rules_choose() says. A home has a place of half of them, so that it is units which
 * find one, and is else judged each time; what it gives is good until the next call. RCU.
 */
static struct lms_group *lms_known(const struct lms_table *table, struct cgroup *group, bool unit)
{
	struct lms_group *g = lms_slot(cgroup_id(group));

	if (!g->id) {
		if (lms_book->used >= (unit ? LMS_GROUPS_MAX : LMS_GROUPS_MAX / 2)) {
			if (unit) {
				lms_book->full = true;
				return NULL;
			}
			g = &lms_book->other;
		} else {
			lms_book->used++;
		}
		lms_judge_group(table, g, group);
	}
	if (g->walk != lms_book->walk) {
		g->walk = lms_book->walk;
		memset(&g->now, 0, sizeof(g->now));
		g->now.marked = lms_is_marked(group);
		g->now.value = g->value;
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

/* The group whose processes a thread's is among. RCU. */
static struct cgroup *lms_home(struct task_struct *t)
{
	return READ_ONCE(task_dfl_cgroup(t)->dom_cgrp);
}

/* A memory controller that is a group's own, as its memory files show; NULL: it has none. RCU. */
static struct cgroup_subsys_state *lms_memory_of(struct cgroup *group)
{
	struct cgroup_subsys_state *css = rcu_dereference(group->subsys[memory_cgrp_id]);

	return css && (READ_ONCE(css->flags) & CSS_VISIBLE) ? css : NULL;
}

/*
 * The unit of a home; the root where nothing else has a memory controller. A group can't have one
 * that those above it don't have, so that few need be looked at, however deep the home is. RCU.
 */
static struct cgroup *lms_unit(struct cgroup *home)
{
	int has = 0, has_not = home->level;

	if (lms_memory_of(home))
		return home;
	while (has_not - has > 1) {
		int level = has + (has_not - has) / 2;

		if (lms_memory_of(cgroup_ancestor(home, level)))
			has = level;
		else
			has_not = level;
	}
	return cgroup_ancestor(home, has);
}

/*
 * Finds the home and the unit of a process. Not those of a kernel thread, of a process without live
 * threads, or of one that has left its group, which was removed since: a task does that only after
 * it has let go of its memory. RCU.
 */
static bool lms_locate(struct task_struct *p, struct cgroup **home, struct cgroup **unit)
{
	struct task_struct *t;

	if (p->flags & PF_KTHREAD)
		return false;
	t = lms_live_thread(p);
	if (!t)
		return false;
	*home = lms_home(t);
	if (!(READ_ONCE((*home)->self.flags) & CSS_ONLINE))
		return false;
	*unit = lms_unit(*home);
	return true;
}

/* Global init or the handler. RCU. */
static bool lms_is_apart(struct task_struct *p)
{
	return is_global_init(p) || (lms_book->handler && task_tgid(p) == lms_book->handler);
}

/*
 * What a process holds in pages that would be free without it, but for what it shares: anonymous,
 * shared and swapped ones. Not what it maps of files. RCU.
 */
static unsigned long lms_pages_of(struct task_struct *p)
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
			pages = lms_mm_counter(mm, MM_ANONPAGES) + lms_mm_counter(mm, MM_SHMEMPAGES) +
				lms_mm_counter(mm, MM_SWAPENTS);
		task_unlock(t);
		if (mm)
			break;
	}
	return pages;
}

/* What a unit is charged for, of whatever kind, in memory and swap. RCU. */
static unsigned long lms_charged(struct cgroup *unit)
{
	struct mem_cgroup *memcg = mem_cgroup_from_css(lms_memory_of(unit));

	return memcg ? page_counter_read(&memcg->memory) + page_counter_read(&memcg->swap) : 0;
}

/*
 * What the death of a unit's processes would free. Which of their pages are the same ones, because
 * they share memory or were forked, can't be seen. They are no more than all of them have together,
 * no fewer than one of them has, and between these as many as the unit is charged for: so what the
 * processes of a server share counts about once, and what each of those of a hog has counts for
 * each. The charge alone would not do, since it stays where it was when a process moves elsewhere,
 * and is for cache too.
 */
static unsigned long lms_pages(const struct lms_findings *now)
{
	return clamp(now->charged, now->most, now->pages);
}

/* Whether a `spare_comm` line is about a process in this group. RCU. */
static bool lms_is_marked_by(const struct lms_table *table, struct task_struct *p, struct cgroup *home)
{
	const char *path = NULL;
	unsigned int at;

	for (at = 0; at < table->lines_len; at++) {
		const struct lms_line *line = &table->lines[at];

		/* A name that changes meanwhile is one or the other. */
		if (line->kind != LMS_SPARE_COMM || strncmp(line->comm, p->comm, TASK_COMM_LEN))
			continue;
		if (!path)
			path = lms_path(table, home);
		if (!path)
			return false;
		if (lms_glob_match(table->text + line->glob, path))
			return true;
	}
	return false;
}

/* Marks what must be known about groups before anybody's death is thought of. */
static void lms_mark_groups(const struct lms_table *table)
{
	struct task_struct *p;

	if (lms_book->marks)
		bitmap_zero(lms_book->marked, LMS_MARKS);
	lms_book->marks = 0;
	memset(lms_book->apart, 0, sizeof(lms_book->apart));
	rcu_read_lock();
	for_each_process(p) {
		struct cgroup *home, *unit;
		unsigned int bits[2];

		if (!table->comms && !lms_is_apart(p))
			continue;
		if (!lms_locate(p, &home, &unit))
			continue;
		if (lms_is_apart(p))
			lms_book->apart[is_global_init(p) ? 0 : 1] = cgroup_id(home);
		if (!table->comms || !lms_is_marked_by(table, p, home))
			continue;
		lms_mark_bits(cgroup_id(cgroup_ancestor(home, lms_last_level(home))), bits);
		__set_bit(bits[0], lms_book->marked);
		__set_bit(bits[1], lms_book->marked);
		lms_book->marks++;
	}
	rcu_read_unlock();
}

static void lms_rules_begin(struct pid *handler)
{
	if (!lms_book)
		return;
	lms_book->handler = handler;
	lms_book->walk++;
	/* Most of those who fill it may be gone. */
	if (lms_book->stale || lms_book->full)
		lms_forget_groups();
	lms_mark_groups(&lms_book->tables[lms_current]);
}

/*
 * Whether any thread of a process in a domain with threaded groups is in one that is spared. RCU.
 */
static bool lms_has_spared_thread(const struct lms_table *table, struct task_struct *p, struct cgroup *home)
{
	struct task_struct *t;

	if (!READ_ONCE(home->nr_threaded_children))
		return false;
	for_each_thread(p, t) {
		const struct lms_group *g;

		if (READ_ONCE(t->exit_state))
			continue;
		g = lms_known(table, task_dfl_cgroup(t), false);
		if (g->spared || g->now.marked)
			return true;
	}
	return false;
}

/* Whether a process must live: init, the handler, and who is spared. RCU. */
static bool lms_is_spared(const struct lms_table *table, struct task_struct *p, struct cgroup *home,
			  const struct lms_group *known)
{
	return lms_is_apart(p) || known->spared || known->now.marked || lms_has_spared_thread(table, p, home);
}

static bool lms_is_unkillable(struct task_struct *p)
{
	return READ_ONCE(p->signal->oom_score_adj) == OOM_SCORE_ADJ_MIN;
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

/* Whether a group is the home of init or the handler: no `kill` line is about it. */
static bool lms_is_shared_with_apart(u64 home)
{
	return home == lms_book->apart[0] || home == lms_book->apart[1];
}

/*
 * The first `kill` line by which the processes of a home may die, but for those that are no
 * candidates; `rank`: as it was judged. RCU.
 */
static u16 lms_rank(const struct lms_table *table, u16 rank, struct cgroup *home)
{
	int level, last = lms_last_level(home);

	if (rank == LMS_NONE || lms_is_shared_with_apart(cgroup_id(home)))
		return LMS_NONE;
	if (!lms_is_no_candidate(table->kill_ids[rank]))
		return rank;
	rank = LMS_NONE;
	for (level = 0; level <= last; level++) {
		const struct lms_entry *entry = lms_find(table, cgroup_id(cgroup_ancestor(home, level)));

		if (entry && !entry->spare && entry->rank < rank && !lms_is_no_candidate(entry->id))
			rank = entry->rank;
	}
	return rank;
}

/* Which units a walk is about: one, where that is not 0, or those of a part. */
struct lms_scope {
	u64 unit;
	unsigned int parts, part;
};

static bool lms_is_in(const struct lms_scope *scope, u64 unit)
{
	if (scope->unit)
		return unit == scope->unit;
	/* Not by the bits that choose the place in the table. */
	return (unit * GOLDEN_RATIO_64 >> 32) % scope->parts == scope->part;
}

/*
 * Looks at all processes whose units a walk is about, and finds out what these make of their unit.
 * The first `kill` line by which somebody may die; LMS_NONE: there is none.
 */
static void lms_walk(const struct lms_table *table, const struct lms_scope *scope)
{
	struct task_struct *p;

	lms_book->walk++;
	rcu_read_lock();
	for_each_process(p) {
		struct cgroup *home, *unit;
		const struct lms_group *known;
		struct lms_group *g;
		u16 rank;

		/* Whatever is found is of no use any more. */
		if (READ_ONCE(lms.state) != LMS_TABLE)
			break;
		if (!lms_locate(p, &home, &unit) || !lms_is_in(scope, cgroup_id(unit)))
			continue;
		g = lms_known(table, unit, true);
		if (!g)
			continue;
		known = lms_known(table, home, false);
		g->now.value = max(g->now.value, known->value);
		rank = known->rank;
		if (lms_is_spared(table, p, home, known)) {
			g->now.apart = true;
			continue;
		}
		if (lms_is_unkillable(p)) {
			g->now.unkillable = true;
			continue;
		}
		rank = lms_rank(table, rank, home);
		if (rank != LMS_NONE) {
			lms_book->ranks[rank] |= lms_ends(p) ? LMS_SOME_END : LMS_SOME_LIVE;
			/* The unit as a whole does not end. */
			if (!lms_ends(p))
				g->now.alive = true;
			continue;
		}
		g->now.found = true;
		if (lms_ends(p))
			g->now.ending = true;
		else
			g->now.alive = true;
		/* Nobody asks for it otherwise. */
		if (g->rule != LMS_NONE) {
			unsigned long pages = lms_pages_of(p);

			g->now.pages += pages;
			g->now.most = max(g->now.most, pages);
			g->now.charged = lms_charged(unit);
		}
	}
	rcu_read_unlock();
}

/* Whether the last walk has nothing against the death of a unit, if a rule names it. */
static bool lms_may_die(const struct lms_table *table, const struct lms_group *g)
{
	if (g->rule == LMS_NONE || g->spared || g->now.marked || g->now.apart)
		return false;
	return !g->now.unkillable || table->rules[g->rule].unkillable;
}

/* Whether all of a candidate ends already, say because the handler has killed it. */
static bool lms_is_ending(const struct lms_group *g)
{
	return g->now.ending && !g->now.alive;
}

/*
 * Whether the first of two candidates is to die before the other. One that ends already comes before
 * all others: it is waited for, and may be enough. What it still holds can't be seen any more. But
 * not for ever, where groups come and end all the time.
 */
static bool lms_comes_before(const struct lms_table *table, const struct lms_group *a, const struct lms_group *b)
{
	unsigned long a_pages = lms_pages(&a->now), b_pages = lms_pages(&b->now);
	bool a_is_small = a_pages < table->rules[a->rule].min_pages;
	bool b_is_small = b_pages < table->rules[b->rule].min_pages;

	if (lms_is_ending(a) != lms_is_ending(b))
		return lms_is_ending(a) == lms_book->waits;
	/* Its rule would pass over it, and the next rule be asked. */
	if (a_is_small != b_is_small)
		return b_is_small;
	if (a->rule != b->rule)
		return a->rule < b->rule;
	if (a->now.value != b->now.value)
		return a->now.value < b->now.value;
	return a_pages > b_pages;
}

/* The first `kill` line of which this can be said; LMS_NONE: there is none. */
static u16 lms_first_rank(const struct lms_table *table, bool ending)
{
	u16 at;

	for (at = 0; at < table->kills; at++) {
		if (ending ? lms_book->ranks[at] == LMS_SOME_END : lms_book->ranks[at] & LMS_SOME_LIVE)
			return at;
	}
	return LMS_NONE;
}

/*
 * Looks at all units, in so many parts, for the first that may die by a rule (id 0: none), and for
 * `kill` lines by which somebody may (lms_book->ranks). Whether they all found a place; where they
 * did not that is said at once, unless there can be no more parts.
 */
static bool lms_look(const struct lms_table *table, unsigned int parts, struct lms_group *first)
{
	struct lms_scope scope = { .parts = parts };
	bool all = true;
	unsigned int at;

	first->id = 0;
	memset(lms_book->ranks, 0, table->kills);
	for (; scope.part < parts; scope.part++) {
		if (parts > 1) {
			lms_forget_groups();
			cond_resched();
		}
		lms_walk(table, &scope);
		all &= !lms_book->full;
		if (!all && parts < LMS_PARTS)
			break;
		for (at = 0; at < LMS_GROUPS; at++) {
			const struct lms_group *g = &lms_book->groups[at];

			if (!g->id || g->walk != lms_book->walk || !g->now.found)
				continue;
			if (!lms_may_die(table, g) || lms_is_no_candidate(g->id))
				continue;
			if (!first->id || lms_comes_before(table, g, first))
				*first = *g;
		}
	}
	return all;
}

/*
 * Where units find no place those who fill the table may be gone, so that is emptied first. If there
 * are too many even so they are looked at in parts, one after the other: whoever makes many groups
 * hides nothing by that. With more than LMS_PARTS times as many as there are places some of each
 * part live.
 */
static u64 lms_rules_choose(const u64 *but, unsigned int len, bool *wait)
{
	u16 ending, living;
	const struct lms_table *table;
	unsigned int parts = 1;
	struct lms_group first;
	bool empty;

	if (!lms_book)
		return 0;
	table = &lms_book->tables[lms_current];
	lms_book->but = but;
	lms_book->but_len = len;
	lms_book->waits = *wait;
	empty = !lms_book->used;
	while (!lms_look(table, parts, &first) && parts < LMS_PARTS) {
		if (empty)
			parts *= 2;
		lms_forget_groups();
		empty = true;
	}
	lms_book->but_len = 0;
	ending = lms_first_rank(table, true);
	living = lms_first_rank(table, false);
	/* `kill` lines before rules; and who ends before all others, or after them. */
	if (*wait && ending != LMS_NONE)
		return table->kill_ids[ending];
	if (living != LMS_NONE && !(*wait && first.id && lms_is_ending(&first))) {
		*wait = false;
		return table->kill_ids[living];
	}
	if (!*wait && ending != LMS_NONE && (!first.id || lms_is_ending(&first))) {
		*wait = true;
		return table->kill_ids[ending];
	}
	*wait = first.id && lms_is_ending(&first);
	return first.id;
}

/*
 * Whether a group is a victim, below one, or belongs to one that is too deep for lines. RCU.
 */
static bool lms_is_of(struct cgroup *group, u64 victim)
{
	int level, last = lms_last_level(group);

	for (level = 0; level <= last; level++) {
		if (cgroup_id(cgroup_ancestor(group, level)) == victim)
			return true;
	}
	return group->level > LMS_DEPTH && cgroup_id(lms_unit(group)) == victim;
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
		if (t && lms_is_of(lms_home(t), victim)) {
			dying = true;
			break;
		}
	}
	rcu_read_unlock();
	return dying;
}

/* Whether a unit may die whole, as of now. */
static bool lms_unit_may_die(const struct lms_table *table, u64 unit)
{
	const struct lms_scope scope = { .unit = unit };
	const struct lms_group *g;

	lms_walk(table, &scope);
	if (lms_book->full) {
		lms_forget_groups();
		lms_walk(table, &scope);
	}
	g = lms_slot(unit);
	return g->id && g->walk == lms_book->walk && lms_may_die(table, g);
}

static unsigned int lms_rules_kill(u64 victim, bool (*may)(void))
{
	const struct lms_table *table;
	unsigned int killed = 0;
	bool listed, asked = false;
	struct task_struct *p;

	if (!lms_book)
		return 0;
	table = &lms_book->tables[lms_current];
	/* One that a `kill` line names dies with all that is below it, but for who is spared there. */
	listed = lms_find(table, victim);
	if (!listed && !lms_unit_may_die(table, victim))
		return 0;
	rcu_read_lock();
	for_each_process(p) {
		struct cgroup *home, *unit;

		if (!lms_locate(p, &home, &unit) || lms_ends(p))
			continue;
		if (listed ? !lms_is_of(home, victim) : cgroup_id(unit) != victim)
			continue;
		if (lms_is_shared_with_apart(cgroup_id(home)) || lms_is_unkillable(p) ||
		    lms_is_spared(table, p, home, lms_known(table, home, false)))
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
	const char *at = *text;
	bool negative;
	u64 number;

	if (*at++ != ' ')
		return -EINVAL;
	negative = *at == '-';
	at += negative;
	if (!lms_digits(&at, &number) || number > (u64)S32_MAX + negative)
		return -EINVAL;
	*value = negative ? -(s64)number : number;
	*text = at;
	return 0;
}

static int lms_parse_rule(const char **text, struct lms_rule *rule)
{
	static const char key[] = " at_least=";
	u64 kb = 0;

	rule->min_pages = 0;
	rule->unkillable = false;
	if (!strncmp(*text, key, strlen(key))) {
		*text += strlen(key);
		if (!lms_digits(text, &kb) || kb > (u64)LONG_MAX >> 10)
			return -EINVAL;
		rule->min_pages = DIV_ROUND_UP(kb, PAGE_SIZE / 1024);
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
