//! The first of two futures to end.

use std::pin::pin;

use futures::future::{self, select};

/// The result of one of two futures: see [`race`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// That of the first one.
    Left(A),
    /// That of the second one.
    Right(B),
}

/// Waits for the first of two futures to end, drops the other one, and returns the result. If both
/// are ready, that of `a`. A future that is to go on afterwards is pinned and lent: `race(&mut a,
/// b)`.
///
/// ```
/// # use std::time::Duration;
/// # use quorate_rt::channel::watch;
/// use quorate_rt::{Either, Executor, race};
///
/// # async fn serve<R: Executor>(rt: R, mut stopped: watch::Receiver<bool>) {
/// let stop = stopped.wait_for(|stopped| *stopped);
/// match race(stop, rt.sleep(Duration::from_secs(1))).await {
///     Either::Left(_) => println!("stops"),
///     Either::Right(()) => println!("a second has passed"),
/// }
/// # }
/// ```
///
/// # Cancellation
/// The one that loses is dropped, so neither may be I/O: a read that is dropped may lose bytes, and
/// a write may still happen. Race the handle of a task that does the I/O instead. Dropping the
/// handle cancels the task, and with it whatever the task owns, such as the connection; a handle
/// that is lent by `&mut` goes on.
pub async fn race<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    match select(pin!(a), pin!(b)).await {
        future::Either::Left((output, _)) => Either::Left(output),
        future::Either::Right((output, _)) => Either::Right(output),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use futures::executor::block_on;

    use super::*;

    #[test]
    fn the_first_to_end_wins_and_the_other_is_dropped() {
        struct Dropped<'a>(&'a Cell<bool>);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let is_dropped = Cell::new(false);
        let guard = Dropped(&is_dropped);
        let waits = async {
            let _guard = guard;
            pending::<()>().await
        };
        assert_eq!(block_on(race(waits, ready(2))), Either::Right(2));
        assert!(is_dropped.get());
        assert_eq!(block_on(race(ready(1), pending::<u8>())), Either::Left(1));
    }

    #[test]
    fn of_two_that_are_ready_the_first_one_is_taken() {
        assert_eq!(block_on(race(ready(1), ready(2))), Either::Left(1));
    }

    #[test]
    fn a_future_that_is_lent_goes_on() {
        let mut polls = 0;
        let counts = std::future::poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 3 { std::task::Poll::Ready(polls) } else { std::task::Poll::Pending }
        });
        let mut counts = pin!(counts);
        assert_eq!(block_on(race(&mut counts, ready(()))), Either::Right(()));
        assert_eq!(block_on(counts), 3);
    }
}
