//! What fuzz targets check of this crate. Not part of its API.

use bytes::Bytes;

use crate::codec::{Gather, decode_message, put_entry, put_message, take_entry};

/// The property of the target `messages`: bytes are a message or an error, and a message's own encoding is as long and decodes to the same.
/// (Byte for byte it may differ: the nodes of a membership may have come in another order.)
pub fn messages(data: &[u8]) {
    let data = Bytes::copy_from_slice(data);
    match decode_message(data.clone()) {
        Ok(message) => {
            let mut to = Gather::new();
            put_message(&mut to, &message);
            let encoded = Bytes::from(to.take().concat());
            assert_eq!(encoded.len(), data.len(), "{message:?}");
            assert_eq!(decode_message(encoded), Ok(message));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let mut rest = data.clone();
    if let Ok(entry) = take_entry(&mut rest) {
        let mut to = Gather::new();
        put_entry(&mut to, &entry);
        let mut encoded = Bytes::from(to.take().concat());
        assert_eq!(encoded.len(), data.len() - rest.len(), "{entry:?}");
        assert_eq!(take_entry(&mut encoded), Ok(entry));
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[test]
fn messages_of_the_corpus() {
    replay::replay("messages", 5000, messages);
}
