/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels, and what the module takes for granted of them.
 *
 * Built and tested on 6.1 and 6.12. Older ones are refused rather than guessed at: cgroup.kill and process_mrelease(2),
 * which the daemon answers a hold with, came with 5.14 and 5.15.
 */
#ifndef OOMWARDEN_LMS_COMPAT_H
#define OOMWARDEN_LMS_COMPAT_H

#include <linux/cgroup.h>
#include <linux/sched/signal.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 15, 0)
#error "oomwarden_lms needs Linux 5.15 or newer"
#endif

#ifndef CONFIG_64BIT
#error "oomwarden_lms needs a 64 bit kernel: only there the inode number of a group's directory is its whole id"
#endif

#ifndef CONFIG_CGROUPS
#error "oomwarden_lms needs CONFIG_CGROUPS"
#endif

/* Whether a process was sent SIGKILL or ends by itself; not one that only its first thread has left. RCU. */
static inline bool lms_is_dying(struct task_struct *p)
{
	if (READ_ONCE(p->signal->flags) & SIGNAL_GROUP_EXIT)
		return true;
	return (READ_ONCE(p->flags) & PF_EXITING) && thread_group_empty(p);
}

/*
 * Whether a process was sent SIGKILL or ends by itself, and nothing more is needed for that. One
 * that dumps its core also looks as if it ended, but may write for minutes until SIGKILL cuts it
 * short, which then stays pending for all its threads. RCU.
 */
static inline bool lms_ends(struct task_struct *p)
{
#ifdef SIGNAL_GROUP_COREDUMP
	bool dumps = READ_ONCE(p->signal->flags) & SIGNAL_GROUP_COREDUMP;
#else
	bool dumps = READ_ONCE(p->signal->core_state);
#endif
	if (dumps)
		return sigismember(&p->signal->shared_pending.signal, SIGKILL);
	return lms_is_dying(p);
}

#endif
