//! All chance of a simulation comes from its seed.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The environment variable with the seed of the process.
pub(super) const SEED: &str = "BEEMESH_SEED";

/// The next state and a number of Steele, Lea and Flood's SplitMix64 ("Fast Splittable Pseudorandom Number Generators",
/// 2014).
pub(in crate::raft) fn split_mix(state: u64) -> (u64, u64) {
    let next = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = next;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (next, z ^ (z >> 31))
}

/// One stream of chance.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(split_mix(seed ^ split_mix(stream).1).1)
    }

    pub(super) fn draw(&mut self) -> u64 {
        let (next, drawn) = split_mix(self.0);
        self.0 = next;
        drawn
    }

    /// A number from 0 up to, not including, this one.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    pub(super) fn millis(&mut self, from: u64, end: u64) -> Duration {
        Duration::from_millis(from + self.below(end - from))
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
        from.get(usize::try_from(self.below(count)).ok()?)
    }
}

/// The process's own seed, if it runs one.
pub(super) fn seed() -> Option<u64> {
    static FOUND: OnceLock<Option<u64>> = OnceLock::new();
    *FOUND.get_or_init(|| std::env::var(SEED).ok()?.parse().ok())
}

/// Takes the place of libc's: the order of hash maps, and that in which `select!` asks its branches, come from the seed, too.
#[unsafe(no_mangle)]
#[allow(
    unsafe_code,
    reason = "the symbol has this signature, and the kernel fills what the caller gives"
)]
unsafe extern "C" fn getrandom(buffer: *mut nix::libc::c_void, length: usize, flags: u32) -> isize {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let Some(seed) = seed() else {
        // SAFETY: the caller's own arguments.
        let read = unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(read).unwrap_or(-1);
    };
    // SAFETY: the caller lends this many bytes.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let count = STATE.fetch_add(1, Ordering::Relaxed);
        let (_, drawn) = split_mix(seed ^ split_mix(count).1);
        chunk.copy_from_slice(&drawn.to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(-1)
}
