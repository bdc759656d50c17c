// SPDX-License-Identifier: GPL-2.0
/* Parameters, the level of memory, and the memory that is set aside for the handler. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/mmzone.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/oom.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "lms.h"

#define LMS_RESERVE_ORDER	6	/* pages of one block; large enough to pass by the per-CPU lists */
#define LMS_RESERVE_BLOCKS	32
#define LMS_RESERVE_AGAIN_S	10

/*
 * Memory for the handler's own allocations during a hold. An answer takes a few: descriptors, lists of processes. Without
 * it the handler would be one of those who wait for the answer. Under lms.lock.
 */
static struct page *lms_reserve[LMS_RESERVE_BLOCKS];
static unsigned int lms_reserve_len;
static unsigned long lms_reserve_again = INITIAL_JIFFIES;	/* when to try again to fill it; the thread's own */

/* Parameters. Checked when written; relations between them once all have been given at load. */

static unsigned int warn_percent = 20;
static unsigned int kill_percent = 10;
static unsigned int warn_max_mb = 4096;
static unsigned int kill_max_mb = 2048;
static unsigned int interval_ms = 500;
static unsigned int hold_ms = 500;
static unsigned int floor_mb;
bool lms_loaded;

struct lms_param {
	unsigned int *value;
	unsigned int min, max;
	const unsigned int *lower;	/* another parameter that this one must not fall below */
	const unsigned int *upper;	/* or rise above */
};

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
	if (lms_loaded && param->lower && value < *param->lower)
		return -EINVAL;
	if (lms_loaded && param->upper && value > *param->upper)
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
		.value = &name, .min = low, .max = high, .lower = over, .upper = under,		\
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

unsigned int lms_hold_param_ms(void)
{
	return READ_ONCE(hold_ms);
}

unsigned int lms_warn_param_percent(void)
{
	return READ_ONCE(warn_percent);
}

unsigned int lms_kill_param_percent(void)
{
	return READ_ONCE(kill_percent);
}

/* Whether the parameters that were given at load agree with each other. */
bool lms_params_fit(void)
{
	return kill_percent <= warn_percent && kill_max_mb <= warn_max_mb;
}

void lms_read_memory(struct lms_memory *memory)
{
	memory->total = totalram_pages();
	memory->available = max(si_mem_available(), 0L);
	memory->swap_free = max(get_nr_swap_pages(), 0L);
	memory->free = lms_free_pages();
}

/*
 * What anybody can have at once: free pages beyond what each zone keeps back. si_mem_available()
 * also counts what reclaim is expected to get, of which much can be out of its reach: dentries and
 * inodes that are in use, cache below a memory.min. Nobody can make free pages look more than they
 * are.
 *
 * An allocation comes to the OOM killer after it has failed at the high watermark in all zones that
 * it may use, so with pages here it was not one of any zone and node. Not counted, because not
 * everybody may have them: free CMA pages, those reserved for atomic allocations of high order,
 * ZONE_MOVABLE. What the lower zones keep back is taken as for movable allocations, for which it is
 * most.
 *
 * With the changes that processors have not handed in yet (as the kernel does when it matters), so
 * this is not for every sample: a pass over all processors for each zone.
 */
unsigned long lms_free_pages(void)
{
	unsigned long sum = 0;
	int node, at;

	for_each_node_state(node, N_MEMORY) {
		for (at = 0; at <= ZONE_NORMAL; at++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[at];
			unsigned long free, kept;

			if (!managed_zone(zone))
				continue;
			free = zone_page_state_snapshot(zone, NR_FREE_PAGES);
			kept = zone_page_state_snapshot(zone, NR_FREE_CMA_PAGES) + READ_ONCE(zone->nr_reserved_highatomic) +
			       high_wmark_pages(zone) + zone->lowmem_reserve[ZONE_MOVABLE];
			if (free > kept)
				sum += free - kept;
		}
	}
	return sum;
}

static unsigned long lms_threshold(unsigned long total, unsigned int percent, unsigned int max_mb)
{
	return min(total / 100 * percent + total % 100 * percent / 100, max_mb * PAGES_PER_MB);
}

unsigned long lms_warn_pages(unsigned long total)
{
	return lms_threshold(total, READ_ONCE(warn_percent), READ_ONCE(warn_max_mb));
}

unsigned long lms_kill_pages(unsigned long total)
{
	return lms_threshold(total, READ_ONCE(kill_percent), READ_ONCE(kill_max_mb));
}

unsigned long lms_floor_pages(unsigned long total)
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

enum lms_level lms_judge(const struct lms_memory *memory, unsigned long swap_total, enum lms_level before)
{
	if (lms_is_below(memory, swap_total, READ_ONCE(kill_percent), READ_ONCE(kill_max_mb), before >= LMS_KILL))
		return LMS_KILL;
	if (lms_is_below(memory, swap_total, READ_ONCE(warn_percent), READ_ONCE(warn_max_mb), before >= LMS_WARN))
		return LMS_WARN;
	return LMS_OK;
}

/* How long to wait for the next sample, in ms: the nearer the next threshold, the sooner, down to a tenth, and 10 ms. */
unsigned int lms_next_look_ms(const struct lms_memory *memory, enum lms_level level)
{
	unsigned int wait, interval = READ_ONCE(interval_ms);
	unsigned long next, left;

	next = level == LMS_OK ? lms_warn_pages(memory->total) : lms_kill_pages(memory->total);
	left = memory->available > next && level != LMS_KILL ? memory->available - next : 0;
	wait = left >= next ? interval : (unsigned int)(interval * left / max(next, 1UL));
	return max3(wait, interval / 10, 10U);
}

/* A 128th of memory, at most 8 MiB (with pages of 4 KiB). */
static unsigned int lms_reserve_wanted(void)
{
	return clamp(totalram_pages() / 128 >> LMS_RESERVE_ORDER, 1UL, (unsigned long)LMS_RESERVE_BLOCKS);
}

/* Fills the reserve by one block, while memory is easily had. Whether there is more to do. */
bool lms_fill_reserve(void)
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
	/* Without reclaim: what is looked at here every few milliseconds must not wait for it. */
	page = alloc_pages((GFP_KERNEL & ~__GFP_DIRECT_RECLAIM) | __GFP_NORETRY |
			   __GFP_NOMEMALLOC | __GFP_NOWARN,
			   LMS_RESERVE_ORDER);
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
bool lms_use_reserve(void)
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

void lms_empty_reserve(void)
{
	while (lms_use_reserve())
		;
}

unsigned int lms_reserve_blocks(void)
{
	return READ_ONCE(lms_reserve_len);
}

unsigned long lms_reserve_pages(void)
{
	return (unsigned long)lms_reserve_blocks() << LMS_RESERVE_ORDER;
}
