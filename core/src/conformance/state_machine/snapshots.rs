//! Snapshots of a state machine: what is restored is what was written, and what was written is the
//! state as it was.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use quorate_rt::Executor;

use super::{Logged, MachineFactory, apply_batch, apply_each, commands, commands_after};
use crate::state_machine::StateMachine;
use crate::{
    Digest, Snapshot, SnapshotContent, SnapshotDraft, SnapshotError, SnapshotMeta, SnapshotReader,
    SnapshotWriter, StoreError,
};

type ViewOf<F> = <<F as MachineFactory>::Machine as Snapshot>::View;

/// Keeps what is written.
struct Draft(Rc<RefCell<BytesMut>>);

#[async_trait(?Send)]
impl SnapshotDraft for Draft {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.0.borrow_mut().extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>, _: &SnapshotMeta) -> Result<(), StoreError> {
        Ok(())
    }
}

struct Content(Bytes);

#[async_trait(?Send)]
impl SnapshotContent for Content {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let begin = self.0.len().min(offset as usize);
        Ok(self.0.slice(begin..self.0.len().min(begin + max_bytes)))
    }
}

fn view<F: MachineFactory>(machine: &F::Machine) -> ViewOf<F> {
    machine.view().expect("a view can be taken")
}

/// What a view becomes.
async fn written<F: MachineFactory>(view: ViewOf<F>) -> Bytes {
    let content = Rc::default();
    let mut writer = SnapshotWriter::new(Box::new(Draft(Rc::clone(&content))));
    F::Machine::write(view, &mut writer).await.expect("a view can be written");
    let (_, bytes, digest) = writer.end().await.expect("there is space");
    let content = content.take().freeze();
    assert_eq!((bytes, digest), (content.len() as u64, Digest::of(&content)));
    content
}

async fn snapshot<F: MachineFactory>(machine: &F::Machine) -> Bytes {
    written::<F>(view::<F>(machine)).await
}

/// Checks as a node does.
async fn check<M: StateMachine>(content: &Bytes) -> Result<(), SnapshotError> {
    let bytes = content.len() as u64;
    let mut reader = SnapshotReader::new(Box::new(Content(content.clone())), bytes);
    M::check(&mut reader).await?;
    reader.end().map(|_| ())
}

/// Restores as a node does.
async fn restore<M: StateMachine>(machine: &mut M, content: &Bytes) -> Result<(), SnapshotError> {
    let bytes = content.len() as u64;
    let mut reader = SnapshotReader::new(Box::new(Content(content.clone())), bytes);
    machine.restore(&mut reader).await?;
    reader.end().map(|_| ())
}

/// Into a machine that is new, one that is ahead and one that is elsewhere: from then on they do as
/// the one that was written.
#[doc(hidden)]
pub async fn restores_what_was_written<R: Executor, F: MachineFactory>(_rt: R, factory: F) {
    let mut random = fastrand::Rng::with_seed(4);
    let commands = commands(&factory, &mut random);
    let last = commands.last().expect("there are some").at;
    let others = commands_after(&factory, &mut random, last);
    for count in [0, 1, 10, commands.len() / 2, commands.len()] {
        let (before, after) = commands.split_at(count);
        let mut original = factory.machine();
        apply_each::<F>(&mut original, before).await;
        let content = snapshot::<F>(&original).await;
        check::<F::Machine>(&content).await.expect("what was written passes the check");
        let mut ahead = factory.machine();
        apply_each::<F>(&mut ahead, &commands).await;
        let mut elsewhere = factory.machine();
        apply_each::<F>(&mut elsewhere, &others).await;
        let mut restored = [factory.machine(), ahead, elsewhere];
        for machine in &mut restored {
            restore(machine, &content).await.expect("what was written can be restored");
            assert_eq!(factory.state(machine), factory.state(&original), "after {count} commands");
            assert_eq!(snapshot::<F>(machine).await, content, "after {count} commands");
        }
        // Once more than there are: the end may have been anything.
        let after: Vec<Logged> = after.iter().chain(&others).cloned().collect();
        let responses = apply_each::<F>(&mut original, &after).await;
        for machine in &mut restored {
            assert_eq!(apply_each::<F>(machine, &after).await, responses, "after {count} commands");
            assert_eq!(factory.state(machine), factory.state(&original), "after {count} commands");
        }
    }
}

