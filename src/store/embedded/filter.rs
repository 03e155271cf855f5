//! Says "never seen" without the disk: every key that was ever kept is in a Bloom filter in memory.
//!
//! Blocked: a look-up touches one cache line of each layer. A layer that is full is followed by one twice as large,
//! so there are few, however many segments there are; a start puts everything into a single layer. It never says
//! "never seen" wrongly; with 24 bits a key it says "maybe" wrongly less than once in 10,000 look-ups.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

const WORDS: usize = 8;
const BITS_PER_KEY: u64 = 24;
/// Odd numbers that spread a fingerprint over the words of a block; any would do, these are digits of pi.
const SPREAD: [u64; WORDS] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// The filter. Readers need no lock; one thread inserts.
#[derive(Debug)]
pub struct Filter {
    layers: [OnceLock<Layer>; 24],
    last: AtomicUsize,
    distrusted: AtomicBool,
}

#[derive(Debug)]
struct Layer {
    blocks: Box<[[AtomicU64; WORDS]]>,
    capacity: u64,
    count: AtomicU64,
}

impl Filter {
    /// With room for `expected` keys before a second layer is needed.
    pub fn for_keys(expected: u64) -> Self {
        let filter = Self {
            layers: [const { OnceLock::new() }; 24],
            last: AtomicUsize::new(0),
            distrusted: AtomicBool::new(false),
        };
        if let Some(first) = filter.layers.first() {
            first.get_or_init(|| Layer::new(expected.max(1 << 16)));
        }
        filter
    }

    /// Adds a key's fingerprint.
    pub fn insert(&self, fingerprint: u64) {
        let mut last = self.last.load(Ordering::Acquire);
        let full = self.layers.get(last).and_then(OnceLock::get).is_none_or(Layer::is_full);
        if full && last + 1 < self.layers.len() {
            let capacity = self.layers.get(last).and_then(OnceLock::get).map_or(1 << 16, |layer| layer.capacity * 2);
            if let Some(next) = self.layers.get(last + 1) {
                next.get_or_init(|| Layer::new(capacity));
                last += 1;
                self.last.store(last, Ordering::Release);
            }
        }
        if let Some(layer) = self.layers.get(last).and_then(OnceLock::get) {
            layer.insert(fingerprint);
        }
    }

    /// Whether the key may have been kept; `false` is certain.
    pub fn may_contain(&self, fingerprint: u64) -> bool {
        if self.distrusted.load(Ordering::Acquire) {
            return true;
        }
        let last = self.last.load(Ordering::Acquire);
        self.layers.iter().take(last + 1).filter_map(OnceLock::get).any(|layer| layer.may_contain(fingerprint))
    }

    /// Some keys could not be inserted: from now on every look-up asks the index.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Release);
    }

    /// Keys inserted.
    pub fn len(&self) -> u64 {
        self.layers.iter().filter_map(OnceLock::get).map(|layer| layer.count.load(Ordering::Relaxed)).sum()
    }

    /// Whether no key was inserted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Layer {
    fn new(capacity: u64) -> Self {
        let blocks = capacity.saturating_mul(BITS_PER_KEY).div_ceil(WORDS as u64 * 64).max(1);
        let blocks = (0..blocks).map(|_| [const { AtomicU64::new(0) }; WORDS]).collect();
        Self { blocks, capacity, count: AtomicU64::new(0) }
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.capacity
    }

    fn block(&self, fingerprint: u64) -> Option<&[AtomicU64; WORDS]> {
        let index = (u128::from(fingerprint) * self.blocks.len() as u128) >> 64;
        self.blocks.get(index as usize)
    }

    fn insert(&self, fingerprint: u64) {
        if let Some(block) = self.block(fingerprint) {
            for (word, spread) in block.iter().zip(SPREAD) {
                word.fetch_or(1 << (fingerprint.wrapping_mul(spread) >> 58), Ordering::Release);
            }
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn may_contain(&self, fingerprint: u64) -> bool {
        self.block(fingerprint).is_none_or(|block| {
            block
                .iter()
                .zip(SPREAD)
                .all(|(word, spread)| word.load(Ordering::Acquire) & 1 << (fingerprint.wrapping_mul(spread) >> 58) != 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fingerprint as they come: the first bytes of a SHA-256.
    fn fingerprint(n: u64) -> u64 {
        crate::store::embedded::fields::little_endian(&crate::event::Digest::of(&n.to_le_bytes()).0)
    }

    #[test]
    fn what_was_kept_is_never_called_new_also_across_layers() {
        let filter = Filter::for_keys(0);
        (0..300_000).for_each(|n| filter.insert(fingerprint(n)));
        assert!((0..300_000).all(|n| filter.may_contain(fingerprint(n))));
        assert!(filter.last.load(Ordering::Relaxed) >= 2, "the test must cross layers");
    }

    #[test]
    fn false_alarms_stay_below_one_in_four_thousand_a_look_up_when_full() {
        // Four look-ups a notification: below one in a thousand in all.
        let filter = Filter::for_keys(100_000);
        (0..100_000).for_each(|n| filter.insert(fingerprint(n)));
        let alarms = (1_000_000..1_400_000).filter(|n| filter.may_contain(fingerprint(*n))).count();
        assert!(alarms < 100, "{alarms} false alarms in 400,000");
    }
}
