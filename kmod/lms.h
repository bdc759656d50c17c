/* SPDX-License-Identifier: GPL-2.0 */
/* What the module's parts share: types, the state, and what each part does for the others. */
#ifndef OOMWARDEN_LMS_H
#define OOMWARDEN_LMS_H

#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "oomwarden_lms_compat.h"

#define LMS_VERSION		"0.1.0"
/*
 * What a handler has to know: rises when a command, or a key that was there, changes its meaning. A
 * key or a command more changes nothing for who does not know it.
 */
#define LMS_INTERFACE		2U

#define LMS_KEEP_MAX_S		3600
#define LMS_WRITE_MAX		(64 * 1024)
#define LMS_HOLD_MAX_MS		2000
#define LMS_PAUSE_MS		10	/* one callback's sleep */
#define LMS_WATCH_MS		8	/* how often the end of a shortage is looked for */
#define LMS_AGAIN_MS		20	/* a call so long after the first is "again": lms_consider() */
#define LMS_FORGET_MS		5000	/* after so long without a call the next one is a first */
#define LMS_QUIET_MS		300	/* some memory came back, and nobody asked for so long: over */
#define LMS_LONG_QUIET_MS	2000	/* the same where next to none did, or the kernel went ahead */
#define LMS_ALONE_MS		50	/* a hold's bound when the handler alone has run out */
#define LMS_REAPED_MS		4000	/* by then the kernel has taken the memory of a victim that can't end */
#define LMS_RESERVE_KEPT	4	/* blocks of the reserve that are for the handler alone */
#define LMS_ACKS		4	/* further victims of one hold that each have its whole time */
#define LMS_LISTS_MS		100	/* the table waits so long for pages in the processors' lists */
#define LMS_HAD_PAGES		256	/* free to anybody: a caller asks for nothing that it can't have */
#define LMS_UNSERVED_MS		2000	/* callers wait so long for the thread to work by the table */

#define PAGES_PER_MB		(1UL << (20 - PAGE_SHIFT))
#define PAGES_TO_KB(pages)	((unsigned long)(pages) << (PAGE_SHIFT - 10))

enum lms_level { LMS_OK, LMS_WARN, LMS_KILL, LMS_OOM };

/* How far a shortage of the whole machine has come. */
enum lms_state {
	LMS_IDLE,	/* there is none */
	LMS_HOLD,	/* the handler was told and has until the deadline */
	LMS_TABLE,	/* the table's groups are killed, one after the other */
	LMS_FAILED,	/* the kernel's own killer goes ahead */
};

/* The kernel's own choice, which goes before ours: lms_kernels_choice(). */
enum lms_chosen {
	LMS_CHOSEN_NOBODY,
	LMS_CHOSEN_RUNS,	/* somebody marked itself to die first, and is killed when anybody calls */
	LMS_CHOSEN_ENDS,	/* a victim of the kernel still has its memory */
};

struct lms_file;

/* What is sampled, in pages. */
struct lms_memory {
	unsigned long total;
	unsigned long available;
	unsigned long swap_free;
	unsigned long free;		/* lms_free_pages() */
};

/* Calls that have not begun a shortage (yet): see lms_consider(). */
struct lms_doubt {
	unsigned int calls;		/* 0: there was none, or it is forgotten */
	unsigned long first, last;	/* in jiffies */
	bool plenty;			/* at the last one much was free */
	/* Calls while a victim of the kernel still had its memory: */
	bool awaits;			/* there was one; from the first to the last, in jiffies: */
	unsigned long awaits_first, awaits_last;
};

/* The state of all but the table. What is in it is under its lock but where it says otherwise. */
struct lms {
	spinlock_t lock;
	enum lms_level memory_level;	/* by the thresholds alone */
	enum lms_state state;
	u64 seq;			/* level changes and beginnings of holds */
	u64 hold_seq;			/* seq of the hold under way, else 0 */
	bool others_ask;		/* somebody else than the handler has asked in the hold under way */
	bool killed;			/* somebody was, for this shortage: by the table, or as an ack says */
	bool acked;
	unsigned int acks;		/* how often that gave the hold its time anew */
	bool silent;			/* the handler let a hold expire and has not been heard of since */
	unsigned long deadline;		/* of the hold, in jiffies */
	unsigned long last_call;	/* that counts, in jiffies */
	bool unserved;			/* somebody who counts waits for the thread's next turn, since: */
	unsigned long unserved_since;	/* in jiffies */
	unsigned long useless;		/* pages then available that nobody could have */
	unsigned long swap_then;	/* pages of swap that were free then */
	struct lms_doubt doubt;
	struct lms_file *handler;
	struct pid *handler_pid;	/* its thread group */
	unsigned int handler_hold_ms;
	unsigned long swap_total;	/* pages; as the handler says */
	u64 holds, holds_resolved, holds_expired, holds_passed;
	u64 table_kills, passes, calls;
	unsigned long oom_available;	/* pages, when the last shortage began */
};

extern struct lms lms;

extern wait_queue_head_t lms_answered;	/* callers that are held */

