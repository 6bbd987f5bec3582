//! Linearizability (Herlihy and Wing, 1990): each operation seems to happen at one moment between its question and its answer. It is a local property
//! (their theorem 1), so each register is checked by itself.
//!
//! In general this takes a search. Here every answer tells the register's version, and with it its place in the order of all writes; so what is left is
//! to check that this order is possible: an operation that began after another had ended must not come before it. Each history is gone through once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::simulate::history::{Answer, Operation, What};
use crate::simulate::ledger::Register;

/// Errors: which operation can't be, and why.
pub fn check(operations: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(operation.key).or_default().push(operation);
    }
    keys.values().try_for_each(|operations| check_register(operations))
}

fn check_register(operations: &[&Operation]) -> Result<(), String> {
    let versions = versions(operations)?;
    // By time: what ends at a moment comes after what begins at it, so that the two overlap.
    let mut moments: Vec<(Duration, bool, usize)> = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        if versions[number].is_some() {
            moments.push((operation.begun, false, number));
        }
        if let (Some(ended), Answer::Done(_)) = (operation.ended, operation.answer) {
            moments.push((ended, true, number));
        }
    }
    moments.sort_unstable();
    // The latest version of what has ended, and which operation that was.
    let mut ended: Option<(u64, usize)> = None;
    let mut floors = vec![None; operations.len()];
    for (_, ends, number) in moments {
        if !ends {
            floors[number] = ended;
            let (Some(version), Some((floor, before))) = (versions[number], ended) else {
                continue;
            };
            // A write is the first that has its version.
            let is_write = matches!(operations[number].what, What::Write(_));
            if version < floor || is_write && version == floor {
                return Err(format!(
                    "{:?} has version {version}, but began after the end of {:?}, which has version {floor}",
                    operations[number], operations[before]
                ));
            }
        } else if let Some(version) = versions[number]
            && ended.is_none_or(|(latest, _)| version > latest)
        {
            ended = Some((version, number));
        }
    }
    Ok(())
}

/// The version at which each operation stands; none of those that have no place, or whose place nobody knows.
fn versions(operations: &[&Operation]) -> Result<Vec<Option<u64>>, String> {
    // What was seen, and by which operation.
    let mut values: BTreeMap<u64, (u64, usize)> = BTreeMap::from([(0, (0, usize::MAX))]);
    let mut seen: BTreeMap<u64, u64> = BTreeMap::from([(0, 0)]);
    for (number, operation) in operations.iter().enumerate() {
        let Answer::Done(Register { version, value }) = operation.answer else { continue };
        if let What::Write(written) = operation.what
            && value != written
        {
            return Err(format!("{operation:?} has left the register with {value}"));
        }
        let known = seen.entry(version).or_insert(value);
        if *known != value {
            return Err(format!("version {version} is {value} in {operation:?}, and was {known}"));
        }
        let (known, _) = values.entry(value).or_insert((version, number));
        if *known != version {
            return Err(format!("{value} is version {version} in {operation:?}, and was {known}"));
        }
    }
    let mut writers: BTreeMap<u64, usize> = BTreeMap::new();
    let mut versions = Vec::with_capacity(operations.len());
    for (number, operation) in operations.iter().enumerate() {
        versions.push(match (operation.what, operation.answer) {
            (What::Read, Answer::Done(Register { version, .. })) => Some(version),
            (What::Read, _) => None,
            (What::Write(value), answer) => {
                writers.insert(value, number);
                let found = values.get(&value);
                if let (Answer::Refused, Some((_, by))) = (answer, found) {
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
        if value == 0 {
            continue;
        }
        let Some(writer) = writers.get(&value) else {
            return Err(format!("{operation:?} sees what nobody has written"));
        };
        if operation.ended.is_some_and(|ended| operations[*writer].begun > ended) {
            return Err(format!(
                "{operation:?} sees what is written later by {:?}",
                operations[*writer]
            ));
        }
    }
    Ok(versions)
}
