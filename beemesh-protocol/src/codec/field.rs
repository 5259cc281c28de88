//! How each type of field is written to a table and read from it.
//!
//! Pure: values to FlatBuffers and back.

use std::collections::BTreeMap;

use flatbuffers::{ForwardsUOffset, Vector, WIPOffset};

use super::{Builder, DecodeError, Wire, fb};
use crate::{
    ClusterId, HostId, Uid,
    raft::{LogId, Vote},
};

/// A type that can be a field.
pub(super) trait Field: Sized {
    /// The intermediate value between the preparation of the field and the creation of its table.
    type Slot: Slot;
    /// The type that the accessor returns.
    type Got<'a>;
    fn put(&self, to: &mut Builder) -> Self::Slot;
    fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError>;
}

/// Converts the intermediate value into the argument of the table: structs are passed by reference.
pub(super) trait Slot {
    type Arg<'x>
    where
        Self: 'x;
    fn arg(&self) -> Self::Arg<'_>;
}

impl<T: 'static> Slot for WIPOffset<T> {
    type Arg<'x> = Option<Self>;
    fn arg(&self) -> Option<Self> {
        Some(*self)
    }
}

/// A table or vector that may be absent.
impl<T: 'static> Slot for Option<WIPOffset<T>> {
    type Arg<'x> = Self;
    fn arg(&self) -> Self {
        *self
    }
}

/// A FlatBuffers struct that stores an owned type.
pub(super) trait Fixed: Sized {
    type Struct: 'static;
    fn to_struct(&self) -> Self::Struct;
    fn from_struct(found: &Self::Struct) -> Self;
}

macro_rules! scalar {
    ($( $type:ty ),*) => { $(
        impl Slot for $type {
            type Arg<'x> = Self;
            fn arg(&self) -> Self {
                *self
            }
        }

        impl Field for $type {
            type Slot = Self;
            type Got<'a> = Self;
            fn put(&self, _to: &mut Builder) -> Self {
                *self
            }
            fn take(got: Self, _name: &'static str) -> Result<Self, DecodeError> {
                Ok(got)
            }
        }
    )* };
}

scalar!(bool, u16, u32, u64, Option<u32>, Option<u64>);

macro_rules! fixed {
    ($( $type:ty = $struct:ident, $to:expr, $from:expr; )*) => { $(
        impl Slot for fb::$struct {
            type Arg<'x> = Option<&'x Self>;
            fn arg(&self) -> Option<&Self> {
                Some(self)
            }
        }

        impl Slot for Option<fb::$struct> {
            type Arg<'x> = Option<&'x fb::$struct>;
            fn arg(&self) -> Option<&fb::$struct> {
                self.as_ref()
            }
        }
        fixed!(@field $type = $struct, $to, $from);
    )* };
    (@field $type:ty = $struct:ident, $to:expr, $from:expr) => {
        impl Fixed for $type {
            type Struct = fb::$struct;
            fn to_struct(&self) -> fb::$struct {
                $to(self)
            }
            fn from_struct(found: &fb::$struct) -> Self {
                $from(found)
            }
        }

        impl Field for $type {
            type Slot = fb::$struct;
            type Got<'a> = Option<&'a fb::$struct>;
            fn put(&self, _to: &mut Builder) -> fb::$struct {
                self.to_struct()
            }
            fn take(got: Option<&fb::$struct>, name: &'static str) -> Result<Self, DecodeError> {
                got.map(Self::from_struct).ok_or(DecodeError::Missing(name))
            }
        }
    };
}

fixed! {
    [u8; 8] = Bytes8, |bytes: &[u8; 8]| fb::Bytes8(*bytes), |found: &fb::Bytes8| found.0;
    ClusterId = Bytes16, |id: &ClusterId| fb::Bytes16(id.0), |found: &fb::Bytes16| ClusterId(found.0);
    HostId = Bytes32, |id: &HostId| fb::Bytes32(id.0), |found: &fb::Bytes32| HostId(found.0);
    LogId = LogId,
        |id: &LogId| fb::LogId::new(id.term, &id.node.to_struct(), id.index),
        |found: &fb::LogId| LogId {
            term: found.term(),
            node: HostId::from_struct(found.node()),
            index: found.index(),
        };
    Vote = Vote,
        |vote: &Vote| fb::Vote::new(vote.term, &vote.node.to_struct(), vote.committed),
        |found: &fb::Vote| Vote {
            term: found.term(),
            node: HostId::from_struct(found.node()),
            committed: found.committed(),
        };
}
fixed!(@field Uid = Bytes16, |uid: &Uid| fb::Bytes16(uid.0), |found: &fb::Bytes16| Uid(found.0));
fixed!(@field [u8; 32] = Bytes32, |bytes: &[u8; 32]| fb::Bytes32(*bytes), |found: &fb::Bytes32| found.0);

impl<T: Fixed> Field for Option<T>
where
    Option<T::Struct>: Slot,
{
    type Slot = Option<T::Struct>;
    type Got<'a> = Option<&'a T::Struct>;
    fn put(&self, _to: &mut Builder) -> Self::Slot {
        self.as_ref().map(T::to_struct)
    }
    fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
        Ok(got.map(T::from_struct))
    }
}

