//! Linearizability (Herlihy and Wing, 1990): each operation seems to happen at one moment between
//! its question and its answer. It is a local property (their theorem 1), so each register is
//! checked by itself.
//!
//! In general this takes a search. Here every answer tells the register's version, and with it its
//! place in the order of all writes; so what is left is to check that this order is possible: an
//! operation that began after another had ended must not come before it, and a version that nobody
//! has seen must be that of a write of which nobody knows what became of it. Each history is gone
//! through once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::simulate::history::{Answer, Operation, What};
use crate::simulate::ledger::Register;

#[cfg(test)]
mod tests;

/// Errors: which operation can't be, and why.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.key).or_default().push(operation);
    }
    keys.values().try_for_each(|operations| check_register(operations))
}

fn check_register(operations: &[&Operation]) -> Result<(), String> {
    let seen = Observed::of(operations)?;
    let versions = versions(operations, &seen)?;
    // By time: what ends at a moment comes after what begins at it, so that the two overlap.
    let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        moments.push((operation.begun, false, number));
        if let (Some(ended), Answer::Done(_)) = (operation.ended, operation.answer) {
            moments.push((ended, true, number));
        }
    }
    moments.sort_unstable();
    // The latest version of what has ended, and which operation that was.
    let mut latest: Option<(u64, usize)> = None;
    // The writes of unknown versions, and after which version they come.
    let mut free: Vec<(Duration, u64)> = Vec::new();
    for (at, ends, number) in moments {
        let operation = operations[number];
        let is_write = matches!(operation.what, What::Write(_));
        let Some(version) = versions[number] else {
            if is_write && operation.answer == Answer::Unknown {
                free.push((at, latest.map_or(0, |(version, _)| version)));
            }
            continue;
        };
        match latest {
            Some((floor, before)) if !ends && version < floor => {
                return Err(format!(
                    "{operation:?} has version {version}, but began after the end of {:?}, which has version {floor}",
                    operations[before]
                ));
            }
            Some((floor, _)) if version <= floor => {}
            _ if ends => latest = Some((version, number)),
            _ => {}
        }
    }
    check_gaps(operations, &versions, &seen, &free)
}

/// What was seen of a register.
struct Observed {
    /// The value of each version.
    values: BTreeMap<u64, u64>,
    /// The version of each value, and the first operation that has seen it.
    versions: BTreeMap<u64, (u64, Option<usize>)>,
}

impl Observed {
    /// Errors: two operations contradict each other.
    fn of(operations: &[&Operation]) -> Result<Self, String> {
        // Nobody has written it.
        let mut values = BTreeMap::from([(0, 0)]);
        let mut versions = BTreeMap::from([(0, (0, None))]);
        for (number, operation) in operations.iter().enumerate() {
            let Answer::Done(Register { version, value }) = operation.answer else { continue };
            if let What::Write(written) = operation.what
                && value != written
            {
                return Err(format!("{operation:?} has left the register with {value}"));
            }
            let known = *values.entry(version).or_insert(value);
            if known != value {
                return Err(format!(
                    "version {version} is {value} in {operation:?}, and elsewhere {known}"
                ));
            }
            let (known, _) = *versions.entry(value).or_insert((version, Some(number)));
            if known != version {
                return Err(format!(
                    "{value} is version {version} in {operation:?}, and elsewhere {known}"
                ));
            }
        }
        Ok(Self { values, versions })
    }
}

/// The version at which each operation stands; none of those that have no place, or whose place
/// nobody knows.
///
/// Errors: an operation sees what was refused, or written later, or by nobody.
fn versions(operations: &[&Operation], seen: &Observed) -> Result<Vec<Option<u64>>, String> {
    let mut writers: BTreeMap<u64, &Operation> = BTreeMap::new();
    let mut versions = Vec::with_capacity(operations.len());
    for operation in operations {
        versions.push(match (operation.what, operation.answer) {
            (What::Read, Answer::Done(Register { version, .. })) => Some(version),
            (What::Read, _) => None,
            (What::Write(value), answer) => {
                writers.insert(value, operation);
                let found = seen.versions.get(&value);
                if let (Answer::Refused, Some((_, Some(by)))) = (answer, found) {
                    return Err(format!(
                        "{operation:?} was refused, and {:?} sees it",
                        operations[*by]
                    ));
                }
                found.map(|(version, _)| *version)
            }
        });
    }
    for operation in operations {
        let Answer::Done(Register { value, .. }) = operation.answer else { continue };
        match writers.get(&value) {
            _ if value == 0 => {}
            None => return Err(format!("{operation:?} sees what nobody has written")),
            Some(writer) if operation.ended.is_some_and(|ended| writer.begun > ended) => {
                return Err(format!("{operation:?} sees what is written later by {writer:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(versions)
}

/// Whether there is a write for each version that nobody has seen, each of `free` being one at
/// most. A version must have been written before anybody has the answer that it, or a later one,
/// was there; and after the versions that had been seen when the write began.
fn check_gaps(
    operations: &[&Operation],
    versions: &[Option<u64>],
    seen: &Observed,
    free: &[(Duration, u64)],
) -> Result<(), String> {
    let last = seen.values.last_key_value().map_or(0, |(version, _)| *version);
    let gaps = (1..=last).filter(|version| !seen.values.contains_key(version));
    for (version, count) in gaps.zip(1..) {
        // (Who has given up a write doesn't know that it was there: it may come later.)
        let ends = operations.iter().zip(versions).filter_map(|(operation, of)| {
            let is_told = matches!(operation.answer, Answer::Done(_));
            operation.ended.filter(|_| is_told && of.is_some_and(|of| of > version))
        });
        let deadline = ends.min().unwrap_or(Duration::MAX);
        // Whoever may have written this version may have written any later one.
        let writers = free.iter().filter(|(begun, after)| *begun <= deadline && *after < version);
        if writers.count() < count {
            return Err(format!("nobody can have written version {version}"));
        }
    }
    Ok(())
}
