#!/usr/bin/env python3
"""A cache that gives its memory back when it is told to, before anybody has to be killed for it.

It listens at what MEMORY_PRESSURE_WATCH names, as systemd's "Memory Pressure Handling" defines it: a Unix stream
socket (oomwarden's /run/oomwarden/pressure.sock), a FIFO, or a PSI file such as /sys/fs/cgroup/GROUP/memory.pressure.

    MEMORY_PRESSURE_WATCH=/run/oomwarden/pressure.sock ./cache.py 64
"""

import base64
import os
import select
import socket
import stat
import sys


def watch():
    """What to poll, and for which event; (None, 0) where there is nothing to watch."""
    path = os.environ.get("MEMORY_PRESSURE_WATCH")
    if not path or path == "/dev/null":
        return None, 0
    write = base64.b64decode(os.environ.get("MEMORY_PRESSURE_WRITE", ""))
    mode = os.stat(path).st_mode
    event = select.POLLIN
    if stat.S_ISSOCK(mode):
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        ear.connect(path)
        fd = ear.detach()
    else:
        needs_writing = write or stat.S_ISFIFO(mode)
        fd = os.open(path, os.O_NONBLOCK | (os.O_RDWR if needs_writing else os.O_RDONLY))
        if stat.S_ISREG(mode):
            event = select.POLLPRI  # a PSI file has no bytes to read, it has an event
    if write:
        os.write(fd, write)
    os.set_blocking(fd, False)
    return fd, event


def drain(fd):
    """Reads what has arrived and forgets it. False when nobody will tell us anything any more."""
    try:
        while data := os.read(fd, 4096):
            del data
        return False
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    fd, event = watch()
    if fd is None:
        sys.exit("cache.py: MEMORY_PRESSURE_WATCH names nothing to watch")
    poll = select.poll()
    poll.register(fd, event)
    blocks = [bytearray(b"x" * (1 << 20)) for _ in range(wanted)]
    print(f"holding {len(blocks)} MiB", flush=True)
    while True:
        for _, events in poll.poll():
            if events & event:
                print(f"freed {len(blocks)} MiB", flush=True)
                blocks.clear()  # a cache of your own would grow again, more slowly
            listening = drain(fd) if event == select.POLLIN else not events & select.POLLERR
            if not listening:
                print("nobody tells us anything any more", flush=True)
                return


if __name__ == "__main__":
    main()
