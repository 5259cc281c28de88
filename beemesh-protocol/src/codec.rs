//! Conversion between owned types and FlatBuffers. Each message family has its codec in a module below.
//!
//! Pure: no I/O, no clock, no randomness. `table!`, `union!` and `choice!` pair an owned type with its schema type by
//! field names, so a field that one of them lacks does not compile. Every string, list, key and hash that is not
//! optional in the owned type is required.

use std::sync::Arc;

use bytes::Bytes;
use flatbuffers::{FlatBufferBuilder, Follow, Verifiable, VerifierOptions, WIPOffset};

mod field;
mod ipc;
mod mesh;
mod peer;
mod pod;
mod raft;
mod state;
pub(crate) mod token;

use crate::generated::beemesh as fb;
use field::{Field, Slot};

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not have the mark of this kind of message.
    #[error("expected a message marked {expected}, found {found:?}")]
    Mark {
        /// The mark of the expected kind.
        expected: &'static str,
        /// The bytes in its place.
        found: String,
    },
    /// The bytes are not a well-formed FlatBuffers message.
    #[error("damaged message: {0}")]
    Damaged(String),
    /// A required field is absent.
    #[error("message without {0}")]
    Missing(&'static str),
    /// A variant that this build does not know: the sender is newer.
    #[error("{field} has the unknown value {value}: it was written by a newer version of Beemesh")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The variant's number.
        value: u8,
    },
    /// A map has the same name twice.
    #[error("{field} holds `{name}` twice")]
    Repeated {
        /// The map.
        field: &'static str,
        /// The name.
        name: String,
    },
}

/// The builder. No message borrows from outside the buffer.
type Builder = FlatBufferBuilder<'static>;

/// An owned type with a table in the schema.
trait Wire: Sized {
    /// The generated accessor.
    type Table<'a>: Follow<'a, Inner = Self::Table<'a>> + Verifiable + 'a;
    fn write(&self, to: &mut Builder) -> WIPOffset<Self::Table<'static>>;
    fn read(from: Self::Table<'_>) -> Result<Self, DecodeError>;
}

/// What a message shares with the rest of the program, so that it is not copied for the message.
impl<T: Wire> Wire for Arc<T> {
    type Table<'a> = T::Table<'a>;
    fn write(&self, to: &mut Builder) -> WIPOffset<T::Table<'static>> {
        T::write(self, to)
    }
    fn read(from: T::Table<'_>) -> Result<Self, DecodeError> {
        T::read(from).map(Self::new)
    }
}

/// A table that is sent or stored as a message.
trait Message: Wire {
    /// Four letters after the root offset. They prevent a decoder from reading another kind of message.
    const MARK: &'static str;
    /// The marks of messages with parts that a decoder must not ignore. Releases without these parts do not know them.
    const LATER: &'static [&'static str] = &[];
    /// The mark of this message.
    fn mark(&self) -> &'static str {
        Self::MARK
    }
    /// The approximate size of the encoded message in bytes. A good estimate saves copies while the buffer grows.
    fn size(&self) -> usize {
        SIZE_TYPICAL
    }
}

/// Initial size of the buffer, enough for most messages. A buffer that is too small doubles.
const SIZE_TYPICAL: usize = 512;

/// The schema has no recursion. Its deepest message nests 11 tables, from a Raft request to the label of an object in
/// its entries. The other levels are a reserve for future tables.
const DEPTH_MAX: usize = 16;

/// Limits of the verifier that every honest message of `length` bytes meets. An honest message never refers to one
/// object twice; a small hostile buffer could do that and decode to a huge value.
fn bounds(length: usize) -> VerifierOptions {
    VerifierOptions {
        max_depth: DEPTH_MAX,
        // A table takes at least its own four bytes and the four bytes of the reference to it.
        max_tables: length / 8,
        // The verifier counts a vtable twice for every table that shares it. A long list of empty items counts as three
        // times its length.
        max_apparent_size: length.saturating_mul(4),
        ignore_missing_null_terminator: false,
    }
}

fn encode<M: Message>(message: &M) -> Bytes {
    let mut to = Builder::with_capacity(message.size());
    let root = message.write(&mut to);
    to.finish(root, Some(message.mark()));
    let (buffer, head) = to.collapse();
    Bytes::from(buffer).slice(head..)
}

