//! The keys and values: a persistent ordered map, so that a view of it is its clone, which takes no
//! time however many keys there are.
//!
//! It is parted by position into many trees. Whoever drops the last holder of a tree frees each of
//! its keys, which takes seconds where there are ten million, and nothing else goes on in the
//! thread meanwhile; a part of them takes milliseconds. Pointers are counted without atomics: the
//! map and its views stay on the node's thread.

use std::mem;
use std::rc::Rc;

use bytes::Bytes;
use imbl::GenericOrdMap;
use imbl::shared_ptr::RcK;
use quorate::rt::yield_now;

use crate::key::{Key, KeyRef, POSITION_BITS};

/// The number of parts, as a power of 2: ten million keys in parts of ten thousand, and the empty
/// map takes 32 KiB.
const PART_BITS: u32 = 10;

/// After so many keys have been dropped, others get their turn: some 300 µs. (A part of a map of
/// ten million keys takes a millisecond or two.)
const DROPPED_KEYS: usize = 1 << 11;

/// Values are counted apart from their bytes: to clone a leaf of the tree, as the first write to it
/// does while there is a view, must not allocate something for each of its values, as the first
/// clone of `Bytes` does.
pub(crate) type Part = GenericOrdMap<Key, Rc<Bytes>, RcK>;

/// The map.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    /// In the order of positions.
    parts: Vec<Part>,
    len: usize,
}

impl Default for Map {
    fn default() -> Self {
        Self { parts: vec![Part::new(); 1 << PART_BITS], len: 0 }
    }
}

impl Map {
    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let key = KeyRef::new(key);
        self.parts[part(key.position)].get(&key).map(Rc::as_ref)
    }

    /// The value, to be changed. It is one of its own then, even if there is a view (its bytes may
    /// still be shared).
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Bytes> {
        let key = KeyRef::new(key);
        self.parts[part(key.position)].get_mut(&key).map(Rc::make_mut)
    }

    /// Sets a key, of which it keeps a copy if it is new.
    pub(crate) fn insert(&mut self, key: KeyRef<'_>, value: Bytes) {
        let part = &mut self.parts[part(key.position)];
        match part.get_mut(&key) {
            Some(old) => match Rc::get_mut(old) {
                Some(old) => *old = value,
                None => *old = Rc::new(value),
            },
            None => {
                part.insert(key.to_key(), Rc::new(value));
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Bytes> {
        let key = KeyRef::new(key);
        let value = self.parts[part(key.position)].remove(&key)?;
        self.len -= 1;
        Some(Rc::unwrap_or_clone(value))
    }

    /// The keys from a position on, in order, with their values.
    pub(crate) fn range_from(&self, position: u64) -> impl Iterator<Item = (&Key, &Bytes)> {
        let parts = self.parts.iter().skip(part(position));
        parts
            .flat_map(move |part| part.range(KeyRef::first_at(position)..))
            .map(|(key, value)| (key, value.as_ref()))
    }

    /// The map in parts, in order.
    pub(crate) fn into_parts(self) -> std::vec::IntoIter<Part> {
        self.parts.into_iter()
    }

    /// Removes all keys.
    pub(crate) async fn clear(&mut self) {
        if self.len == 0 {
            return; // A pipeline may do it over and over.
        }
        drop_in_turns(mem::take(self).into_parts()).await;
    }
}

/// Which part has the keys of a position; one beyond the last where there are no such keys.
fn part(position: u64) -> usize {
    usize::try_from(position >> (POSITION_BITS - PART_BITS)).unwrap_or(usize::MAX)
}

/// Drops parts of a map, and lets others have their turn in between.
pub(crate) async fn drop_in_turns(parts: impl Iterator<Item = Part>) {
    let mut dropped = 0;
    for part in parts {
        dropped += part.len();
        drop(part);
        if dropped >= DROPPED_KEYS {
            dropped = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::FutureExt;

    use super::*;

    fn pairs(map: &Map) -> Vec<(Vec<u8>, Bytes)> {
        map.range_from(0).map(|(key, value)| (key.bytes.to_vec(), value.clone())).collect()
    }

    fn name(n: u64) -> Vec<u8> {
        format!("key:{n}").into_bytes()
    }

    fn value(n: u64) -> Bytes {
        Bytes::from(n.to_string())
    }

    #[test]
    fn it_is_an_ordered_map_and_a_view_stays_as_it_was() {
        const KEYS: u64 = 5000;
        let (mut map, mut model) = (Map::default(), BTreeMap::new());
        let mut state = 1_u64;
        let mut views = Vec::new();
        for step in 0..40_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = name((state >> 33) % KEYS);
            let by_position = KeyRef::new(&key).to_key();
            match state >> 61 {
                0 | 1 => assert_eq!(map.remove(&key), model.remove(&by_position)),
                2 => assert_eq!(map.get_mut(&key).cloned(), model.get(&by_position).cloned()),
                3 => match (map.get_mut(&key), model.get_mut(&by_position)) {
                    (Some(one), Some(other)) => (*one, *other) = (value(step), value(step)),
                    (None, None) => {}
                    other => panic!("{other:?}"),
                },
                _ => {
                    map.insert(KeyRef::new(&key), value(step));
                    model.insert(by_position, value(step));
                }
            }
            assert_eq!(map.get(&key), model.get(&KeyRef::new(&key).to_key()));
            assert_eq!(map.len(), model.len());
            if step % 10_000 == 5_000 {
                views.push((map.clone(), model.clone()));
            }
        }
        views.push((map, model));
        for (map, model) in views {
            let expected: Vec<_> =
                model.iter().map(|(k, v)| (k.bytes.to_vec(), v.clone())).collect();
            assert_eq!(pairs(&map), expected);
            let (middle, _) = model.iter().nth(model.len() / 2).unwrap();
            let from: Vec<_> = map.range_from(middle.position).map(|(key, _)| key).collect();
            assert_eq!(from, model.range(middle..).map(|(key, _)| key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_position_is_too_far() {
        let mut map = Map::default();
        (0..100).for_each(|n| map.insert(KeyRef::new(&name(n)), value(n)));
        for position in [1 << POSITION_BITS, u64::MAX] {
            assert_eq!(map.range_from(position).count(), 0);
        }
        assert!(map.range_from((1 << POSITION_BITS) - 1).count() <= 1);
    }

    #[test]
    fn what_is_dropped_in_turns_is_dropped() {
        let mut map = Map::default();
        let keys = 2 * DROPPED_KEYS as u64;
        (0..keys).for_each(|n| map.insert(KeyRef::new(&name(n)), Bytes::new()));
        let mut clearing = Box::pin(map.clear());
        let mut turns = 1;
        while clearing.as_mut().now_or_never().is_none() {
            turns += 1;
        }
        drop(clearing);
        assert_eq!(turns, 2);
        assert_eq!((map.len(), map.range_from(0).count()), (0, 0));
    }
}
