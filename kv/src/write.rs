//! What is replicated: the writes of clients, and their binary form.
//!
//! A write is a byte that tells its kind, and the kind's fields; a key or a value is its length (4
//! bytes, little-endian) and its bytes; a list is its length (4) and its items. Writes that a
//! client sent together follow each other in one command.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate::Command;

/// When a SET takes place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum When {
    /// In any case.
    #[default]
    Always,
    /// Only where the key is missing.
    Missing,
    /// Only where the key is there.
    Present,
}

/// What a SET answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SetAnswer {
    /// OK, or nothing where it did not take place.
    #[default]
    Status,
    /// The old value (GET, GETSET).
    Old,
    /// 1, or 0 where it did not take place (SETNX).
    Number,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// SET, SETNX and GETSET.
    Set { key: Bytes, value: Bytes, when: When, answer: SetAnswer },
    /// MSET.
    SetMany(Vec<(Bytes, Bytes)>),
    /// DEL.
    Delete(Vec<Bytes>),
    /// INCR, DECR, INCRBY and DECRBY.
    Add { key: Bytes, delta: i64 },
    /// FLUSHALL.
    Clear,
    /// GETDEL.
    GetDelete(Bytes),
    /// APPEND.
    Append { key: Bytes, value: Bytes },
    /// RENAME.
    Rename { from: Bytes, to: Bytes },
}

const SET: u8 = 1;
const SET_MANY: u8 = 2;
const DELETE: u8 = 3;
const ADD: u8 = 4;
const CLEAR: u8 = 5;
const GET_DELETE: u8 = 6;
const APPEND: u8 = 7;
const RENAME: u8 = 8;

impl Write {
    /// Whether its answer is a value, which may be long.
    pub(crate) fn answers_value(&self) -> bool {
        matches!(self, Self::Set { answer: SetAnswer::Old, .. } | Self::GetDelete(_))
    }

    fn put(&self, to: &mut BytesMut) {
        match self {
            Self::Set { key, value, when, answer } => {
                to.reserve(11 + key.len() + value.len());
                to.put_u8(SET);
                to.put_u8(match when {
                    When::Always => 0,
                    When::Missing => 1,
                    When::Present => 2,
                });
                to.put_u8(match answer {
                    SetAnswer::Status => 0,
                    SetAnswer::Old => 1,
                    SetAnswer::Number => 2,
                });
                put_bytes(to, key);
                put_bytes(to, value);
            }
            Self::SetMany(pairs) => {
                to.put_u8(SET_MANY);
                put_length(to, pairs.len());
                for (key, value) in pairs {
                    put_bytes(to, key);
                    put_bytes(to, value);
                }
            }
            Self::Delete(keys) => {
                to.put_u8(DELETE);
                put_length(to, keys.len());
                keys.iter().for_each(|key| put_bytes(to, key));
            }
            Self::Add { key, delta } => {
                to.put_u8(ADD);
                to.put_i64_le(*delta);
                put_bytes(to, key);
            }
            Self::Clear => to.put_u8(CLEAR),
            Self::GetDelete(key) => {
                to.put_u8(GET_DELETE);
                put_bytes(to, key);
            }
            Self::Append { key, value } => {
                to.put_u8(APPEND);
                put_bytes(to, key);
                put_bytes(to, value);
            }
            Self::Rename { from: old, to: new } => {
                to.put_u8(RENAME);
                put_bytes(to, old);
                put_bytes(to, new);
            }
        }
    }

    fn take(from: &mut Bytes) -> Result<Self, String> {
        match from.try_get_u8().map_err(short)? {
            SET => {
                let when = match from.try_get_u8().map_err(short)? {
                    0 => When::Always,
                    1 => When::Missing,
                    2 => When::Present,
                    other => return Err(format!("a SET with the unknown condition {other}")),
                };
                let answer = match from.try_get_u8().map_err(short)? {
                    0 => SetAnswer::Status,
                    1 => SetAnswer::Old,
                    2 => SetAnswer::Number,
                    other => return Err(format!("a SET with the unknown answer {other}")),
                };
                Ok(Self::Set { key: take_bytes(from)?, value: take_bytes(from)?, when, answer })
            }
            SET_MANY => take_list(from, |from| Ok((take_bytes(from)?, take_bytes(from)?)))
                .map(Self::SetMany),
            DELETE => take_list(from, take_bytes).map(Self::Delete),
            ADD => {
                let delta = from.try_get_i64_le().map_err(short)?;
                Ok(Self::Add { key: take_bytes(from)?, delta })
            }
            CLEAR => Ok(Self::Clear),
            GET_DELETE => take_bytes(from).map(Self::GetDelete),
            APPEND => Ok(Self::Append { key: take_bytes(from)?, value: take_bytes(from)? }),
            RENAME => Ok(Self::Rename { from: take_bytes(from)?, to: take_bytes(from)? }),
            kind => Err(format!("a write of the unknown kind {kind}")),
        }
    }
}

fn put_length(to: &mut BytesMut, len: usize) {
    to.put_u32_le(u32::try_from(len).expect("requests are bounded by far below 4 GiB"));
}

fn put_bytes(to: &mut BytesMut, bytes: &[u8]) {
    put_length(to, bytes.len());
    to.put_slice(bytes);
}

