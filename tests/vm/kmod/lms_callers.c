// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: callers of the OOM killer that no user-space program can be.
 *
 * /proc/lms_callers takes one command a write:
 *
 *   give mib=N		holds N MiB and gives them back, 1 MiB a call, when the kernel is about to kill, as the memory balloon of
 *			a virtual machine does (and with its priority)
 *   eat mib=N [more=M] [calls=K] [by=thread|worker] [flags=nofs|noio]
 *			takes memory page by page and holds it: N MiB at most; once the kernel's OOM killer was called, in
 *			whoever's name, M MiB more; at the Kth call in its own it lets go of all that it holds. In the writer's name, and then the
 *			write returns when it is done; or in that of a kernel thread, or of a worker of a workqueue
 *   stop		lets go of everything
 *
 * and tells what is held, and how often the kernel was about to kill: in the eater's name (calls) and in others'.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/proc_fs.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#define NAME		"lms_callers"
#define PRIORITY	80		/* VIRTIO_BALLOON_OOM_NOTIFY_PRIORITY */
#define PER_MIB		(1UL << (20 - PAGE_SHIFT))

/* A heap of pages. */
struct heap {
	struct list_head pages;
	unsigned long len;
};

static DEFINE_SPINLOCK(lock);			/* the heaps, counters and the eater's orders */
static struct heap given = { LIST_HEAD_INIT(given.pages) };
static struct heap eaten = { LIST_HEAD_INIT(eaten.pages) };
static unsigned long calls, others;
static struct task_struct *eater;		/* whose calls are counted; NULL when it is done */
static unsigned long limit, more, let_go_at;
static bool nofs, noio, asked, enough, queued;

static DEFINE_MUTEX(commands);
static struct task_struct *thread;		/* under commands */

static void put(struct heap *heap, struct page *page)
{
	spin_lock(&lock);
	list_add(&page->lru, &heap->pages);
	heap->len++;
	spin_unlock(&lock);
}

/* Lets go of so many pages at most. Of how many it did. */
static unsigned long let_go(struct heap *heap, unsigned long most)
{
	unsigned long done;

	for (done = 0; done < most; done++) {
		struct page *page;

		spin_lock(&lock);
		page = list_first_entry_or_null(&heap->pages, struct page, lru);
		if (page) {
			list_del(&page->lru);
			heap->len--;
		}
		spin_unlock(&lock);
		if (!page)
			break;
		__free_page(page);
	}
	return done;
}

static int called(struct notifier_block *block, unsigned long unused, void *data)
{
	unsigned long *freed = data;
	bool all = false;

	spin_lock(&lock);
	/* Whoever comes first: the victim's memory is for the eater, but not all of it. */
	if (eater && !asked) {
		limit = min(limit, eaten.len + more);
		asked = true;
	}
	if (current == eater) {
		calls++;
		all = let_go_at && calls >= let_go_at;
		if (all)
			enough = true;
	} else {
		others++;
	}
	spin_unlock(&lock);
	*freed += let_go(&given, PER_MIB);
	if (all)
		*freed += let_go(&eaten, ULONG_MAX);
	return NOTIFY_OK;
}

static struct notifier_block block = {
	.notifier_call = called,
	.priority = PRIORITY,
};

static bool wants_more(void)
{
	bool wants;

	spin_lock(&lock);
	wants = !enough && eaten.len < limit;
	spin_unlock(&lock);
	return wants;
}

static int eat(void *unused)
{
	unsigned int flags = 0;
	int error = 0;

	if (nofs)
		flags = memalloc_nofs_save();
	else if (noio)
		flags = memalloc_noio_save();
	while (!error && wants_more()) {
		struct page *page = alloc_page(GFP_KERNEL);

		if (page)
			put(&eaten, page);
		else
			error = -ENOMEM;
		if (fatal_signal_pending(current))
			error = -EINTR;
		cond_resched();
	}
	if (nofs)
		memalloc_nofs_restore(flags);
	else if (noio)
		memalloc_noio_restore(flags);
	spin_lock(&lock);
	eater = NULL;
	queued = false;
	spin_unlock(&lock);
	return error;
}

static void eat_by_worker(struct work_struct *unused)
{
	spin_lock(&lock);
	eater = current;
	spin_unlock(&lock);
	eat(NULL);
}

static DECLARE_WORK(work, eat_by_worker);

static int eat_by_thread(void *unused)
{
	int error = eat(NULL);

	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
	}
	return error;
}

/* Under commands, as the two below. */
static void stop(void)
{
	spin_lock(&lock);
	enough = true;
	spin_unlock(&lock);
	/* First, or it might not be able to end. */
	let_go(&given, ULONG_MAX);
	let_go(&eaten, ULONG_MAX);
	if (thread) {
		kthread_stop(thread);
		put_task_struct(thread);
		thread = NULL;
	}
	flush_work(&work);
	let_go(&eaten, ULONG_MAX);
}

