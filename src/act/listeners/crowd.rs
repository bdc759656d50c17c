//! Who may have a place at the pressure socket: counts, and nothing that asks the kernel.
//!
//! Everybody may connect, so a place is a share of something that others need too. A group has so many places, and a user so many in all groups,
//! since whoever has a subtree delegated makes as many groups as they like. When all places are taken, a user with fewer than
//! another takes one over from whoever has most: the newest, which is told by being closed. So no number
//! of users that have much keeps one out who has little. Root is not one tenant but all services on most machines: it may have
//! all places but one share, and is not put out for others.

use std::collections::HashMap;

use crate::cgroup::GroupId;

/// Listeners of one group; those of groups below it are not counted.
pub const MOST_OF_A_GROUP: usize = 64;
/// One user has this part of all places, at most: one in so many.
const SHARES: usize = 4;
/// The user who is not one tenant.
const ROOT: u32 = 0;

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    /// The user.
    pub(super) uid: u32,
    /// The group that the process is directly in.
    pub(super) group: GroupId,
}

/// Why somebody gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The group has enough.
    #[error("a group has {0} listeners already, as many as one may have")]
    Group(usize),
    /// The user has enough.
    #[error("user {0} has {1} listeners already, as many as one user may have")]
    User(u32, usize),
    /// There are no more, and nobody has more than a fair share.
    #[error("there are {0} listeners already, as many as may be")]
    Full(usize),
}

/// A place for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Its number.
    pub(super) place: usize,
    /// Somebody else has to leave it first.
    pub(super) taken: bool,
    /// Different for each who ever had the place.
    pub(super) arrival: u64,
}

/// Who has which place.
#[derive(Debug)]
pub(super) struct Crowd {
    places: Box<[Option<(Guest, u64)>]>,
    /// Of each user and each group that has any.
    users: HashMap<u32, usize>,
    groups: HashMap<GroupId, usize>,
    free: Vec<usize>,
    /// How many have come so far.
    arrivals: u64,
}

