//! Records whose CRCs match, and which no store writes: what they say of the log can't be.

use bytes::BufMut;
use quorate_core::codec::Gather;

use super::*;
use crate::format::{HEADER_BYTES, crc, record_seed};
use crate::owner::Owner;
use crate::record::{
    Encoder, KIND_BEGIN as BEGIN, KIND_COPY as COPY, KIND_OWNER as OWNER,
    KIND_SYNC_MARKER as SYNC_MARKER, KIND_WRITE as WRITE,
};

/// The body of a write of nothing.
const NOTHING: &[u8] = &[0; 4];

/// Segments that are put together by the format's description.
struct Forger {
    scene: Scene,
    store: u64,
    segments: Vec<Vec<u8>>,
}

impl Forger {
    /// A log of one empty segment.
    async fn new(scene: Scene) -> Self {
        drop(scene.open().await);
        scene.made(2).await;
        scene.closed().await;
        scene.disk().remove(scene.segment(2));
        let store = segment_header(&scene.content(1), 1).store;
        let mut forger = Self { scene, store, segments: Vec::new() };
        forger.clear();
        forger
    }

    fn clear(&mut self) {
        self.segments.clear();
        self.next_segment();
    }

    fn next_segment(&mut self) {
        let number = self.segments.len() as u32 + 1;
        let header = SegmentHeader { store: self.store, bytes: SMALL.segment_bytes };
        self.segments.push(header.encode(number).to_vec());
    }

    fn end(&self) -> Position {
        let last = self.segments.last().unwrap();
        Position { segment: self.segments.len() as u32, offset: last.len() as u64 }
    }

    /// Adds a record with no entries, which says that the log was durable up to there, and gives
    /// its place.
    fn put(&mut self, kind: u32, durable: Position, body: &[u8]) -> Position {
        let at = self.end();
        let seed = record_seed(self.store, at);
        let mut header = Vec::new();
        header.put_u32_le(crc(seed, [body]));
        header.put_u64_le(body.len() as u64);
        header.put_u64_le(1);
        header.put_u64_le(durable.offset);
        header.put_u32_le(durable.segment);
        header.put_u32_le(kind);
        let last = self.segments.last_mut().unwrap();
        last.put_u32_le(crc(seed, [&header[..]]));
        last.extend_from_slice(&header);
        last.extend_from_slice(body);
        last.resize(last.len().next_multiple_of(ALIGNMENT as usize), 0);
        at
    }

    /// Adds a batch of one write.
    fn put_batch(&mut self) -> Position {
        self.put(WRITE, self.end(), NOTHING)
    }

    /// Adds a batch of a write, or a copy, of entries.
    fn put_entries(&mut self, group: GroupId, of: &[Entry], is_copy: bool) -> Position {
        let (at, of) = (self.end(), entries(of));
        let (mut encoder, mut record) = (Encoder::new(self.store), Gather::new());
        match is_copy {
            true => drop(encoder.encode_copy(group, of.entries)),
            false => drop(encoder.encode(group, &of, false)),
        }
        encoder.put(&mut record, group, at, at);
        self.segments.last_mut().unwrap().extend(record.take().concat());
        at
    }

    fn save(&self) {
        for (number, content) in (1..).zip(&self.segments) {
            let mut content = content.clone();
            content.resize(content.len().max(SMALL.segment_bytes as usize), 0);
            self.scene.set_content(number, &content);
        }
    }

    /// An opening finds damage there.
    async fn refused_at(&self, at: Position, what: &str) {
        self.save();
        let file = format!("{:016}.wal", at.segment);
        assert_eq!(self.scene.damage().await, (file, at.offset), "{what}");
    }

    /// An opening finds nothing wrong.
    async fn accepted(&self) {
        self.save();
        drop(self.scene.open().await);
        self.scene.closed().await;
    }
}

fn forge(scenario: impl AsyncFnOnce(Forger)) {
    scene(async |scene| scenario(Forger::new(scene).await).await);
}

