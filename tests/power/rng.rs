//! Randomness that a printed seed brings back: SplitMix64, so that no crate's next version changes what a seed means.

/// A generator. The same seed gives the same numbers for ever.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Another generator, for another thread.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The first seed of a run: `QUITTANCE_SEED`, or always the same one, so that a red run in CI is red at home too.
pub fn base_seed() -> u64 {
    match std::env::var("QUITTANCE_SEED") {
        Ok(text) => text.parse().expect("QUITTANCE_SEED is a decimal number"),
        Err(_) => 20_261_120,
    }
}

/// Whether the long form is asked for: `QUITTANCE_LONG=1`.
#[allow(dead_code, reason = "the broker's tests use it")]
pub fn long_form() -> bool {
    std::env::var_os("QUITTANCE_LONG").is_some_and(|value| value == "1")
}
