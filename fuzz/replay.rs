//! The property of a fuzz target holds for every file of its corpus, and for mutations of those
//! files, which are the same every time. The test `corpus` of each crate with a target includes
//! this file. Published crates do not contain that test, because the corpora are not in them.

use std::fs;
use std::path::Path;
use std::thread;

/// Runs `property` on the corpus of `target`, and on at least that many mutations. If it panics,
/// the input is printed.
pub(crate) fn replay(target: &str, mutations: usize, property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    let corpus: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut random = Random(1);
    for (path, seed) in paths.iter().zip(&corpus) {
        Case { path, input: seed }.run(&property);
        for _ in 0..mutations.div_ceil(corpus.len()) {
            let mut input = seed.clone();
            for _ in 0..1 + random.below(3) {
                random.mutate(&mut input, &corpus);
            }
            Case { path, input: &input }.run(&property);
        }
    }
}

struct Case<'a> {
    path: &'a Path,
    input: &'a [u8],
}

impl Case<'_> {
    fn run(self, property: impl Fn(&[u8])) {
        property(self.input);
    }
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Case { path, input } = self;
            eprintln!("{} or a mutation of it: b\"{}\"", path.display(), input.escape_ascii());
        }
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Flips, overwrites, cuts, repeats, inserts, and splices two files of the corpus.
    fn mutate(&mut self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = bytes.len().min(at + 1 + self.below(8));
        match self.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => bytes.insert(at, self.next() as u8),
            4 => {
                let other = &corpus[self.below(corpus.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[self.below(other.len() + 1)..]);
            }
            5 => bytes[at..end].fill([0, 1, 0x7F, 0x80, 0xFF][self.below(5)]),
            _ if at == end => {}
            6 => bytes[at] = self.next() as u8,
            _ => bytes[at] ^= 1 << self.below(8),
        }
    }
}
