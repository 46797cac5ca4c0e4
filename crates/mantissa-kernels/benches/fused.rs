//! Each operation at the shapes of a BERT of 4 layers and width 256 (16 sequences of 128 tokens), on one thread, as a share of its
//! limit in the same run: a loop that reads and writes as much memory and computes next to nothing, or for attention its products
//! alone.
//!
//! `cargo bench -p mantissa-kernels --bench fused`, with the beginning of a name to run only those.

use gemm::Parallelism;
use mantissa_formats::RandomBits;
use mantissa_kernels::activation::Activation;
use mantissa_kernels::attention::{AttentionShape, attention, attention_backward};
use mantissa_kernels::dropout::{dropout, dropout_add};
use mantissa_kernels::embedding::{embedding, embedding_gradient};
use mantissa_kernels::loss::{cross_entropy, cross_entropy_backward};
use mantissa_kernels::norm::{RowMoments, layer_norm, layer_norm_backward};
use mantissa_kernels::reduce::{column_sums, scan};
use mantissa_kernels::softmax::{softmax, softmax_backward};
use pulp::{Simd, WithSimd};

use clock::ThreadTime;

#[path = "../../mantissa-formats/benches/clock/mod.rs"]
mod clock;

/// Short samples, and many, so that some are spared by whatever else the machine does.
const ROUNDS: usize = 31;
const TOKENS: usize = 2048;
const RANDOM: RandomBits = RandomBits::new(1, 2);

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.expect("a thread").install(|| {
        println!("{:<30} {:>8} {:>8}  share of limit", "", "us", "limit");
        for width in [256, 1024] {
            by_element(&mut Tensors::new(TOKENS, width));
        }
        softmaxes(&mut Tensors::new(64 * 128, 128));
        losses(&mut Tensors::new(307, 4096));
        embeddings(&mut Tensors::new(4096, 256));
        attentions(&mut Tensors::new(TOKENS, 256));
    });
}

/// What an operation works on: as many rows as tokens.
struct Tensors {
    width: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    /// Set to `fresh` before each run: a gradient, or whatever changes in place.
    grad: Vec<f32>,
    fresh: Vec<f32>,
    row: Vec<f32>,
    sums: [Vec<f32>; 2],
    per_row: Vec<f32>,
    moments: Vec<RowMoments>,
    ids: Vec<i32>,
}

impl Tensors {
    fn new(rows: usize, width: usize) -> Self {
        let [x, y, fresh] = [1, 2, 3].map(|stream| sample(stream, rows * width));
        Self {
            width,
            x,
            y,
            grad: fresh.clone(),
            fresh,
            row: sample(4, width),
            sums: [vec![0.0; width], vec![0.0; width]],
            per_row: vec![0.0; rows],
            moments: vec![RowMoments::default(); rows],
            ids: (0..rows).map(|i| (i * i % rows) as i32).collect(),
        }
    }

    /// Prints the best times of an operation and of its limit, in turns.
    fn report(&mut self, name: &str, operation: fn(&mut Self), limit: fn(&mut Self)) {
        let name = format!("{name} {}", self.width);
        let mut arguments = std::env::args().skip(1).filter(|x| x != "--bench");
        if arguments
            .next()
            .is_some_and(|wanted| !name.starts_with(&wanted))
        {
            return;
        }
        let mut best = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            for (best, work) in best.iter_mut().zip([operation, limit]) {
                self.grad.copy_from_slice(&self.fresh);
                let begin = ThreadTime::now();
                work(self);
                *best = best.min(begin.elapsed().as_secs_f64() * 1e6);
            }
        }
        let [time, limit] = best;
        println!("{name:<30} {time:>8.1} {limit:>8.1}  {:>5.2}", limit / time);
    }
}