impl Crowd {
    pub(super) fn new(places: usize) -> Crowd {
        Crowd {
            places: std::iter::repeat_with(|| None).take(places).collect(),
            users: HashMap::new(),
            groups: HashMap::new(),
            free: (0..places).rev().collect(),
            arrivals: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Finds a place for a guest, who has it from then on.
    pub(super) fn admit(&mut self, guest: Guest) -> Result<Admitted, Refusal> {
        let of_group = self.groups.get(&guest.group).copied().unwrap_or(0);
        let of_user = self.users.get(&guest.uid).copied().unwrap_or(0);
        if of_group >= MOST_OF_A_GROUP {
            return Err(Refusal::Group(of_group));
        }
        let most = if guest.uid == ROOT { self.places.len() - self.places.len() / SHARES } else { self.places.len().div_ceil(SHARES) };
        if of_user >= most {
            return Err(Refusal::User(guest.uid, of_user));
        }
        let (place, taken) = match self.free.pop() {
            Some(place) => (place, false),
            None => {
                let place = self.to_be_taken(if guest.uid == ROOT { 0 } else { of_user }).ok_or(Refusal::Full(self.places.len()))?;
                self.leave(place);
                self.free.pop();
                (place, true)
            }
        };
        self.arrivals += 1;
        *self.users.entry(guest.uid).or_default() += 1;
        *self.groups.entry(guest.group).or_default() += 1;
        if let Some(holder) = self.places.get_mut(place) {
            *holder = Some((guest, self.arrivals));
        }
        Ok(Admitted { place, taken, arrival: self.arrivals })
    }

    /// The newest place of the user with most, if that user will still have as many as the newcomer, who has `has`.
    fn to_be_taken(&self, has: usize) -> Option<usize> {
        let others = self.users.iter().filter(|(uid, _)| **uid != ROOT);
        let (richest, _) = others.filter(|(_, count)| **count > has + 1).max_by_key(|(uid, count)| (**count, **uid))?;
        let theirs = |place: &usize| self.places.get(*place).and_then(Option::as_ref).filter(|(guest, _)| guest.uid == *richest);
        (0..self.places.len()).filter(|place| theirs(place).is_some()).max_by_key(|place| theirs(place).map(|(_, arrival)| *arrival))
    }

    /// Whoever has the place leaves it.
    pub(super) fn leave(&mut self, place: usize) {
        let Some((guest, _)) = self.places.get_mut(place).and_then(Option::take) else { return };
        one_less(&mut self.users, guest.uid);
        one_less(&mut self.groups, guest.group);
        self.free.push(place);
    }
}

fn one_less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(uid: u32, group: u64) -> Guest {
        Guest { uid, group: GroupId(group) }
    }

    /// Comes in from as many groups as it takes, until refused; how many came in, and why no more did.
    fn crowd_in(crowd: &mut Crowd, uid: u32) -> (usize, Refusal) {
        let mut came = 0;
        loop {
            let group = u64::from(uid) * 1_000_000 + came as u64 / MOST_OF_A_GROUP as u64;
            match crowd.admit(guest(uid, group)) {
                Ok(_) => came += 1,
                Err(why) => return (came, why),
            }
        }
    }

    #[test]
    fn a_user_with_many_groups_keeps_no_other_user_out() {
        let mut crowd = Crowd::new(4096);
        assert_eq!(crowd_in(&mut crowd, 1000), (1024, Refusal::User(1000, 1024)));
        assert!(crowd.admit(guest(2000, 1)).is_ok_and(|admitted| !admitted.taken));
        assert_eq!(crowd_in(&mut crowd, 2000).0, 1023);
    }

    #[test]
    fn a_group_has_its_own_bound_whoever_is_in_it() {
        let mut crowd = Crowd::new(4096);
        for uid in 0..MOST_OF_A_GROUP {
            assert!(crowd.admit(guest(u32::try_from(uid).unwrap(), 1)).is_ok());
        }
        assert_eq!(crowd.admit(guest(5000, 1)), Err(Refusal::Group(MOST_OF_A_GROUP)));
        assert!(crowd.admit(guest(5000, 2)).is_ok());
    }

    #[test]
    fn users_that_take_everything_together_give_way_to_one_with_less_one_place_at_a_time() {
        let mut crowd = Crowd::new(16);
        for uid in [1000, 1001, 1002, 1003] {
            assert_eq!(crowd_in(&mut crowd, uid).0, 4);
        }
        let mut taken = Vec::new();
        let (came, why) = loop {
            match crowd.admit(guest(2000, 7)) {
                Ok(admitted) => {
                    assert!(admitted.taken);
                    taken.push(admitted.place);
                }
                Err(why) => break (taken.len(), why),
            }
        };
        assert_eq!((came, why, crowd.len()), (3, Refusal::Full(16), 16), "16 places among five");
        assert!([1000, 1001, 1002, 1003].iter().all(|uid| crowd.users[uid] >= 3));
        // Who was put out has no more than others, and puts nobody out in turn.
        let poorest = [1000, 1001, 1002, 1003].into_iter().min_by_key(|uid| crowd.users[uid]).unwrap();
        assert_eq!(crowd.admit(guest(poorest, 8)), Err(Refusal::Full(16)));
    }

    #[test]
    fn the_newest_of_the_richest_is_put_out() {
        let mut crowd = Crowd::new(4);
        let root = crowd.admit(guest(ROOT, 9)).unwrap().place;
        // With four places a user has one; all but root's are somebody's own.
        assert!((1000..1003).all(|uid| crowd.admit(guest(uid, 1)).is_ok()));
        assert_eq!(crowd.admit(guest(2000, 2)), Err(Refusal::Full(4)), "nobody has two");
        crowd.leave(root);
        assert_eq!(crowd.admit(guest(2000, 2)).map(|admitted| admitted.place), Ok(root));
        let mut crowd = Crowd::new(12);
        let places: Vec<_> = (0..12).map(|at| crowd.admit(guest(1000 + at / 3, 1)).unwrap().place).collect();
        let admitted = crowd.admit(guest(2000, 2)).unwrap();
        assert_eq!(admitted, Admitted { place: places[11], taken: true, arrival: 13 });
    }

    #[test]
    fn root_has_a_larger_share_and_is_not_put_out() {
        let mut crowd = Crowd::new(16);
        assert_eq!(crowd_in(&mut crowd, ROOT), (12, Refusal::User(ROOT, 12)));
        assert_eq!(crowd_in(&mut crowd, 1000), (4, Refusal::User(1000, 4)));
        assert!(crowd.admit(guest(2000, 1)).is_ok_and(|admitted| admitted.taken), "of user 1000's");
        assert_eq!(crowd.users[&ROOT], 12);
        let mut crowd = Crowd::new(16);
        for uid in [1000, 1001, 1002, 1003] {
            crowd_in(&mut crowd, uid);
        }
        assert_eq!(crowd_in(&mut crowd, ROOT).0, 12, "every user keeps one");
        assert!((1000..1004).all(|uid| crowd.users[&uid] == 1));
    }

    #[test]
    fn who_leaves_makes_room_and_is_counted_no_more() {
        let mut crowd = Crowd::new(4);
        let place = crowd.admit(guest(1000, 1)).unwrap().place;
        assert_eq!((crowd.len(), crowd.admit(guest(1000, 1))), (1, Err(Refusal::User(1000, 1))));
        crowd.leave(place);
        crowd.leave(place);
        assert_eq!((crowd.len(), crowd.users.len(), crowd.groups.len(), crowd.free.len()), (0, 0, 0, 4));
        assert!(crowd.admit(guest(1000, 1)).is_ok());
    }
}
