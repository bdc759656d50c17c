// SPDX-License-Identifier: GPL-2.0
/* /proc/oom_notifier: what it says, who is told, and the commands that it takes. README.md describes the format. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "lms.h"

#define LMS_TEXT_MAX		2048	/* what a read gives; all keys with their longest values fit */
#define LMS_PROC_NAME		"oom_notifier"
#define LMS_COMMAND_MAX		64	/* a command other than `table`; needs no memory */

#define LMS_CROWD_QUEUES	256
#define LMS_HEAD_START_MS	100	/* how long the crowd is told of a hold after the handler */

/* One open file. Small, because any user may have many; all of it is charged to whoever asks. */
struct lms_file {
	struct mutex lock;	/* text and len; taken before lms.lock */
	bool may_command;	/* opened for writing by somebody who may command the module */
	u64 seen;		/* seq as it was last read */
	size_t len;
	char *text;		/* LMS_TEXT_MAX bytes from the first read, or `handler`, on */
};

/*
 * Who waits for a change.
 *
 * A wake-up holds its queue's lock, with interrupts off, for all who wait there, and comes to the
 * oldest last. So files that may command the module have a queue of their own: the handler is among
 * them, whenever it registers, and only root's capabilities can make them many. It is woken at once,
 * by the OOM callback too. Anybody may add to the crowd. It is spread over many queues, by lot, so
 * that nobody can fill one of them, and a thread wakes one queue after the other. That is not the
 * thread that works through a shortage, which must not be kept by a crowd, nor go ahead of anybody
 * for it.
 */
static DECLARE_WAIT_QUEUE_HEAD(lms_commanders);
static wait_queue_head_t lms_crowd[LMS_CROWD_QUEUES];
static unsigned int lms_untold;		/* of these queues, since the last change; under lms.lock */
static unsigned long lms_changed_at;	/* in jiffies; under lms.lock */
static unsigned int lms_next_queue;	/* the crowd's thread's own */
static DECLARE_WAIT_QUEUE_HEAD(lms_crowd_kick);	/* that thread */
static bool lms_crowd_kicked;

void lms_init_queues(void)
{
	unsigned int at;

	for (at = 0; at < LMS_CROWD_QUEUES; at++)
		init_waitqueue_head(&lms_crowd[at]);
}

/*
 * All of them, exclusive waiters too (io_uring takes EPOLLEXCLUSIVE with POLLPRI): unrelated files
 * share a queue, and a wake-up that stops at the first of these would be lost for the others.
 */
static void lms_wake(wait_queue_head_t *queue)
{
	__wake_up(queue, TASK_INTERRUPTIBLE, 0, poll_to_key(EPOLLPRI));
}

/* There is something to tell, or nothing to wait for any more. */
static void lms_kick_teller(void)
{
	WRITE_ONCE(lms_crowd_kicked, true);
	wake_up(&lms_crowd_kick);
}

/* After seq has risen, without lms.lock: tells who may be the handler, and has the crowd told. */
void lms_notify(void)
{
	spin_lock(&lms.lock);
	lms_untold = LMS_CROWD_QUEUES;
	lms_changed_at = jiffies;
	spin_unlock(&lms.lock);
	lms_wake(&lms_commanders);
	lms_kick_thread();
	lms_kick_teller();
}

/*
 * Whether the crowd has to wait: the handler needs the processors for its answer, and what the
 * crowd could do is worth less than that. Not for long, because it may have memory to give. Under
 * lms.lock.
 */
static bool lms_has_head_start(void)
{
	return lms.state == LMS_HOLD && !lms.acked &&
	       time_before(jiffies, lms_changed_at + msecs_to_jiffies(LMS_HEAD_START_MS));
}

/*
 * Wakes the next queue of the crowd where somebody waits, if there are any that have not been woken
 * since the last change. Whether it did; then there may be more.
 *
 * Nothing is lost without a barrier: who waits adds itself to a queue before it compares seq under
 * lms.lock, and seq rises under lms.lock before the queues are marked here.
 */
static bool lms_tell_queue(void)
{
	wait_queue_head_t *queue;
	bool untold;

	do {
		spin_lock(&lms.lock);
		untold = lms_untold && !lms_has_head_start();
		lms_untold -= untold;
		spin_unlock(&lms.lock);
		if (!untold)
			return false;
		queue = &lms_crowd[lms_next_queue++ % LMS_CROWD_QUEUES];
	} while (!waitqueue_active(queue));
	lms_wake(queue);
	return true;
}

