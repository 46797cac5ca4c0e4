//! The same bits on every number of threads.

use mantissa_formats::RandomBits;
use mantissa_kernels::attention::{AttentionShape, attention, attention_backward};
use mantissa_kernels::dropout::{dropout, dropout_add};
use mantissa_kernels::embedding::{embedding, embedding_gradient};
use mantissa_kernels::loss::{cross_entropy, cross_entropy_backward};
use mantissa_kernels::norm::{RowMoments, layer_norm, layer_norm_backward};
use mantissa_kernels::reduce::{column_sums, scan};
use mantissa_kernels::softmax::{softmax, softmax_backward};

use crate::activation::ALL;
use crate::comparison::{sample, sample_ids};

/// Large enough for several pieces of work, and not a multiple of any.
const ROWS: usize = 301;
const WIDTH: usize = 517;

/// Everything, one result after the other, as bits.
fn run_all() -> Vec<u32> {
    let mut results = Vec::new();
    let mut keep = |x: &[f32]| results.extend(x.iter().map(|x| x.to_bits()));
    let x = sample(1, ROWS * WIDTH, 3.0);
    let grad = sample(2, ROWS * WIDTH, 1.0);
    let row = sample(3, WIDTH, 1.0);
    let random = RandomBits::new(1, 2);

    let mut out = vec![0.0; x.len()];
    let mut moments = vec![RowMoments::default(); ROWS];
    layer_norm(&x, &row, Some(&row), 1e-5, &mut out, &mut moments);
    keep(&out);
    let [mut sums, mut more_sums] = [vec![0.0; WIDTH], vec![0.0; WIDTH]];
    let mut work = grad.clone();
    layer_norm_backward(
        &x,
        &moments,
        &row,
        &mut work,
        &mut sums,
        Some(&mut more_sums),
    );
    for x in [&work, &sums, &more_sums] {
        keep(x);
    }

    for function in ALL {
        let mut work = x.clone();
        function.bias_forward(&mut work, &row, &mut out);
        keep(&out);
        let mut work = grad.clone();
        function.bias_backward(&x, &mut work, &mut sums);
        for x in [&work, &sums] {
            keep(x);
        }
    }

    let mut p = x.clone();
    softmax(&mut p, WIDTH, 0.5, None);
    let mut work = grad.clone();
    softmax_backward(&p, &mut work, WIDTH, 0.5);
    for x in [&p, &work] {
        keep(x);
    }

    let targets = sample_ids(4, ROWS, WIDTH);
    let mut log_sum_exp = vec![0.0; ROWS];
    let loss = cross_entropy(&x, WIDTH, &targets, &mut log_sum_exp);
    let mut work = x.clone();
    cross_entropy_backward(&mut work, WIDTH, &targets, &log_sum_exp, 1.0);
    for x in [&vec![loss], &work] {
        keep(x);
    }

    let mut work = x.clone();
    dropout(&mut work, 0.3, random);
    dropout_add(&grad, &mut work, 0.3, random);
    keep(&work);

    let ids = sample_ids(5, ROWS, 100);
    let mut table = sample(6, 100 * WIDTH, 1.0);
    embedding_gradient(&ids, &grad, WIDTH, &mut table);
    embedding(&ids, &table, WIDTH, &mut out);
    for x in [&table, &out] {
        keep(x);
    }

    column_sums(&x, WIDTH, &mut sums);
    let found = scan(&x);
    let square_sum = f64::to_bits(found.square_sum);
    keep(&sums);
    keep(&[
        found.amax,
        f32::from_bits(square_sum as u32),
        f32::from_bits((square_sum >> 32) as u32),
    ]);

    let shape = AttentionShape::interleaved(3, 4, 70, 70, 16);
    let len = shape.rows() * 16;
    let (mut out, mut log_sum_exp) = (vec![0.0; len], vec![0.0; shape.rows()]);
    attention(
        &shape,
        &x[..len],
        &grad[..len],
        &x[1..=len],
        0.25,
        None,
        &mut out,
        &mut log_sum_exp,
    );
    let [mut grad_q, mut grad_k, mut grad_v] = [0; 3].map(|_| vec![0.0; len]);
    attention_backward(
        &shape,
        &x[..len],
        &grad[..len],
        &x[1..=len],
        0.25,
        None,
        &out,
        &log_sum_exp,
        &grad[..len],
        &mut grad_q,
        &mut grad_k,
        &mut grad_v,
    );
    for x in [&out, &log_sum_exp, &grad_q, &grad_k, &grad_v] {
        keep(x);
    }
    results
}

#[test]
fn one_two_and_three_threads_agree() {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(run_all)
    };
    let expected = on(1);
    for threads in [2, 3] {
        let results = on(threads);
        assert_eq!(results.len(), expected.len());
        let different = results.iter().zip(&expected).position(|(a, b)| a != b);
        assert_eq!(different, None, "{threads} threads, first difference");
    }
}