static int give(unsigned long mib)
{
	unsigned long left;

	for (left = mib * PER_MIB; left; left--) {
		struct page *page = alloc_page(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN);

		if (!page)
			return -ENOMEM;
		put(&given, page);
	}
	return 0;
}

/* One `key=value`. */
static int word(char *text, unsigned long *mib, bool *by_thread, bool *by_worker)
{
	char *value = strchr(text, '=');

	if (!value)
		return -EINVAL;
	*value++ = '\0';
	if (!strcmp(text, "mib"))
		return kstrtoul(value, 10, mib);
	if (!strcmp(text, "calls"))
		return kstrtoul(value, 10, &let_go_at);
	if (!strcmp(text, "more")) {
		int error = kstrtoul(value, 10, &more);

		more = error ? 0 : more * PER_MIB;
		return error;
	}
	nofs |= !strcmp(text, "flags") && !strcmp(value, "nofs");
	noio |= !strcmp(text, "flags") && !strcmp(value, "noio");
	*by_thread |= !strcmp(text, "by") && !strcmp(value, "thread");
	*by_worker |= !strcmp(text, "by") && !strcmp(value, "worker");
	return !strcmp(text, "flags") || !strcmp(text, "by") ? 0 : -EINVAL;
}

static int command(char *text)
{
	bool by_thread = false, by_worker = false;
	unsigned long mib = 0;
	char *verb, *pair;
	int error = 0;

	verb = strsep(&text, " ");
	if (!strcmp(verb, "stop")) {
		stop();
		return 0;
	}
	if (thread || queued)
		return -EBUSY;
	nofs = noio = asked = enough = false;
	more = ULONG_MAX / 2;
	let_go_at = 0;
	while (!error && (pair = strsep(&text, " ")))
		error = word(pair, &mib, &by_thread, &by_worker);
	if (error || mib > ULONG_MAX / 2 / PER_MIB)
		return -EINVAL;
	if (!strcmp(verb, "give"))
		return give(mib);
	if (strcmp(verb, "eat"))
		return -EINVAL;
	spin_lock(&lock);
	limit = eaten.len + mib * PER_MIB;
	calls = 0;
	spin_unlock(&lock);
	if (by_worker) {
		queued = true;
		/* Not bound to a processor: a worker of those would be told off for taking it so long. */
		queue_work(system_unbound_wq, &work);
		return 0;
	}
	if (!by_thread) {
		eater = current;
		return eat(NULL);
	}
	thread = kthread_create(eat_by_thread, NULL, NAME);
	if (IS_ERR(thread)) {
		error = PTR_ERR(thread);
		thread = NULL;
		return error;
	}
	get_task_struct(thread);
	eater = thread;
	wake_up_process(thread);
	return 0;
}

static ssize_t callers_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	char text[128];
	int error;

	if (count >= sizeof(text))
		return -E2BIG;
	if (copy_from_user(text, from, count))
		return -EFAULT;
	text[count] = '\0';
	error = mutex_lock_interruptible(&commands);
	if (error)
		return error;
	error = command(strim(text));
	mutex_unlock(&commands);
	return error ? error : count;
}

static int callers_show(struct seq_file *to, void *unused)
{
	spin_lock(&lock);
	seq_printf(to, "given_kb %lu\neaten_kb %lu\neating %d\ncalls %lu\nothers %lu\n", given.len << (PAGE_SHIFT - 10),
		   eaten.len << (PAGE_SHIFT - 10), queued || eater, calls, others);
	spin_unlock(&lock);
	return 0;
}

static int callers_open(struct inode *inode, struct file *file)
{
	return single_open(file, callers_show, NULL);
}

static const struct proc_ops callers_ops = {
	.proc_open = callers_open,
	.proc_read = seq_read,
	.proc_write = callers_write,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static int __init callers_init(void)
{
	int error = register_oom_notifier(&block);

	if (error)
		return error;
	if (proc_create(NAME, 0600, NULL, &callers_ops))
		return 0;
	unregister_oom_notifier(&block);
	return -EEXIST;
}

static void __exit callers_exit(void)
{
	/* Waits for those who are in one of its functions. */
	remove_proc_entry(NAME, NULL);
	mutex_lock(&commands);
	stop();
	mutex_unlock(&commands);
	unregister_oom_notifier(&block);
}

module_init(callers_init);
module_exit(callers_exit);

MODULE_DESCRIPTION("callers of the OOM killer, for oomwarden's tests");
MODULE_LICENSE("GPL");