fn decode<M: Message>(bytes: &[u8]) -> Result<M, DecodeError> {
    let mark = bytes.get(4..8).unwrap_or_default();
    let is_later = M::LATER.iter().any(|later| mark == later.as_bytes());
    if mark != M::MARK.as_bytes() && !is_later {
        return Err(DecodeError::Mark {
            expected: M::MARK,
            found: mark.escape_ascii().to_string(),
        });
    }
    let table = flatbuffers::root_with_opts::<M::Table<'_>>(&bounds(bytes.len()), bytes)
        .map_err(|error| DecodeError::Damaged(error.to_string().trim_end().replace('\n', ", ")))?;
    M::read(table)
}

/// Gives [`Wire`] types their public codec. Arguments: the type, the mark, a function that chooses among that mark and later
/// ones if there are any, and the size if it can be large.
macro_rules! messages {
    ($( $type:ty, $mark:literal $(or later $of:ident in $later:expr)? $(, $size:expr)?; )*) => { $(
        impl $crate::codec::Message for $type {
            const MARK: &'static str = $mark;
            $(
                const LATER: &'static [&'static str] = &$later;
                fn mark(&self) -> &'static str {
                    $of(self)
                }
            )?
            $( fn size(&self) -> usize { $size(self) } )?
        }

        impl $type {
            /// Encodes the message.
            ///
            /// # Panics
            ///
            /// If the message exceeds 2 GiB, the limit of FlatBuffers. This is far above the limits of
            /// [`crate::frame`].
            #[must_use]
            pub fn encode(&self) -> bytes::Bytes {
                $crate::codec::encode(self)
            }

            /// Decodes and checks bytes that `encode` wrote.
            ///
            /// # Errors
            ///
            /// If the bytes are not a complete message of this kind in a version that this build knows.
            pub fn decode(bytes: &[u8]) -> Result<Self, $crate::codec::DecodeError> {
                $crate::codec::decode(bytes)
            }
        }
    )* };
}

/// Makes a [`Wire`] type usable as a field.
macro_rules! table_field {
    ($type:ty, $table:ident) => {
        impl Field for $type {
            type Slot = WIPOffset<fb::$table<'static>>;
            type Got<'a> = Option<fb::$table<'a>>;
            fn put(&self, to: &mut Builder) -> Self::Slot {
                self.write(to)
            }
            fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError> {
                Self::read(got.ok_or(DecodeError::Missing(name))?)
            }
        }

        impl Field for Option<$type> {
            type Slot = Option<WIPOffset<fb::$table<'static>>>;
            type Got<'a> = Option<fb::$table<'a>>;
            fn put(&self, to: &mut Builder) -> Self::Slot {
                self.as_ref().map(|value| value.write(to))
            }
            fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
                got.map(<$type>::read).transpose()
            }
        }
    };
}

/// Implements [`Wire`] for a struct whose table has fields of the same names.
macro_rules! table {
    ($type:ty = $table:ident($args:ident) $name:literal { $( $field:ident ),* }) => {
        impl Wire for $type {
            type Table<'a> = fb::$table<'a>;
            fn write(&self, to: &mut Builder) -> WIPOffset<fb::$table<'static>> {
                let Self { $( $field ),* } = self;
                $( let $field = Field::put($field, to); )*
                fb::$table::create(to, &fb::$args { $( $field: Slot::arg(&$field) ),* })
            }
            fn read(from: fb::$table<'_>) -> Result<Self, DecodeError> {
                Ok(Self {
                    $( $field: Field::take(from.$field(), concat!($name, ".", stringify!($field)))? ),*
                })
            }
        }
        table_field!($type, $table);
    };
}