fn by_element(t: &mut Tensors) {
    t.report(
        "layer_norm",
        |t| layer_norm(&t.x, &t.row, Some(&t.row), 1e-5, &mut t.y, &mut t.moments),
        copy,
    );
    t.report(
        "layer_norm_backward",
        |t| {
            let [gamma, beta] = &mut t.sums;
            layer_norm_backward(&t.x, &t.moments, &t.row, &mut t.grad, gamma, Some(beta));
        },
        add,
    );

    t.report("gelu", |t| Activation::Gelu.forward(&t.x, &mut t.y), copy);
    t.report(
        "gelu_backward",
        |t| Activation::Gelu.backward(&t.x, &mut t.grad),
        add,
    );
    t.report(
        "gelu_bias",
        |t| Activation::Gelu.bias_forward(&mut t.grad, &t.row, &mut t.y),
        |t| dispatch(ScaleAndCopy(&mut t.grad, &mut t.y)),
    );
    t.report(
        "gelu_bias_backward",
        |t| Activation::Gelu.bias_backward(&t.x, &mut t.grad, &mut t.sums[0]),
        add,
    );
    t.report(
        "gelu_tanh",
        |t| Activation::GeluTanh.forward(&t.x, &mut t.y),
        copy,
    );
    t.report(
        "gelu_tanh_backward",
        |t| Activation::GeluTanh.backward(&t.x, &mut t.grad),
        add,
    );
    t.report("relu", |t| Activation::Relu.forward(&t.x, &mut t.y), copy);
    t.report(
        "relu_backward",
        |t| Activation::Relu.backward(&t.x, &mut t.grad),
        add,
    );
    t.report("silu", |t| Activation::Silu.forward(&t.x, &mut t.y), copy);
    t.report(
        "silu_backward",
        |t| Activation::Silu.backward(&t.x, &mut t.grad),
        add,
    );
    t.report("tanh", |t| Activation::Tanh.forward(&t.x, &mut t.y), copy);
    t.report(
        "tanh_backward",
        |t| Activation::Tanh.backward(&t.x, &mut t.grad),
        add,
    );

    t.report(
        "dropout_add p=0",
        |t| dropout_add(&t.x, &mut t.grad, 0.0, RANDOM),
        add,
    );
    t.report(
        "dropout_add p=0.1",
        |t| dropout_add(&t.x, &mut t.grad, 0.1, RANDOM),
        add,
    );
    t.report(
        "dropout p=0.1",
        |t| dropout(&mut t.grad, 0.1, RANDOM),
        |t| dispatch(Scale(&mut t.grad)),
    );
    t.report(
        "column_sums",
        |t| column_sums(&t.grad, t.width, &mut t.sums[0]),
        read,
    );
    t.report(
        "scan",
        |t| {
            std::hint::black_box(scan(&t.grad));
        },
        read,
    );
}

fn softmaxes(t: &mut Tensors) {
    t.report(
        "softmax",
        |t| softmax(&mut t.grad, t.width, 0.125, None),
        |t| dispatch(Scale(&mut t.grad)),
    );
    t.report(
        "softmax_backward",
        |t| softmax_backward(&t.x, &mut t.grad, t.width, 0.125),
        add,
    );
}

fn losses(t: &mut Tensors) {
    t.report(
        "cross_entropy",
        |t| {
            cross_entropy(&t.grad, t.width, &t.ids, &mut t.per_row);
        },
        read,
    );
    t.report(
        "cross_entropy_backward",
        |t| cross_entropy_backward(&mut t.grad, t.width, &t.ids, &t.per_row, 1.0),
        |t| dispatch(Scale(&mut t.grad)),
    );
}

fn embeddings(t: &mut Tensors) {
    t.report(
        "embedding",
        |t| {
            let len = TOKENS * t.width;
            embedding(&t.ids[..TOKENS], &t.x, t.width, &mut t.y[..len]);
        },
        |t| {
            let len = TOKENS * t.width;
            dispatch(Copy(&t.x[..len], &mut t.y[..len]));
        },
    );
    t.report(
        "embedding_gradient",
        |t| {
            let len = TOKENS * t.width;
            embedding_gradient(&t.ids[..TOKENS], &t.x[..len], t.width, &mut t.grad);
        },
        |t| {
            let len = TOKENS * t.width;
            dispatch(Add(&t.x[..len], &mut t.grad[..len]));
        },
    );
}

/// 16 sequences of 128 tokens, 4 heads of 64.
fn shape() -> AttentionShape {
    AttentionShape::interleaved(16, 4, 128, 128, 64)
}

