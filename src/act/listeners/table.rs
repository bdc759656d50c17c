//! Who is told, as actors see it: a table that is as large as it will ever be from the start.
//!
//! An actor that gives a warning holds the lock while it writes to whom it concerns. The other side holds it for moving one pointer: whatever
//! allocates, frees or asks the kernel for something is done before or after. So nobody who ends a
//! shortage waits here for somebody who waits for memory.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cgroup::GroupId;

/// What arrives.
const NEWS: &[u8] = b"warn\n";

/// A connection of somebody who listens.
#[derive(Debug)]
pub(super) struct Listener {
    /// Does not block.
    pub(super) socket: UnixStream,
    /// Its group, and all above.
    pub(super) groups: Box<[GroupId]>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Table(Mutex<Box<[Option<Arc<Listener>>]>>);

impl Table {
    /// With so many places, their memory touched: filling one later takes no page fault.
    pub(super) fn new(places: usize) -> Table {
        Table(Mutex::new(std::iter::repeat_with(|| None).take(places).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Box<[Option<Arc<Listener>>]>> {
        // The table is whole after every operation, whoever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a listener in a place, or nobody; who was there before comes back, to be dropped outside
    /// of the lock.
    pub(super) fn put(&self, place: usize, mut listener: Option<Arc<Listener>>) -> Option<Arc<Listener>> {
        if let Some(place) = self.lock().get_mut(place) {
            std::mem::swap(place, &mut listener);
        }
        listener
    }

    /// Tells everybody who listens for `group` or for one below it; how many they are. Waits for nobody, allocates nothing.
    pub(super) fn tell(&self, group: GroupId) -> u32 {
        let mut told = 0;
        for listener in self.lock().iter().flatten().filter(|listener| listener.groups.contains(&group)) {
            match (&listener.socket).write(NEWS) {
                Ok(_) => told += 1,
                // It has not read what it was told before: it knows.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => told += 1,
                // It left; the thread will notice.
                Err(_) => {}
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::{Duration, Instant};

    use super::*;

    fn listener(groups: &[u64]) -> (Option<Arc<Listener>>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&ours, crate::act::listeners::WAITING_BYTES).unwrap();
        (Some(Arc::new(Listener { socket: ours, groups: groups.iter().map(|id| GroupId(*id)).collect() })), theirs)
    }

    fn table(all: impl IntoIterator<Item = Option<Arc<Listener>>>) -> Table {
        let table = Table::new(8);
        for (place, listener) in all.into_iter().enumerate() {
            assert!(table.put(place, listener).is_none());
        }
        table
    }

    fn hears(mut listener: &UnixStream) -> bool {
        let mut buffer = [0; 64];
        listener.read(&mut buffer).is_ok_and(|read| buffer[..read].starts_with(NEWS))
    }

    #[test]
    fn a_warning_reaches_the_group_and_all_below_it_and_nobody_else() {
        let (here, ear_here) = listener(&[3, 2, 1]);
        let (below, ear_below) = listener(&[4, 3, 2, 1]);
        let (above, ear_above) = listener(&[2, 1]);
        let (beside, ear_beside) = listener(&[5, 2, 1]);
        let table = table([here, below, above, beside]);
        assert_eq!(table.tell(GroupId(3)), 2);
        assert!(hears(&ear_here) && hears(&ear_below));
        assert!(!hears(&ear_above) && !hears(&ear_beside));
        assert_eq!(table.tell(GroupId(9)), 0);
        assert_eq!(table.tell(GroupId(1)), 4);
    }

    #[test]
    fn who_never_reads_is_told_for_nothing_and_holds_nobody_up() {
        let (deaf, _ear) = listener(&[1]);
        let (other, ear) = listener(&[1]);
        let table = table([deaf, other]);
        let began = Instant::now();
        for _ in 0..1000 {
            assert_eq!(table.tell(GroupId(1)), 2);
        }
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(hears(&ear));
    }

    #[test]
    fn who_left_is_not_told() {
        let (gone, ear) = listener(&[1]);
        drop(ear);
        assert_eq!(table([gone]).tell(GroupId(1)), 0);
    }

    #[test]
    fn who_is_put_out_comes_back_to_be_dropped_elsewhere() {
        let (one, ear) = listener(&[1]);
        let table = table([one]);
        let out = table.put(0, None).expect("whoever was there");
        assert_eq!((Arc::strong_count(&out), table.tell(GroupId(1)), hears(&ear)), (1, 0, false));
        let (other, _ear) = listener(&[1]);
        assert!(table.put(8, other).is_some(), "there is no such place");
    }
}