/* lms_memory.c: parameters, levels, the reserve. */
extern bool lms_loaded;
unsigned int lms_hold_param_ms(void);
unsigned int lms_warn_param_percent(void);
unsigned int lms_kill_param_percent(void);
bool lms_params_fit(void);
void lms_read_memory(struct lms_memory *memory);
unsigned long lms_free_pages(void);
unsigned long lms_warn_pages(unsigned long total);
unsigned long lms_kill_pages(unsigned long total);
unsigned long lms_floor_pages(unsigned long total);
enum lms_level lms_judge(const struct lms_memory *memory, unsigned long swap_total, enum lms_level before);
unsigned int lms_next_look_ms(const struct lms_memory *memory, enum lms_level level);
bool lms_fill_reserve(void);
bool lms_use_reserve(void);
void lms_empty_reserve(void);
unsigned int lms_reserve_blocks(void);
unsigned long lms_reserve_pages(void);

/* lms_main.c: the state of a shortage. */
void lms_kick_thread(void);
enum lms_level lms_level(void);
const char *lms_level_name(enum lms_level level);
bool lms_handler_lives(void);
unsigned int lms_hold_bound(void);
void lms_end_hold(void);
void lms_served(void);
unsigned int lms_sample(void);

/* lms_lists.c: free pages in the processors' own lists. */
bool lms_lists_give_back(void);
int lms_start_lister(void);
void lms_stop_lister(void);

/* lms_caller.c: who could not allocate. */
bool lms_is_sysrq(void);
bool lms_kernel_helps(void);
bool lms_origin_calls(void);
enum lms_chosen lms_kernels_choice(void);
bool lms_caller_ends(void);
bool lms_caller_has_reserves(void);
void lms_help_to_end(void);
void lms_hasten_end(struct task_struct *p);
void lms_hasten_group(u64 id);

/* What a table holds, for people. */
struct lms_table_counts {
	unsigned int kill_ids;
	unsigned int spare_ids;
	unsigned int rules;
	unsigned int spares;	/* by path or comm */
};

/*
 * Who dies where the handler does not answer. The state machine of lms_table.c asks through this
 * alone and knows victims as numbers only, so that another policy (a BPF program, say) can take the
 * place of the one in lms_policy.c.
 *
 * begin(), choose(), is_dying() and kill() run in the module's thread alone, while the state machine
 * keeps commit() out. Callers of the OOM killer wait for them. So they may take RCU and spinlocks,
 * but not lms.lock. They must not allocate, sleep or wait, and what they do must be bounded by the
 * numbers of processes and groups.
 * What they find out about a group is theirs to keep by its id; a pointer to a group or a process
 * ends with their own RCU section.
 */
struct lms_policy {
	/*
	 * Understands a table and puts it aside. May allocate and sleep; one at a time. Nothing is
	 * changed by one that is refused.
	 */
	int (*set)(const char *text);
	/*
	 * What was set last is in force from now on. Under lms.lock, with nobody in the functions
	 * below.
	 */
	void (*commit)(void);
	/* What is in force. Under lms.lock. */
	void (*counts)(struct lms_table_counts *counts);
	/*
	 * A new look at the machine, before choose() or kill(). The handler's process, if any,
	 * never dies.
	 */
	void (*begin)(struct pid *handler);
	/*
	 * The one that is to die next, but for these; 0: nobody. One whose processes all end by
	 * themselves may be waited for instead. If *wait is set it comes before all others, else
	 * after them. Sets *wait if it is one of these: nobody in it is to be sent anything.
	 */
	u64 (*choose)(const u64 *but, unsigned int len, bool *wait);
	/*
	 * Whether processes of this victim that had begun before a moment (as ktime_get_ns()
	 * counts) were sent SIGKILL, or end by themselves, and still hold memory.
	 */
	bool (*is_dying)(u64 victim, u64 begun_before);
	/*
	 * Sends SIGKILL to all processes of the victim that may die and don't do so already, and
	 * hastens the ends of these; how many. Asks before the first: if it may no longer, nobody
	 * is sent anything.
	 */
	unsigned int (*kill)(u64 victim, bool (*may)(void));
	/* Frees what it holds, when the module goes. */
	void (*free)(void);
};

/* lms_policy.c: ids, and rules over paths. */
extern const struct lms_policy lms_rules;

/* lms_table.c: when the policy is asked, and whose it is. */
bool lms_table_usable(void);
void lms_use_table(void);
void lms_table_reset(void);
void lms_table_look_after(void);
void lms_table_counts(struct lms_table_counts *counts);
void lms_table_release(struct lms_file *f);
int lms_write_table(struct lms_file *f, const char *text);
void lms_table_free(void);

/* lms_file.c: /proc/oom_notifier, who is told of a change, and the words of its commands. */
void lms_init_queues(void);
void lms_notify(void);
int lms_tell_crowd(void *unused);
int lms_create_file(void);
void lms_remove_file(void);
bool lms_word(const char **text, const char *word);
bool lms_digits(const char **text, u64 *number);
bool lms_number(const char **text, u64 *number);

#endif
