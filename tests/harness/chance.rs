//! Random choices from a seed, so that a run can be repeated.
//!
//! Pure.

use std::time::Duration;

/// The next state and a number of `SplitMix64` by Steele, Lea and Flood ("Fast Splittable Pseudorandom Number
/// Generators", 2014).
#[must_use]
pub fn split_mix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (next, z ^ (z >> 31))
}

/// One stream of random numbers.
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

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    /// A time of at least `from` and less than `end` milliseconds.
    pub fn millis(&mut self, from: u64, end: u64) -> Duration {
        Duration::from_millis(from + self.below(end - from))
    }

    /// One of the elements; `None` if there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        from.get(usize::try_from(self.below(count)).ok()?)
    }
}