/* The crowd's thread. */
int lms_tell_crowd(void *unused)
{
	while (!kthread_should_stop()) {
		long wait;

		if (lms_tell_queue()) {
			cond_resched();
			continue;
		}
		/* Only the handler's head start is waited for by the clock. */
		wait = READ_ONCE(lms_untold) ? msecs_to_jiffies(LMS_WATCH_MS) : MAX_SCHEDULE_TIMEOUT;
		wait_event_idle_timeout(lms_crowd_kick, READ_ONCE(lms_crowd_kicked) || kthread_should_stop(), wait);
		WRITE_ONCE(lms_crowd_kicked, false);
	}
	return 0;
}

static size_t lms_render(char *text, u64 *seq)
{
	struct lms_table_counts table;
	struct lms_memory memory;
	enum lms_level level;
	unsigned int bound;
	struct lms now;
	pid_t handler;

	/* The level and the numbers that it is told with belong together. */
	lms_sample();
	lms_read_memory(&memory);
	lms_table_counts(&table);
	/* Written down without the lock: the OOM callback must not wait for readers. */
	spin_lock(&lms.lock);
	now = lms;
	level = lms_level();
	bound = lms_hold_bound();
	handler = lms.handler ? pid_vnr(lms.handler_pid) : 0;
	spin_unlock(&lms.lock);

	*seq = now.seq;
	return scnprintf(text, LMS_TEXT_MAX,
			 "level %s\n"
			 "seq %llu\n"
			 "mem_total_kb %lu\n"
			 "mem_available_kb %lu\n"
			 "swap_total_kb %lu\n"
			 "swap_free_kb %lu\n"
			 "page_size %lu\n"
			 "warn_percent %u\n"
			 "kill_percent %u\n"
			 "handler_pid %d\n"
			 "holds %llu\n"
			 "holds_resolved %llu\n"
			 "holds_expired %llu\n"
			 "table_kills %llu\n"
			 "hold_seq %llu\n"
			 "hold_ms %u\n"
			 "warn_kb %lu\n"
			 "kill_kb %lu\n"
			 "floor_kb %lu\n"
			 "table_kill_ids %u\n"
			 "table_spare_ids %u\n"
			 "passes %llu\n"
			 "holds_passed %llu\n"
			 "oom_available_kb %lu\n"
			 "reserve_kb %lu\n"
			 "calls %llu\n"
			 "interface %u\n"
			 "table_rules %u\n"
			 "table_spares %u\n"
			 "version %s\n",
			 lms_level_name(level), now.seq,
			 PAGES_TO_KB(memory.total), PAGES_TO_KB(memory.available),
			 PAGES_TO_KB(now.swap_total), PAGES_TO_KB(memory.swap_free), PAGE_SIZE,
			 lms_warn_param_percent(), lms_kill_param_percent(),
			 handler,
			 now.holds, now.holds_resolved, now.holds_expired, now.table_kills,
			 now.hold_seq, bound,
			 PAGES_TO_KB(lms_warn_pages(memory.total)), PAGES_TO_KB(lms_kill_pages(memory.total)),
			 PAGES_TO_KB(lms_floor_pages(memory.total)),
			 table.kill_ids, table.spare_ids,
			 now.passes, now.holds_passed, PAGES_TO_KB(now.oom_available),
			 PAGES_TO_KB(lms_reserve_pages()), now.calls,
			 LMS_INTERFACE, table.rules, table.spares, LMS_VERSION);
}

/*
 * Whether whoever opened the file may command the module. Looked at beside the writer's rights,
 * or a program with rights could be made to write what another gave it on a descriptor. By the
 * initial user namespace: what a table does reaches all groups.
 */
static bool lms_opener_may_command(const struct file *file)
{
	return (file->f_mode & FMODE_WRITE) && file_ns_capable(file, &init_user_ns, CAP_KILL) &&
	       file_ns_capable(file, &init_user_ns, CAP_SYS_RESOURCE);
}

/* Makes room for what a read gives, once. Under f->lock. */
static int lms_make_room(struct lms_file *f)
{
	if (!f->text)
		f->text = kmalloc(LMS_TEXT_MAX, GFP_KERNEL_ACCOUNT);
	return f->text ? 0 : -ENOMEM;
}

static int lms_open(struct inode *inode, struct file *file)
{
	struct lms_file *f;

	/* procfs keeps nobody from unloading us under a reader or a poller. */
	if (!try_module_get(THIS_MODULE))
		return -ENODEV;
	f = kzalloc(sizeof(*f), GFP_KERNEL_ACCOUNT);
	if (!f) {
		module_put(THIS_MODULE);
		return -ENOMEM;
	}
	mutex_init(&f->lock);
	f->may_command = lms_opener_may_command(file);
	spin_lock(&lms.lock);
	f->seen = lms.seq;
	spin_unlock(&lms.lock);
	file->private_data = f;
	return 0;
}

