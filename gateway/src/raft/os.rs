//! What consensus asks of the operating system besides clock, disk and network: threads and chance.

#[cfg(test)]
use std::cell::Cell;
use std::io;

#[cfg(test)]
thread_local! {
    /// Where all is simulated on this thread: the state of its chance. It then does everything itself, in the same order
    /// each time.
    pub(crate) static SIMULATED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs work that waits for the disk off the runtime's threads.
///
/// # Errors
///
/// It panicked, or the runtime ends.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    #[cfg(test)]
    if SIMULATED.get().is_some() {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// A random number.
///
/// # Errors
///
/// The kernel has none.
pub(super) fn random() -> io::Result<u64> {
    #[cfg(test)]
    if let Some(state) = SIMULATED.get() {
        let (next, drawn) = harness::split_mix(state);
        SIMULATED.set(Some(next));
        return Ok(drawn);
    }
    getrandom::u64().map_err(|error| io::Error::other(error.to_string()))
}
