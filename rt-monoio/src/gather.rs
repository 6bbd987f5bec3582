//! Gathering small buffers. monoio's vectored operations take `Vec<u8>`s (or raw pointers), know no
//! offset and lack `MSG_NOSIGNAL`, so a list of `Bytes` goes out as single writes (but for many
//! into a file): large buffers as they are, runs of small ones copied into one, for copying a few
//! KiB costs less than one more operation.

use bytes::{Bytes, BytesMut};

/// From this length on, in bytes, a buffer is never copied.
const LARGE: usize = 4 * 1024;

/// The longest run of small buffers that is copied together, in bytes. It bounds what a write
/// allocates at a time.
const LONGEST_RUN: usize = 64 * 1024;

/// The same bytes in fewer buffers, none of them empty.
pub(crate) fn gather(from: Vec<Bytes>) -> impl Iterator<Item = Bytes> {
    let mut rest = from.into_iter().filter(|buffer| !buffer.is_empty()).peekable();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut length = first.len();
        let mut next_fits = |length: usize| {
            rest.next_if(|next| next.len() < LARGE && length + next.len() <= LONGEST_RUN)
        };
        if length >= LARGE {
            return Some(first);
        }
        let Some(second) = next_fits(length) else { return Some(first) };
        length += second.len();
        let mut run = BytesMut::with_capacity(LONGEST_RUN.min(length.saturating_mul(4)));
        run.extend_from_slice(&first);
        run.extend_from_slice(&second);
        while let Some(next) = next_fits(run.len()) {
            run.extend_from_slice(&next);
        }
        Some(run.freeze())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(from: &[usize]) -> Vec<usize> {
        let buffers = from.iter().map(|length| Bytes::from(vec![7; *length])).collect();
        gather(buffers).map(|buffer| buffer.len()).collect()
    }

    #[test]
    fn small_buffers_go_together_and_large_ones_alone() {
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[0, 0]), [0; 0]);
        assert_eq!(lengths(&[1, 2, 0, 3]), [6]);
        assert_eq!(lengths(&[1, LARGE, 2, 3, LARGE - 1]), [1, LARGE, LARGE + 4]);
        assert_eq!(lengths(&[LARGE - 1; 18]), [16 * (LARGE - 1), 2 * (LARGE - 1)]);
    }

    #[test]
    fn the_bytes_and_their_order_stay_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![9; LARGE]);
        let from = vec![
            Bytes::from_static(b"ab"),
            large.clone(),
            Bytes::from_static(b"c"),
            Bytes::from_static(b"d"),
        ];
        let gathered: Vec<Bytes> = gather(from.clone()).collect();
        assert_eq!(gathered.concat(), from.concat());
        assert_eq!(gathered[1].as_ptr(), large.as_ptr());
        assert_eq!(
            gathered[0].as_ptr(),
            from[0].as_ptr(),
            "one small buffer alone is not copied either"
        );
    }
}
