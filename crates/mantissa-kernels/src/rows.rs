//! Cutting tensors into blocks of rows, the same blocks on every number of threads.

use rayon::prelude::*;

use crate::scratch::with_scratch;

/// Elements of one piece of work: enough to outweigh handing it to a thread, few enough to stay in a core's cache.
pub(crate) const PIECE: usize = 1 << 14;
/// Most blocks whose partial sums are kept for an operation that sums over rows.
const MOST_BLOCKS: usize = 64;

/// The rows of one block, whatever the number of threads.
pub(crate) fn rows_per_piece(width: usize) -> usize {
    (PIECE / width.max(1)).max(1)
}

/// The number of rows of `len` elements.
///
/// # Panics
/// If they do not fill whole rows.
pub(crate) fn count_rows(len: usize, width: usize) -> usize {
    assert!(
        width > 0 || len == 0,
        "{len} elements in rows of no elements"
    );
    if len == 0 {
        return 0;
    }
    assert!(
        len.is_multiple_of(width),
        "{len} elements are not whole rows of {width}"
    );
    len / width
}

/// The rows of one block of an operation that sums over rows: bounds the memory of the blocks' sums.
pub(crate) fn rows_per_sum(rows: usize, width: usize) -> usize {
    rows_per_piece(width).max(rows.div_ceil(MOST_BLOCKS))
}

/// Writes to `sums` what `visit(block's index, block, sums of the block)` leaves in the sums of each block, which are zeros at
/// first, added up in the order of the blocks.
pub(crate) fn sum_over_blocks<B: Send>(
    blocks: impl IndexedParallelIterator<Item = B>,
    sums: &mut [f32],
    visit: impl Fn(usize, B, &mut [f32]) + Sync + Send,
) {
    sums.fill(0.0);
    let columns = sums.len().max(1);
    with_scratch(blocks.len() * columns, |partials| {
        blocks
            .zip(partials.par_chunks_exact_mut(columns))
            .enumerate()
            .for_each(|(index, (block, partial))| {
                partial.fill(0.0);
                visit(index, block, partial);
            });
        for partial in partials.chunks_exact(columns) {
            for (sum, x) in sums.iter_mut().zip(partial) {
                *sum += x;
            }
        }
    });
}
