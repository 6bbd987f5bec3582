//! An old offer of a snapshot that comes again after a newer one, while the disk is at a piece: what it has written then is of a draft
//! that is gone.

use bytes::Bytes;
use quorate_core::engine::{Engine, Incoming, Input};
use quorate_core::{
    Body, Config, Digest, LogId, Membership, Message, Recovered, SnapshotMeta, Term,
};
use quorate_rt::Instant;

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(1, 2, index),
        membership: Membership::new([1, 2].map(|id| (id, String::new())).into()).expect("valid"),
        membership_index: 1,
        bytes: 10,
        digest: Digest::of(&index.to_le_bytes()),
    }
}

fn piece(index: u64, chunk: &'static [u8]) -> Input {
    let body = Body::Snapshot { meta: meta(index), offset: 0, chunk: Bytes::from_static(chunk) };
    Input::Message(Message { group: 0, from: 2, to: 1, term: Term(1), body })
}

#[test]
fn what_an_earlier_draft_has_stored_is_not_of_the_next() {
    let now = Instant::default();
    let mut engine = Engine::new(1, 0, Config::default(), Recovered::default(), 1, now);
    engine.step(now, piece(5, b""));
    engine.step(now, piece(5, b"half"));
    engine.step(now, piece(7, b""));
    engine.step(now, piece(5, b""));
    engine.take_output();
    engine.step(now, Input::PieceStored { digest: meta(5).digest, stored: 4 });
    let output = engine.take_output();
    assert!(output.messages.is_empty(), "{:?}", output.messages);
    // The new draft takes its pieces as any other does.
    engine.step(now, piece(5, b"all of it."));
    engine.step(now, Input::PieceStored { digest: meta(5).digest, stored: 10 });
    let output = engine.take_output();
    assert_eq!(output.incoming.last(), Some(&Incoming::End(meta(5))));
}
