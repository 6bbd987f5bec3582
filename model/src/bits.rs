//! Packs the fields of a state into words.

/// Fields one after another, from the lowest bit of the first word on.
#[derive(Clone, Copy, Debug)]
pub struct Bits<const N: usize> {
    /// The words so far.
    pub words: [u64; N],
    used: u32,
}

impl<const N: usize> Bits<N> {
    /// Returns no fields at all.
    pub fn empty() -> Self {
        Self::of([0; N])
    }

    /// Returns the fields in these words, to be taken in the order in which they were put.
    pub fn of(words: [u64; N]) -> Self {
        Self { words, used: 0 }
    }

    /// Adds a field of this many bits.
    ///
    /// # Panics
    ///
    /// If the value has more bits than that.
    pub fn put(&mut self, value: u64, bits: u32) {
        assert!(value < 1 << bits, "{value} has more than {bits} bits");
        let (word, shift) = ((self.used / 64) as usize, self.used % 64);
        self.words[word] |= value << shift;
        if shift + bits > 64 {
            self.words[word + 1] |= value >> (64 - shift);
        }
        self.used += bits;
    }

    /// Returns the next field of this many bits.
    pub fn take(&mut self, bits: u32) -> u64 {
        let (word, shift) = ((self.used / 64) as usize, self.used % 64);
        let mut value = self.words[word] >> shift;
        if shift + bits > 64 {
            value |= self.words[word + 1] << (64 - shift);
        }
        self.used += bits;
        value & ((1 << bits) - 1)
    }
}
