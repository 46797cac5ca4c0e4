//! Scaled dot-product attention without stored scores.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::heads::{Heads, Matrix, multiply};
use crate::math::exp;
use crate::scratch::with_scratch;
use crate::softmax::{Mask, SoftmaxRows, clear_masked, fill_masked};
use crate::vector::{dispatch, dot};

/// Scores in work at a time, of as many queries as have so few: they stay in a core's second cache.
const SCORES: usize = 1 << 15;
/// Queries in work at a time at least, for the products' sake.
const LEAST_QUERIES: usize = 8;

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
/// If there are no keys, a tensor is smaller than its layout says or overlaps itself, or the mask is for other heads or queries.
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
    shape.check(mask, log_sum_exp.len());
    let (of_queries, of_keys) = (shape.sizes(shape.queries), shape.sizes(shape.keys));
    let q = Heads::shared("queries", of_queries, shape.query, q);
    let k = Heads::shared("keys", of_keys, shape.key, k);
    let v = Heads::shared("values", of_keys, shape.value, v);
    let out = Heads::exclusive("outputs", of_queries, shape.out, out);
    let (keys, width) = (shape.keys, shape.width);
    let block = shape.queries_per_block();
    let heads = log_sum_exp.par_chunks_mut(shape.queries.max(1));
    heads.enumerate().for_each(|(head, log_sum_exp)| {
        let (q, k, v, out) = (q.head(head), k.head(head), v.head(head), out.head(head));
        with_scratch(block * keys, |scratch| {
            for (index, log_sum_exp) in log_sum_exp.chunks_mut(block).enumerate() {
                let (first, rows) = (index * block, log_sum_exp.len());
                let (q, out) = (q.after_rows(first), out.after_rows(first));
                let scores = &mut scratch[..rows * keys];
                let sizes = [rows, keys, width];
                // SAFETY: `Heads` checked that the rows of each head lie in their tensors; the scores are this thread's.
                unsafe { multiply(sizes, Matrix::of(scores, keys), false, q, k.transposed()) };
                dispatch(SoftmaxRows {
                    scores,
                    columns: keys,
                    first: head * shape.queries + first,
                    scale,
                    mask,
                    log_sum_exp,
                });
                let sizes = [rows, width, keys];
                // SAFETY: as above, and `Heads` checked that this head of `out` lies apart from all that other threads write.
                unsafe { multiply(sizes, out, false, Matrix::of(scores, keys), v) };
            }
        });
    });
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
    shape.check(mask, log_sum_exp.len());
    if shape.queries == 0 {
        // Nobody asked for these keys.
        return [grad_k, grad_v].into_iter().for_each(|grad| grad.fill(0.0));
    }
    let (of_queries, of_keys) = (shape.sizes(shape.queries), shape.sizes(shape.keys));
    let q = Heads::shared("queries", of_queries, shape.query, q);
    let k = Heads::shared("keys", of_keys, shape.key, k);
    let v = Heads::shared("values", of_keys, shape.value, v);
    let out = Heads::shared("outputs", of_queries, shape.out, out);
    let grad_out = Heads::shared("gradients of outputs", of_queries, shape.out, grad_out);
    let grad_q = Heads::exclusive("gradients of queries", of_queries, shape.query, grad_q);
    let grad_k = Heads::exclusive("gradients of keys", of_keys, shape.key, grad_k);
    let grad_v = Heads::exclusive("gradients of values", of_keys, shape.value, grad_v);
    let (keys, width) = (shape.keys, shape.width);
    let block = shape.queries_per_block();
    let heads = log_sum_exp.par_chunks(shape.queries);
    heads.enumerate().for_each(|(head, log_sum_exp)| {
        let (q, k, v) = (q.head(head), k.head(head), v.head(head));
        let (out, grad_out) = (out.head(head), grad_out.head(head));
        let (grad_q, grad_k, grad_v) = (grad_q.head(head), grad_k.head(head), grad_v.head(head));
        with_scratch(2 * block * keys, |scratch| {
            for (index, log_sum_exp) in log_sum_exp.chunks(block).enumerate() {
                let (first, rows) = (index * block, log_sum_exp.len());
                let (q, grad_q) = (q.after_rows(first), grad_q.after_rows(first));
                let (out, grad_out) = (out.after_rows(first), grad_out.after_rows(first));
                let (scores, grads) = scratch[..2 * rows * keys].split_at_mut(rows * keys);

                let (s, dp) = (Matrix::of(scores, keys), Matrix::of(grads, keys));
                let sizes = [rows, keys, width];
                // SAFETY: `Heads` checked that the rows of each head lie in their tensors; scores and grads are this thread's.
                unsafe {
                    multiply(sizes, s, false, q, k.transposed());
                    multiply(sizes, dp, false, grad_out, v.transposed());
                }
                dispatch(BackwardRows {
                    scores,
                    grads,
                    columns: keys,
                    first: head * shape.queries + first,
                    scale,
                    mask,
                    log_sum_exp,
                    out,
                    grad_out,
                    width,
                });
                let (p, ds) = (Matrix::of(scores, keys), Matrix::of(grads, keys));
                let add = index > 0;
                // SAFETY: as above, and `Heads` checked that this head of each gradient lies apart from all that other threads
                // write.
                unsafe {
                    multiply([keys, width, rows], grad_v, add, p.transposed(), grad_out);
                    multiply([rows, width, keys], grad_q, false, ds, k);
                    multiply([keys, width, rows], grad_k, add, ds.transposed(), q);
                }
            }
        });
    });
}