fn short(error: bytes::TryGetError) -> String {
    format!("a write that ends early: {error}")
}

fn take_bytes(from: &mut Bytes) -> Result<Bytes, String> {
    let len = from.try_get_u32_le().map_err(short)? as usize;
    if len > from.len() {
        return Err(format!(
            "a write that ends early: {len} bytes announced, {} there",
            from.len()
        ));
    }
    Ok(from.split_to(len))
}

fn take_list<T>(
    from: &mut Bytes,
    mut take: impl FnMut(&mut Bytes) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let count = from.try_get_u32_le().map_err(short)? as usize;
    // The count is only a claim: reserve no more than the bytes at hand could hold.
    let mut items = Vec::with_capacity(count.min(from.len() / size_of::<u32>()));
    for _ in 0..count {
        items.push(take(from)?);
    }
    Ok(items)
}

/// Consecutive writes of one client: one command, applied as a whole.
///
/// It is kept in its binary form: the client's side appends to it, and the state machine takes
/// slices of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writes(Bytes);

impl Writes {
    /// The writes, in order.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = Write> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (!rest.is_empty())
                .then(|| Write::take(&mut rest).expect("the form was checked when it was decoded"))
        })
    }
}

impl Command for Writes {
    fn encode(self) -> Result<Bytes, String> {
        Ok(self.0)
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            Write::take(&mut rest)?;
        }
        Ok(Self(bytes.clone()))
    }
}

/// Writes being collected into one command.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: BytesMut,
    count: usize,
}

impl Batch {
    /// The most writes in a command. It bounds how long applying one takes.
    const MAX_WRITES: usize = 1024;

    /// How long a command may be and still take another write, in bytes. A single write may be as
    /// long as a request.
    const MAX_BYTES: usize = 1 << 20;

    /// Appends a write.
    pub(crate) fn push(&mut self, write: &Write) {
        write.put(&mut self.bytes);
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether it should be proposed before another one is added.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= Self::MAX_WRITES || self.bytes.len() >= Self::MAX_BYTES
    }

    /// The command.
    pub(crate) fn finish(self) -> Writes {
        Writes(self.bytes.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Write> {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let set = |when, answer| {
            let value = bytes("v\0\r\n");
            Write::Set { key: bytes("k"), value, when, answer }
        };
        vec![
            set(When::Always, SetAnswer::Status),
            set(When::Missing, SetAnswer::Old),
            set(When::Present, SetAnswer::Status),
            set(When::Missing, SetAnswer::Number),
            Write::Append { key: bytes(""), value: bytes("") },
            Write::SetMany(vec![(bytes("a"), bytes("1")), (bytes("b"), bytes(""))]),
            Write::SetMany(vec![]),
            Write::Delete(vec![bytes("a"), bytes(""), bytes("a")]),
            Write::Add { key: bytes("n"), delta: i64::MIN },
            Write::Clear,
            Write::GetDelete(bytes("a")),
            Write::Append { key: bytes("a"), value: bytes("v") },
            Write::Rename { from: bytes("a"), to: bytes("b") },
        ]
    }

    fn encode(writes: &[Write]) -> Bytes {
        let mut batch = Batch::default();
        writes.iter().for_each(|write| batch.push(write));
        assert_eq!(batch.len(), writes.len());
        batch.finish().encode().unwrap()
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let writes = Writes::decode(&encode(&examples())).unwrap();
        assert_eq!(writes.into_iter().collect::<Vec<_>>(), examples());
    }

    #[test]
    fn keys_and_values_are_slices_of_the_command() {
        let bytes = encode(&examples()[..1]);
        let range = bytes.as_ptr_range();
        let write = Writes::decode(&bytes).unwrap().into_iter().next();
        let Some(Write::Set { key, value, .. }) = write else { panic!("{write:?}") };
        assert!(range.contains(&key.as_ptr()) && range.contains(&value.as_ptr()));
    }

    #[test]
    fn a_cut_command_is_an_error() {
        for write in examples() {
            let whole = encode(&[write]);
            for len in 1..whole.len() {
                assert!(Writes::decode(&whole.slice(..len)).is_err(), "{len} bytes of {whole:?}");
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_other_writes_but_never_a_panic() {
        let whole = encode(&examples());
        for at in 0..whole.len() {
            for byte in [0, 1, 2, 6, 7, 8, 9, 0x7f, 0xff] {
                let mut damaged = whole.to_vec();
                damaged[at] = byte;
                if let Ok(writes) = Writes::decode(&damaged.into()) {
                    writes.into_iter().for_each(drop);
                }
            }
        }
    }

    #[test]
    fn a_claimed_count_reserves_nothing() {
        let claim = [&[DELETE][..], &u32::MAX.to_le_bytes()].concat();
        assert!(Writes::decode(&claim.into()).is_err());
    }

    #[test]
    fn a_batch_is_full_by_count_and_by_bytes() {
        let mut batch = Batch::default();
        for _ in 0..Batch::MAX_WRITES {
            assert!(!batch.is_full());
            batch.push(&Write::Clear);
        }
        assert!(batch.is_full());
        let mut batch = Batch::default();
        batch.push(&Write::Delete(vec![Bytes::from(vec![0; Batch::MAX_BYTES])]));
        assert!(batch.is_full());
    }
}