fn attentions(t: &mut Tensors) {
    t.per_row = vec![0.0; shape().rows()];
    // Queries, keys and values are the same.
    t.report(
        "attention",
        |t| {
            attention(
                &shape(),
                &t.x,
                &t.x,
                &t.x,
                0.125,
                None,
                &mut t.y,
                &mut t.per_row,
            )
        },
        |t| products(&t.x, 2),
    );
    t.report(
        "attention_backward",
        |t| {
            let (out, log_sum_exp, grad_out) = (&t.y, &t.per_row, &t.fresh);
            let (grad_q, rest) = t.grad.split_at_mut(t.x.len() / 2);
            let half = AttentionShape {
                batch: 8,
                ..shape()
            };
            let len = grad_q.len();
            let mut grad_v = vec![0.0; len];
            attention_backward(
                &half,
                &t.x[..len],
                &t.x[..len],
                &t.x[..len],
                0.125,
                None,
                &out[..len],
                &log_sum_exp[..half.rows()],
                &grad_out[..len],
                grad_q,
                rest,
                &mut grad_v,
            );
        },
        |t| products(&t.x[..t.x.len() / 2], 5),
    );
}

/// As many products as an attention has for each head: half of them `q kᵀ`, half `p v`.
fn products(x: &[f32], count: usize) {
    let AttentionShape {
        queries,
        keys,
        width,
        heads,
        ..
    } = shape();
    let row = heads * width;
    let mut scores = vec![0.0f32; queries * keys];
    let mut out = vec![0.0f32; queries * row];
    for sequence in x.chunks_exact(queries * row) {
        for head in 0..heads {
            let head = &sequence[head * width..];
            for product in 0..count {
                let (scores, out, head) = (scores.as_mut_ptr(), out.as_mut_ptr(), head.as_ptr());
                let (row, columns) = (row as isize, keys as isize);
                let [m, n, k] = match product % 2 {
                    0 => [queries, keys, width],
                    _ => [queries, width, keys],
                };
                let (dst, dst_row, lhs, lhs_row, rhs, rhs_column, rhs_row) = match product % 2 {
                    0 => (scores, columns, head, row, head, row, 1),
                    _ => (out, row, scores.cast_const(), columns, head, 1, row),
                };
                // SAFETY: the matrices lie in the slices above, whose sizes are those of `shape`.
                unsafe {
                    gemm::gemm(
                        m,
                        n,
                        k,
                        dst,
                        1,
                        dst_row,
                        false,
                        lhs,
                        1,
                        lhs_row,
                        rhs,
                        rhs_column,
                        rhs_row,
                        1.0,
                        1.0,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    );
                }
            }
        }
    }
    std::hint::black_box((&scores, &out));
}

fn read(t: &mut Tensors) {
    std::hint::black_box(dispatch(Read(&t.grad)));
}

fn copy(t: &mut Tensors) {
    dispatch(Copy(&t.x, &mut t.y));
}

fn add(t: &mut Tensors) {
    dispatch(Add(&t.x, &mut t.grad));
}

fn dispatch<O: WithSimd>(limit: O) -> O::Output {
    pulp::Arch::new().dispatch(limit)
}

struct Read<'a>(&'a [f32]);

impl WithSimd for Read<'_> {
    type Output = u32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u32 {
        self.0.iter().fold(0, |all, x| all ^ x.to_bits())
    }
}

struct Copy<'a>(&'a [f32], &'a mut [f32]);

impl WithSimd for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, y) in self.0.iter().zip(self.1) {
            *y = x * 1.5;
        }
    }
}

struct Add<'a>(&'a [f32], &'a mut [f32]);

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, y) in self.0.iter().zip(self.1) {
            *y += x;
        }
    }
}

struct Scale<'a>(&'a mut [f32]);

impl WithSimd for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.0 {
            *x *= 1.5;
        }
    }
}

struct ScaleAndCopy<'a>(&'a mut [f32], &'a mut [f32]);

impl WithSimd for ScaleAndCopy<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, y) in self.0.iter_mut().zip(self.1) {
            *x *= 1.5;
            *y = *x;
        }
    }
}

/// Numbers in -2..2.
fn sample(stream: u64, len: usize) -> Vec<f32> {
    let mut bits = vec![0; len];
    RandomBits::new(5, stream).fill(0, &mut bits);
    let signed = bits.into_iter().map(|bits| bits as i32 as f32);
    signed.map(|x| x / (1u64 << 30) as f32).collect()
}
