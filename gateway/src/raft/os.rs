//! Threads and random numbers: what consensus needs of the operating system besides clock, disk and network.

#[cfg(test)]
use std::cell::Cell;
use std::io;

#[cfg(test)]
thread_local! {
    /// The state of the random numbers in a simulation on this thread. A simulation runs all work on this thread, in
    /// the same order each time.
    pub(crate) static SIMULATED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs work that blocks on the disk outside of the runtime's threads.
///
/// # Errors
///
/// Fails if the work panicked or the runtime ends.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    #[cfg(test)]
    if SIMULATED.get().is_some() {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// Returns a random number.
///
/// # Errors
///
/// Fails if the kernel returns no random bytes.
pub(super) fn random() -> io::Result<u64> {
    #[cfg(test)]
    if let Some(state) = SIMULATED.get() {
        let (next, drawn) = harness::split_mix(state);
        SIMULATED.set(Some(next));
        return Ok(drawn);
    }
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}
