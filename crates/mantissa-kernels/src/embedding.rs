//! Embedding tables: rows by their numbers, and the gradient.

use rayon::prelude::*;

use crate::rows::{count_rows, rows_per_piece};

/// Writes row `ids[i]` of the table to row `i` of `out`.
///
/// # Panics
/// If the lengths disagree or an id is not a row of the table: outside data are the caller's to check.
pub fn embedding(ids: &[i32], table: &[f32], width: usize, out: &mut [f32]) {
    check(ids, out.len(), width, table.len());
    let block = rows_per_piece(width);
    out.par_chunks_mut(block * width.max(1))
        .zip(ids.par_chunks(block))
        .for_each(|(out, ids)| {
            for (row, id) in out.chunks_exact_mut(width).zip(ids) {
                row.copy_from_slice(&table[*id as usize * width..][..width]);
            }
        });
}

/// Adds row `i` of `grad` to row `ids[i]` of `table`, the gradient of the embedding table, in the order of the ids.
///
/// # Panics
/// As [`embedding`].
pub fn embedding_gradient(ids: &[i32], grad: &[f32], width: usize, table: &mut [f32]) {
    let rows = check(ids, grad.len(), width, table.len());
    // Each part of the table takes its own ids out of all, in their order: the same sums however many parts there are.
    let parts = PARTS_PER_THREAD * rayon::current_num_threads();
    let block = rows.div_ceil(parts).max(rows_per_piece(width));
    table
        .par_chunks_mut(block * width.max(1))
        .enumerate()
        .for_each(|(index, part)| {
            let first = index * block;
            for (id, grad) in ids.iter().zip(grad.chunks_exact(width)) {
                let row = (*id as usize).wrapping_sub(first);
                if row < block {
                    for (sum, x) in part[row * width..][..width].iter_mut().zip(grad) {
                        *sum += x;
                    }
                }
            }
        });
}

/// Parts of a table for each thread, so that frequent ids in one part do not keep all waiting.
const PARTS_PER_THREAD: usize = 4;

/// The rows of the table, if everything fits.
fn check(ids: &[i32], elements: usize, width: usize, table: usize) -> usize {
    let rows = count_rows(table, width);
    assert_eq!(
        ids.len() * width,
        elements,
        "{} ids and {elements} elements do not make rows of {width}",
        ids.len()
    );
    if let Some(id) = ids.iter().find(|id| **id < 0 || **id as usize >= rows) {
        panic!("id {id} is not a row of a table of {rows}");
    }
    rows
}
