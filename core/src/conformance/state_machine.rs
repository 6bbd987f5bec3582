//! The cases of a state machine: replicas that were given the same commands must not differ,
//! however the commands came to them: one by one, in batches, or as a snapshot.

use std::fmt::Debug;

use bytes::Bytes;
use quorate_rt::Executor;

use crate::state_machine::{At, Command, StateMachine};
use crate::types::LogId;

mod snapshots;

pub use self::snapshots::*;

/// What the suite needs to know of a state machine.
pub trait MachineFactory: 'static {
    /// The implementation.
    type Machine: StateMachine<Response: PartialEq + Debug>;
    /// What two replicas are compared by, besides their responses.
    type State: PartialEq + Debug;

    /// A machine as a new node has it.
    fn machine(&self) -> Self::Machine;

    /// A command, chosen by `random`: every kind, with good and with bad arguments, and often about
    /// the same few things, so that the order matters.
    fn command(&self, random: u64) -> <Self::Machine as StateMachine>::Command;

    /// The whole state of a machine; `()` where there is no way to look at it.
    fn state(&self, machine: &Self::Machine) -> Self::State;
}

/// Makes the tests of a state machine: `state_machine_suite!(name, runtime, launch, factory);`
/// gives a module `name` with a test for each case. See [`conformance`](crate::conformance) for an
/// example.
#[macro_export]
macro_rules! state_machine_suite {
    ($name:ident, $runtime:ty, $launch:expr, $factory:expr) => {
        #[allow(unused_imports)] // Whatever the types and expressions need from outside.
        mod $name {
            use super::*;
            $crate::suite_cases! { $runtime, $launch, $factory, state_machine {
                is_deterministic, applies_batches_as_single_commands, takes_any_bytes,
                restores_what_was_written, keeps_a_view_as_it_was, writes_the_same_state_as_the_same_bytes,
                restores_damaged_bytes_without_a_panic, refuses_more_than_was_written
            } }
        }
    };
}

const COMMANDS: usize = 500;

type CommandOf<F> = <<F as MachineFactory>::Machine as StateMachine>::Command;
type ResponseOf<F> = <<F as MachineFactory>::Machine as StateMachine>::Response;

/// A command as it stands in a log.
#[derive(Clone)]
struct Logged {
    at: At,
    bytes: Bytes,
}

impl Logged {
    fn decoded<F: MachineFactory>(&self) -> (CommandOf<F>, At) {
        (Command::decode(&self.bytes).expect("what was encoded can be decoded"), self.at)
    }
}

/// The beginning of a log.
fn commands<F: MachineFactory>(factory: &F, random: &mut fastrand::Rng) -> Vec<Logged> {
    commands_after(factory, random, At::default())
}

/// Commands that follow on this place. Some of a leader's are placed at the same time, and there
/// are entries that are no commands.
fn commands_after<F: MachineFactory>(
    factory: &F,
    random: &mut fastrand::Rng,
    last: At,
) -> Vec<Logged> {
    let At { mut log_id, mut time } = last;
    let mut next = || {
        let new_leader = random.u8(..) == 0;
        let (term, leader) = match new_leader || log_id == LogId::ZERO {
            true => (log_id.term.0 + 1, random.u64(1..=3)),
            false => (log_id.term.0, log_id.leader),
        };
        log_id = LogId::new(term, leader, log_id.index + random.u64(1..=2));
        time += if random.bool() { 0 } else { random.u64(..10_000) };
        let command = factory.command(random.u64(..));
        let bytes = command.encode().expect("a command has an encoding");
        Logged { at: At::new(log_id, time), bytes }
    };
    (0..COMMANDS).map(|_| next()).collect()
}

/// Applies the commands one by one.
async fn apply_each<F: MachineFactory>(
    machine: &mut F::Machine,
    commands: &[Logged],
) -> Vec<ResponseOf<F>> {
    let mut responses = Vec::new();
    for command in commands {
        let (command, at) = command.decoded::<F>();
        responses.push(machine.apply(command, at).await);
    }
    responses
}

/// Applies the commands in one batch.
async fn apply_batch<F: MachineFactory>(
    machine: &mut F::Machine,
    commands: &[Logged],
) -> Vec<ResponseOf<F>> {
    machine.apply_batch(commands.iter().map(Logged::decoded::<F>).collect()).await
}

/// The same commands on several machines give the same responses and the same states, at any time.
#[doc(hidden)]
pub async fn is_deterministic<R: Executor, F: MachineFactory>(_rt: R, factory: F) {
    let commands = commands(&factory, &mut fastrand::Rng::with_seed(1));
    let mut machines = [factory.machine(), factory.machine(), factory.machine()];
    for some in commands.chunks(50) {
        let [one, others @ ..] = &mut machines;
        let responses = apply_each::<F>(one, some).await;
        for other in others {
            assert_eq!(apply_each::<F>(other, some).await, responses);
            assert_eq!(factory.state(other), factory.state(one));
        }
    }
}

/// However the log is cut into batches, the responses and the state are those of single commands.
#[doc(hidden)]
pub async fn applies_batches_as_single_commands<R: Executor, F: MachineFactory>(
    _rt: R,
    factory: F,
) {
    let mut random = fastrand::Rng::with_seed(2);
    let commands = commands(&factory, &mut random);
    let mut single = factory.machine();
    let expected = apply_each::<F>(&mut single, &commands).await;
    for longest in [1, 2, 7, 64, COMMANDS] {
        let mut machine = factory.machine();
        let mut responses = Vec::new();
        let mut rest = commands.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(random.usize(0..=longest.min(rest.len())));
            rest = after;
            let given = apply_batch::<F>(&mut machine, batch).await;
            assert_eq!(given.len(), batch.len(), "a response for each command");
            responses.extend(given);
        }
        assert_eq!(responses, expected, "batches of up to {longest}");
        assert_eq!(factory.state(&machine), factory.state(&single), "batches of up to {longest}");
    }
}

/// Bytes that are no command may be refused and must not panic; what is taken is the same command
/// on every node.
#[doc(hidden)]
pub async fn takes_any_bytes<R: Executor, F: MachineFactory>(_rt: R, factory: F) {
    let mut random = fastrand::Rng::with_seed(3);
    let mut machines = [factory.machine(), factory.machine()];
    for Logged { at, bytes } in commands(&factory, &mut random) {
        let mut bytes = bytes.to_vec();
        match random.u8(..3) {
            0 => bytes.truncate(random.usize(0..=bytes.len())),
            1 => bytes.push(random.u8(..)),
            _ => {}
        }
        if let (Some(last), true) = (bytes.len().checked_sub(1), random.bool()) {
            bytes[random.usize(0..=last)] = random.u8(..);
        }
        let bytes = Bytes::from(bytes);
        let [one, two] = &mut machines;
        let decoded = [CommandOf::<F>::decode(&bytes), CommandOf::<F>::decode(&bytes)];
        match decoded {
            [Ok(for_one), Ok(for_two)] => {
                assert_eq!(one.apply(for_one, at).await, two.apply(for_two, at).await);
            }
            [Err(_), Err(_)] => {}
            _ => panic!("the same bytes are a command on one node alone"),
        }
        assert_eq!(factory.state(one), factory.state(two));
    }
}

#[cfg(test)]
mod tests;
