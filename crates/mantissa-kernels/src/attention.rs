//! Scaled dot-product attention without stored scores.

use crate::softmax::Mask;

/// Where the vectors of one head lie in a tensor of `[batch, head, row]` vectors, as distances in elements. The elements of a vector
/// lie next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStrides {
    /// From one batch to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one query or key to the next.
    pub row: usize,
}

impl HeadStrides {
    /// A contiguous `[batch, rows, heads · width]` tensor: what a linear layer writes.
    pub fn interleaved(rows: usize, heads: usize, width: usize) -> Self {
        Self {
            batch: rows * heads * width,
            head: width,
            row: heads * width,
        }
    }

    /// A contiguous `[batch, heads, rows, width]` tensor.
    pub fn separate(rows: usize, heads: usize, width: usize) -> Self {
        Self {
            batch: heads * rows * width,
            head: rows * width,
            row: width,
        }
    }
}

/// The sizes of an attention and the layouts of its tensors. Gradients have the layout of what they are the gradient of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Heads of each.
    pub heads: usize,
    /// Queries of each head.
    pub queries: usize,
    /// Keys, and values, of each head.
    pub keys: usize,
    /// Elements of each query, key and value.
    pub width: usize,
    /// Layout of the queries.
    pub query: HeadStrides,
    /// Layout of the keys.
    pub key: HeadStrides,
    /// Layout of the values.
    pub value: HeadStrides,
    /// Layout of the output.
    pub out: HeadStrides,
}

impl AttentionShape {
    /// All tensors `[batch, queries or keys, heads · width]`.
    pub fn interleaved(
        batch: usize,
        heads: usize,
        queries: usize,
        keys: usize,
        width: usize,
    ) -> Self {
        let of = |rows| HeadStrides::interleaved(rows, heads, width);
        Self {
            batch,
            heads,
            queries,
            keys,
            width,
            query: of(queries),
            key: of(keys),
            value: of(keys),
            out: of(queries),
        }
    }

    /// All tensors `[batch, heads, queries or keys, width]`.
    pub fn separate(batch: usize, heads: usize, queries: usize, keys: usize, width: usize) -> Self {
        let of = |rows| HeadStrides::separate(rows, heads, width);
        Self {
            batch,
            heads,
            queries,
            keys,
            width,
            query: of(queries),
            key: of(keys),
            value: of(keys),
            out: of(queries),
        }
    }

    /// Rows of scores: the length of `log_sum_exp`.
    pub fn rows(&self) -> usize {
        self.batch * self.heads * self.queries
    }
}

/// `softmax(scale · q kᵀ) v` for each batch and head (Vaswani et al. 2017, arXiv 1706.03762). `log_sum_exp` receives, for each row
/// of scores, the logarithm of the sum of their exponentials, from which [`attention_backward`] computes the probabilities again.
///
/// Masked scores are treated as by [`softmax`](crate::softmax::softmax).
///
/// # Panics
/// If a tensor is smaller than its layout says, layouts overlap, or the mask is for other heads or queries.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    scale: f32,
    mask: Option<Mask>,
    out: &mut [f32],
    log_sum_exp: &mut [f32],
) {
    let _ = (shape, q, k, v, scale, mask, out, log_sum_exp);
    todo!()
}

/// Writes the gradients of [`attention`]'s queries, keys and values, given its output and the gradient of that.
///
/// # Panics
/// As [`attention`].
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    shape: &AttentionShape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    scale: f32,
    mask: Option<Mask>,
    out: &[f32],
    log_sum_exp: &[f32],
    grad_out: &[f32],
    grad_q: &mut [f32],
    grad_k: &mut [f32],
    grad_v: &mut [f32],
) {
    let _ = (
        shape,
        q,
        k,
        v,
        scale,
        mask,
        out,
        log_sum_exp,
        grad_out,
        grad_q,
        grad_k,
        grad_v,
    );
    todo!()
}