/// Implements [`Wire`] for an enum whose table has its union in the field `body`. Each variant is one of `record` (its
/// fields in a table of their own), `value` (its one value in a table of its own), `table` (its one value is the table)
/// and `unit` (no content).
macro_rules! union {
    ($type:ty = $table:ident($args:ident, $union:ident) $name:literal
        $( record $record:ident { $( $field:ident ),* } = $rtable:ident($rargs:ident) $ras:ident; )*
        $( value $value:ident($inner:ident) = $vtable:ident($vargs:ident) $vas:ident; )*
        $( table $direct:ident $das:ident; )*
        $( unit $unit:ident; )*
    ) => {
        impl Wire for $type {
            type Table<'a> = fb::$table<'a>;
            fn write(&self, to: &mut Builder) -> WIPOffset<fb::$table<'static>> {
                let (body_type, body) = match self {
                    $( Self::$record { $( $field ),* } => {
                        $( let $field = Field::put($field, to); )*
                        let args = fb::$rargs { $( $field: Slot::arg(&$field) ),* };
                        (fb::$union::$record, fb::$rtable::create(to, &args).as_union_value())
                    } )*
                    $( Self::$value($inner) => {
                        let $inner = Field::put($inner, to);
                        let args = fb::$vargs { $inner: Slot::arg(&$inner) };
                        (fb::$union::$value, fb::$vtable::create(to, &args).as_union_value())
                    } )*
                    $( Self::$direct(value) => (fb::$union::$direct, value.write(to).as_union_value()), )*
                    $( Self::$unit => {
                        (fb::$union::$unit, fb::Nothing::create(to, &fb::NothingArgs {}).as_union_value())
                    } )*
                };
                fb::$table::create(to, &fb::$args { body_type, body: Some(body) })
            }
            fn read(from: fb::$table<'_>) -> Result<Self, DecodeError> {
                Ok(match from.body_type() {
                    $( fb::$union::$record => {
                        let body = from.$ras().ok_or(DecodeError::Missing(concat!($name, ".", stringify!($record))))?;
                        Self::$record { $( $field: Field::take(
                            body.$field(),
                            concat!($name, ".", stringify!($record), ".", stringify!($field)),
                        )? ),* }
                    } )*
                    $( fb::$union::$value => {
                        let body = from.$vas().ok_or(DecodeError::Missing(concat!($name, ".", stringify!($value))))?;
                        Self::$value(Field::take(
                            body.$inner(),
                            concat!($name, ".", stringify!($value), ".", stringify!($inner)),
                        )?)
                    } )*
                    $( fb::$union::$direct => Self::$direct(Wire::read(
                        from.$das().ok_or(DecodeError::Missing(concat!($name, ".", stringify!($direct))))?,
                    )?), )*
                    $( fb::$union::$unit => Self::$unit, )*
                    fb::$union::NONE => return Err(DecodeError::Missing($name)),
                    unknown => return Err(DecodeError::Unknown { field: $name, value: unknown.0 }),
                })
            }
        }
        table_field!($type, $table);
    };
}

/// Maps an enum without content to its schema enum.
macro_rules! choice {
    ($type:ty = $choice:ident { $( $variant:ident ),* }) => {
        impl Slot for fb::$choice {
            type Arg<'x> = Self;
            fn arg(&self) -> Self {
                *self
            }
        }

        impl Field for $type {
            type Slot = fb::$choice;
            type Got<'a> = fb::$choice;
            fn put(&self, _to: &mut Builder) -> fb::$choice {
                match self {
                    $( Self::$variant => fb::$choice::$variant, )*
                }
            }
            fn take(got: fb::$choice, name: &'static str) -> Result<Self, DecodeError> {
                match got {
                    $( fb::$choice::$variant => Ok(Self::$variant), )*
                    fb::$choice::Unset => Err(DecodeError::Missing(name)),
                    unknown => Err(DecodeError::Unknown { field: name, value: unknown.0 }),
                }
            }
        }
    };
}

use {choice, messages, table, table_field, union};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostId, ipc::ToAgent};

    #[test]
    fn a_buffer_that_refers_often_to_one_object_does_not_grow_into_many() {
        let mut to = Builder::new();
        let host = fb::Bytes32(HostId::default().0);
        let name = to.create_string(&"x".repeat(64 << 10));
        let addresses = Field::put(&Vec::<String>::new(), &mut to);
        let args = fb::MemberArgs {
            host: Some(&host),
            name: Some(name),
            addresses: Some(addresses),
        };
        let member = fb::Member::create(&mut to, &args);
        let members = to.create_vector(&vec![member; 16 << 10]);
        let members = Some(members);
        let body = fb::ToAgentMembers::create(&mut to, &fb::ToAgentMembersArgs { members });
        let args = fb::ToAgentArgs {
            body_type: fb::ToAgentBody::Members,
            body: Some(body.as_union_value()),
        };
        let root = fb::ToAgent::create(&mut to, &args);
        to.finish(root, Some(ToAgent::MARK));
        assert_eq!(
            ToAgent::decode(to.finished_data()).unwrap_err().to_string(),
            "damaged message: Apparent size too large."
        );
    }
}
