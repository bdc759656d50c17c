// SPDX-License-Identifier: GPL-2.0
/*
 * Free pages in the processors' own lists.
 *
 * What a process gives back goes to the lists of the processor on which it ends, and from there to
 * the zone, where others find it. Since 6.7 these lists grow with use, up to an eighth of a zone
 * for all processors together. The kernel empties them when reclaim has made progress, but not
 * before it chooses a victim: so there are shortages in which one processor has what another asks
 * for, and a second group would die though the first was enough.
 *
 * No other processor's list can be emptied by a module, nor its own by a call. But while a zone is
 * below its high watermark each page that is freed takes a batch of its list, at least, along to the
 * zone (nr_pcp_high() and nr_pcp_free() in mm/page_alloc.c). So a thread goes from processor to
 * processor, and takes and frees a page there as long as the list gets shorter by that. It is a
 * thread of its own, of the lowest realtime priority, since it has to wait where a realtime task
 * has the processor for itself: nobody else waits for it for longer than LMS_LISTS_MS.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpumask.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "lms.h"

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)

#define LMS_LISTED	256	/* pages of a zone on a processor that are worth the way there */
#define LMS_FREED	8192	/* pages that are freed to empty one list, at most */
#define LMS_VAIN	4	/* of these so many in a row without effect */

static DECLARE_WAIT_QUEUE_HEAD(lms_lists_kick);
static bool lms_lists_kicked;
static struct task_struct *lms_lister;

/* With which flags a page of this zone is asked for; 0: none of its lists is emptied. */
static gfp_t lms_zone_flags(enum zone_type type)
{
	switch (type) {
	case ZONE_NORMAL:
		return __GFP_MEMALLOC;
#ifdef CONFIG_ZONE_DMA32
	case ZONE_DMA32:
		return __GFP_MEMALLOC | __GFP_DMA32;
#endif
	default:
		return 0;
	}
}

/* Pages of a zone in the lists of a processor. A number that is a moment old will do. */
static int lms_listed(struct zone *zone, int cpu)
{
	return managed_zone(zone) ? READ_ONCE(per_cpu_ptr(zone->per_cpu_pageset, cpu)->count) : 0;
}

/* Whether a processor's lists are worth the way there. */
static bool lms_lists_much(int cpu)
{
	int node, type;

	for_each_node_state(node, N_MEMORY) {
		for (type = 0; type <= ZONE_NORMAL; type++) {
			if (lms_zone_flags(type) && lms_listed(&NODE_DATA(node)->node_zones[type], cpu) >= LMS_LISTED)
				return true;
		}
	}
	return false;
}

/*
 * Empties the list of a zone on the processor where it runs. Watermarks don't count for a page that
 * is given back at once, and neither reclaim nor its threads are woken for it.
 */
static void lms_empty_list(struct zone *zone, int cpu, gfp_t flags)
{
	unsigned int freed, vain = 0;

	flags |= __GFP_THISNODE | __GFP_NOWARN;
	for (freed = 0; freed < LMS_FREED && vain < LMS_VAIN; freed++) {
		int listed = lms_listed(zone, cpu);
		struct page *page;

		if (listed < LMS_LISTED || READ_ONCE(lms.state) == LMS_IDLE)
			return;
		page = alloc_pages_node(zone_to_nid(zone), flags, 0);
		if (!page)
			return;
		__free_page(page);
		vain = lms_listed(zone, cpu) < listed ? 0 : vain + 1;
	}
}

/* The same for all zones. Pages of processes are in lists of movable pages, as a rule. */
static void lms_empty_lists_here(int cpu)
{
	int node, type;

	for_each_node_state(node, N_MEMORY) {
		for (type = 0; type <= ZONE_NORMAL; type++) {
			struct zone *zone = &NODE_DATA(node)->node_zones[type];
			gfp_t flags = lms_zone_flags(type);

			if (!flags)
				continue;
			lms_empty_list(zone, cpu, flags | __GFP_MOVABLE);
			lms_empty_list(zone, cpu, flags);
		}
	}
}

static int lms_empty_lists(void *unused)
{
	sched_set_fifo_low(current);
	while (!kthread_should_stop()) {
		int cpu;

		for_each_online_cpu(cpu) {
			if (kthread_should_stop() || READ_ONCE(lms.state) == LMS_IDLE)
				break;
			/* One that goes offline meanwhile has its lists emptied by that. */
			if (lms_lists_much(cpu) && !set_cpus_allowed_ptr(current, cpumask_of(cpu)))
				lms_empty_lists_here(cpu);
		}
		set_cpus_allowed_ptr(current, cpu_possible_mask);
		wait_event_idle(lms_lists_kick, READ_ONCE(lms_lists_kicked) || kthread_should_stop());
		WRITE_ONCE(lms_lists_kicked, false);
	}
	return 0;
}

/* Whether processors have pages in their lists that are worth waiting for; if so they are emptied. */
bool lms_lists_give_back(void)
{
	int cpu;

	for_each_online_cpu(cpu) {
		if (!lms_lists_much(cpu))
			continue;
		WRITE_ONCE(lms_lists_kicked, true);
		wake_up(&lms_lists_kick);
		return true;
	}
	return false;
}

int lms_start_lister(void)
{
	lms_lister = kthread_run(lms_empty_lists, NULL, "oomwarden_lists");
	return PTR_ERR_OR_ZERO(lms_lister);
}

void lms_stop_lister(void)
{
	kthread_stop(lms_lister);
}

#else

/* At most the low watermark's pages are in lists. */
bool lms_lists_give_back(void)
{
	return false;
}

int lms_start_lister(void)
{
	return 0;
}

void lms_stop_lister(void)
{
}

#endif
