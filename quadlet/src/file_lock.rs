//! Waits for a lock on a file without blocking the event loop.
//!
//! Shell: a thread sleeps in the kernel until the lock is free.

use std::{fs::File, thread};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use tokio::sync::oneshot;

/// The stack of the waiting thread, in bytes: a system call needs very little.
const STACK: usize = 64 << 10;

/// Waits until the file can be locked, without a time limit. A caller that stops waiting leaves the thread behind, which
/// releases the lock as soon as it has it. `None`: the file cannot be locked, or no thread can be started.
pub(crate) async fn wait(mut file: File, how: FlockArg) -> Option<Flock<File>> {
    let (tell, told) = oneshot::channel();
    let sleep = move || {
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => {
                    // If the caller has stopped waiting, the lock is dropped with the message.
                    let _ = tell.send(lock);
                    return;
                }
                Err((unlocked, Errno::EINTR)) => file = unlocked,
                Err(_) => return,
            }
        }
    };
    let thread = thread::Builder::new().stack_size(STACK);
    thread.name("file-lock".into()).spawn(sleep).ok()?;
    told.await.ok()
}
