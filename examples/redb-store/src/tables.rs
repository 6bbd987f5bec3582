//! What the database holds, and the transactions that change it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate::codec::{self, DecodeError, Gather};
use quorate::{
    Entry, GroupId, Identity, Index, LogId, LogMeta, LogWrite, NodeId, Recovered, SnapshotMeta,
    Standing,
};
use redb::{Error, ReadTransaction, ReadableTable, TableDefinition as Table, WriteTransaction};

/// The node, the incarnation, the cluster, and how often a node has started, by name.
pub(crate) const STORE: Table<&str, u128> = Table::new("store");
/// What is replaced as a whole, by group: see the constants below.
const PARTS: Table<(GroupId, u8), &[u8]> = Table::new("parts");
/// The entry before the first one of each log: its term, leader and index.
const PURGED: Table<GroupId, (u64, u64, Index)> = Table::new("purged");
const ENTRIES: Table<(GroupId, Index), &[u8]> = Table::new("entries");
/// What each finished snapshot is of, by group, last index and number.
pub(crate) const SNAPSHOTS: Table<(GroupId, Index, u64), &[u8]> = Table::new("snapshots");
/// The contents of snapshots, finished or not, by number and offset.
pub(crate) const CHUNKS: Table<(u64, u64), &[u8]> = Table::new("chunks");

const HARD_STATE: u8 = 0;
const STANDING: u8 = 1;
const MARKS: u8 = 2;
const SNAPSHOT: u8 = 3;

fn checksum((one, other): (u64, u64), bytes: &[u8]) -> [u8; 4] {
    let mut checksum = crc32fast::Hasher::new();
    for bytes in [&one.to_le_bytes()[..], &other.to_le_bytes(), bytes] {
        checksum.update(bytes);
    }
    checksum.finalize().to_le_bytes()
}

/// The value for this key: the bytes, after a checksum of both.
pub(crate) fn sealed(key: (u64, u64), bytes: &[u8]) -> Vec<u8> {
    [&checksum(key, bytes)[..], bytes].concat()
}

/// The bytes of a value, if it is whole and this key's.
pub(crate) fn unsealed(key: (u64, u64), value: &[u8]) -> Result<&[u8], Error> {
    match value.split_first_chunk() {
        Some((sum, bytes)) if *sum == checksum(key, bytes) => Ok(bytes),
        _ => Err(Error::Corrupted(format!("the checksum of {key:?} does not match"))),
    }
}

fn encoded(key: (u64, u64), put: impl FnOnce(&mut Gather)) -> Vec<u8> {
    let mut bytes = Gather::new();
    put(&mut bytes);
    sealed(key, &bytes.take().concat())
}

/// A snapshot's description, as in [`SNAPSHOTS`] and in the group's part that names it.
pub(crate) fn encoded_meta(group: GroupId, meta: &SnapshotMeta) -> Vec<u8> {
    encoded((group, SNAPSHOT.into()), |to| codec::put_snapshot_meta(to, meta))
}

fn decoded<T>(
    key: (u64, u64),
    value: &[u8],
    take: fn(&mut Bytes) -> Result<T, DecodeError>,
) -> Result<T, Error> {
    let taken = take(&mut Bytes::copy_from_slice(unsealed(key, value)?));
    taken.map_err(|error| Error::Corrupted(error.to_string()))
}

/// Makes the tables, draws the incarnation of a new store, and forgets each snapshot that no write
/// has named.
pub(crate) fn prepare(tx: &WriteTransaction, random: u64) -> Result<(), Error> {
    let mut store = tx.open_table(STORE)?;
    if store.get("incarnation")?.is_none() {
        store.insert("incarnation", u128::from(random.max(1)))?;
    }
    tx.open_table(PURGED)?;
    tx.open_table(ENTRIES)?;
    let (mut named, mut kept) = (BTreeMap::new(), BTreeSet::new());
    for part in tx.open_table(PARTS)?.iter()? {
        let (key, meta) = part?;
        if let (group, SNAPSHOT) = key.value() {
            named.insert(group, meta.value().to_vec());
        }
    }
    tx.open_table(SNAPSHOTS)?.retain(|(group, _, number), meta| {
        let keep = named.get(&group).is_some_and(|named| named == meta);
        keep && kept.insert(number)
    })?;
    tx.open_table(CHUNKS)?.retain(|(number, _), _| kept.contains(&number))?;
    Ok(())
}

