//! Scaled and masked softmax.

/// Which scores are masked, for rows of scores numbered by batch, head and query, the query fastest.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// Masked where not zero; the keys of one row lie next to each other.
    pub masked: &'a [u8],
    /// Heads of one batch.
    pub heads: usize,
    /// Queries of one head.
    pub queries: usize,
    /// Elements of `masked` from one batch, head and query to the next; 0 where all share the same.
    pub strides: [usize; 3],
    /// What masked scores become, after scaling: minus infinity, or Burn's large negative number.
    pub value: f32,
}

impl<'a> Mask<'a> {
    /// A `[batch, keys]` mask, shared by all heads and queries of a batch.
    pub fn of_keys(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [keys, 0, 0],
            value,
        }
    }

    /// A `[queries, keys]` mask, shared by all batches and heads.
    pub fn of_pairs(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [0, 0, keys],
            value,
        }
    }

    /// A `[batch, queries, keys]` mask, shared by all heads of a batch.
    pub fn of_batches(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [queries * keys, 0, keys],
            value,
        }
    }

    /// A `[batch, heads, queries, keys]` mask.
    pub fn of_scores(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [heads * queries * keys, queries * keys, keys],
            value,
        }
    }

    /// The mask of the `columns` scores of one row.
    #[inline]
    pub(crate) fn row(&self, row: usize, columns: usize) -> &'a [u8] {
        let (head, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (head / self.heads, head % self.heads);
        let start = batch * self.strides[0] + head * self.strides[1] + query * self.strides[2];
        &self.masked[start..start + columns]
    }
}

/// Replaces each row of `columns` scores by `softmax(scale · scores)`.
///
/// A masked score counts as the mask's value. So a row whose every score is masked becomes uniform if the value is finite, and
/// zeros if it is minus infinity.
///
/// # Panics
/// If the scores are not whole rows, or the mask is smaller than they are.
pub fn softmax(scores: &mut [f32], columns: usize, scale: f32, mask: Option<Mask>) {
    let _ = (scores, columns, scale, mask);
    todo!()
}

/// Turns the gradient of [`softmax`]'s probabilities into that of its scores, in place.
///
/// Masked scores get no gradient because their probability is zero; where every score of a row is masked with a finite value,
/// use [`masked_softmax_backward`].
///
/// # Panics
/// If the lengths differ or are not whole rows.
pub fn softmax_backward(probabilities: &[f32], grad: &mut [f32], columns: usize, scale: f32) {
    let _ = (probabilities, grad, columns, scale);
    todo!()
}

/// [`softmax_backward`] with no gradient at masked scores whatever their probability, as Burn's `mask_fill` has it.
///
/// # Panics
/// If the lengths differ or are not whole rows, or the mask is smaller than they are.
pub fn masked_softmax_backward(
    probabilities: &[f32],
    grad: &mut [f32],
    columns: usize,
    scale: f32,
    mask: Mask,
) {
    let _ = (probabilities, grad, columns, scale, mask);
    todo!()
}