/* Forgets the handler. Under lms.lock; the caller puts the pid. */
static struct pid *lms_drop_handler(void)
{
	struct pid *pid = lms.handler_pid;

	lms.handler = NULL;
	lms.handler_pid = NULL;
	lms.handler_hold_ms = 0;
	lms.silent = false;
	return pid;
}

static int lms_release(struct inode *inode, struct file *file)
{
	struct lms_file *f = file->private_data;
	struct pid *pid = NULL;

	spin_lock(&lms.lock);
	if (lms.handler == f)
		pid = lms_drop_handler();
	spin_unlock(&lms.lock);
	/* Who can't have written a table does not wait for those who write one. */
	if (f->may_command)
		lms_table_release(f);

	put_pid(pid);
	kfree(f->text);
	kfree(f);
	/* remove_proc_entry() in lms_exit() waits for the end of this function. */
	module_put(THIS_MODULE);
	return 0;
}

static ssize_t lms_read(struct file *file, char __user *to, size_t count, loff_t *pos)
{
	struct lms_file *f = file->private_data;
	bool fresh = false;
	ssize_t done;
	u64 seq;

	if (mutex_lock_interruptible(&f->lock))
		return -ERESTARTSYS;
	done = lms_make_room(f);
	if (!done && (*pos == 0 || !f->len)) {
		f->len = lms_render(f->text, &seq);
		fresh = true;
	}
	if (!done)
		done = simple_read_from_buffer(to, count, pos, f->text, f->len);
	/* A read that told nothing takes no notice back. */
	if (done > 0 && fresh)
		WRITE_ONCE(f->seen, seq);
	mutex_unlock(&f->lock);

	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.silent = false;
	spin_unlock(&lms.lock);
	return done;
}

static __poll_t lms_poll(struct file *file, poll_table *wait)
{
	struct lms_file *f = file->private_data;
	__poll_t mask = EPOLLIN | EPOLLRDNORM;

	poll_wait(file, f->may_command ? &lms_commanders : &lms_crowd[get_random_u32() % LMS_CROWD_QUEUES], wait);
	spin_lock(&lms.lock);
	if (READ_ONCE(f->seen) != lms.seq)
		mask |= EPOLLPRI;
	spin_unlock(&lms.lock);
	return mask;
}

/* Takes the word at the front, if it is there and ends there. */
bool lms_word(const char **text, const char *word)
{
	size_t len = strlen(word);

	if (strncmp(*text, word, len) || ((*text)[len] && (*text)[len] != ' ' && (*text)[len] != '\n'))
		return false;
	*text += len;
	return true;
}

/* Takes a decimal number of digits alone. */
bool lms_digits(const char **text, u64 *number)
{
	const char *at = *text;
	u64 value = 0;

	if (*at < '0' || *at > '9')
		return false;
	for (; *at >= '0' && *at <= '9'; at++) {
		if (check_mul_overflow(value, (u64)10, &value) || check_add_overflow(value, (u64)(*at - '0'), &value))
			return false;
	}
	*text = at;
	*number = value;
	return true;
}

/* Takes a blank and such a number. */
bool lms_number(const char **text, u64 *number)
{
	const char *at = *text;

	if (*at++ != ' ' || !lms_digits(&at, number))
		return false;
	*text = at;
	return true;
}

static int lms_write_handler(struct lms_file *f, const char *text)
{
	struct pid *pid, *old = NULL;
	u64 ms = 0;
	int error = 0;

	if (*text && (!lms_number(&text, &ms) || *text || ms < 1 || ms > LMS_HOLD_MAX_MS))
		return -EINVAL;
	/* Its reads during a hold must not need memory. */
	error = mutex_lock_interruptible(&f->lock);
	if (error)
		return error;
	error = lms_make_room(f);
	mutex_unlock(&f->lock);
	if (error)
		return error;
	pid = get_pid(task_tgid(current));
	spin_lock(&lms.lock);
	if (lms.handler && lms.handler != f && lms_handler_lives()) {
		error = -EBUSY;
		old = pid;
	} else {
		old = lms_drop_handler();
		lms.handler = f;
		lms.handler_pid = pid;
		lms.handler_hold_ms = ms;
	}
	spin_unlock(&lms.lock);
	put_pid(old);
	return error;
}

