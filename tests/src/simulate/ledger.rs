//! What the simulated clusters replicate: registers that count their writes, so that an answer
//! tells its place in the order of all.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate::sim::Sim;
use quorate::{
    At, Command, NodeId, Snapshot, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine,
};

use super::observer::Observer;

/// A register. Others can't have the same value and another version, or the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// How often it was written.
    pub version: u64,
    /// The write that was last.
    pub value: u64,
}

/// Writes a value to a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub key: u64,
    /// Names this write among all of a run.
    pub value: u64,
    /// What makes it large.
    pub padding: Bytes,
}

const PUT_BYTES: usize = 16;

/// No node can read a write to this one.
pub const UNREADABLE_KEY: u64 = u64::MAX;

impl Command for Put {
    fn encode(self) -> Result<Bytes, String> {
        let mut bytes = BytesMut::with_capacity(PUT_BYTES + self.padding.len());
        bytes.put_u64_le(self.key);
        bytes.put_u64_le(self.value);
        bytes.put(self.padding);
        Ok(bytes.freeze())
    }

    fn decode(bytes: &Bytes) -> Result<Self, String> {
        let mut bytes = bytes.clone();
        if bytes.len() < PUT_BYTES {
            return Err("too short".to_owned());
        }
        let (key, value) = (bytes.get_u64_le(), bytes.get_u64_le());
        if key == UNREADABLE_KEY {
            return Err("there is no such register".to_owned());
        }
        Ok(Self { key, value, padding: bytes })
    }
}

/// The registers of a node.
pub struct Ledger {
    rt: Sim,
    node: NodeId,
    /// None in a process that is no node of the cluster.
    observer: Option<Rc<Observer>>,
    registers: BTreeMap<u64, (Register, Bytes)>,
    /// How many commands were applied, in all the lives of this state.
    applied: u64,
    /// A hash over all of them, in their order.
    chain: u32,
}

impl Ledger {
    pub fn new(rt: Sim, node: NodeId, observer: Option<Rc<Observer>>) -> Self {
        Self { rt, node, observer, registers: BTreeMap::new(), applied: 0, chain: 0 }
    }

    pub fn get(&self, key: u64) -> Register {
        self.registers.get(&key).map_or(Register::default(), |(register, _)| *register)
    }

    /// How many commands it consists of, and their hash.
    pub fn extent(&self) -> (u64, u32) {
        (self.applied, self.chain)
    }

    /// All of it, as the snapshot has it.
    pub fn encoded(&self) -> Bytes {
        encode(self.applied, self.chain, &self.registers)
    }
}

impl StateMachine for Ledger {
    type Command = Put;
    type Response = Register;

    async fn apply(&mut self, put: Put, _: At) -> Register {
        let Put { key, value, padding } = put;
        let mut hasher = crc32fast::Hasher::new_with_initial(self.chain);
        hasher.update(&key.to_le_bytes());
        hasher.update(&value.to_le_bytes());
        hasher.update(&padding);
        self.chain = hasher.finalize();
        self.applied += 1;
        let (register, kept) = self.registers.entry(key).or_default();
        *register = Register { version: register.version + 1, value };
        *kept = padding;
        let register = *register;
        if let Some(observer) = &self.observer {
            observer.applied(self.node, self.applied, self.chain);
            observer.while_applying(&self.rt).await;
        }
        register
    }
}

fn encode(applied: u64, chain: u32, registers: &BTreeMap<u64, (Register, Bytes)>) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u64_le(applied);
    bytes.put_u64_le(chain.into());
    for (key, (register, padding)) in registers {
        for number in [*key, register.version, register.value, padding.len() as u64] {
            bytes.put_u64_le(number);
        }
        bytes.put_slice(padding);
    }
    bytes.freeze()
}

/// What [`encode`] has written.
async fn read(
    from: &mut SnapshotReader,
) -> Result<(u64, u32, BTreeMap<u64, (Register, Bytes)>), SnapshotError> {
    let applied = from.read_u64().await?;
    let chain = from.read_u64().await?;
    let mut registers = BTreeMap::new();
    while from.remaining() > 0 {
        let key = from.read_u64().await?;
        let register = Register { version: from.read_u64().await?, value: from.read_u64().await? };
        let len = from.read_u64().await?;
        registers.insert(key, (register, from.read(len).await?));
    }
    Ok((applied, u32::try_from(chain).map_err(SnapshotError::state_machine)?, registers))
}

impl Snapshot for Ledger {
    type View = Bytes;

    fn view(&self) -> Result<Bytes, SnapshotError> {
        Ok(self.encoded())
    }

    async fn write(view: Bytes, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        to.write_bytes(view).await
    }

    async fn check(from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        read(from).await.map(drop)
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        (self.applied, self.chain, self.registers) = read(from).await?;
        if let Some(observer) = &self.observer {
            observer.restored(self.node, self.applied, self.chain);
        }
        Ok(())
    }
}
