//! Random writes, reads and openings against the simplest model there is: a list of entries per group.

use super::*;

const GROUPS: usize = 3;

/// Numbers that are the same in each run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn random_writes_reads_and_openings_agree_with_a_list() {
    scene(async |mut scene| {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut model: [Vec<Entry>; GROUPS] = Default::default();
        let mut term = 1;
        for _ in 0..40 {
            scene.config.cache_bytes = random.below(4) as usize * 3000;
            let store = scene.open().await;
            let mut outcomes = Vec::new();
            for _ in 0..random.below(60) {
                let group = random.below(GROUPS as u64);
                let log = &mut model[group as usize];
                if random.below(8) == 0 && !log.is_empty() {
                    term += 1;
                    log.truncate(random.below(log.len() as u64) as usize);
                }
                let begin = log.len();
                for _ in 0..random.below(4) {
                    let content = vec![random.below(256) as u8; random.below(1500) as usize];
                    log.push(entry(term, log.len() as Index + 1, content));
                }
                outcomes.push(submit(&store, group, entries(&log[begin..])));
                if log.len() == begin {
                    // A truncation without an entry can't be written.
                    *log = all(&store, group).await;
                }
                if random.below(4) == 0 {
                    for outcome in outcomes.drain(..) {
                        outcome.await.unwrap().unwrap();
                    }
                }
                compare(&store, &model, &mut random).await;
            }
            for outcome in outcomes {
                outcome.await.unwrap().unwrap();
            }
        }
        compare(&scene.open().await, &model, &mut random).await;
    });
}

async fn compare(store: &Store, model: &[Vec<Entry>; GROUPS], random: &mut Random) {
    for (group, log) in (0..).zip(model) {
        assert_eq!(last(store, group).await, log.len() as Index);
        if log.is_empty() {
            continue;
        }
        let first = random.below(log.len() as u64) + 1;
        let max_bytes = random.below(10_000) as usize;
        let read = store.read(group, first..log.len() as Index + 1, max_bytes).await.unwrap();
        let expected = &log[first as usize - 1..];
        assert_eq!(read, expected[..read.len()]);
        let bytes: usize = read.iter().map(Entry::bytes).sum();
        assert!(read.len() == 1 || bytes <= max_bytes);
        assert!(expected.get(read.len()).is_none_or(|next| bytes + next.bytes() > max_bytes));
    }
}
