//! Snapshots: what they are of, how a state machine writes and restores them, and the serde form
//! for one that is small.

use std::fmt;
use std::io;

use bytes::{Bytes, BytesMut};
use quorate_rt::yield_now;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::encoding;
use crate::error::{SnapshotError, StoreError};
use crate::log_store::{SnapshotContent, SnapshotDraft};
use crate::membership::Membership;
use crate::types::{Index, LogId};

/// What a snapshot is of, and how to tell that it is whole. Two with the same digest and log id are
/// the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub log_id: LogId,
    /// The largest time of an entry that it covers, in milliseconds since the Unix epoch: no later
    /// entry has a smaller one.
    pub time: u64,
    /// The configuration in force at that entry.
    pub membership: Membership,
    /// The entry that brought it.
    pub membership_index: Index,
    /// The length of its content, in bytes.
    pub bytes: u64,
    /// The digest of its content.
    pub digest: Digest,
}

/// The BLAKE3 hash of a snapshot's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; Self::BYTES]);

impl Digest {
    /// Its length.
    pub const BYTES: usize = 32;

    /// Of these bytes.
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for Digest {
    /// The first four bytes, which are enough for a reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Computes a [`Digest`] from chunks.
#[derive(Default)]
pub(crate) struct Digester {
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Digester {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// How the content of a state machine becomes a snapshot, and is restored from one.
///
/// Whatever serde can serialize and deserialize has it already, and its view is its serialized
/// form: good for a state that is small. A large one implements this itself (and not serde's
/// traits): its view is cheap, such as a persistent map's clone, and is written as a stream.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::rc::Rc;
/// use quorate_core::{Snapshot, SnapshotError, SnapshotReader, SnapshotWriter};
///
/// /// The latest of many large values: a change replaces one, and a view holds on to the old ones.
/// #[derive(Default)]
/// struct Blobs(BTreeMap<u64, Rc<Vec<u8>>>);
///
/// impl Snapshot for Blobs {
///     type View = BTreeMap<u64, Rc<Vec<u8>>>;
///
///     fn view(&self) -> Result<Self::View, SnapshotError> {
///         Ok(self.0.clone())
///     }
///
///     async fn write(view: Self::View, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
///         for (id, blob) in view {
///             to.write(&id.to_le_bytes()).await?;
///             to.write(&(blob.len() as u64).to_le_bytes()).await?;
///             to.write(&blob).await?;
///         }
///         Ok(())
///     }
///
///     async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
///         self.0.clear();
///         while from.remaining() > 0 {
///             let (id, len) = (from.read_u64().await?, from.read_u64().await?);
///             self.0.insert(id, Rc::new(from.read(len).await?.to_vec()));
///         }
///         Ok(())
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "the state `{Self}` has no snapshot",
    label = "can't be written and restored",
    note = "derive `Serialize` and `Deserialize` for it and all that it consists of",
    note = "or implement `Snapshot`, which suits a large state"
)]
pub trait Snapshot: Sized + 'static {
    /// The state at one moment, from which it can be written while the state itself changes.
    type View: 'static;

    /// Takes a view of the state as it is. Applying waits for it.
    ///
    /// Errors: it can't be taken. The node goes on without a new snapshot.
    fn view(&self) -> Result<Self::View, SnapshotError>;

    /// Writes what a view shows. The same state must give the same bytes wherever it is written, or
    /// replicas can't be compared by them. It shares its thread with the node: each
    /// [`write`](SnapshotWriter::write) lets that go on from time to time, but what is computed in
    /// between should be short.
    ///
    /// Errors: those of the writer, or of its own. The node goes on without a new snapshot.
    async fn write(view: Self::View, to: &mut SnapshotWriter) -> Result<(), SnapshotError>;

    /// Checks that what was written can be restored. The node calls it when a snapshot of its own
    /// is durable, and purges nothing of the log behind it before; a snapshot that comes from a
    /// leader is restored instead.
    ///
    /// The default reads all of it, so that its digest is compared: enough where
    /// [`write`](Self::write) can't write what [`restore`](Self::restore) can't read. What serde
    /// knows is decoded and dropped.
    ///
    /// # Errors
    ///
    /// Those of the reader, or of its own. The node goes on with the snapshot before and with its
    /// whole log.
    async fn check(from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        while from.remaining() > 0 {
            from.read(from.remaining().min(CHUNK_BYTES as u64)).await?;
        }
        Ok(())
    }

    /// Replaces the state with the snapshot's content, of which nothing must be left over.
    ///
    /// # Errors
    ///
    /// Those of the reader, or of its own. They stop the node, as it has no state then. Where the
    /// snapshot has come from the leader, the node's log and the snapshot before are as they were.
    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Snapshot for T {
    type View = Bytes;

    fn view(&self) -> Result<Self::View, SnapshotError> {
        encoding::encode(self).map_err(SnapshotError::StateMachine)
    }

    async fn write(view: Self::View, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        to.write_bytes(view).await
    }

    async fn check(from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        decode::<Self>(from).await.map(drop)
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        *self = decode(from).await?;
        Ok(())
    }
}

async fn decode<T: DeserializeOwned>(from: &mut SnapshotReader) -> Result<T, SnapshotError> {
    let content = from.read(from.remaining()).await?;
    encoding::decode(&content).map_err(SnapshotError::StateMachine)
}

/// What is handed to the store at once, in bytes: large enough that its fixed cost vanishes, small
/// enough to take no time.
const CHUNK_BYTES: usize = 256 << 10;

/// Takes the content of a snapshot. It holds at most one chunk of 256 KiB in memory.
pub struct SnapshotWriter {
    draft: Box<dyn SnapshotDraft>,
    chunk: BytesMut,
    digester: Digester,
}

impl SnapshotWriter {
    /// Writes to a draft. (The node makes these; a test of a state machine may, too.)
    pub fn new(draft: Box<dyn SnapshotDraft>) -> Self {
        Self { draft, chunk: BytesMut::new(), digester: Digester::default() }
    }

    /// Appends a copy of these bytes.
    ///
    /// Errors: the store's.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.chunk.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Appends these bytes, without a copy where they are many.
    ///
    /// Errors: the store's.
    pub async fn write_bytes(&mut self, mut bytes: Bytes) -> Result<(), SnapshotError> {
        if bytes.len() < CHUNK_BYTES {
            return self.write(&bytes).await;
        }
        self.flush().await?;
        while !bytes.is_empty() {
            let chunk = bytes.split_to(CHUNK_BYTES.min(bytes.len()));
            self.put(chunk).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), SnapshotError> {
        match self.chunk.is_empty() {
            true => Ok(()),
            false => {
                let chunk = self.chunk.split().freeze();
                self.put(chunk).await
            }
        }
    }

    async fn put(&mut self, chunk: Bytes) -> Result<(), SnapshotError> {
        self.digester.update(&chunk);
        self.draft.write(chunk).await?;
        // A store in memory never waits, and the node must not wait for a whole snapshot.
        yield_now().await;
        Ok(())
    }

    /// Hands over what is left; the draft, the length of the content and its digest.
    pub async fn end(mut self) -> Result<(Box<dyn SnapshotDraft>, u64, Digest), SnapshotError> {
        self.flush().await?;
        Ok((self.draft, self.digester.bytes(), self.digester.digest()))
    }
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter").finish_non_exhaustive()
    }
}

/// Gives the content of a snapshot, from front to back. It holds one chunk of 256 KiB in memory,
/// besides what was asked for.
pub struct SnapshotReader {
    content: Box<dyn SnapshotContent>,
    bytes: u64,
    chunk: Bytes,
    digester: Digester,
}

impl SnapshotReader {
    /// Reads a content of so many bytes. (The node makes these; a test of a state machine may,
    /// too.)
    pub fn new(content: Box<dyn SnapshotContent>, bytes: u64) -> Self {
        Self { content, bytes, chunk: Bytes::new(), digester: Digester::default() }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> u64 {
        self.bytes - self.digester.bytes() + self.chunk.len() as u64
    }

    /// The next `len` bytes.
    ///
    /// Errors: the store's, or there are not so many. A claim of many bytes allocates no more than
    /// there are.
    pub async fn read(&mut self, len: u64) -> Result<Bytes, SnapshotError> {
        if len > self.remaining() {
            let reason = format!("{len} bytes wanted where {} are left", self.remaining());
            return Err(SnapshotError::state_machine(reason));
        }
        // It can't be more than there are on this machine's disk, but may be more than it
        // addresses.
        let len = usize::try_from(len).map_err(SnapshotError::state_machine)?;
        if self.chunk.is_empty() {
            self.fill().await?;
        }
        if len <= self.chunk.len() {
            return Ok(self.chunk.split_to(len));
        }
        let mut bytes = BytesMut::with_capacity(len);
        while bytes.len() < len {
            if self.chunk.is_empty() {
                self.fill().await?;
            }
            let part = self.chunk.split_to(self.chunk.len().min(len - bytes.len()));
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    }

    /// The next 8 bytes, as a little-endian number.
    ///
    /// Errors: the store's, or there are not so many.
    pub async fn read_u64(&mut self) -> Result<u64, SnapshotError> {
        let bytes = self.read(8).await?;
        let bytes = bytes[..].try_into().map_err(SnapshotError::state_machine)?;
        Ok(u64::from_le_bytes(bytes))
    }

    async fn fill(&mut self) -> Result<(), SnapshotError> {
        let at = self.digester.bytes();
        if at == self.bytes {
            return Ok(());
        }
        let max_bytes = (self.bytes - at).min(CHUNK_BYTES as u64) as usize;
        let chunk = read_exactly(&*self.content, at, max_bytes).await?;
        self.digester.update(&chunk);
        self.chunk = chunk;
        yield_now().await;
        Ok(())
    }

    /// The digest of the whole content.
    ///
    /// Errors: not all of it was read.
    pub fn end(self) -> Result<Digest, SnapshotError> {
        match self.remaining() {
            0 => Ok(self.digester.digest()),
            rest => Err(SnapshotError::state_machine(format!("{rest} bytes were left unread"))),
        }
    }
}

impl SnapshotReader {
    /// Ends it where all was read and has this digest.
    pub(crate) fn end_as(self, expected: Digest) -> Result<(), SnapshotError> {
        match self.end()? {
            digest if digest == expected => Ok(()),
            digest => {
                let reason = format!("its digest is {digest}, not {expected}");
                Err(SnapshotError::StateMachine(reason))
            }
        }
    }
}

/// So many bytes from `offset` on, where a snapshot is said to have them.
pub(crate) async fn read_exactly(
    content: &dyn SnapshotContent,
    offset: u64,
    bytes: usize,
) -> Result<Bytes, StoreError> {
    let read = content.read(offset, bytes).await?;
    if read.len() == bytes {
        return Ok(read);
    }
    let what =
        format!("reading {bytes} bytes of a snapshot at offset {offset}: got {}", read.len());
    Err(StoreError::io(what, io::ErrorKind::UnexpectedEof.into()))
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
