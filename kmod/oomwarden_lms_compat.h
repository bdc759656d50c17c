/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels, and what the module takes for granted of them.
 *
 * Tested on 6.1 and 6.12; built for 5.10 and for all that Debian has since. Older ones are refused rather than guessed at.
 */
#ifndef OOMWARDEN_LMS_COMPAT_H
#define OOMWARDEN_LMS_COMPAT_H

#include <linux/cgroup.h>
#include <linux/kernfs.h>
#include <linux/mm.h>
#include <linux/percpu_counter.h>
#include <linux/sched.h>
#include <linux/sched/coredump.h>
#include <linux/sched/prio.h>
#include <linux/sched/signal.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0)
#error "oomwarden_lms needs Linux 5.10 or newer"
#endif

#ifndef CONFIG_64BIT
#error "oomwarden_lms needs a 64 bit kernel: only there the inode number of a group's directory is its whole id"
#endif

#ifndef CONFIG_CGROUPS
#error "oomwarden_lms needs CONFIG_CGROUPS"
#endif

/* The nodes that a memory policy names. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
#define lms_policy_nodes(policy)	((policy)->nodes)
#else
#define lms_policy_nodes(policy)	((policy)->v.nodes)
#endif

/*
 * Pages of a kind in a process's memory. Since 6.2 each processor counts for itself up to a batch;
 * where that can be much of it, what they have counted is asked for too.
 */
static inline unsigned long lms_mm_counter(struct mm_struct *mm, int member)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	s64 pages = percpu_counter_read_positive(&mm->rss_stat[member]);

	if (pages < (s64)percpu_counter_batch * num_online_cpus())
		pages = percpu_counter_sum_positive(&mm->rss_stat[member]);
	return pages;
#else
	return get_mm_counter(mm, member);
#endif
}

/* All of a process's mappings; mmap_lock is held. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 0)
#define lms_for_each_vma(mm, vma)						\
	for (VMA_ITERATOR(vmi, mm, 0); ((vma) = vma_next(&vmi)) != NULL; )
#else
#define lms_for_each_vma(mm, vma)						\
	for ((vma) = (mm)->mmap; (vma); (vma) = (vma)->vm_next)
#endif

/*
 * The name of a group's directory, which in cgroup v2 is the same for as long as the group is there.
 * RCU.
 */
static inline const char *lms_group_name(struct cgroup *group)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	return rcu_dereference(group->kn->name);
#else
	return group->kn->name;
#endif
}

/*
 * Whether the kernel's OOM killer passes over a process with this memory: it was taken already, or
 * goes by itself.
 */
static inline bool lms_oom_skips(struct mm_struct *mm)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0)
	return mm_flags_test(MMF_OOM_SKIP, mm);
#else
	return test_bit(MMF_OOM_SKIP, &mm->flags);
#endif
}

/* Whether its memory is being written to a file, which it keeps until then. */
static inline bool lms_is_dumped(struct task_struct *p)
{
#ifdef SIGNAL_GROUP_COREDUMP
	return READ_ONCE(p->signal->flags) & SIGNAL_GROUP_COREDUMP;
#else
	return READ_ONCE(p->signal->core_state);
#endif
}

/* Whether a process was sent SIGKILL or ends by itself; not one that only its first thread has left. RCU. */
static inline bool lms_is_dying(struct task_struct *p)
{
	if (READ_ONCE(p->signal->flags) & SIGNAL_GROUP_EXIT)
		return true;
	return (READ_ONCE(p->flags) & PF_EXITING) && thread_group_empty(p);
}

/* Whether it was SIGKILL by which it ends, and not its own doing. RCU. */
static inline bool lms_was_killed(struct task_struct *p)
{
	return (READ_ONCE(p->signal->flags) & SIGNAL_GROUP_EXIT) && READ_ONCE(p->signal->group_exit_code) == SIGKILL;
}

/*
 * Whether a process was sent SIGKILL or ends by itself, and nothing more is needed for that. One
 * that dumps its core also looks as if it ended, but may write for minutes until SIGKILL cuts it
 * short, which then stays pending for all its threads. RCU.
 */
static inline bool lms_ends(struct task_struct *p)
{
	if (lms_is_dumped(p))
		return sigismember(&p->signal->shared_pending.signal, SIGKILL);
	return lms_is_dying(p);
}

/*
 * Lets a task that is about to end go ahead of others, to its end: lms_hasten_end() says why.
 * Before 6.5, and 6.1.50, a change of policy waited for a lock of cpusets, which may be held by
 * somebody who allocates; since then only for deadline tasks. With CONFIG_RT_GROUP_SCHED a group
 * whose share of realtime is 0 would stop it for good.
 */
#if !defined(CONFIG_RT_GROUP_SCHED) &&				\
	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0) ||	\
	 (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 1, 50) &&	\
	  LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)))
#define LMS_HASTEN_BY_POLICY
#endif

static inline void lms_hasten(struct task_struct *t)
{
	/* Realtime or deadline already. */
	if (READ_ONCE(t->prio) < MAX_RT_PRIO)
		return;
#ifdef LMS_HASTEN_BY_POLICY
	sched_set_fifo_low(t);
#else
	set_user_nice(t, MIN_NICE);
#endif
}

#endif
