//! Checks of a decoder that all targets share, besides the absence of panics and the limits on memory and time.

/// Checks that encoding a decoded value and decoding it again gives the same value. The encoding must not be much
/// longer than the input: a few bytes that grow into a large value could fill a host's memory.
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

/// The longest encoding of a message that was `length` bytes long: the decoder's bound on the data that a buffer refers
/// to, plus the tables around it.
#[must_use]
pub fn longest(length: usize) -> usize {
    4 * length + 256
}
