//! Tagged fields: how structures are written so that they can grow without a new version.
//!
//! A field is a tag (1 byte), a length and so many bytes of value. The tag's low seven bits are the
//! field's number, which is not 0. Its top bit tells a reader that does not know the number what to
//! do: set, refuse the whole structure; clear, skip the field.
//!
//! A length of up to 254 is one byte. The byte 255 says that the length follows in 4 bytes. Writers
//! use the longer form where they don't know the length beforehand, and readers take either.
//!
//! The fields of a structure are in ascending order of their numbers, and no number comes twice,
//! whatever its top bit. So a reader needs one pass and no table of what it has seen.
//!
//! A structure is its length and its fields. As the value of a field it is its fields alone, since
//! the field has a length.
//!
//! # How to add a field
//!
//! 1. Take the next number that the structure's table does not have. A number is never used for
//!    something else later.
//! 2. If a reader that does not know the field may act as if it was not there, leave the top bit
//!    clear. Otherwise set it, and send or store the field only once all readers are known to
//!    understand it.
//! 3. Define what a missing field means: structures that were written before don't have it.
//! 4. Add it to the table, and its number to the tests.

use std::mem;

use bytes::{Buf, Bytes};

use super::{DecodeError, Gather, LOG_ID_BYTES, finish, length, log_id_of, take_bytes};
use crate::identity::Replica;
use crate::types::LogId;

/// The bit of a tag that asks a reader to refuse the structure where it does not know the field.
pub const REFUSE: u8 = 0x80;

/// The length that says that the length follows in 4 bytes.
const LONG: u8 = u8::MAX;

/// Appends a field whose value, of any length, `value` appends.
pub fn put_field(to: &mut Gather, tag: u8, value: impl FnOnce(&mut Gather)) {
    to.put_u8(tag);
    put_sized(to, value);
}

/// Appends the length of what `value` appends, and that.
pub(super) fn put_sized(to: &mut Gather, value: impl FnOnce(&mut Gather)) {
    to.put_u8(LONG);
    let reserved = to.reserve_u32();
    let before = to.len();
    value(to);
    let len = length(to.len() - before);
    to.fill(reserved, len);
}

/// The bytes that [`put_sized`] writes besides the value.
pub(super) const SIZED_BYTES: usize = 5;

/// Appends a field of these bytes, by reference where they are many.
pub(super) fn put_bytes_field(to: &mut Gather, tag: u8, value: &Bytes) {
    put_field_head(to, tag, value.len());
    to.put_bytes(value);
}

/// Appends the tag and the length of a field whose value follows.
pub(super) fn put_field_head(to: &mut Gather, tag: u8, len: usize) {
    to.put_u8(tag);
    match u8::try_from(len) {
        Ok(len) if len != LONG => to.put_u8(len),
        _ => {
            to.put_u8(LONG);
            to.put_u32(length(len));
        }
    }
}

/// The bytes of a field with a value of so many, where [`put_field_head`] has written its begin.
pub(super) const fn field_bytes(len: usize) -> usize {
    let head = if len < LONG as usize { 2 } else { 6 };
    head + len
}

/// Appends a field of a byte.
pub(super) fn put_byte_field(to: &mut Gather, tag: u8, value: u8) {
    to.put_slice(&[tag, 1, value]);
}

/// Appends a field of a number, in 8 bytes.
pub(super) fn put_number_field(to: &mut Gather, tag: u8, value: u64) {
    let mut field = [8; 10]; // At once, as all fields in messages that there are many of.
    field[0] = tag;
    field[2..].copy_from_slice(&value.to_le_bytes());
    to.put_slice(&field);
}

/// Appends a field of a log id.
pub(super) fn put_log_id_field(to: &mut Gather, tag: u8, log_id: LogId) {
    let mut field = [LOG_ID_BYTES as u8; 2 + LOG_ID_BYTES];
    field[0] = tag;
    field[2..10].copy_from_slice(&log_id.term.0.to_le_bytes());
    field[10..18].copy_from_slice(&log_id.leader.to_le_bytes());
    field[18..].copy_from_slice(&log_id.index.to_le_bytes());
    to.put_slice(&field);
}

/// The bytes of a replica: its node and its incarnation.
pub(super) const REPLICA_BYTES: usize = 16;

/// A replica's node and incarnation.
pub(super) fn put_replica(to: &mut Gather, replica: Replica) {
    to.put_u64(replica.id);
    to.put_u64(replica.incarnation);
}

/// Appends a field of a replica.
pub(super) fn put_replica_field(to: &mut Gather, tag: u8, replica: Replica) {
    put_field_head(to, tag, REPLICA_BYTES);
    put_replica(to, replica);
}

