//! Who may keep how much: pure accounting, no files.
//!
//! One sender who floods must not push out everybody else: an address holds at most an eighth of a source's space, and
//! when all of it is taken, the oldest entry of whoever holds most goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use jiff::Timestamp;

use super::{Entry, QuarantineId};

/// One address holds at most this part of the whole.
const SHARE: u64 = 8;
/// File systems give out whole blocks.
const BLOCK: u64 = 4096;

/// The entries of one source.
pub(super) struct Ring {
    max_bytes: u64,
    bytes: u64,
    entries: BTreeMap<QuarantineId, Entry>,
    holders: BTreeMap<Holder, Holding>,
    by_bytes: BTreeSet<(u64, Holder)>,
}

/// An address as far as one sender is concerned: IPv6 gives each a /64 to choose from.
type Holder = Ipv6Addr;

#[derive(Default)]
struct Holding {
    bytes: u64,
    entries: BTreeSet<QuarantineId>,
}

/// What a file of this length takes on disk.
pub(super) fn disk_space(length: u64) -> u64 {
    length.max(1).next_multiple_of(BLOCK)
}

fn holder(remote: IpAddr) -> Holder {
    match remote.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)),
    }
}

impl Ring {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, bytes: 0, entries: BTreeMap::new(), holders: BTreeMap::new(), by_bytes: BTreeSet::new() }
    }

    /// Another bound; what is above it goes when room is made next.
    pub(super) fn bound(&mut self, max_bytes: u64) {
        self.max_bytes = max_bytes;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn has(&self, id: QuarantineId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Takes out what must go before `remote` may add an entry of `bytes`; `None` where it is too large for any
    /// share.
    pub(super) fn make_room(&mut self, remote: IpAddr, bytes: u64) -> Option<Vec<QuarantineId>> {
        let share = self.max_bytes / SHARE;
        if bytes > share {
            return None;
        }
        let own = holder(remote);
        let mut gone = Vec::new();
        while self.holders.get(&own).is_some_and(|holding| holding.bytes + bytes > share) {
            gone.extend(self.take_oldest_of(own));
        }
        while self.bytes + bytes > self.max_bytes {
            let (_, largest) = *self.by_bytes.last()?;
            gone.extend(self.take_oldest_of(largest));
        }
        Some(gone)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        let own = holder(entry.remote);
        let holding = self.holders.entry(own).or_default();
        self.by_bytes.remove(&(holding.bytes, own));
        holding.bytes += entry.bytes;
        holding.entries.insert(entry.id);
        self.by_bytes.insert((holding.bytes, own));
        self.bytes += entry.bytes;
        self.entries.insert(entry.id, entry);
    }

    /// Takes out everything that arrived before `oldest`. Ids are ordered by arrival.
    pub(super) fn take_older(&mut self, oldest: Timestamp) -> Vec<QuarantineId> {
        let old = self.entries.values().take_while(|entry| entry.received_at < oldest);
        let ids: Vec<QuarantineId> = old.map(|entry| entry.id).collect();
        for id in &ids {
            self.take(*id);
        }
        ids
    }

    /// Takes out an entry; whether it was there.
    pub(super) fn remove(&mut self, id: QuarantineId) -> bool {
        let known = self.has(id);
        self.take(id);
        known
    }

    fn take_oldest_of(&mut self, own: Holder) -> Option<QuarantineId> {
        let oldest = self.holders.get(&own).and_then(|holding| holding.entries.first().copied());
        if let Some(id) = oldest {
            self.take(id);
        }
        oldest
    }

    fn take(&mut self, id: QuarantineId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.bytes -= entry.bytes;
        let own = holder(entry.remote);
        let Some(holding) = self.holders.get_mut(&own) else { return };
        self.by_bytes.remove(&(holding.bytes, own));
        holding.bytes -= entry.bytes;
        holding.entries.remove(&id);
        if holding.entries.is_empty() {
            self.holders.remove(&own);
        } else {
            self.by_bytes.insert((holding.bytes, own));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(second: i64, remote: &str, bytes: u64) -> Entry {
        let received_at = Timestamp::from_second(1_700_000_000 + second).expect("a time");
        let remote = remote.parse().expect("an address");
        Entry { id: QuarantineId::at(received_at), received_at, remote, reason: String::new(), bytes }
    }

    /// Adds an entry; what had to go for it, by second.
    fn add(ring: &mut Ring, new: Entry) -> Option<Vec<i64>> {
        let gone = ring.make_room(new.remote, new.bytes)?;
        ring.insert(new);
        Some(gone.iter().map(|id| id.time().as_second() - 1_700_000_000).collect())
    }

    #[test]
    fn one_address_holds_an_eighth_and_loses_its_own_oldest() {
        let mut ring = Ring::new(8 * 8192);
        assert_eq!(add(&mut ring, entry(0, "192.0.2.9", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(1, "192.0.2.1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(2, "192.0.2.1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(3, "192.0.2.1", 4096)), Some(vec![1]));
        assert_eq!(add(&mut ring, entry(4, "192.0.2.1", 8192)), Some(vec![2, 3]));
        assert_eq!(add(&mut ring, entry(5, "192.0.2.1", 8193)), None, "larger than any share");
        assert_eq!(ring.bytes(), 4096 + 8192);
    }

    #[test]
    fn an_ipv6_sender_is_its_64_bit_network_and_mapped_ipv4_is_ipv4() {
        let mut ring = Ring::new(8 * 4096);
        assert_eq!(add(&mut ring, entry(1, "2001:db8::1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(2, "2001:db8::ffff:2", 4096)), Some(vec![1]));
        assert_eq!(add(&mut ring, entry(3, "2001:db8:0:1::1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(4, "192.0.2.1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(5, "::ffff:192.0.2.1", 4096)), Some(vec![4]));
    }

    #[test]
    fn when_all_is_taken_the_oldest_of_the_largest_holder_goes() {
        let mut ring = Ring::new(8 * 8192);
        for second in 0..14 {
            // Seven addresses with two entries each.
            assert_eq!(add(&mut ring, entry(second, &format!("192.0.2.{}", second / 2), 4096)), Some(vec![]));
        }
        assert_eq!(add(&mut ring, entry(14, "198.51.100.1", 4096)), Some(vec![]));
        assert_eq!(add(&mut ring, entry(15, "198.51.100.2", 4096)), Some(vec![]));
        // 192.0.2.6 is the highest address among those that hold most.
        assert_eq!(add(&mut ring, entry(16, "198.51.100.3", 4096)), Some(vec![12]));
        assert_eq!(ring.bytes(), 8 * 8192);
    }

    #[test]
    fn old_entries_go_by_age() {
        let mut ring = Ring::new(1 << 20);
        for second in 0..5 {
            add(&mut ring, entry(second, "192.0.2.1", 4096));
        }
        assert_eq!(ring.take_older(Timestamp::from_second(1_700_000_003).expect("a time")).len(), 3);
        assert_eq!(ring.entries().count(), 2);
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_the_sums_are_right(
            steps in prop::collection::vec((0u8..12, 1u64..20_000, 0i64..50), 1..200),
        ) {
            let mut ring = Ring::new(100_000);
            for (second, (address, length, age)) in steps.into_iter().enumerate() {
                let second = i64::try_from(second).expect("small");
                let added = add(&mut ring, entry(second, &format!("192.0.2.{address}"), disk_space(length)));
                prop_assert_eq!(added.is_none(), disk_space(length) > 100_000 / SHARE);
                if age == 0 {
                    ring.take_older(Timestamp::from_second(1_700_000_000 + second - 5).expect("a time"));
                }
                let sum = |of: &dyn Fn(&Entry) -> bool| ring.entries().filter(|e| of(e)).map(|e| e.bytes).sum::<u64>();
                prop_assert_eq!(ring.bytes(), sum(&|_| true));
                prop_assert!(ring.bytes() <= 100_000);
                for (own, holding) in &ring.holders {
                    prop_assert_eq!(holding.bytes, sum(&|e| holder(e.remote) == *own));
                    prop_assert!(holding.bytes <= 100_000 / SHARE);
                }
                prop_assert_eq!(ring.by_bytes.len(), ring.holders.len());
            }
        }
    }
}
