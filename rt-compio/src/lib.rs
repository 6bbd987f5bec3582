//! Quorate on compio: io_uring where the kernel grants it, otherwise epoll with file work on
//! blocking threads.
//!
//! Tasks and timers are those of [`quorate_rt::local_executor`]; of compio there are the drivers,
//! and what they complete.

mod file;
mod net;
mod runtime;

use bytes::{Buf, Bytes};
use quorate_rt::blocking::IOV_MAX;

pub use file::CompioFile;
pub use net::{CompioListener, CompioReadHalf, CompioStream, CompioWriteHalf};
pub use runtime::Compio;

/// The most that one operation moves, in bytes. io_uring's lengths have 32 bits; the kernel stops
/// at 2 GiB anyway.
const LONGEST_TRANSFER: usize = 1 << 30;

/// What is left of a gathered write.
struct Unwritten {
    buffers: std::collections::VecDeque<Bytes>,
}

impl Unwritten {
    fn new(buffers: Vec<Bytes>) -> Self {
        Self { buffers: buffers.into_iter().filter(|buffer| !buffer.is_empty()).collect() }
    }

    /// As many buffers as one operation takes; none when nothing is left. They share their content
    /// with what is left.
    fn batch(&self) -> Option<Vec<Bytes>> {
        let mut space = LONGEST_TRANSFER;
        let mut batch = Vec::with_capacity(self.buffers.len().min(IOV_MAX));
        for buffer in self.buffers.iter().take(IOV_MAX) {
            let part = buffer.slice(..buffer.len().min(space));
            space -= part.len();
            batch.push(part);
            if space == 0 {
                break;
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.buffers.front_mut() {
            if first.len() > written {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.buffers.pop_front();
        }
        assert!(written == 0, "the kernel has written more than it was given");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut left = Unwritten::new(vec![
            Bytes::from_static(b"abc"),
            Bytes::new(),
            Bytes::from_static(b"de"),
        ]);
        assert_eq!(left.batch().map(|batch| batch.concat()), Some(b"abcde".to_vec()));
        left.advance(1);
        assert_eq!(left.batch().map(|batch| batch.concat()), Some(b"bcde".to_vec()));
        left.advance(3);
        assert_eq!(left.batch().map(|batch| batch.concat()), Some(b"e".to_vec()));
        left.advance(1);
        assert_eq!(left.batch(), None);
    }

    #[test]
    fn a_batch_is_what_the_kernel_takes_at_once() {
        let mut left = Unwritten::new(vec![Bytes::from_static(b"x"); IOV_MAX + 1]);
        assert_eq!(left.batch().map(|batch| batch.len()), Some(IOV_MAX));
        left.advance(IOV_MAX);
        assert_eq!(left.batch().map(|batch| batch.len()), Some(1));
    }
}