const FIRST: Position = Position { segment: 1, offset: HEADER_BYTES };

#[test]
fn what_is_put_together_rightly_is_a_log() {
    forge(async |mut forger| {
        forger.put_batch();
        let second = forger.put_batch();
        forger.put(WRITE, second, NOTHING);
        let end = forger.end();
        forger.next_segment();
        forger.put(WRITE, end, NOTHING);
        forger.put(SYNC_MARKER, forger.end(), &[]);
        forger.accepted().await;
    });
}

/// Where the first segment is there, nothing has gone before it, whatever is purged later.
#[test]
fn a_log_with_its_first_segment_begins_with_the_first_entry() {
    forge(async |mut forger| {
        let (mut encoder, mut record) = (Encoder::new(forger.store), Gather::new());
        encoder.encode(1, &entries([entry(1, 5, "fifth")]), false);
        encoder.put(&mut record, 1, FIRST, FIRST);
        forger.segments[0].extend(record.take().concat());
        forger.refused_at(FIRST, "the record, at once; not what the log turns out to be").await;
    });
}

#[test]
fn the_log_was_never_durable_up_to_an_earlier_place_or_one_ahead() {
    forge(async |mut forger| {
        forger.put_batch();
        forger.put_batch();
        let at = forger.put(WRITE, FIRST, NOTHING);
        forger.refused_at(at, "earlier").await;

        forger.clear();
        let ahead = Position { offset: FIRST.offset + ALIGNMENT, ..FIRST };
        let at = forger.put(WRITE, ahead, NOTHING);
        forger.refused_at(at, "ahead").await;
    });
}

#[test]
fn a_sync_marker_speaks_of_its_own_place_and_of_nothing_else() {
    forge(async |mut forger| {
        let first = forger.put_batch();
        let at = forger.put(SYNC_MARKER, first, &[]);
        forger.refused_at(at, "another place").await;

        forger.clear();
        forger.put_batch();
        let at = forger.put(SYNC_MARKER, forger.end(), NOTHING);
        forger.refused_at(at, "with a body").await;
    });
}

#[test]
fn a_store_never_changes_its_node_or_cluster_nor_counts_starts_back() {
    let body = |owner: Owner| {
        let mut body = Gather::new();
        owner.put(&mut body);
        body.take().concat()
    };
    let bound = Owner { node: Some(1), boot: 4, cluster: Some(ClusterId(7)) };
    forge(async |mut forger| {
        for other in [
            Owner { node: Some(2), ..bound },
            Owner { node: None, ..bound },
            Owner { cluster: Some(ClusterId(8)), ..bound },
            Owner { cluster: None, ..bound },
            Owner { boot: 3, ..bound },
        ] {
            forger.clear();
            forger.put(OWNER, forger.end(), &body(bound));
            let at = forger.put(OWNER, forger.end(), &body(other));
            forger.refused_at(at, &format!("{other:?}")).await;
        }
        forger.clear();
        forger.put(OWNER, forger.end(), &body(bound));
        let cluster = [&[18, 0, 0, 0, 0x82, 16][..], &8u128.to_le_bytes()].concat();
        let at = forger.put(WRITE, forger.end(), &cluster);
        forger.refused_at(at, "another cluster in a write").await;

        forger.clear();
        forger.put(OWNER, forger.end(), &body(Owner::default()));
        forger.put(OWNER, forger.end(), &body(bound));
        forger.put(OWNER, forger.end(), &body(bound));
        forger.accepted().await;
    });
}

