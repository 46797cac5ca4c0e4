//! Sample tensors, and what it means to agree.

use mantissa_formats::RandomBits;

/// Numbers in -1..1 times `scale`; another `stream`, other numbers.
pub fn sample(stream: u64, len: usize, scale: f32) -> Vec<f32> {
    let mut bits = vec![0; len];
    RandomBits::new(5, stream).fill(0, &mut bits);
    bits.into_iter()
        .map(|bits| (bits as i32 as f32) / (1u64 << 31) as f32 * scale)
        .collect()
}

/// Whole numbers in `0..end`.
pub fn sample_ids(stream: u64, len: usize, end: usize) -> Vec<i32> {
    let mut bits = vec![0; len];
    RandomBits::new(6, stream).fill(0, &mut bits);
    bits.into_iter()
        .map(|bits| ((u64::from(bits) * end as u64) >> 32) as i32)
        .collect()
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}

/// Fails unless every element is within `tolerance` times the larger of 1 and the expected magnitude.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (x, y)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*x) - y).abs();
        assert!(
            error <= tolerance * y.abs().max(1.0),
            "{what}: element {i} is {x}, not {y} (error {error:e})"
        );
    }
}

/// The gradient of `function` at `x` by central differences.
pub fn gradient(x: &[f32], function: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = wide(x);
    (0..x.len())
        .map(|i| {
            let middle = x[i];
            x[i] = middle + STEP;
            let above = function(&x);
            x[i] = middle - STEP;
            let below = function(&x);
            x[i] = middle;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// The sum of the products: turns an output into a number whose gradient with respect to it is `weights`.
pub fn weigh(output: &[f64], weights: &[f32]) -> f64 {
    let terms = output.iter().zip(weights);
    terms.map(|(y, weight)| y * f64::from(*weight)).sum()
}