/// A replica from its bytes.
///
/// Errors: its node or incarnation is 0.
pub(super) fn known_replica(bytes: &[u8; REPLICA_BYTES]) -> Result<Replica, DecodeError> {
    let mut from = &bytes[..];
    let replica = Replica::new(from.get_u64_le(), from.get_u64_le());
    if replica.id == 0 || !replica.is_known() {
        return Err(DecodeError::Invalid("a replica with node or incarnation 0".to_owned()));
    }
    Ok(replica)
}

/// Takes the fields of a structure, which must be asked for in ascending order of their numbers.
/// Fields that nobody asks for are skipped or refused, as their tags say.
///
/// The methods that take a field return an error where it is missing, cut short, out of order or
/// repeated, or where its value can't be; and where a field before it is unknown and not to be
/// skipped.
#[derive(Debug)]
pub struct Fields {
    what: &'static str,
    rest: Bytes,
    /// The number of the last field that was read.
    last: u8,
}

impl Fields {
    /// The fields in `from`, to its end, of a structure that errors call `what`.
    pub fn new(what: &'static str, from: Bytes) -> Self {
        Self { what, rest: from, last: 0 }
    }

    /// Takes the field with this tag by `take`, one of the methods below or a function like them;
    /// none if it is missing.
    pub fn optional<T>(
        &mut self,
        tag: u8,
        take: impl FnOnce(&mut Self, u8) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.is_next(tag)? { take(self, tag).map(Some) } else { Ok(None) }
    }

    /// The value of the field with this tag, as `take` takes it off the front of the value.
    ///
    /// Errors: also those of `take`; or it leaves bytes.
    pub fn value<T>(
        &mut self,
        tag: u8,
        take: impl FnOnce(&mut Bytes) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut value = self.bytes(tag)?;
        let taken = take(&mut value)?;
        finish(&value)?;
        Ok(taken)
    }

    /// The value of the field with this tag.
    #[inline]
    pub fn bytes(&mut self, tag: u8) -> Result<Bytes, DecodeError> {
        // At once where it is next, has the long form and is the last, as the entries of an append
        // are.
        if let Some((&[next, LONG, a, b, c, d], value)) = self.rest.split_first_chunk()
            && next == tag
            && value.len() == u32::from_le_bytes([a, b, c, d]) as usize
        {
            self.last = tag & !REFUSE;
            self.rest.advance(1 + SIZED_BYTES);
            return Ok(mem::take(&mut self.rest));
        }
        let len = self.find(tag)?;
        Ok(self.rest.split_to(len))
    }

    /// The 8-byte number of the field with this tag.
    #[inline]
    pub fn number(&mut self, tag: u8) -> Result<u64, DecodeError> {
        self.array(tag).map(u64::from_le_bytes)
    }

    /// The byte of the field with this tag.
    pub fn byte(&mut self, tag: u8) -> Result<u8, DecodeError> {
        self.array(tag).map(|[byte]| byte)
    }

    /// The log id of the field with this tag.
    pub fn log_id(&mut self, tag: u8) -> Result<LogId, DecodeError> {
        self.array(tag).map(|bytes| log_id_of(&bytes))
    }

    /// The replica of the field with this tag. Its node and its incarnation are not 0.
    pub fn replica(&mut self, tag: u8) -> Result<Replica, DecodeError> {
        self.array(tag).and_then(|bytes| known_replica(&bytes))
    }

