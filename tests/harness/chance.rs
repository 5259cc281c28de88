//! Chance that comes from a seed, so that it happens again.
//!
//! Pure.

use std::time::Duration;

/// The next state and a number of Steele, Lea and Flood's `SplitMix64` ("Fast Splittable Pseudorandom Number Generators",
/// 2014).
#[must_use]
pub fn split_mix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (next, z ^ (z >> 31))
}

/// One stream of chance.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// One of the streams of a seed.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(split_mix(seed ^ split_mix(stream).1).1)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        let (next, drawn) = split_mix(self.0);
        self.0 = next;
        drawn
    }

    /// A number from 0 up to, not including, this one, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// A time between two in milliseconds; the second is the greater one and not included.
    pub fn millis(&mut self, from: u64, end: u64) -> Duration {
        Duration::from_millis(from + self.below(end - from))
    }

    /// One of these; nothing when there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        from.get(usize::try_from(self.below(count)).ok()?)
    }
}