/// Counts a start of the node. Gives the node that the store belongs to, if that is another one.
pub(crate) fn start(
    tx: &WriteTransaction,
    node: NodeId,
) -> Result<Result<Identity, NodeId>, Error> {
    let mut store = tx.open_table(STORE)?;
    let number = |name| Ok::<_, Error>(store.get(name)?.map(|number| number.value()));
    let (holds, incarnation, boot) = (number("node")?, number("incarnation")?, number("boot")?);
    let cluster = number("cluster")?.map(quorate::ClusterId);
    match holds.map(|holds| holds as NodeId) {
        Some(holds) if holds != node => return Ok(Err(holds)),
        _ => store.insert("node", u128::from(node))?,
    };
    let boot = boot.unwrap_or_default() as u64 + 1;
    store.insert("boot", u128::from(boot))?;
    Ok(Ok(Identity { incarnation: incarnation.unwrap_or_default() as u64, cluster, boot }))
}

pub(crate) fn apply(tx: &WriteTransaction, group: GroupId, write: &LogWrite) -> Result<(), Error> {
    if let Some(cluster) = write.cluster {
        tx.open_table(STORE)?.insert("cluster", cluster.0)?;
    }
    let part = |part: u8, put: &dyn Fn(&mut Gather)| (part, encoded((group, part.into()), put));
    let parts = [
        write.hard_state.as_ref().map(|it| part(HARD_STATE, &|to| codec::put_hard_state(to, it))),
        write.standing.as_ref().map(|it| part(STANDING, &|to| codec::put_standing(to, it))),
        write.marks.as_ref().map(|it| part(MARKS, &|to| codec::put_marks(to, it))),
        write.snapshot.as_ref().map(|it| (SNAPSHOT, encoded_meta(group, it))),
    ];
    for (part, bytes) in parts.into_iter().flatten() {
        tx.open_table(PARTS)?.insert((group, part), &bytes[..])?;
    }
    if let Some(meta) = &write.snapshot {
        forget_snapshots(tx, group, meta.log_id.index)?;
    }
    if let Some(to) = write.purge {
        purge(tx, group, to)?;
    }
    let mut entries = tx.open_table(ENTRIES)?;
    if let Some(first) = write.entries.first() {
        entries.retain_in((group, first.log_id.index)..=(group, Index::MAX), |_, _| false)?;
    }
    for entry in &write.entries {
        let key = (group, entry.log_id.index);
        entries.insert(key, &encoded(key, |to| codec::put_entry(to, entry))[..])?;
    }
    Ok(())
}

/// Forgets the snapshots before this index.
fn forget_snapshots(tx: &WriteTransaction, group: GroupId, before: Index) -> Result<(), Error> {
    let (mut snapshots, mut chunks) = (tx.open_table(SNAPSHOTS)?, tx.open_table(CHUNKS)?);
    let earlier = (group, 0, 0)..(group, before, 0);
    for snapshot in snapshots.extract_from_if(earlier, |_, _| true)? {
        let (_, _, number) = snapshot?.0.value();
        chunks.retain_in((number, 0)..=(number, u64::MAX), |_, _| false)?;
    }
    Ok(())
}

fn purge(tx: &WriteTransaction, group: GroupId, to: LogId) -> Result<(), Error> {
    let (mut purged, mut entries) = (tx.open_table(PURGED)?, tx.open_table(ENTRIES)?);
    if purged.get(group)?.is_some_and(|before| to.index <= before.value().2) {
        return Ok(());
    }
    purged.insert(group, (to.term.0, to.leader, to.index))?;
    let key = (group, to.index);
    let last = entries.get(key)?;
    let last = last.map(|value| decoded(key, value.value(), codec::take_entry)).transpose()?;
    // Where the log does not hold this very entry, a snapshot takes the place of all of it.
    let is_held = last.is_some_and(|last| last.log_id == to);
    let end = if is_held { to.index } else { Index::MAX };
    entries.retain_in((group, 0)..=(group, end), |_, _| false)?;
    Ok(())
}

