// SPDX-License-Identifier: GPL-2.0
/* Who could not allocate: callers that are the kernel's, and those that are about to end. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cgroup.h>
#include <linux/mm.h>
#include <linux/oom.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/string.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>

#include "lms.h"

#define LMS_RESERVES_LEFT	128	/* pages */

/*
 * Whether the caller is sysrq f: an administrator who wants a kill at once, whatever there is of
 * memory. To begin a hold for that would cost somebody else's life as well, and before 5.18 the
 * kernel would not even kill if it was told that memory was freed. It is a worker of a workqueue,
 * like many who really are in want of memory, and only its work says so: a variable of the
 * kernel's, known to us by its name alone. The pointer is not followed, the work of others may be
 * freed by now. Where names of variables are not kept any worker may be sysrq f.
 */
bool lms_is_sysrq(void)
{
	char name[16];

	if (!(current->flags & PF_WQ_WORKER))
		return false;
	if (!IS_ENABLED(CONFIG_KALLSYMS_ALL))
		return true;
	snprintf(name, sizeof(name), "%ps", current_work());
	return !strcmp(name, "moom_work");
}

/*
 * Whether a process will give its memory back soon: it was killed or ends by itself, and is not
 * being dumped. RCU.
 */
static bool lms_will_free(struct task_struct *p)
{
	return !lms_is_dumped(p) && lms_is_dying(p);
}

/* Whether a process uses this memory: as its first thread that still has any. RCU. */
static bool lms_uses(struct task_struct *p, const struct mm_struct *mm)
{
	struct task_struct *t;

	for_each_thread(p, t) {
		const struct mm_struct *used = READ_ONCE(t->mm);

		if (used)
			return used == mm;
	}
	return false;
}

/*
 * Whether the kernel gives the caller what it needs to die, and kills nobody for it.
 * out_of_memory() does so after us for whoever is dying with all the processes that share its
 * memory. To these it opens its reserves, which is more than we can do, so they are best left to
 * it.
 *
 * For any other caller it looks for a victim, also for these, who look as if they were dying:
 *
 * - who has let go of its memory in exit_mm() already, and now closes its files;
 * - who is being dumped, or one of whose threads alone ends, or is ended by execve(2) in another
 *   thread;
 * - whose memory the kernel's reaper has taken already (MMF_OOM_SKIP);
 * - who shares its memory with a process that does not die (vfork(2), clone(2) with CLONE_VM).
 *
 * To leave one of them to the kernel is to let a bystander die, so they are held like anybody, and
 * helped by lms_help_to_end().
 */
bool lms_kernel_helps(void)
{
	struct mm_struct *mm = current->mm;
	struct task_struct *p;
	bool all = true;

	if (!mm || !lms_will_free(current) || lms_oom_skips(mm))
		return false;
	if (atomic_read(&mm->mm_users) <= 1)
		return true;
	rcu_read_lock();
	for_each_process(p) {
		if (same_thread_group(p, current) || !lms_uses(p, mm))
			continue;
		all = lms_will_free(p);
		if (!all)
			break;
	}
	rcu_read_unlock();
	return all;
}

/*
 * Whether the kernel chooses this process before all others, or waits for its end: swapoff(2) and
 * the end of KSM's merging mark themselves, because they may take more memory than there is. One
 * whose memory was taken already is passed over. RCU.
 */
static bool lms_dies_first(struct task_struct *p)
{
	struct mm_struct *mm = READ_ONCE(p->signal->oom_mm);

	if (!oom_task_origin(p) || (p->flags & PF_KTHREAD) || is_global_init(p))
		return false;
	return !mm || !lms_oom_skips(mm);
}

bool lms_origin_calls(void)
{
	return lms_dies_first(current);
}

/*
 * Whom the kernel has chosen already, or would choose before all others whoever calls: then nobody
 * else needs to die.
 *
 * A victim of its own that still has its memory keeps the kernel from choosing anybody, also one of
 * a group at its limit. That ends when the memory is given back (exit_mmap()), or taken by the
 * kernel's reaper, some two seconds later. Whoever marked itself to die first takes its mark back
 * before it lets go of what it has, so that it is known as a victim alone by then.
 */