static int lms_write_release(struct lms_file *f)
{
	struct pid *pid = NULL;
	int error = -ENOENT;

	spin_lock(&lms.lock);
	if (lms.handler == f) {
		pid = lms_drop_handler();
		error = 0;
	}
	spin_unlock(&lms.lock);
	put_pid(pid);
	return error;
}

static int lms_write_answer(struct lms_file *f, const char *text, bool pass)
{
	u64 seq, victim = 0;
	int error = 0;

	if (!lms_number(&text, &seq))
		return -EINVAL;
	if (*text && (pass || !lms_number(&text, &victim) || !victim || *text))
		return -EINVAL;
	spin_lock(&lms.lock);
	if (lms.handler != f) {
		error = -EPERM;
	} else if (lms.state != LMS_HOLD || seq < lms.hold_seq || seq > lms.seq) {
		error = -ESTALE;
	} else if (pass) {
		lms_end_hold();
		lms.state = LMS_FAILED;
		lms.holds_passed++;
	} else {
		/* One victim was not enough: the next one has its time too, but not for ever. */
		if (lms.acked && lms.acks < LMS_ACKS) {
			lms.acks++;
			lms.deadline = jiffies + msecs_to_jiffies(lms_hold_bound());
		}
		lms.acked = true;
		lms.killed = true;
	}
	spin_unlock(&lms.lock);
	if (!error && victim)
		lms_hasten_group(victim);
	if (!error) {
		wake_up(&lms_answered);
		/* The crowd's turn. */
		lms_kick_teller();
	}
	return error;
}

static int lms_write_swap_total(struct lms_file *f, const char *text)
{
	int error = 0;
	u64 kb;

	if (!lms_number(&text, &kb) || *text || kb > (u64)LONG_MAX >> 10)
		return -EINVAL;
	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.swap_total = kb >> (PAGE_SHIFT - 10);
	else
		error = -EPERM;
	spin_unlock(&lms.lock);
	if (!error)
		lms_kick_thread();
	return error;
}

static int lms_command(struct lms_file *f, char *text, size_t len)
{
	const char *at = text;

	if (len && text[len - 1] == '\n')
		text[--len] = '\0';
	if (!len || strlen(text) != len)
		return -EINVAL;
	if (lms_word(&at, "handler"))
		return lms_write_handler(f, at);
	if (lms_word(&at, "ack"))
		return lms_write_answer(f, at, false);
	if (lms_word(&at, "pass"))
		return lms_write_answer(f, at, true);
	if (lms_word(&at, "swap_total"))
		return lms_write_swap_total(f, at);
	if (!strcmp(text, "release"))
		return lms_write_release(f);
	return lms_write_table(f, text);
}

static ssize_t lms_write(struct file *file, const char __user *from, size_t count, loff_t *pos)
{
	struct lms_file *f = file->private_data;
	char small[LMS_COMMAND_MAX + 1];
	int error;

	/* Root of a container may be the file's owner too: what a table does takes more than that. */
	if (!f->may_command || !capable(CAP_KILL) || !capable(CAP_SYS_RESOURCE))
		return -EPERM;
	if (!count)
		return -EINVAL;
	if (count > LMS_WRITE_MAX)
		return -E2BIG;
	if (count <= LMS_COMMAND_MAX) {
		/* An answer under memory pressure must not need memory. */
		if (copy_from_user(small, from, count))
			return -EFAULT;
		small[count] = '\0';
		error = lms_command(f, small, count);
	} else {
		char *text = memdup_user_nul(from, count);

		if (IS_ERR(text))
			return PTR_ERR(text);
		error = lms_command(f, text, count);
		kfree(text);
	}
	if (error)
		return error;
	spin_lock(&lms.lock);
	if (lms.handler == f)
		lms.silent = false;
	spin_unlock(&lms.lock);
	/* The position stays, so that a read after a write begins at the beginning. */
	return count;
}

static const struct proc_ops lms_proc_ops = {
	.proc_open = lms_open,
	.proc_read = lms_read,
	.proc_write = lms_write,
	.proc_poll = lms_poll,
	.proc_lseek = default_llseek,
	.proc_release = lms_release,
};

int lms_create_file(void)
{
	if (proc_create(LMS_PROC_NAME, 0644, NULL, &lms_proc_ops))
		return 0;
	pr_err("/proc/%s can't be made: is it there already?\n", LMS_PROC_NAME);
	return -EEXIST;
}

/* Waits for those who are in one of its functions. */
void lms_remove_file(void)
{
	remove_proc_entry(LMS_PROC_NAME, NULL);
}
