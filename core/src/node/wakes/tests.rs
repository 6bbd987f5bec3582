//! Answers to tasks on other threads: nobody is left waiting, and one wake is enough for all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures::FutureExt;

use super::*;

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task {
    wakes: AtomicUsize,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Somebody who waits for an answer, and who answers.
struct Waiting {
    task: Arc<Task>,
    receiver: Receiver<u8>,
    sender: Option<Sender<u8>>,
}

impl Waiting {
    fn new() -> Self {
        let (sender, receiver) = channel();
        let mut waiting = Self { task: Arc::default(), receiver, sender: Some(sender) };
        assert!(waiting.poll().is_pending());
        waiting
    }

    fn poll(&mut self) -> Poll<Result<u8, Closed>> {
        let waker = Waker::from(Arc::clone(&self.task));
        self.receiver.poll_unpin(&mut Context::from_waker(&waker))
    }

    fn answer(&mut self, wakes: &Wakes) {
        self.sender.take().unwrap().send(7, wakes);
    }

    fn wakes(&self) -> usize {
        self.task.wakes.load(Ordering::SeqCst)
    }
}

const NOW: Instant = Instant::from_nanos(1 << 30);

fn wakes() -> (Rc<Signal>, Wakes) {
    let signal = Rc::<Signal>::default();
    (Rc::clone(&signal), Wakes::new(signal))
}

/// Three who were answered in one turn, which is over.
fn answered(wakes: &Wakes) -> [Waiting; 3] {
    let mut three = [(); 3].map(|()| Waiting::new());
    wakes.begin_turn(NOW);
    three.iter_mut().for_each(|waiting| waiting.answer(wakes));
    assert_eq!(three.each_ref().map(Waiting::wakes), [0, 0, 0], "the turn is not over");
    assert_eq!(wakes.end_turn(|| NOW), Some(NOW + PATIENCE), "there must be another turn");
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 0, 0], "one wake of the node");
    three
}

#[test]
fn the_first_task_of_a_turn_wakes_the_others() {
    let (_, wakes) = wakes();
    let mut three = answered(&wakes);
    assert_eq!(three[0].poll(), Poll::Ready(Ok(7)));
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 1, 1]);
    assert_eq!(three[1].poll(), Poll::Ready(Ok(7)));
    assert_eq!(three[2].poll(), Poll::Ready(Ok(7)));
    wakes.begin_turn(NOW + PATIENCE);
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 1, 1], "nobody is woken twice");
}

#[test]
fn the_node_wakes_those_whom_the_first_task_has_not_woken_in_time() {
    let (_, wakes) = wakes();
    let three = answered(&wakes);
    let soon = NOW + PATIENCE / 2;
    wakes.begin_turn(soon);
    assert_eq!(wakes.end_turn(|| soon), Some(NOW + PATIENCE));
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 0, 0], "the first may be about to run");
    wakes.begin_turn(NOW + PATIENCE);
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 1, 1]);
}

#[test]
fn a_task_that_was_woken_wakes_those_of_its_own_turn() {
    let (_, wakes) = wakes();
    let [mut one, two] = [answered(&wakes), answered(&wakes)];
    assert_eq!(one[0].poll(), Poll::Ready(Ok(7)));
    assert_eq!(one.each_ref().map(Waiting::wakes), [1, 1, 1]);
    assert_eq!(two.each_ref().map(Waiting::wakes), [1, 0, 0]);
    wakes.begin_turn(NOW + PATIENCE);
    assert_eq!(two.each_ref().map(Waiting::wakes), [1, 1, 1]);
}

#[test]
fn a_first_task_that_gives_up_wakes_the_others() {
    let (_, wakes) = wakes();
    let [first, second, third] = answered(&wakes);
    drop(first);
    assert_eq!([second.wakes(), third.wakes()], [1, 1]);
}

#[test]
fn a_first_task_that_looks_before_the_turn_is_over_leaves_the_others_to_the_node() {
    let (_, wakes) = wakes();
    let mut three = [(); 3].map(|()| Waiting::new());
    wakes.begin_turn(NOW);
    three[0].answer(&wakes);
    assert_eq!(three[0].poll(), Poll::Ready(Ok(7)));
    three[1].answer(&wakes);
    three[2].answer(&wakes);
    wakes.end_turn(|| NOW);
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 1, 1]);
}

#[test]
fn an_answer_outside_of_a_turn_brings_one() {
    let (signal, wakes) = wakes();
    let mut waiting = Waiting::new();
    let context = &mut Context::from_waker(Waker::noop());
    assert!(signal.poll(context).is_pending());
    waiting.answer(&wakes);
    assert!(signal.poll(context).is_ready());
    wakes.begin_turn(NOW);
    assert_eq!(wakes.end_turn(|| NOW), None, "there is nobody else to be woken");
    assert_eq!(waiting.wakes(), 1);
}

#[test]
fn the_end_of_the_node_leaves_nobody_waiting() {
    let (_, wakes) = wakes();
    let three = answered(&wakes);
    let [mut gathered, mut late, mut refused] = [(); 3].map(|()| Waiting::new());
    gathered.answer(&wakes);
    wakes.close();
    assert_eq!(three.each_ref().map(Waiting::wakes), [1, 1, 1]);
    assert_eq!(gathered.wakes(), 1);
    late.answer(&wakes);
    assert_eq!(late.wakes(), 1, "at once: nobody comes back to it");
    drop(refused.sender.take());
    assert_eq!((refused.wakes(), refused.poll()), (1, Poll::Ready(Err(Closed))));
}

#[test]
fn an_answer_for_a_receiver_that_is_gone_wakes_nobody() {
    let (_, wakes) = wakes();
    let mut waiting = Waiting::new();
    drop(waiting.receiver);
    waiting.sender.take().unwrap().send(7, &wakes);
    assert_eq!(wakes.end_turn(|| NOW), None);
    assert_eq!(waiting.task.wakes.load(Ordering::SeqCst), 0);
}
