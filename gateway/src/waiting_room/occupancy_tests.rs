//! Tests of who enters and who is displaced: no tenant keeps another out.

use tokenbus_protocol::Features;
use tokio::time::Instant;

use super::*;

const KIB: usize = 1024;

struct Room {
    occupancy: Occupancy,
    next: u64,
}

impl Room {
    fn new(requests: usize, bytes: usize) -> Self {
        Self {
            occupancy: Occupancy::new(Bounds { requests, bytes }),
            next: 0,
        }
    }

    fn ticket(&mut self, tenant: &str, priority: i32, bytes: usize) -> Arc<Ticket> {
        self.next += 1;
        Arc::new(Ticket {
            order: self.next,
            since: Instant::now(),
            model: "m".to_owned(),
            line: Features::NONE.into(),
            priority,
            tenant: Some(tenant.to_owned()),
            bytes,
            tokens: 0,
            begun: false,
            paused: false,
            had_turn: false,
            limit: None,
        })
    }

    /// A request arrives. Returns the orders of the displaced ones.
    fn comes(&mut self, tenant: &str, priority: i32, bytes: usize) -> Result<Vec<u64>, Full> {
        let ticket = self.ticket(tenant, priority, bytes);
        let gone = self.occupancy.enter(&ticket)?;
        Ok(gone.iter().map(|ticket| ticket.order).collect())
    }

    fn holds(&self, tenant: &str) -> (usize, usize) {
        let account = self.occupancy.tenants.get(&Some(tenant.to_owned()));
        account.map_or((0, 0), |account| (account.waiting.len(), account.bytes))
    }

    fn is_sound(&self) {
        let accounts = self.occupancy.tenants.values();
        let held = |(requests, bytes), account: &Account| {
            let sizes: usize = account.waiting.values().map(|ticket| ticket.bytes).sum();
            assert_eq!((account.bytes, account.sizes.len()), (sizes, account.waiting.len()));
            (requests + account.waiting.len(), bytes + sizes)
        };
        assert_eq!(
            accounts.fold((0, 0), held),
            (self.occupancy.requests, self.occupancy.bytes)
        );
        let Bounds { requests, bytes } = self.occupancy.bounds;
        assert!(self.occupancy.requests <= requests);
        assert!(self.occupancy.bytes <= bytes || self.occupancy.requests == 1);
    }
}

#[test]
fn one_tenant_may_have_the_whole_room_until_another_comes() {
    let mut room = Room::new(4, 100);
    for _ in 0..4 {
        assert_eq!(room.comes("a", 0, 1), Ok(vec![]));
    }
    assert_eq!(room.comes("a", 0, 1), Err(Full), "beyond its share");
    assert_eq!(room.comes("b", 0, 1), Ok(vec![4]), "the newest of a");
    assert_eq!(room.comes("b", 0, 1), Ok(vec![3]));
    assert_eq!(room.comes("b", 0, 1), Err(Full), "half of it is b's share");
    assert_eq!(room.comes("c", 0, 1).map(|gone| gone.len()), Ok(1));
    assert_eq!(room.holds("c").0, 1);
    room.is_sound();
}

#[test]
fn the_lowest_priority_gives_way_first_and_within_a_tenant_to_a_higher_one() {
    let mut room = Room::new(3, 100);
    for priority in [5, 0, 5] {
        room.comes("a", priority, 1).unwrap();
    }
    assert_eq!(room.comes("a", 0, 1), Err(Full));
    assert_eq!(room.comes("a", 1, 1), Ok(vec![2]));
    assert_eq!(
        room.comes("b", -9, 1),
        Ok(vec![5]),
        "priorities are a tenant's own affair"
    );
    assert_eq!(room.comes("a", 5, 1), Err(Full), "of equals, the first");
}