impl AttentionShape {
    fn sizes(&self, rows: usize) -> [usize; 4] {
        [self.batch, self.heads, rows, self.width]
    }

    fn check(&self, mask: Option<Mask>, log_sum_exp: usize) {
        assert_eq!(
            self.rows(),
            log_sum_exp,
            "log_sum_exp is one for each batch, head and query"
        );
        assert!(self.keys > 0, "attention over no keys");
        if let Some(mask) = mask {
            assert_eq!(
                (self.heads, self.queries),
                (mask.heads, mask.queries),
                "the mask is for other heads and queries"
            );
        }
    }

    fn queries_per_block(&self) -> usize {
        (SCORES / self.keys.max(1)).clamp(LEAST_QUERIES, self.queries.max(LEAST_QUERIES))
    }
}

/// From scores and the gradients of probabilities to probabilities and the gradients of scores, in place.
struct BackwardRows<'a> {
    scores: &'a mut [f32],
    grads: &'a mut [f32],
    columns: usize,
    first: usize,
    scale: f32,
    mask: Option<Mask<'a>>,
    log_sum_exp: &'a [f32],
    out: Matrix<'a>,
    grad_out: Matrix<'a>,
    width: usize,
}

impl WithSimd for BackwardRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.scores.chunks_exact_mut(self.columns);
        let rows = rows.zip(self.grads.chunks_exact_mut(self.columns));
        for (index, ((row, grad), log_sum_exp)) in rows.zip(self.log_sum_exp).enumerate() {
            let masked = self
                .mask
                .map(|mask| (mask.row(self.first + index, self.columns), mask.value));
            match masked {
                None => {
                    for x in &mut *row {
                        *x = exp(self.scale * *x - log_sum_exp);
                    }
                }
                Some((masked, value)) if value.is_finite() && all_masked(masked) => {
                    // Exactly: the logarithm has few digits left beside so large a number.
                    row.fill(1.0 / self.columns as f32);
                }
                Some((masked, value)) => {
                    fill_masked(row, self.scale, masked, value);
                    for x in &mut *row {
                        *x = exp(*x - log_sum_exp);
                    }
                }
            }
            // SAFETY: `Heads` checked that the rows of each head lie in their tensors, which nobody writes to.
            let (out, grad_out) = unsafe {
                let width = self.width;
                (self.out.row(index, width), self.grad_out.row(index, width))
            };
            // The mean of the probabilities' gradients, weighted by the probabilities: one and the same.
            let mean = dot(simd, out, grad_out);
            for (grad, p) in grad.iter_mut().zip(row) {
                *grad = self.scale * (*p * (*grad - mean));
            }
            if let Some((masked, _)) = masked {
                clear_masked(grad, masked);
            }
        }
    }
}

#[inline(always)]
fn all_masked(masked: &[u8]) -> bool {
    masked.iter().fold(true, |all, masked| all & (*masked != 0))
}
