//! Derives every random number of a simulation from its seed.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use harness::split_mix;

/// The environment variable with the seed of this process.
pub(super) const SEED: &str = "BEEMESH_SEED";

/// Returns the seed of this process, if it runs one.
pub(super) fn seed() -> Option<u64> {
    static FOUND: OnceLock<Option<u64>> = OnceLock::new();
    *FOUND.get_or_init(|| std::env::var(SEED).ok()?.parse().ok())
}

/// Replaces libc's `getrandom`, so that the order of hash maps and the order in which `select!` polls its branches
/// depend on the seed, too.
#[unsafe(no_mangle)]
#[allow(
    unsafe_code,
    reason = "the symbol has this signature, and the kernel fills what the caller gives"
)]
unsafe extern "C" fn getrandom(buffer: *mut nix::libc::c_void, length: usize, flags: u32) -> isize {
    static STATE: AtomicU64 = AtomicU64::new(0);
    let Some(seed) = seed() else {
        // SAFETY: the arguments are those of the caller.
        let read = unsafe { nix::libc::syscall(nix::libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(read).unwrap_or(-1);
    };
    // SAFETY: the caller provides a buffer of this length.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for chunk in bytes.chunks_mut(8) {
        let count = STATE.fetch_add(1, Ordering::Relaxed);
        let (_, drawn) = split_mix(seed ^ split_mix(count).1);
        chunk.copy_from_slice(&drawn.to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(-1)
}
