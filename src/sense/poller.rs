//! The one epoll set, with tokens that can't be mistaken after their owner has gone.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// What a descriptor in the set stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// inotify.
    Watches,
    /// The deadline timer.
    Timer,
    /// Signals to the daemon.
    Signals,
    /// Finished work of actors and clerk, a new policy, a health question.
    Mail,
    /// memory.events.local of a group.
    Events(Key),
    /// cgroup.events of a victim.
    Populated(Key),
    /// A PSI trigger, by its place in the pool.
    Psi(Key),
    /// A pidfd of a single victim, by its ladder.
    Pid(Key),
    /// The kernel module's low memory signal.
    Signal,
    /// cgroup.events of our own group.
    Own,
}

/// A place in a slab and how often it was given away before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The place.
    pub slot: u32,
    /// Its generation, modulo 2^24.
    pub generation: u32,
}

impl Token {
    fn pack(self) -> u64 {
        let keyed = |kind: u64, key: Key| kind << 56 | u64::from(key.generation & 0xff_ffff) << 32 | u64::from(key.slot);
        match self {
            Token::Watches => 0,
            Token::Timer => 1 << 56,
            Token::Signals => 2 << 56,
            Token::Mail => 3 << 56,
            Token::Events(key) => keyed(4, key),
            Token::Populated(key) => keyed(5, key),
            Token::Psi(key) => keyed(6, key),
            Token::Pid(key) => keyed(7, key),
            Token::Signal => 8 << 56,
            Token::Own => 9 << 56,
        }
    }

    fn unpack(data: u64) -> Option<Token> {
        #[expect(clippy::cast_possible_truncation, reason = "fields of a packed word")]
        let key = Key { slot: data as u32, generation: (data >> 32) as u32 & 0xff_ffff };
        Some(match data >> 56 {
            0 => Token::Watches,
            1 => Token::Timer,
            2 => Token::Signals,
            3 => Token::Mail,
            4 => Token::Events(key),
            5 => Token::Populated(key),
            6 => Token::Psi(key),
            7 => Token::Pid(key),
            8 => Token::Signal,
            9 => Token::Own,
            _ => return None,
        })
    }
}

/// One ready descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// Whose.
    pub token: Token,
    /// EPOLLPRI: the notice that was asked for.
    pub notice: bool,
    /// EPOLLERR or EPOLLHUP. A PSI trigger with it is dead; a kernfs file has it with every notice, where it means nothing.
    pub error: bool,
}

/// The set.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    events: Box<[EpollEvent]>,
}

impl Poller {
    /// An empty set that reports at most `events` descriptors a turn.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new(events: usize) -> Result<Poller, Errno> {
        Ok(Poller { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, events: vec![EpollEvent::empty(); events.max(1)].into() })
    }

    /// Reports when `fd` is readable.
    ///
    /// # Errors
    /// ENOSPC beyond fs.epoll.max_user_watches; ENOMEM.
    pub fn add_readable(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token.pack()))
    }

    /// Reports notices of a kernfs file or a PSI trigger, once for each.
    ///
    /// # Errors
    /// As [`Poller::add_readable`].
    pub fn add_notice(&self, fd: impl AsFd, token: Token) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLPRI | EpollFlags::EPOLLET, token.pack()))
    }

    /// Takes a descriptor out, before it is closed.
    pub fn remove(&self, fd: impl AsFd) {
        // Fails only if it is not in the set.
        let _ = self.epoll.delete(fd);
    }

    /// Waits (for ever) and fills `out` with what is ready. Whether the wait was interrupted (EINTR): then `out` holds
    /// what is ready since, perhaps nothing.
    ///
    /// # Errors
    /// The errno, but for EINTR.
    pub fn wait(&mut self, out: &mut Vec<Ready>) -> Result<bool, Errno> {
        out.clear();
        let (mut interrupted, mut timeout) = (false, EpollTimeout::NONE);
        let ready = loop {
            match self.epoll.wait(&mut self.events, timeout) {
                Ok(ready) => break ready,
                Err(Errno::EINTR) => (interrupted, timeout) = (true, EpollTimeout::ZERO),
                Err(errno) => return Err(errno),
            }
        };
        for event in self.events.iter().take(ready) {
            let flags = event.events();
            let Some(token) = Token::unpack(event.data()) else { continue };
            out.push(Ready {
                token,
                notice: flags.intersects(EpollFlags::EPOLLPRI | EpollFlags::EPOLLIN),
                error: flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
            });
        }
        Ok(interrupted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        let key = Key { slot: u32::MAX, generation: 0xff_ffff };
        for token in [
            Token::Watches,
            Token::Timer,
            Token::Signals,
            Token::Mail,
            Token::Events(key),
            Token::Populated(Key { slot: 7, generation: 0 }),
            Token::Psi(key),
            Token::Pid(key),
            Token::Signal,
            Token::Own,
        ] {
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
