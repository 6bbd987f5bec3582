//! Logs and configurations of the model of replication, and who agrees in a configuration.

use std::fmt;

/// The stores: the disks of nodes 1, 2 and 3, and the new disk of node 3.
pub const STORES: usize = 4;

/// The new disk of node 3.
pub const NEW: usize = 3;

/// How the stores are called in a trace.
pub const NAMES: [&str; STORES] = ["1", "2", "3", "3'"];

/// A set of stores, a bit each.
pub type Stores = u8;

/// The disks of the founding configuration.
const OLD_VOTERS: Stores = 0b0111;
/// The voters once the exchange is over.
const NEW_VOTERS: Stores = 0b1011;
/// Both disks of node 3.
const NODE_3: Stores = 0b1100;

/// Returns the set of both disks of a node, if one of them is in `set`.
pub fn by_node(set: Stores) -> Stores {
    if set & NODE_3 == 0 { set } else { set | NODE_3 }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command or a no-op entry.
    Data,
    /// The configuration in which 3' is a learner.
    Learner,
    /// The joint configuration.
    Joint,
    /// The configuration in which 3' has the place of 3.
    New,
}

/// The configuration in force: the last one in a log, committed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// Nodes 1, 2 and 3 with their first disks. The entry that says so is not part of the logs.
    Old,
    /// The same voters; 3' is a learner.
    Learner,
    /// Both 1, 2, 3 and 1, 2, 3' have to agree.
    Joint,
    /// Nodes 1, 2 and 3' vote.
    New,
}

impl Configuration {
    /// Returns whether this is a voter.
    pub fn votes(self, store: usize) -> bool {
        let voters = match self {
            Self::Old | Self::Learner => OLD_VOTERS,
            Self::Joint => OLD_VOTERS | NEW_VOTERS,
            Self::New => NEW_VOTERS,
        };
        voters >> store & 1 == 1
    }

    /// Returns whether those who agree are a quorum: a majority of each half.
    pub fn agrees(self, set: Stores) -> bool {
        let majority = |voters: Stores| (set & voters).count_ones() >= 2;
        match self {
            Self::Old | Self::Learner => majority(OLD_VOTERS),
            Self::Joint => majority(OLD_VOTERS) && majority(NEW_VOTERS),
            Self::New => majority(NEW_VOTERS),
        }
    }
}

/// Bits of an entry: two for the term (never zero), two for the kind.
const ENTRY: usize = 4;

/// A log of at most [`Log::MAX`] entries. Indexes begin with one.
///
/// An entry is a term and a kind. That is enough to tell entries apart as long as a term has one
/// leader, and two leaders of a term are a violation by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log(u32);

impl Log {
    /// The most entries that a log has room for.
    pub const MAX: usize = 5;
    /// The bits of a packed log.
    pub const BITS: u32 = (ENTRY * Self::MAX) as u32;

    /// Packs the log.
    pub fn bits(self) -> u64 {
        self.0.into()
    }

    /// Returns the log that was packed to this.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits as u32)
    }

    /// Returns the index of the last entry.
    pub fn len(self) -> usize {
        (32 - self.0.leading_zeros() as usize).div_ceil(ENTRY)
    }

    /// Returns whether there is no entry.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn at(self, index: usize) -> u32 {
        self.0 >> (ENTRY * (index - 1)) & 0xf
    }

    /// Returns the term of an entry, and zero beyond the end and at index zero.
    pub fn term(self, index: usize) -> usize {
        if index == 0 { 0 } else { self.at(index) as usize >> 2 }
    }

    /// Returns what an entry holds.
    pub fn kind(self, index: usize) -> Kind {
        match self.at(index) & 3 {
            0 => Kind::Data,
            1 => Kind::Learner,
            2 => Kind::Joint,
            _ => Kind::New,
        }
    }

    /// Returns the log with one entry more.
    pub fn with(self, term: usize, kind: Kind) -> Self {
        let entry = (term as u32) << 2 | kind as u32;
        Self(self.0 | entry << (ENTRY * self.len()))
    }

    /// Returns the first `len` entries.
    pub fn prefix(self, len: usize) -> Self {
        Self(self.0 & ((1 << (ENTRY * len)) - 1))
    }

    /// Returns how many entries from the first on are the same in both.
    pub fn common(self, other: Self) -> usize {
        let same = (self.0 ^ other.0).trailing_zeros() as usize / ENTRY;
        same.min(self.len()).min(other.len())
    }

    /// Returns what votes compare: the term of the last entry, then its index.
    pub fn last_id(self) -> (usize, usize) {
        (self.term(self.len()), self.len())
    }

    /// Returns the index of the last configuration, and that configuration.
    pub fn configuration(self) -> (usize, Configuration) {
        for index in (1..=self.len()).rev() {
            match self.kind(index) {
                Kind::Data => {}
                Kind::Learner => return (index, Configuration::Learner),
                Kind::Joint => return (index, Configuration::Joint),
                Kind::New => return (index, Configuration::New),
            }
        }
        (0, Configuration::Old)
    }

    /// Returns whether two logs that share a log id share everything before it, too.
    pub fn matches(self, other: Self) -> bool {
        let both = self.len().min(other.len());
        (self.common(other) + 1..=both).all(|index| self.term(index) != other.term(index))
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let entry = |index| format!("{}.{index} {:?}", self.term(index), self.kind(index));
        f.write_str(&(1..=self.len()).map(entry).collect::<Vec<_>>().join(", "))
    }
}
