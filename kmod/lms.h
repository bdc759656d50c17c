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

#define LMS_KEEP_MAX_S		3600
#define LMS_HOLD_MAX_MS		2000
#define LMS_PAUSE_MS		10	/* one callback's sleep */
#define LMS_WATCH_MS		8	/* how often the end of a shortage is looked for */
#define LMS_QUIET_MS		300	/* nobody has asked for so long with some memory there: the shortage is over */
#define LMS_LONG_QUIET_MS	2000	/* the same with next to no memory, or after the kernel had to go ahead */
#define LMS_DYING_MS		1000	/* how long a group of the table may take to be gone */
#define LMS_DYING_GROUPS	3	/* groups that may be stuck in dying before the kernel goes ahead */
#define LMS_ALONE_MS		50	/* a hold's bound when the handler alone has run out */
#define LMS_RESERVE_KEPT	4	/* blocks of the reserve that are for the handler alone */
#define LMS_ACKS		4	/* further victims of one hold that each have its whole time */

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

struct lms_file;

/* What is sampled, in pages. */
struct lms_memory {
	unsigned long total;
	unsigned long available;
	unsigned long swap_free;
};

/* The state of all. What is in it is under its lock but where it says otherwise. */
struct lms {
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
};

extern struct lms lms;

extern wait_queue_head_t lms_changed;	/* readers and pollers */
extern wait_queue_head_t lms_answered;	/* callers that are held */

/* lms_memory.c: parameters, levels, the reserve. */
extern bool lms_loaded;
unsigned int lms_hold_param_ms(void);
unsigned int lms_warn_param_percent(void);
unsigned int lms_kill_param_percent(void);
bool lms_params_fit(void);
void lms_read_memory(struct lms_memory *memory);
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
unsigned int lms_sample(void);

/* lms_caller.c: who could not allocate. */
bool lms_kernel_helps(void);
bool lms_origin_calls(void);
bool lms_origin_runs(void);
bool lms_caller_ends(void);
bool lms_caller_has_reserves(void);
void lms_help_to_end(void);
void lms_hasten_ends(void);

/* lms_table.c: who dies where the handler does not answer. */
bool lms_table_usable(void);
bool lms_use_table(void);
void lms_table_counts(unsigned int *kills, unsigned int *spares);
void lms_table_release(struct lms_file *f);
int lms_write_table(struct lms_file *f, const char *text);

/* lms_file.c: /proc/oom_notifier, and the words of its commands. */
int lms_create_file(void);
void lms_remove_file(void);
bool lms_word(const char **text, const char *word);
bool lms_number(const char **text, u64 *number);

#endif
