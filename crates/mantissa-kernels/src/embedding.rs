//! Embedding tables: rows by their numbers, and the gradient.

/// Writes row `ids[i]` of the table to row `i` of `out`.
///
/// # Panics
/// If the lengths disagree or an id is not a row of the table: outside data are the caller's to check.
pub fn embedding(ids: &[i32], table: &[f32], width: usize, out: &mut [f32]) {
    let _ = (ids, table, width, out);
    todo!()
}

/// Adds row `i` of `grad` to row `ids[i]` of `table`, the gradient of the embedding table, in the order of the ids.
///
/// # Panics
/// As [`embedding`].
pub fn embedding_gradient(ids: &[i32], grad: &[f32], width: usize, table: &mut [f32]) {
    let _ = (ids, grad, width, table);
    todo!()
}