/// Nothing is left of the group, but that it is spent.
pub(crate) fn remove(tx: &WriteTransaction, group: GroupId) -> Result<(), Error> {
    let mut parts = tx.open_table(PARTS)?;
    let key = (group, STANDING.into());
    let standing = parts.get((group, STANDING))?;
    let standing = standing.map(|value| decoded(key, value.value(), codec::take_standing));
    let is_spent = standing.transpose()? == Some(Standing::Spent);
    let all = (group, 0)..=(group, u8::MAX);
    parts.retain_in(all, |(_, part), _| part == STANDING && is_spent)?;
    tx.open_table(PURGED)?.remove(group)?;
    tx.open_table(ENTRIES)?.retain_in((group, 0)..=(group, Index::MAX), |_, _| false)?;
    forget_snapshots(tx, group, Index::MAX)
}

pub(crate) fn recover(tx: &ReadTransaction, group: GroupId) -> Result<Recovered, Error> {
    let parts = tx.open_table(PARTS)?;
    let mut recovered = Recovered::default();
    for row in parts.range((group, 0)..=(group, u8::MAX))? {
        let (key, value) = row?;
        let (part, value) = (key.value().1, value.value());
        let key = (group, part.into());
        match part {
            HARD_STATE => recovered.hard_state = decoded(key, value, codec::take_hard_state)?,
            STANDING => recovered.standing = decoded(key, value, codec::take_standing)?,
            MARKS => recovered.marks = decoded(key, value, codec::take_marks)?,
            SNAPSHOT => {
                recovered.snapshot = Some(decoded(key, value, codec::take_snapshot_meta)?);
            }
            part => return Err(Error::Corrupted(format!("part {part} of group {group}"))),
        }
    }
    let mut log = LogMeta::after(purged(tx, group)?);
    for row in tx.open_table(ENTRIES)?.range((group, 0)..=(group, Index::MAX))? {
        let (key, value) = row?;
        let entry = decoded(key.value(), value.value(), codec::take_entry)?;
        if !log.follows(entry.log_id) {
            return Err(Error::Corrupted(format!("{} follows {}", entry.log_id, log.last())));
        }
        log.push(&entry);
    }
    Ok(Recovered { log_meta: log, ..recovered })
}

fn purged(tx: &ReadTransaction, group: GroupId) -> Result<LogId, Error> {
    let purged = tx.open_table(PURGED)?.get(group)?.map(|purged| purged.value());
    Ok(purged.map_or(LogId::ZERO, |(term, leader, index)| LogId::new(term, leader, index)))
}

/// The entries of this range, as many as fit; or the index of one that is not there.
pub(crate) fn read(
    tx: &ReadTransaction,
    group: GroupId,
    range: std::ops::Range<Index>,
    max_bytes: usize,
) -> Result<Result<Vec<Entry>, Index>, Error> {
    let table = tx.open_table(ENTRIES)?;
    if range.start <= purged(tx, group)?.index {
        return Ok(Err(range.start));
    }
    if table.get((group, range.end - 1))?.is_none() {
        return Ok(Err(range.end - 1));
    }
    let (mut entries, mut bytes) = (Vec::new(), 0);
    let rows = table.range((group, range.start)..(group, range.end))?;
    for (index, row) in range.clone().zip(rows) {
        // The checksum is of the key that must be here, whichever there is.
        let entry = decoded((group, index), row?.1.value(), codec::take_entry)?;
        bytes += entry.bytes();
        if bytes > max_bytes && !entries.is_empty() {
            return Ok(Ok(entries));
        }
        entries.push(entry);
    }
    if entries.len() as u64 != range.end - range.start {
        return Err(Error::Corrupted(format!("not all of {range:?} of group {group} is there")));
    }
    Ok(Ok(entries))
}