#[test]
fn bytes_are_shared_like_places_and_the_largest_body_gives_way() {
    let mut room = Room::new(100, 100 * KIB);
    room.comes("a", 0, 60 * KIB).unwrap();
    for _ in 0..4 {
        room.comes("a", 0, 10 * KIB).unwrap();
    }
    assert_eq!(room.comes("a", 0, 1), Err(Full));
    assert_eq!(room.comes("b", 0, 51 * KIB), Err(Full), "more than half");
    assert_eq!(room.comes("b", 0, 50 * KIB), Ok(vec![1]));
    assert_eq!((room.holds("a").1, room.holds("b").1), (40 * KIB, 50 * KIB));
    assert_eq!(room.comes("c", 0, 33 * KIB), Ok(vec![8]));
    room.is_sound();
}

#[test]
fn a_tenant_short_of_nothing_that_it_has_too_much_of_gets_its_place() {
    let mut room = Room::new(2, 100);
    room.comes("a", 0, 1).unwrap();
    room.comes("a", 0, 1).unwrap();
    // More than half of the bytes, of which there are enough.
    assert_eq!(room.comes("b", 0, 90), Ok(vec![2]));
}

#[test]
fn a_body_larger_than_the_room_waits_when_no_other_does() {
    let mut room = Room::new(10, 100);
    room.comes("a", 0, 101).unwrap();
    assert_eq!(room.comes("a", 0, 1), Err(Full));
    assert_eq!(room.comes("b", 0, 101), Err(Full));
    assert_eq!(
        room.comes("b", 0, 1),
        Ok(vec![1]),
        "another tenant's share is not its to take"
    );
    assert_eq!(room.comes("a", 0, 101), Err(Full));
    room.is_sound();
}

#[test]
fn a_room_without_places_lets_nobody_wait() {
    assert_eq!(Room::new(0, 100).comes("a", 0, 1), Err(Full));
    let mut room = Room::new(10, 0);
    room.comes("a", 0, 1).unwrap();
    assert_eq!(room.comes("b", 0, 1), Err(Full));
}

/// Whatever others did before: a tenant within its even share always enters.
#[test]
fn no_tenant_is_ever_kept_out_by_others() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for _ in 0..300 {
        let (requests, bytes) = (random.usize(1..40), random.usize(1..4000));
        let mut room = Room::new(requests, bytes);
        let mut waiting: Vec<Arc<Ticket>> = Vec::new();
        for _ in 0..200 {
            let tenant = ["a", "b", "c", "d", "e"][random.usize(..5)];
            // Some flood the room, and some send large bodies.
            let size = random.usize(1..if tenant == "b" { 1000 } else { 50 });
            let ticket = room.ticket(tenant, random.i32(-1..2), size);
            let (held, weight) = room.holds(tenant);
            let tenants = room.occupancy.tenants.len() + usize::from(held == 0);
            let entitled = held < requests / tenants && weight + size <= bytes / tenants;
            match room.occupancy.enter(&ticket) {
                Ok(gone) => {
                    let foreign = gone.iter().filter(|one| one.tenant != ticket.tenant);
                    assert!(
                        entitled
                            || foreign.count() == 0
                            || held < requests / tenants
                            || weight + size <= bytes / tenants
                    );
                    waiting.retain(|one| !gone.contains(one));
                    waiting.push(ticket);
                }
                Err(Full) => {
                    assert!(!entitled, "{tenant} holds {held} of {requests} and {weight} of {bytes}");
                    refused += 1;
                }
            }
            room.is_sound();
            if random.u8(..) < 60 && !waiting.is_empty() {
                let one = waiting.swap_remove(random.usize(..waiting.len()));
                room.occupancy.leave(&one);
                room.occupancy.leave(&one);
            }
        }
        for one in &waiting {
            room.occupancy.leave(one);
        }
        room.is_sound();
        assert_eq!((room.occupancy.tenants(), room.occupancy.requests), (0, 0));
    }
    assert!(refused > 1000, "the rooms were not full: {refused}");
}
