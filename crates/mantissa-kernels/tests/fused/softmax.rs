use mantissa_kernels::softmax::{Mask, masked_softmax_backward, softmax, softmax_backward};

use crate::comparison::{assert_close, gradient, sample, weigh, wide};

const BATCH: usize = 2;
const HEADS: usize = 3;
const QUERIES: usize = 5;
const KEYS: usize = 19;
const SCALE: f32 = 0.37;

/// Rows of probabilities; masked scores are constants.
fn reference(scores: &[f64], columns: usize, scale: f64, masked: &[u8], value: f64) -> Vec<f64> {
    let mut out = Vec::new();
    for (row, masked) in scores.chunks(columns).zip(masked.chunks(columns)) {
        let filled = row.iter().zip(masked);
        let filled: Vec<f64> = filled
            .map(|(x, m)| if *m == 0 { x * scale } else { value })
            .collect();
        let largest = filled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = filled.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = powers.iter().sum();
        out.extend(powers.iter().map(|x| x / sum));
    }
    out
}

fn backward_reference(
    scores: &[f32],
    weights: &[f32],
    columns: usize,
    masked: &[u8],
    value: f64,
) -> Vec<f64> {
    gradient(scores, |scores| {
        weigh(
            &reference(scores, columns, SCALE.into(), masked, value),
            weights,
        )
    })
}

#[test]
fn without_a_mask() {
    for (rows, columns) in [(1, 1), (3, 2), (4, 16), (5, 33), (2, 130)] {
        let what = format!("{rows}x{columns}");
        let scores = sample(1, rows * columns, 9.0);
        let weights = sample(2, rows * columns, 1.0);
        let open = vec![0; scores.len()];
        let mut p = scores.clone();
        softmax(&mut p, columns, SCALE, None);
        assert_close(
            &what,
            &p,
            &reference(&wide(&scores), columns, SCALE.into(), &open, 0.0),
            3e-7,
        );
        let mut grad = weights.clone();
        softmax_backward(&p, &mut grad, columns, SCALE);
        assert_close(
            &what,
            &grad,
            &backward_reference(&scores, &weights, columns, &open, 0.0),
            5e-7,
        );
    }
}

/// Every way to share a mask, and the mask that it means for each score.
pub fn masks(value: f32) -> Vec<(Mask<'static>, Vec<u8>)> {
    let bits = |len: usize| -> &'static [u8] {
        let drawn = sample(9, len, 1.0).into_iter();
        drawn
            .map(|x| if x < -0.2 { 7 } else { 0 })
            .collect::<Vec<u8>>()
            .leak()
    };
    let arguments = |masked| (masked, HEADS, QUERIES, KEYS, value);
    let make = |make: fn(&'static [u8], usize, usize, usize, f32) -> Mask<'static>, len| {
        let (masked, heads, queries, keys, value) = arguments(bits(len));
        make(masked, heads, queries, keys, value)
    };
    let masks = [
        make(Mask::of_keys, BATCH * KEYS),
        make(Mask::of_pairs, QUERIES * KEYS),
        make(Mask::of_batches, BATCH * QUERIES * KEYS),
        make(Mask::of_scores, BATCH * HEADS * QUERIES * KEYS),
    ];
    let full = |number: usize, mask: Mask| {
        let mut full = Vec::new();
        for b in 0..BATCH {
            for h in 0..HEADS {
                for q in 0..QUERIES {
                    for k in 0..KEYS {
                        full.push(
                            mask.masked[[
                                b * KEYS + k,
                                q * KEYS + k,
                                (b * QUERIES + q) * KEYS + k,
                                ((b * HEADS + h) * QUERIES + q) * KEYS + k,
                            ][number]],
                        );
                    }
                }
            }
        }
        full
    };
    let numbered = masks.into_iter().enumerate();
    numbered
        .map(|(number, mask)| (mask, full(number, mask)))
        .collect()
}

#[test]
fn with_every_kind_of_mask() {
    let len = BATCH * HEADS * QUERIES * KEYS;
    let scores = sample(1, len, 9.0);
    let weights = sample(2, len, 1.0);
    for value in [-1e4, f32::NEG_INFINITY] {
        for (mask, full) in masks(value) {
            let mut p = scores.clone();
            softmax(&mut p, KEYS, SCALE, Some(mask));
            let expected = reference(&wide(&scores), KEYS, SCALE.into(), &full, value.into());
            assert_close("forward", &p, &expected, 3e-7);
            let expected = backward_reference(&scores, &weights, KEYS, &full, value.into());
            let mut grad = weights.clone();
            softmax_backward(&p, &mut grad, KEYS, SCALE);
            assert_close("backward", &grad, &expected, 5e-7);
            let mut grad = weights.clone();
            masked_softmax_backward(&p, &mut grad, KEYS, SCALE, mask);
            assert_close("masked backward", &grad, &expected, 5e-7);
        }
    }
}

#[test]
fn rows_of_nothing_but_masked_scores() {
    let scores = sample(1, 2 * 5, 3.0);
    let masked = [0, 1, 0, 0, 1, 1, 1, 1, 1, 1];
    let mut p = scores.clone();
    let mask = Mask::of_pairs(&masked, 1, 2, 5, -1e4);
    softmax(&mut p, 5, 1.0, Some(mask));
    assert_eq!(p[5..], [0.2; 5]);
    assert_eq!((p[1], p[4]), (0.0, 0.0));
    let mut grad = sample(2, 10, 1.0);
    masked_softmax_backward(&p, &mut grad, 5, 1.0, mask);
    assert_eq!(grad[5..], [0.0; 5]);
    assert_ne!(grad[0], 0.0);

    let mut p = scores.clone();
    softmax(
        &mut p,
        5,
        1.0,
        Some(Mask {
            value: f32::NEG_INFINITY,
            ..mask
        }),
    );
    assert_eq!(p[5..], [0.0; 5]);
    assert!((p[..5].iter().sum::<f32>() - 1.0).abs() < 1e-6);
}

#[test]
fn extreme_and_missing_numbers() {
    let mut p = [1e4, -1e4, 9999.0, 1e4];
    softmax(&mut p, 4, 1.0, None);
    let e = (-1f64).exp();
    assert_close(
        "extreme",
        &p,
        &[1.0 / (2.0 + e), 0.0, e / (2.0 + e), 1.0 / (2.0 + e)],
        2e-7,
    );

    for bad in [
        [f32::NAN, 0.0],
        [f32::NAN; 2],
        [f32::INFINITY, 0.0],
        [f32::NEG_INFINITY, f32::NAN],
    ] {
        let mut p = [bad[0], bad[1], 1.0, 2.0];
        softmax(&mut p, 2, 1.0, None);
        assert!(p[..2].iter().any(|p| p.is_nan()), "{bad:?} became {p:?}");
        assert!((p[2] + p[3] - 1.0).abs() < 1e-6);
    }
    let mut grad = [f32::NAN, 1.0, 1.0, 1.0];
    softmax_backward(&[0.5; 4], &mut grad, 2, 1.0);
    assert!(grad[0].is_nan() && grad[1].is_nan() && grad[2] == 0.0);
}

#[test]
#[should_panic]
fn a_mask_that_is_too_small() {
    let mask = Mask::of_scores(&[0; 7], 1, 2, 4, 0.0);
    softmax(&mut [0.0; 8], 4, 1.0, Some(mask));
}
