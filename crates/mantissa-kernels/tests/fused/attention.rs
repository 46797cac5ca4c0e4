use mantissa_kernels::attention::{AttentionShape, HeadStrides, attention, attention_backward};
use mantissa_kernels::softmax::Mask;

use crate::comparison::{assert_close, gradient, sample, weigh, wide};

/// The elements of `[batch, heads, rows, width]` in the order of their indices.
fn offsets(sizes: [usize; 4], strides: HeadStrides) -> Vec<usize> {
    let [batch, heads, rows, width] = sizes;
    let mut offsets = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            for r in 0..rows {
                let start = b * strides.batch + h * strides.head + r * strides.row;
                offsets.extend(start..start + width);
            }
        }
    }
    offsets
}

/// The output, laid out as the shape says, for a mask of every score.
fn reference(
    shape: &AttentionShape,
    [q, k, v]: [&[f64]; 3],
    scale: f64,
    masked: &[u8],
    value: f64,
) -> Vec<f64> {
    let AttentionShape {
        batch,
        heads,
        queries,
        keys,
        width,
        ..
    } = *shape;
    let sizes = |rows| [batch, heads, rows, width];
    let (of_q, of_k) = (
        offsets(sizes(queries), shape.query),
        offsets(sizes(keys), shape.key),
    );
    let (of_v, of_out) = (
        offsets(sizes(keys), shape.value),
        offsets(sizes(queries), shape.out),
    );
    let mut out = vec![0.0; batch * heads * queries * width];
    for row in 0..shape.rows() {
        let head = row / queries;
        let mut p: Vec<f64> = (0..keys)
            .map(|key| {
                if masked[row * keys + key] != 0 {
                    return value;
                }
                let pairs = (0..width)
                    .map(|i| q[of_q[row * width + i]] * k[of_k[(head * keys + key) * width + i]]);
                scale * pairs.sum::<f64>()
            })
            .collect();
        let largest = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        p.iter_mut().for_each(|x| *x = (*x - largest).exp());
        let sum: f64 = p.iter().sum();
        for (key, p) in p.iter().enumerate() {
            for i in 0..width {
                out[of_out[row * width + i]] += p / sum * v[of_v[(head * keys + key) * width + i]];
            }
        }
    }
    out
}

fn check(shape: AttentionShape, scale: f32, mask: Option<Mask>, masked: &[u8]) {
    let what = format!("{shape:?}");
    let value = mask.map_or(0.0, |mask| mask.value.into());
    let of_queries = shape.rows() * shape.width;
    let of_keys = shape.batch * shape.heads * shape.keys * shape.width;
    let q = sample(1, of_queries, 2.0);
    let k = sample(2, of_keys, 2.0);
    let v = sample(3, of_keys, 2.0);
    let weights = sample(4, of_queries, 1.0);
    let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|x| wide(x));
    let output = |inputs: [&[f64]; 3]| reference(&shape, inputs, scale.into(), masked, value);

    let mut out = vec![f32::NAN; of_queries];
    let mut log_sum_exp = vec![f32::NAN; shape.rows()];
    attention(&shape, &q, &k, &v, scale, mask, &mut out, &mut log_sum_exp);
    assert_close(&what, &out, &output([&wide_q, &wide_k, &wide_v]), 1e-6);

    let mut grads = [of_queries, of_keys, of_keys].map(|len| vec![f32::NAN; len]);
    let [grad_q, grad_k, grad_v] = &mut grads;
    attention_backward(
        &shape,
        &q,
        &k,
        &v,
        scale,
        mask,
        &out,
        &log_sum_exp,
        &weights,
        grad_q,
        grad_k,
        grad_v,
    );
    let by_q = gradient(&q, |q| weigh(&output([q, &wide_k, &wide_v]), &weights));
    let by_k = gradient(&k, |k| weigh(&output([&wide_q, k, &wide_v]), &weights));
    let by_v = gradient(&v, |v| weigh(&output([&wide_q, &wide_k, v]), &weights));
    assert_close(&format!("queries, {what}"), &grads[0], &by_q, 3e-6);
    assert_close(&format!("keys, {what}"), &grads[1], &by_k, 3e-6);
    assert_close(&format!("values, {what}"), &grads[2], &by_v, 3e-6);
}

#[test]
fn every_layout_and_odd_sizes() {
    for (batch, heads, queries, keys, width) in [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 7, 4),
        (1, 2, 17, 9, 5),
        (2, 1, 3, 33, 17),
    ] {
        let open = vec![0; batch * heads * queries * keys];
        let separate = AttentionShape::separate(batch, heads, queries, keys, width);
        let interleaved = AttentionShape::interleaved(batch, heads, queries, keys, width);
        let mixed = AttentionShape {
            key: separate.key,
            out: separate.out,
            ..interleaved
        };
        for shape in [separate, interleaved, mixed] {
            check(shape, 0.4, None, &open);
        }
    }
}

#[test]
fn every_kind_of_mask() {
    let shape = AttentionShape::interleaved(2, 3, 5, 19, 3);
    for value in [-1e4, f32::NEG_INFINITY] {
        for (mask, full) in crate::softmax::masks(value) {
            check(shape, 0.4, Some(mask), &full);
        }
    }
}