/// However much is applied before it is written, and however many there are.
#[doc(hidden)]
pub async fn keeps_a_view_as_it_was<R: Executor, F: MachineFactory>(_rt: R, factory: F) {
    let commands = commands(&factory, &mut fastrand::Rng::with_seed(5));
    let mut machine = factory.machine();
    let mut views = vec![(view::<F>(&machine), snapshot::<F>(&machine).await)];
    for some in commands.chunks(25) {
        // In a batch, as a node does while it writes a snapshot.
        apply_batch::<F>(&mut machine, some).await;
        views.push((view::<F>(&machine), snapshot::<F>(&machine).await));
    }
    let state = factory.state(&machine);
    for (number, (view, content)) in views.into_iter().enumerate() {
        assert!(
            written::<F>(view).await == content,
            "view {number} has changed since it was taken"
        );
    }
    assert_eq!(factory.state(&machine), state, "writing a view has changed the state");
}

/// Of one machine, of another with the same history, of one that was restored on the way: or
/// replicas can't be compared by their snapshots.
#[doc(hidden)]
pub async fn writes_the_same_state_as_the_same_bytes<R: Executor, F: MachineFactory>(
    _rt: R,
    factory: F,
) {
    let commands = commands(&factory, &mut fastrand::Rng::with_seed(6));
    let mut machines = [factory.machine(), factory.machine()];
    for some in commands.chunks(20) {
        let [one, other] = &mut machines;
        apply_each::<F>(one, some).await;
        apply_batch::<F>(other, some).await;
        let content = snapshot::<F>(one).await;
        assert!(snapshot::<F>(one).await == content, "the same machine writes other bytes");
        assert!(snapshot::<F>(other).await == content, "a replica writes other bytes");
        *other = factory.machine();
        restore(other, &content).await.expect("what was written can be restored");
        assert!(snapshot::<F>(other).await == content, "a restored one writes other bytes");
    }
}

/// Cut anywhere, with any bit flipped, or overwritten: an error, or some state. (A node compares
/// the digest before it believes it.)
#[doc(hidden)]
pub async fn restores_damaged_bytes_without_a_panic<R: Executor, F: MachineFactory>(
    _rt: R,
    factory: F,
) {
    let mut random = fastrand::Rng::with_seed(7);
    let commands = commands(&factory, &mut random);
    let mut machine = factory.machine();
    for some in commands[..100].chunks(20) {
        apply_each::<F>(&mut machine, some).await;
        let content = snapshot::<F>(&machine).await;
        for _ in 0..100 {
            let mut damaged = content.to_vec();
            match random.u8(..4) {
                0 => damaged.truncate(random.usize(0..=content.len())),
                1 => damaged = (0..random.usize(..100)).map(|_| random.u8(..)).collect(),
                2 if !damaged.is_empty() => {
                    let at = random.usize(..damaged.len());
                    let end = damaged.len().min(at + 8);
                    damaged[at..end].fill(0xFF);
                }
                _ if !damaged.is_empty() => {
                    let at = random.usize(..damaged.len());
                    damaged[at] ^= 1 << random.u8(..8);
                }
                _ => {}
            }
            let damaged = Bytes::from(damaged);
            let mut machine = factory.machine();
            let restored = AssertUnwindSafe(restore(&mut machine, &damaged)).catch_unwind().await;
            assert!(restored.is_ok(), "restoring {damaged:?} has panicked");
        }
    }
}

/// A snapshot with something behind it is none.
#[doc(hidden)]
pub async fn refuses_more_than_was_written<R: Executor, F: MachineFactory>(_rt: R, factory: F) {
    let commands = commands(&factory, &mut fastrand::Rng::with_seed(8));
    let mut machine = factory.machine();
    for some in commands.chunks(100) {
        let content = snapshot::<F>(&machine).await;
        for more in [1, 9, 40] {
            let longer = [&content[..], &vec![0xFF; more]].concat().into();
            let restored = restore(&mut factory.machine(), &longer).await;
            assert!(restored.is_err(), "{more} bytes more than were written are taken");
        }
        apply_each::<F>(&mut machine, some).await;
    }
}
