//! The suite of state machines, on the store.

use std::rc::Rc;

use bytes::Bytes;
use quorate::{Launch, Tokio};
use quorate_core::conformance::state_machine::MachineFactory;
use quorate_core::state_machine_suite;

use crate::store::Store;
use crate::write::{Batch, SetAnswer, When, Write, Writes};

struct Stores;

/// One of a few, so that writes meet.
fn key(random: u64) -> Bytes {
    format!("key:{}", random % 20).into()
}

/// A number, a word, nothing, or much.
fn value(random: u64) -> Bytes {
    match random % 10 {
        0 => Bytes::new(),
        1 => vec![random as u8; 5000].into(),
        2..=5 => (random as i8).to_string().into(),
        _ => format!("value {}", random % 1000).into(),
    }
}

fn write(random: u64) -> Write {
    let (key, other, value) = (key(random >> 8), key(random >> 16), value(random >> 24));
    let choice = random >> 40;
    match random % 16 {
        0..=4 => {
            let when = [When::Always, When::Missing, When::Present][choice as usize % 3];
            let answer =
                [SetAnswer::Status, SetAnswer::Old, SetAnswer::Number][(choice >> 8) as usize % 3];
            Write::Set { key, value, when, answer }
        }
        5 => Write::SetMany(vec![(key, value.clone()), (other, value)]),
        6 => Write::Delete(vec![key, other]),
        7..=9 => Write::Add { key, delta: choice as i64 - (1 << 23) },
        10 => Write::Add { key, delta: if choice.is_multiple_of(2) { i64::MAX } else { i64::MIN } },
        11 => Write::GetDelete(key),
        12 | 13 => Write::Append { key, value },
        14 => Write::Rename { from: key, to: other },
        _ if choice.is_multiple_of(8) => Write::Clear,
        _ => Write::Rename { from: key.clone(), to: key },
    }
}

impl MachineFactory for Stores {
    type Machine = Store;
    type State = Vec<(Rc<[u8]>, Bytes)>;

    fn machine(&self) -> Store {
        Store::default()
    }

    fn command(&self, random: u64) -> Writes {
        let mut batch = Batch::default();
        for n in 0..random % 4 {
            batch.push(&write(random.rotate_left(13 * n as u32)));
        }
        batch.finish()
    }

    fn state(&self, store: &Store) -> Self::State {
        assert_eq!(store.count.get(), store.values.len());
        let all = store.values.range_from(0);
        all.map(|(key, value)| (Rc::clone(&key.bytes), value.clone())).collect()
    }
}

state_machine_suite!(store, Tokio, Launch::default(), Stores);
