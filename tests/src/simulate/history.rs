//! What clients have asked for, and what they were told.

use std::time::Duration;

use super::ledger::Register;

/// An operation on one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub key: u64,
    pub what: What,
    /// When it was asked for, and when answered; none if it never was.
    pub begun: Duration,
    pub ended: Option<Duration>,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Of this value, which no other operation of the history writes.
    Write(u64),
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None was given, or one that says nothing.
    Unknown,
    /// It was refused: it has had no effect.
    Refused,
    /// The register as it was seen, or as the write has left it.
    Done(Register),
}

/// All operations of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    operations: Vec<Operation>,
    values: u64,
}

impl History {
    /// A value that was not written before. They are numbered from 1 on: 0 is that of a register
    /// which nobody has written.
    pub fn new_value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// Notes a question, and gives its number.
    pub fn ask(&mut self, now: Duration, key: u64, what: What) -> usize {
        let answer = Answer::Unknown;
        self.operations.push(Operation { key, what, begun: now, ended: None, answer });
        self.operations.len() - 1
    }

    /// Notes the answer.
    pub fn answer(&mut self, now: Duration, number: usize, answer: Answer) {
        let operation = &mut self.operations[number];
        assert_eq!(operation.ended, None, "answered twice");
        operation.ended = Some(now);
        operation.answer = answer;
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}
