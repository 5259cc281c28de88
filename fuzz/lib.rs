//! What every target asks of a decoder, beyond that it neither panics nor takes more memory or time than it may.

/// What is read is written as something that is read as the same, and that is not much longer than what came: a few bytes that
/// grow into a large value would be a way to fill a host's memory.
#[macro_export]
macro_rules! read_and_write {
    ($bytes:expr; $( $type:ty ),*) => { $(
        if let Ok(value) = <$type>::decode($bytes) {
            let written = value.encode();
            assert_eq!(<$type>::decode(&written).as_ref(), Ok(&value));
            assert!(written.len() <= $crate::longest($bytes.len()), "{} bytes of {}", written.len(), $bytes.len());
        }
    )* };
}

/// The longest that a message may become which came as `length` bytes: the decoder's bound on what a buffer refers to, and
/// the tables around it.
#[must_use]
pub fn longest(length: usize) -> usize {
    4 * length + 256
}
