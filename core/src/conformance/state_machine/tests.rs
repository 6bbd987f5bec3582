//! The suite on machines of its own, and that it notices what is wrong with them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use quorate_rt::testing::Memory;
use quorate_rt::{Executor, Launch};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Snapshot, SnapshotError, SnapshotReader, SnapshotWriter};

/// A register, with one of the mistakes that the suite must notice, or with none.
#[derive(Serialize, Deserialize)]
struct Register {
    value: u64,
    mistake: Mistake,
    /// Which machine of its factory it is.
    #[serde(skip)]
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Mistake {
    None,
    DiffersByMachine,
    ReversesBatches,
    LosesAResponse,
}

impl StateMachine for Register {
    type Command = (bool, u64);
    type Response = u64;

    async fn apply(&mut self, (set, operand): (bool, u64), _: At) -> u64 {
        let value = if set { operand } else { self.value.wrapping_mul(3) ^ operand };
        self.value = match self.mistake {
            Mistake::DiffersByMachine => value ^ self.number,
            _ => value,
        };
        self.value
    }

    async fn apply_batch(&mut self, mut commands: Vec<((bool, u64), At)>) -> Vec<u64> {
        if self.mistake == Mistake::ReversesBatches {
            commands.reverse();
        }
        let mut responses = Vec::new();
        for (command, at) in commands {
            responses.push(self.apply(command, at).await);
        }
        if self.mistake == Mistake::LosesAResponse {
            responses.pop();
        }
        responses
    }
}

struct Registers {
    mistake: Mistake,
    made: Cell<u64>,
}

fn with(mistake: Mistake) -> Registers {
    Registers { mistake, made: Cell::new(0) }
}

impl MachineFactory for Registers {
    type Machine = Register;
    type State = u64;

    fn machine(&self) -> Register {
        self.made.set(self.made.get() + 1);
        Register { value: 0, mistake: self.mistake, number: self.made.get() }
    }

    fn command(&self, random: u64) -> (bool, u64) {
        (random.is_multiple_of(5), random % 100)
    }

    fn state(&self, machine: &Register) -> u64 {
        machine.value
    }
}

crate::state_machine_suite!(register, Memory, Launch::default(), with(Mistake::None));

fn run(case: impl AsyncFnOnce(Memory)) {
    Memory::run(&Launch::default(), case).expect("the runtime starts");
}

#[test]
#[should_panic(expected = "left == right")]
fn notices_machines_that_differ() {
    run(async |rt| is_deterministic(rt, with(Mistake::DiffersByMachine)).await);
}

#[test]
#[should_panic(expected = "batches of up to")]
fn notices_batches_in_another_order() {
    run(async |rt| applies_batches_as_single_commands(rt, with(Mistake::ReversesBatches)).await);
}

#[test]
#[should_panic(expected = "a response for each command")]
fn notices_a_missing_response() {
    run(async |rt| applies_batches_as_single_commands(rt, with(Mistake::LosesAResponse)).await);
}

/// Numbers by their names, with one of the mistakes in its snapshots that the suite must notice, or
/// with none.
struct Table {
    numbers: Rc<RefCell<BTreeMap<u8, u64>>>,
    slip: Slip,
    made: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Slip {
    None,
    SharesItsView,
    KeepsTheOldState,
    LosesANumber,
    WritesWhoItIs,
    TrustsLengths,
    SkipsTheRest,
}

impl StateMachine for Table {
    type Command = (u8, u64);
    type Response = Option<u64>;

    async fn apply(&mut self, (name, number): (u8, u64), _: At) -> Option<u64> {
        let mut numbers = self.numbers.borrow_mut();
        if number % 3 == 0 { numbers.remove(&name) } else { numbers.insert(name, number) }
    }
}

impl Snapshot for Table {
    type View = Self;

