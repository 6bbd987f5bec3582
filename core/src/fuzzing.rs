//! What fuzz targets check of this crate. Not part of its API.

use std::fmt::Debug;

use bytes::Bytes;

use crate::codec::membership::{put_membership, take_membership};
use crate::codec::{
    DecodeError, Gather, decode_message, put_entry, put_hard_state, put_marks, put_message,
    put_snapshot_meta, put_standing, take_entry, take_hard_state, take_marks, take_snapshot_meta,
    take_standing,
};

/// The property of the target `messages`: bytes are a message or an error, and a message's own
/// encoding decodes to the same. (Byte for byte it may differ: fields that were skipped are gone.)
/// The same holds for what a store keeps.
pub fn messages(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    match decode_message(data.clone()) {
        Ok(message) => {
            let mut to = Gather::new();
            put_message(&mut to, &message);
            let encoded = Bytes::from(to.take().concat());
            assert_eq!(decode_message(encoded), Ok(message));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    comes_back(&data, take_entry, put_entry);
    comes_back(&data, take_membership, put_membership);
    comes_back(&data, take_hard_state, put_hard_state);
    comes_back(&data, take_standing, put_standing);
    comes_back(&data, take_marks, put_marks);
    comes_back(&data, take_snapshot_meta, put_snapshot_meta);
}

fn comes_back<T: Debug + PartialEq>(
    data: &Bytes,
    take: impl Fn(&mut Bytes) -> Result<T, DecodeError>,
    put: impl Fn(&mut Gather, &T),
) {
    if let Ok(value) = take(&mut data.clone()) {
        let mut to = Gather::new();
        put(&mut to, &value);
        let mut encoded = Bytes::from(to.take().concat());
        assert_eq!(take(&mut encoded), Ok(value));
        assert!(encoded.is_empty());
    }
}
