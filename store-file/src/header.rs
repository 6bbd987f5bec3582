//! The first 4096 bytes of every file of a store: what it is, of which version, and tagged fields
//! that tell more.
//!
//! They are a block of their own, so that no later write touches their sector. Numbers are
//! little-endian.
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | magic, of the kind of file |
//! | 8 | 4 | version of the format: 3 |
//! | 12 | 4 | CRC of the bytes 0 to 12 and 16 to 4096 |
//! | 16 | 4 | the length of the fields |
//! | 20 | | the fields, in the form of `quorate_core::codec::fields`; zeros behind them |
//!
//! A new field takes no new version, and a store of any version from 3 on is read by all later
//! builds. So a version changes only where what follows the header has another layout; these 20
//! bytes and their CRC stay as they are.

use std::path::PathBuf;

use bytes::{Buf, Bytes, BytesMut};
use quorate_core::StoreError;
use quorate_core::codec::{DecodeError, Fields, Gather, put_field};

use crate::format::crc;

/// The length of a header.
pub(crate) const HEADER_BYTES: u64 = 4096;

/// The version that this build reads and writes.
pub(crate) const VERSION: u32 = 3;

const CRC_AT: usize = 12;
const FIELDS_AT: usize = 20;

/// Why what stands somewhere in a file is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It can't be what was written.
    Damaged(String),
    /// It is whole, and of a form that this build does not know.
    Unsupported(String),
}

impl Refused {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    /// It is whole, and a later version has written it.
    pub(crate) fn newer(what: impl std::fmt::Display) -> Self {
        Self::Unsupported(format!(
            "{what}: a later version has written it; start this node with that version"
        ))
    }

    /// The error, of what stands there.
    pub(crate) fn at(self, file: PathBuf, offset: u64) -> StoreError {
        match self {
            Self::Damaged(reason) => StoreError::Damaged { file, offset, reason: reason.into() },
            Self::Unsupported(reason) => {
                StoreError::Unsupported { file, offset, reason: reason.into() }
            }
        }
    }
}

impl From<DecodeError> for Refused {
    /// Of what is whole by its CRC: what is unknown there was written on purpose.
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Field { .. } | DecodeError::Kind { .. } => Self::newer(error),
            error => Self::Damaged(error.to_string()),
        }
    }
}

/// A header with the fields that `put` appends.
pub(crate) fn header(magic: &[u8; 8], put: impl FnOnce(&mut Gather)) -> Bytes {
    let mut fields = Gather::new();
    put(&mut fields);
    let fields = fields.take().concat();
    let mut header = BytesMut::zeroed(HEADER_BYTES as usize);
    header[..8].copy_from_slice(magic);
    header[8..CRC_AT].copy_from_slice(&VERSION.to_le_bytes());
    header[16..FIELDS_AT].copy_from_slice(&(fields.len() as u32).to_le_bytes());
    header[FIELDS_AT..][..fields.len()].copy_from_slice(&fields);
    let value = summed(&header);
    header[CRC_AT..16].copy_from_slice(&value.to_le_bytes());
    header.freeze()
}

/// Appends a field of a number, in 8 bytes.
pub(crate) fn put_number(to: &mut Gather, tag: u8, value: u64) {
    put_field(to, tag, |to| to.put_u64(value));
}

/// The fields of a header, which must be that of a `what`.
///
/// Errors: it isn't, or of another version.
pub(crate) fn open_header(
    magic: &[u8; 8],
    what: &'static str,
    header: &Bytes,
) -> Result<Fields, Refused> {
    if header.len() as u64 != HEADER_BYTES {
        return Err(Refused::damaged("the file ends in its header"));
    }
    if !header.starts_with(magic) {
        return Err(Refused::Damaged(format!("not a {what}")));
    }
    let mut numbers = &header[8..];
    let version = numbers.get_u32_le();
    if numbers.get_u32_le() != summed(header) {
        return Err(Refused::damaged("the header's CRC does not match"));
    }
    if version != VERSION {
        let reason = format!("format version {version}, and this build reads {VERSION}");
        return Err(Refused::newer(reason));
    }
    let len = numbers.get_u32_le() as usize;
    if len > header.len() - FIELDS_AT {
        return Err(Refused::damaged("the header's fields are longer than the header"));
    }
    Ok(Fields::new(what, header.slice(FIELDS_AT..FIELDS_AT + len)))
}

fn summed(header: &[u8]) -> u32 {
    crc(0, [&header[..CRC_AT], &header[CRC_AT + 4..]])
}