    fn view(&self) -> Result<Self, SnapshotError> {
        let numbers = match self.slip {
            Slip::SharesItsView => Rc::clone(&self.numbers),
            _ => Rc::new(RefCell::new(self.numbers.borrow().clone())),
        };
        if self.slip == Slip::LosesANumber && numbers.borrow().len() > 3 {
            numbers.borrow_mut().pop_first();
        }
        Ok(Self { numbers, ..*self })
    }

    async fn write(view: Self, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        let numbers = view.numbers.take();
        if view.slip == Slip::SharesItsView {
            view.numbers.replace(numbers.clone());
        }
        to.write(&[numbers.len() as u8]).await?;
        for (name, number) in numbers {
            to.write(&[name]).await?;
            to.write(&number.to_le_bytes()).await?;
        }
        if view.slip == Slip::WritesWhoItIs {
            to.write(&[view.made as u8]).await?;
        }
        Ok(())
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        if self.slip != Slip::KeepsTheOldState {
            self.numbers.take();
        }
        if self.slip == Slip::TrustsLengths {
            let content = from.read(from.remaining()).await?;
            let numbers = content[1..].chunks(9).take(usize::from(content[0]));
            let numbers = numbers.map(|c| (c[0], u64::from_le_bytes(c[1..9].try_into().unwrap())));
            self.numbers.replace(numbers.collect());
            return Ok(());
        }
        for _ in 0..from.read(1).await?[0] {
            let name = from.read(1).await?[0];
            let number = from.read_u64().await?;
            self.numbers.borrow_mut().insert(name, number);
        }
        match self.slip {
            Slip::SkipsTheRest => from.read(from.remaining()).await.map(|_| ()),
            Slip::WritesWhoItIs => from.read(1).await.map(|_| ()),
            _ => Ok(()),
        }
    }
}

struct Tables(Slip, Cell<u64>);

fn slipping(slip: Slip) -> Tables {
    Tables(slip, Cell::new(0))
}

impl MachineFactory for Tables {
    type Machine = Table;
    type State = BTreeMap<u8, u64>;

    fn machine(&self) -> Table {
        self.1.set(self.1.get() + 1);
        Table { numbers: Rc::default(), slip: self.0, made: self.1.get() }
    }

    fn command(&self, random: u64) -> (u8, u64) {
        (random as u8 % 50, random >> 8)
    }

    fn state(&self, machine: &Table) -> BTreeMap<u8, u64> {
        machine.numbers.borrow().clone()
    }
}

crate::state_machine_suite!(table, Memory, Launch::default(), slipping(Slip::None));

#[test]
#[should_panic(expected = "has changed since it was taken")]
fn notices_a_view_that_changes() {
    run(async |rt| keeps_a_view_as_it_was(rt, slipping(Slip::SharesItsView)).await);
}

#[test]
#[should_panic(expected = "left == right")]
fn notices_what_is_left_of_the_old_state() {
    run(async |rt| restores_what_was_written(rt, slipping(Slip::KeepsTheOldState)).await);
}

#[test]
#[should_panic(expected = "left == right")]
fn notices_what_a_snapshot_loses() {
    run(async |rt| restores_what_was_written(rt, slipping(Slip::LosesANumber)).await);
}

#[test]
#[should_panic(expected = "a replica writes other bytes")]
fn notices_bytes_that_differ_by_machine() {
    let tables = || slipping(Slip::WritesWhoItIs);
    run(async |rt| writes_the_same_state_as_the_same_bytes(rt, tables()).await);
}

#[test]
#[should_panic(expected = "has panicked")]
fn notices_a_restore_that_believes_lengths() {
    run(async |rt| restores_damaged_bytes_without_a_panic(rt, slipping(Slip::TrustsLengths)).await);
}

#[test]
#[should_panic(expected = "more than were written are taken")]
fn notices_a_restore_that_skips_the_rest() {
    run(async |rt| refuses_more_than_was_written(rt, slipping(Slip::SkipsTheRest)).await);
}