#[test]
fn a_query_without_keys() {
    let shape = AttentionShape::interleaved(1, 1, 2, 3, 2);
    let masked = [0, 1, 0, 1, 1, 1];
    // With a finite value the keys are weighed alike, and the values get a gradient, but not the queries and keys.
    let mask = Mask::of_pairs(&masked, 1, 2, 3, -1e4);
    check(shape, 0.4, Some(mask), &masked);

    // With minus infinity the output is 0, and so are the gradients.
    let mask = Mask {
        value: f32::NEG_INFINITY,
        ..mask
    };
    let [q, k, v] = [1, 2, 3].map(|stream| sample(stream, 6, 1.0));
    let (mut out, mut log_sum_exp) = ([f32::NAN; 4], [f32::NAN; 2]);
    attention(
        &shape,
        &q[..4],
        &k,
        &v,
        1.0,
        Some(mask),
        &mut out,
        &mut log_sum_exp,
    );
    assert_eq!(out[2..], [0.0; 2]);
    let [mut grad_k, mut grad_v] = [[f32::NAN; 6]; 2];
    let mut grad_q = [f32::NAN; 4];
    attention_backward(
        &shape,
        &q[..4],
        &k,
        &v,
        1.0,
        Some(mask),
        &out,
        &log_sum_exp,
        &[0.0, 0.0, 1.0, 1.0],
        &mut grad_q,
        &mut grad_k,
        &mut grad_v,
    );
    assert_eq!(grad_q, [0.0; 4]);
    assert_eq!(grad_k, [0.0; 6]);
    assert_eq!(grad_v, [0.0; 6]);
}

/// More scores than are in work at a time, against the same in pieces of one query each.
#[test]
fn many_keys_come_in_blocks() {
    let shape = AttentionShape::separate(1, 1, 50, 3001, 3);
    let one = AttentionShape::separate(1, 1, 1, 3001, 3);
    let q = sample(1, 50 * 3, 2.0);
    let [k, v] = [2, 3].map(|stream| sample(stream, 3001 * 3, 2.0));
    let weights = sample(4, 50 * 3, 1.0);
    let run = |shape: &AttentionShape, q: &[f32], weights: &[f32]| {
        let (mut out, mut log_sum_exp) = (vec![0.0; q.len()], vec![0.0; shape.rows()]);
        attention(shape, q, &k, &v, 0.6, None, &mut out, &mut log_sum_exp);
        let mut grad_q = vec![0.0; q.len()];
        let [mut grad_k, mut grad_v] = [vec![0.0; k.len()], vec![0.0; k.len()]];
        attention_backward(
            shape,
            q,
            &k,
            &v,
            0.6,
            None,
            &out,
            &log_sum_exp,
            weights,
            &mut grad_q,
            &mut grad_k,
            &mut grad_v,
        );
        (out, grad_q, grad_k, grad_v)
    };
    let (out, grad_q, grad_k, grad_v) = run(&shape, &q, &weights);
    let [mut sum_k, mut sum_v] = [vec![0.0; k.len()], vec![0.0; k.len()]];
    for i in 0..50 {
        let row = 3 * i..3 * i + 3;
        let (out_row, grad_row, part_k, part_v) = run(&one, &q[row.clone()], &weights[row.clone()]);
        assert_close("out", &out[row.clone()], &wide(&out_row), 1e-6);
        assert_close("queries", &grad_q[row], &wide(&grad_row), 1e-6);
        for (sum, part) in [(&mut sum_k, part_k), (&mut sum_v, part_v)] {
            sum.iter_mut()
                .zip(part)
                .for_each(|(sum, x)| *sum += f64::from(x));
        }
    }
    assert_close("keys", &grad_k, &sum_k, 1e-6);
    assert_close("values", &grad_v, &sum_v, 1e-6);
}

#[test]
fn extreme_and_missing_numbers() {
    let shape = AttentionShape::separate(1, 1, 2, 3, 2);
    let q = [100.0, 0.0, 0.0, 1.0];
    let k = [100.0, 0.0, -100.0, 0.0, 0.0, 1.0];
    let v = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let (mut out, mut log_sum_exp) = ([0.0; 4], [0.0; 2]);
    attention(&shape, &q, &k, &v, 1.0, None, &mut out, &mut log_sum_exp);
    assert_eq!(out[..2], [1.0, 2.0]);
    assert_eq!(log_sum_exp[0], 1e4);

    let bad = [f32::NAN, 0.0, 0.0, 1.0];
    attention(&shape, &bad, &k, &v, 1.0, None, &mut out, &mut log_sum_exp);
    assert!(out[0].is_nan() && out[2].is_finite());
}

#[test]
#[should_panic(expected = "the outputs overlap")]
fn heads_that_overlap() {
    let mut shape = AttentionShape::separate(1, 2, 2, 2, 4);
    shape.out.head = 4;
    let x = [0.0; 16];
    attention(&shape, &x, &x, &x, 1.0, None, &mut [0.0; 16], &mut [0.0; 4]);
}

#[test]
#[should_panic(expected = "too few for")]
fn a_tensor_that_is_too_small() {
    let shape = AttentionShape::interleaved(1, 2, 2, 2, 4);
    let x = [0.0; 16];
    attention(
        &shape,
        &x,
        &x[..15],
        &x,
        1.0,
        None,
        &mut [0.0; 16],
        &mut [0.0; 4],
    );
}