    /// The bytes of the field with this tag, which has exactly so many.
    #[inline]
    pub fn array<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], DecodeError> {
        // At once where it is next and its length has the short form, as is the rule in messages.
        if let Some((head, rest)) = self.rest.split_first_chunk()
            && *head == [tag, N as u8]
            && N < LONG as usize
            && let Some(value) = rest.first_chunk().copied()
        {
            self.last = tag & !REFUSE;
            self.rest.advance(2 + N);
            return Ok(value);
        }
        self.any_array(tag)
    }

    #[cold]
    fn any_array<const N: usize>(&mut self, tag: u8) -> Result<[u8; N], DecodeError> {
        let value = self.bytes(tag)?;
        value[..].try_into().map_err(|_| {
            let (what, number, has) = (self.what, tag & !REFUSE, value.len());
            DecodeError::Invalid(format!("field {number} of a {what} has {has} bytes and not {N}"))
        })
    }

    /// The structure in the field with this tag.
    pub(super) fn structure<S: Structure>(&mut self, tag: u8) -> Result<S, DecodeError> {
        self.bytes(tag).and_then(decode_structure)
    }

    /// The structures in the field with this tag, at most `max`, each of which `take` takes by its
    /// fields.
    pub(super) fn list<T>(
        &mut self,
        tag: u8,
        max: usize,
        what: &'static str,
        take: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut from = self.bytes(tag)?;
        let mut list = Vec::new();
        while !from.is_empty() {
            if list.len() == max {
                return Err(DecodeError::Invalid(format!("more than {max} times a {what}")));
            }
            let mut fields = Self::new(what, take_sized(&mut from, what)?);
            list.push(take(&mut fields)?);
            fields.finish()?;
        }
        Ok(list)
    }

    /// Skips or refuses what is left.
    #[inline]
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { self.skip_all() }
    }

    #[cold]
    fn skip_all(mut self) -> Result<(), DecodeError> {
        while !self.rest.is_empty() {
            self.skip()?;
        }
        Ok(())
    }

    /// Whether the field with this tag is there; it is next then.
    fn is_next(&mut self, tag: u8) -> Result<bool, DecodeError> {
        while let Some(next) = self.rest.first().copied()
            && next & !REFUSE <= tag & !REFUSE
        {
            if next == tag {
                return Ok(true);
            }
            self.skip()?;
        }
        Ok(false)
    }

    /// Goes to the value of the field with this tag, and gives its length; all of it is there.
    fn find(&mut self, tag: u8) -> Result<usize, DecodeError> {
        match self.is_next(tag)? {
            true => Ok(self.take_head()?.1),
            false => Err(DecodeError::Missing { what: self.what, tag }),
        }
    }

    fn skip(&mut self) -> Result<(), DecodeError> {
        let (tag, len) = self.take_head()?;
        if tag & REFUSE != 0 {
            return Err(DecodeError::Field { what: self.what, tag });
        }
        self.rest.advance(len);
        Ok(())
    }

    /// Takes the tag and the length of the next field off the front; all of the value is there.
    fn take_head(&mut self) -> Result<(u8, usize), DecodeError> {
        let what = self.what;
        let short = |needs| DecodeError::Short { what, needs, has: self.rest.len() };
        let [tag, len] = *self.rest.first_chunk().ok_or_else(|| short(2))?;
        let (head, len) = if len < LONG {
            (2, len as usize)
        } else {
            let head = self.rest.first_chunk::<6>().ok_or_else(|| short(6))?;
            (6, u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize)
        };
        if self.rest.len() - head < len {
            return Err(short(head.saturating_add(len)));
        }
        let number = tag & !REFUSE;
        if number <= self.last {
            let reason = format!("field {number} of a {what} after field {}", self.last);
            return Err(DecodeError::Invalid(reason));
        }
        self.last = number;
        self.rest.advance(head);
        Ok((tag, len))
    }
}

/// What consists of fields.
pub(super) trait Structure: Sized {
    /// What errors call it.
    const WHAT: &'static str;

    /// Appends the fields.
    fn put(&self, to: &mut Gather);

    /// Takes the fields that it has.
    fn take(fields: &mut Fields) -> Result<Self, DecodeError>;
}

/// Appends the length of a structure, and its fields.
pub(super) fn put_structure<S: Structure>(to: &mut Gather, structure: &S) {
    put_sized(to, |to| structure.put(to));
}

/// Appends a field that holds a structure.
pub(super) fn put_structure_field<S: Structure>(to: &mut Gather, tag: u8, structure: &S) {
    put_field(to, tag, |to| structure.put(to));
}

/// Takes a structure with its length off the front.
pub(super) fn take_structure<S: Structure>(from: &mut Bytes) -> Result<S, DecodeError> {
    decode_structure(take_sized(from, S::WHAT)?)
}

/// Takes a length and so many bytes off the front.
pub(super) fn take_sized(from: &mut Bytes, what: &'static str) -> Result<Bytes, DecodeError> {
    let short = |needs| DecodeError::Short { what, needs, has: from.len() };
    let (head, len) = match *from.first().ok_or_else(|| short(1))? {
        LONG => {
            let head = from.first_chunk::<SIZED_BYTES>().ok_or_else(|| short(SIZED_BYTES))?;
            (SIZED_BYTES, u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize)
        }
        len => (1, len as usize),
    };
    from.advance(head);
    take_bytes(from, len, what)
}

fn decode_structure<S: Structure>(from: Bytes) -> Result<S, DecodeError> {
    let mut fields = Fields::new(S::WHAT, from);
    let structure = S::take(&mut fields)?;
    fields.finish()?;
    Ok(structure)
}