enum lms_chosen lms_kernels_choice(void)
{
	enum lms_chosen chosen = LMS_CHOSEN_NOBODY;
	struct task_struct *p;

	rcu_read_lock();
	for_each_process(p) {
		struct mm_struct *mm = READ_ONCE(p->signal->oom_mm);

		if (mm && !lms_oom_skips(mm)) {
			chosen = LMS_CHOSEN_ENDS;
			break;
		}
		if (lms_dies_first(p))
			chosen = LMS_CHOSEN_RUNS;
	}
	rcu_read_unlock();
	return chosen;
}

/* Whether the caller is about to end. Signals don't wake it any more, or wake it at once. */
bool lms_caller_ends(void)
{
	return (current->flags & PF_EXITING) || fatal_signal_pending(current);
}

/*
 * Whether the caller is a victim of the kernel that is past its help: to be sent back is all that
 * it needs, and nobody has to die for it. Its allocation then fails, or, if it must not fail, is
 * met from the reserves without any limit; so there have to be some left.
 */
bool lms_caller_has_reserves(void)
{
	return tsk_is_oom_victim(current) &&
	       global_zone_page_state(NR_FREE_PAGES) > LMS_RESERVES_LEFT;
}

/* Whether a group is this one, or below it. RCU. */
static bool lms_is_within(struct cgroup *group, u64 id)
{
	for (; group; group = cgroup_parent(group)) {
		if (cgroup_id(group) == id)
			return true;
	}
	return false;
}

/*
 * Makes the end of a process that was killed go ahead of whoever is held, also where that cuts a
 * dump of its core short: it notices the signal only when it has, or is refused, the page that it
 * writes next. Takes no lock that anybody holds while it allocates. RCU.
 *
 * What holds an end up is not the want of memory alone. Past exit_mm() a victim has no memory left
 * that the kernel could take, so the kernel gives it nothing, and for each page it goes through all
 * of direct reclaim, in which those who are held spend the processors. A realtime task, even of the
 * lowest priority, gets pages from the allocator down to part of the minimum that is kept from
 * others, without any reclaim and about as far as a victim of the kernel's own; and the processor,
 * also where its group's share is small or used up. It stays one to its end and no longer.
 *
 * So this is for victims alone, of the table or the handler, and not for whoever happens to end in
 * a shortage: a tenant could have realtime processes at will.
 *
 * What does not serve: PF_MEMALLOC opens the reserves without a bound, can't be taken back once the
 * allocation is done, and allocations that must not fail, and file systems, complain about it;
 * TIF_MEMDIE opens nothing without signal->oom_mm; and signal->oom_mm without the kernel's reaper
 * behind it keeps the kernel's killer waiting, for ever if this never ends.
 */
void lms_hasten_end(struct task_struct *p)
{
	struct task_struct *t;

	if (!lms_ends(p))
		return;
	for_each_thread(p, t) {
		if (!READ_ONCE(t->exit_state))
			lms_hasten(t);
	}
}

/* Somebody who still has to end; a process's first thread may have gone before the others. RCU. */
static struct task_struct *lms_ending_thread(struct task_struct *p)
{
	struct task_struct *t;

	for_each_thread(p, t) {
		if (!READ_ONCE(t->exit_state))
			return t;
	}
	return NULL;
}

/*
 * The same for those in a group, or below it, that were sent SIGKILL. The handler says by its ack
 * which group that is.
 */
void lms_hasten_group(u64 id)
{
	struct task_struct *p;

	rcu_read_lock();
	for_each_process(p) {
		struct task_struct *t;

		if ((p->flags & PF_KTHREAD) || !lms_was_killed(p))
			continue;
		t = lms_ending_thread(p);
		if (t && lms_is_within(task_dfl_cgroup(t), id))
			lms_hasten_end(p);
	}
	rcu_read_unlock();
}

/*
 * Sends a caller that is about to end on its way when the kernel does not help it (see
 * lms_kernel_helps()). A piece of the reserve helps it more than others, who may not take the last
 * pages that are free. Bounded by what the handler must be left with, and, like everybody's
 * waiting, by the hold or the table.
 */
void lms_help_to_end(void)
{
	if (lms_reserve_blocks() > LMS_RESERVE_KEPT && lms_use_reserve())
		return;
	schedule_timeout_uninterruptible(1);
}
