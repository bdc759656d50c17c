/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels, and what the module takes for granted of them.
 *
 * Tested on 6.1 and 6.12; built for 5.10 and for all that Debian has since. Older ones are refused rather than guessed at.
 */
#ifndef OOMWARDEN_LMS_COMPAT_H
#define OOMWARDEN_LMS_COMPAT_H

#include <linux/cgroup.h>
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

/* Whether a process was sent SIGKILL or ends by itself; not one that only its first thread has left. RCU. */
static inline bool lms_is_dying(struct task_struct *p)
{
	if (READ_ONCE(p->signal->flags) & SIGNAL_GROUP_EXIT)
		return true;
	return (READ_ONCE(p->flags) & PF_EXITING) && thread_group_empty(p);
}

#endif
