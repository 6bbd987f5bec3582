//! How what serde knows becomes bytes, for commands and for small states: self-describing by
//! default, compact by name.
//!
//! The default is MessagePack with the names of fields and variants, and with serde's
//! human-readable forms. It holds whatever serde's derive can express, and types may grow.
//! `docs/encoding.md` has the list of what it holds and what it refuses, and why it is this one.

mod reading;
#[cfg(test)]
mod tests;
mod writing;

use std::cell::Cell;

use bytes::Bytes;
use postcard::ser_flavors::{ExtendFlavor, Flavor};
use rmp_serde::decode::Error::InvalidMarkerRead;
use serde::de::value::UnitDeserializer;
use serde::de::{DeserializeOwned, value};
use serde::{Deserialize, Serialize};

use self::reading::Bounded;
use self::writing::Checked;
use crate::state_machine::Command;

/// How deep values may be nested. Each sequence, map, struct, enum variant with content, newtype
/// and `Some` is a level. As in `serde_json`, where it is 128 too, it keeps what a peer sends or a
/// disk holds from overflowing the stack: the test that decodes this deep in a debug build takes
/// less than the 2 MiB that a thread has.
pub(crate) const MAX_DEPTH: usize = 128;

/// The memory with which an encoding begins: most commands fit.
const CAPACITY: usize = 128;

/// What is longer is not copied: it keeps the memory that it was written to. So a thread has no
/// more than twice as much to spare.
const LONGEST_COPIED: usize = 4 << 10;

thread_local! {
    /// Memory that the next encoding is written to. The bytes that are kept are copied out of it,
    /// so that they are allocated once and take no more than they are long.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// MessagePack's nil, as which `()` and `None` are written.
const NIL: u8 = 0xc0;

/// Each byte.
static BYTES: [u8; 256] = {
    let (mut bytes, mut byte) = ([0; 256], 0);
    while byte < 256 {
        bytes[byte] = byte as u8;
        byte += 1;
    }
    bytes
};

/// Serializes a value in the default encoding.
///
/// # Errors
///
/// A sentence that says what in the value the encoding can't hold.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, String> {
    let mut bytes = spare();
    // Serde reads what is tagged, untagged or flattened as human-readable, whatever the format says
    // of itself. So it has to be written like that: else an IP address in such a struct could not
    // be read back.
    let mut serializer =
        rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    let checked = Checked::<_, true>::new(&mut serializer);
    value.serialize(checked).map_err(|error| error.to_string())?;
    Ok(kept(bytes))
}

/// Empty memory to write to. (None is to spare where the thread is about to end.)
#[inline]
fn spare() -> Vec<u8> {
    let mut bytes = SPARE.try_with(Cell::take).unwrap_or_default();
    bytes.clear();
    bytes.reserve(CAPACITY);
    bytes
}

/// What was written, to be kept.
#[inline]
fn kept(bytes: Vec<u8>) -> Bytes {
    let kept = match bytes[..] {
        // A unit, a small number and the like need no memory of their own.
        [byte] => Bytes::from_static(&BYTES[byte as usize..=byte as usize]),
        _ if bytes.len() <= LONGEST_COPIED => Bytes::copy_from_slice(&bytes),
        _ => return bytes.into(),
    };
    let _ = SPARE.try_with(|spare| spare.set(bytes));
    kept
}

/// Deserializes a value from the default encoding, which must fill `bytes`.
///
/// # Errors
///
/// A sentence that says what is wrong with the bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // A command without content is nil alone, and needs no reader: 13 instructions instead of 58.
    // What nil may stand for and serde's unit may not, a newtype say, is read as everything else.
    if *bytes == [NIL]
        && let Ok(value) = T::deserialize(UnitDeserializer::<value::Error>::new())
    {
        return Ok(value);
    }
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes).with_human_readable();
    let value = T::deserialize(Bounded::new(&mut deserializer));
    let value = value.map_err(|error| error.to_string())?;
    if bytes.len() == 1 {
        return Ok(value); // No value takes less.
    }
    // Only at the end of the bytes there is no marker of a next value.
    match <()>::deserialize(&mut deserializer) {
        Err(InvalidMarkerRead(_)) => Ok(value),
        _ => Err("there are bytes after its end".to_owned()),
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Command for T {
    #[inline]
    fn encode(self) -> Result<Bytes, String> {
        encode(&self)
    }

    #[inline]
    fn decode(bytes: &Bytes) -> Result<Self, String> {
        decode(bytes)
    }
}

/// A command in [postcard](https://docs.rs/postcard)'s encoding, which has no names and no types in
/// it. A typical command takes 40 % of the default encoding's bytes, as long to encode, and 40 % of
/// the time to decode.
///
/// It is for types that never change and that serde reads without looking ahead. These can't be
/// read back, and are refused when they are proposed:
///
/// - enums that are internally tagged, adjacently tagged or untagged, and everything that is
///   flattened;
/// - types that accept any value, such as `serde_json::Value`;
/// - structs where `skip_serializing_if` has left something out.
///
/// A field or variant may only be added where no command in the log has the old form: in the
/// middle, or at the end, it makes old bytes unreadable or, worse, readable as something else. Then
/// the replicas still agree, on the wrong command.
///
/// ```
/// use quorate_core::{Command, Compact};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Transfer { from: u64, to: u64, amount: u64 }
///
/// let transfer = Compact(Transfer { from: 1, to: 2, amount: 5 });
/// assert_eq!(transfer.encode()?.len(), 3);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Compact<T>(pub T);

impl<T: Serialize + DeserializeOwned + 'static> Command for Compact<T> {
    fn encode(self) -> Result<Bytes, String> {
        let output = ExtendFlavor::new(spare());
        let mut serializer = postcard::Serializer { output };
        let checked = Checked::<_, false>::new(&mut serializer);
        self.0.serialize(checked).map_err(|error| error.to_string())?;
        serializer.output.finalize().map(kept).map_err(|error| error.to_string())
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        let mut deserializer = postcard::Deserializer::from_bytes(bytes);
        let value = T::deserialize(Bounded::new(&mut deserializer));
        let value = value.map_err(|error| error.to_string())?;
        match deserializer.finalize() {
            Ok([]) => Ok(Self(value)),
            Ok(rest) => Err(format!("there are {} bytes after its end", rest.len())),
            Err(error) => Err(error.to_string()),
        }
    }
}