/// A copy says that the log holds these entries.
#[test]
fn a_copy_is_of_entries_that_the_log_holds() {
    const FIELDS: &[u8] = &[4, 0, 0, 0, 99, 2, 9, 9];
    forge(async |mut forger| {
        for (body, what) in [(NOTHING, "of nothing"), (FIELDS, "with a field")] {
            forger.clear();
            forger.put_batch();
            let at = forger.put(COPY, forger.end(), body);
            forger.refused_at(at, what).await;
        }
        let held = [entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")];
        let cases = [
            (1, vec![entry(1, 4, "d")], "beyond its end"),
            (1, vec![entry(2, 2, "b")], "another one"),
            (1, vec![entry(1, 2, "another length")], "another one by its length"),
            (1, vec![entry(1, 3, "c"), entry(1, 4, "d")], "in part"),
            (2, vec![entry(1, 1, "a")], "of another group"),
        ];
        for (group, copied, what) in cases {
            forger.clear();
            forger.put_entries(1, &held, false);
            let at = forger.put_entries(group, &copied, true);
            forger.refused_at(at, what).await;
        }
        forger.clear();
        forger.put_entries(1, &held, false);
        forger.put_entries(1, &held[1..], true);
        forger.put_entries(1, &[entry(1, 4, "d")], false);
        forger.put_entries(1, &held[..2], true);
        forger.put_entries(1, &held[..2], true);
        forger.accepted().await;
        let store = forger.scene.open().await;
        assert_eq!(all(&store, 1).await.len(), 4);
    });
}

/// A later version may write what this one does not know, and says of it whether it may be skipped.
#[test]
fn a_record_of_an_unknown_kind_is_skipped_or_refused() {
    forge(async |mut forger| {
        forger.put_batch();
        forger.put(9, forger.end(), b"to be skipped");
        forger.put_batch();
        forger.accepted().await;

        forger.clear();
        forger.put_batch();
        let at = forger.put(0x8000_0009, forger.end(), b"not to be skipped");
        forger.save();
        let before = forger.scene.content(1);
        let (path, offset) = (forger.scene.segment(1), at.offset);
        let checked = FileStore::check(&forger.scene.rt, &forger.scene.dir).await;
        for error in [forger.scene.try_open().await.map(drop), checked.map(drop)] {
            match error {
                Err(StoreError::Unsupported { file, offset: found, reason }) => {
                    assert_eq!((&file, found), (&path, offset));
                    assert!(reason.starts_with("a record of unknown kind 9: "), "{reason}");
                }
                opened => panic!("{opened:?}"),
            }
            forger.scene.closed().await;
        }
        assert!(forger.scene.content(1) == before, "nothing is changed");
    });
}

/// A segment gets its first record only after the one before is durable to its last record.
#[test]
fn a_segment_follows_on_the_end_of_the_one_before() {
    forge(async |mut forger| {
        forger.put_batch();
        let second = forger.put_batch();
        forger.next_segment();
        let at = forger.put(WRITE, second, NOTHING);
        forger.refused_at(at, "the last batch before").await;
    });
}

#[test]
fn what_is_missing_stood_where_the_log_ends_or_in_a_later_segment() {
    forge(async |mut forger| {
        forger.put_batch();
        let end = forger.end();
        forger.next_segment();
        let next = forger.end();
        forger.put(WRITE, next, NOTHING);
        forger.refused_at(end, "it says nothing of its own segment").await;

        forger.clear();
        forger.put_batch();
        forger.next_segment();
        forger.put_batch();
        let second = forger.put_batch();
        let content = forger.segments.last_mut().unwrap();
        content[next.offset as usize..second.offset as usize].fill(0);
        forger.refused_at(next, "it says that its own segment began before").await;
    });
}

/// After its body the search goes on behind its first bytes, which have left the memory.
#[test]
fn a_torn_record_larger_than_what_is_read_at_once_is_no_sync_marker() {
    forge(async |mut forger| {
        forger.put_batch();
        let content = forger.segments.last_mut().unwrap();
        content.resize(content.len() + 64, 0);
        let mut body = vec![0; 5 << 20];
        body[..16].fill(1);
        forger.put(BEGIN, forger.end(), &body);
        let content = forger.segments.last_mut().unwrap();
        *content.last_mut().unwrap() = 1;
        let len = content.len();
        forger.accepted().await;
        assert_eq!(forger.scene.content(1).len(), len, "what is torn is zeroed, and nothing more");
    });
}
