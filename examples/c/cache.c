/*
 * A cache that gives its memory back when it is told to, before anybody has to be killed for it.
 *
 * It listens in two ways, of which a program of your own may take one:
 *  - MEMORY_PRESSURE_WATCH, as systemd's "Memory Pressure Handling" defines it: a Unix stream socket (oomwarden's
 *    /run/oomwarden/pressure.sock), a FIFO, or a PSI file such as /sys/fs/cgroup/GROUP/memory.pressure;
 *  - SIGUSR1, which oomwarden sends only to processes that handle it.
 *
 *     cc -O2 -Wall -o cache cache.c
 *     MEMORY_PRESSURE_WATCH=/run/oomwarden/pressure.sock ./cache 64
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BLOCK (1024 * 1024)

static volatile sig_atomic_t signalled;

static void on_signal(int number)
{
	(void)number;
	signalled = 1;
}

static int base64(const char *text, unsigned char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned int bits = 0;
	int held = 0, length = 0;

	for (; *text && *text != '='; text++) {
		const char *digit = strchr(digits, *text);

		if (!digit)
			continue;
		bits = bits << 6 | (unsigned int)(digit - digits);
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[length++] = (unsigned char)(bits >> held);
		}
	}
	return length;
}

/* Opens what MEMORY_PRESSURE_WATCH names; -1 where there is nothing to watch. `events` is what to poll for. */
static int watch(short *events)
{
	const char *path = getenv("MEMORY_PRESSURE_WATCH");
	const char *text = getenv("MEMORY_PRESSURE_WRITE");
	struct stat st;
	int fd = -1;

	if (!path || strcmp(path, "/dev/null") == 0 || stat(path, &st) < 0)
		return -1;
	*events = POLLIN;
	if (S_ISSOCK(st.st_mode)) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };

		if (strlen(path) >= sizeof(address.sun_path))
			return -1;
		strcpy(address.sun_path, path);
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
			close(fd);
			return -1;
		}
	} else {
		fd = open(path, (text || S_ISFIFO(st.st_mode) ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
		if (S_ISREG(st.st_mode))
			*events = POLLPRI; /* a PSI file has no bytes to read, it has an event */
	}
	if (fd >= 0 && text) {
		unsigned char *bytes = malloc(strlen(text) + 1);
		int length = bytes ? base64(text, bytes) : 0;

		if (length > 0 && write(fd, bytes, (size_t)length) < 0)
			perror("MEMORY_PRESSURE_WRITE");
		free(bytes);
	}
	if (fd >= 0)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	return fd;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART: poll() is to return */
	size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 64, held = 0;
	void **blocks = calloc(wanted ? wanted : 1, sizeof(*blocks));
	short events = POLLIN;
	int fd = watch(&events);
	int full = 0;

	if (!blocks)
		return 1;
	sigaction(SIGUSR1, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("%s\n", fd >= 0 ? "listening" : "no pressure socket: waiting for SIGUSR1");
	for (;;) {
		struct pollfd ear = { .fd = fd, .events = events };
		int told, ready = poll(&ear, 1, full ? -1 : 5);

		if (ready < 0 && errno != EINTR)
			return 1;
		told = signalled;
		signalled = 0;
		if (ready > 0 && (ear.revents & events)) {
			char buffer[256];

			told = 1;
			/* Level-triggered: what has arrived is read and forgotten. A PSI event needs no reading. */
			while (events == POLLIN && read(fd, buffer, sizeof(buffer)) > 0)
				;
		}
		if (ready > 0 && (ear.revents & (POLLHUP | POLLERR | POLLNVAL))) {
			/* Whoever told us is gone: go on without, or connect anew after a while. */
			close(fd);
			fd = -1;
		}
		if (told) {
			size_t at;

			for (at = 0; at < held; at++)
				munmap(blocks[at], BLOCK);
			printf("freed %zu MiB\n", held);
			held = 0;
			full = 1; /* a cache of your own would grow again, more slowly */
			continue;
		}
		if (full)
			continue;
		if (held < wanted) {
			blocks[held] = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (blocks[held] == MAP_FAILED)
				return 1;
			memset(blocks[held++], 1, BLOCK);
		}
		if (held == wanted) {
			printf("holding %zu MiB\n", held);
			full = 1;
		}
	}
}