impl Field for String {
    type Slot = WIPOffset<&'static str>;
    type Got<'a> = Option<&'a str>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        to.create_string(self)
    }
    fn take(got: Option<&str>, name: &'static str) -> Result<Self, DecodeError> {
        got.map(str::to_owned).ok_or(DecodeError::Missing(name))
    }
}

impl Field for Vec<u8> {
    type Slot = WIPOffset<Vector<'static, u8>>;
    type Got<'a> = Option<Vector<'a, u8>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        // A byte string is a vector with a zero after it. Unlike `create_vector`, this call copies all bytes at once.
        WIPOffset::new(to.create_byte_string(self).value())
    }
    fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError> {
        Ok(got.ok_or(DecodeError::Missing(name))?.bytes().to_vec())
    }
}

impl Field for Vec<String> {
    type Slot = WIPOffset<Vector<'static, ForwardsUOffset<&'static str>>>;
    type Got<'a> = Option<Vector<'a, ForwardsUOffset<&'a str>>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        let items: Vec<_> = self.iter().map(|text| to.create_string(text)).collect();
        to.create_vector(&items)
    }
    fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError> {
        let items = got.ok_or(DecodeError::Missing(name))?;
        Ok(items.iter().map(str::to_owned).collect())
    }
}

/// A list of values of 32 bytes.
macro_rules! list {
    ($( $type:ty ),*) => { $(
        impl Field for Vec<$type> {
            type Slot = WIPOffset<Vector<'static, fb::Bytes32>>;
            type Got<'a> = Option<Vector<'a, fb::Bytes32>>;
            fn put(&self, to: &mut Builder) -> Self::Slot {
                let items: Vec<_> = self.iter().map(Fixed::to_struct).collect();
                to.create_vector(&items)
            }
            fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError> {
                let items = got.ok_or(DecodeError::Missing(name))?;
                Ok(items.iter().map(<$type>::from_struct).collect())
            }
        }
    )* };
}

list!(HostId, [u8; 32]);

/// A list that older versions do not have.
impl Field for Option<Vec<HostId>> {
    type Slot = Option<WIPOffset<Vector<'static, fb::Bytes32>>>;
    type Got<'a> = Option<Vector<'a, fb::Bytes32>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        self.as_ref().map(|items| items.put(to))
    }
    fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
        Ok(got.map(|items| items.iter().map(HostId::from_struct).collect()))
    }
}

/// An empty list is written as an absent one, as older versions do.
impl Field for Vec<ClusterId> {
    type Slot = Option<WIPOffset<Vector<'static, fb::Bytes16>>>;
    type Got<'a> = Option<Vector<'a, fb::Bytes16>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        let items: Vec<_> = self.iter().map(Fixed::to_struct).collect();
        (!items.is_empty()).then(|| to.create_vector(&items))
    }
    fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
        let items = got.into_iter().flatten();
        Ok(items.map(ClusterId::from_struct).collect())
    }
}

/// A list of numbers. An empty one is written as an absent one, as older versions do.
macro_rules! numbers {
    ($( $type:ty ),*) => { $(
        impl Field for Vec<$type> {
            type Slot = Option<WIPOffset<Vector<'static, $type>>>;
            type Got<'a> = Option<Vector<'a, $type>>;
            fn put(&self, to: &mut Builder) -> Self::Slot {
                (!self.is_empty()).then(|| to.create_vector(self))
            }
            fn take(got: Self::Got<'_>, _name: &'static str) -> Result<Self, DecodeError> {
                Ok(got.into_iter().flatten().collect())
            }
        }
    )* };
}

numbers!(u16, u32);

impl<T: Wire> Field for Vec<T> {
    type Slot = WIPOffset<Vector<'static, ForwardsUOffset<T::Table<'static>>>>;
    type Got<'a> = Option<Vector<'a, ForwardsUOffset<T::Table<'a>>>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        let items: Vec<_> = self.iter().map(|item| item.write(to)).collect();
        to.create_vector(&items)
    }
    fn take(got: Self::Got<'_>, name: &'static str) -> Result<Self, DecodeError> {
        let items = got.ok_or(DecodeError::Missing(name))?;
        items.iter().map(T::read).collect()
    }
}

impl Field for BTreeMap<String, String> {
    type Slot = WIPOffset<Vector<'static, ForwardsUOffset<fb::Label<'static>>>>;
    type Got<'a> = Option<Vector<'a, ForwardsUOffset<fb::Label<'a>>>>;
    fn put(&self, to: &mut Builder) -> Self::Slot {
        let mut items = Vec::with_capacity(self.len());
        for (name, value) in self {
            let name = to.create_string(name);
            let value = to.create_string(value);
            let args = fb::LabelArgs {
                name: Some(name),
                value: Some(value),
            };
            items.push(fb::Label::create(to, &args));
        }
        to.create_vector(&items)
    }
    fn take(got: Self::Got<'_>, field: &'static str) -> Result<Self, DecodeError> {
        let mut map = Self::new();
        for label in got.ok_or(DecodeError::Missing(field))? {
            let name = String::take(label.name(), field)?;
            let value = String::take(label.value(), field)?;
            if map.contains_key(&name) {
                return Err(DecodeError::Repeated { field, name });
            }
            map.insert(name, value);
        }
        Ok(map)
    }
}
