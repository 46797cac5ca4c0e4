//! Samples that say little: an answer that says so, and no panic.

use mantissa_plan::Thresholds;
use mantissa_plan::whatif::advice::{granularity_advice, rounding_advice};
use mantissa_plan::whatif::prediction::prediction;
use mantissa_plan::whatif::{Pairs, PassOutcome, grid};

use crate::{GAUSS, draw, numerics, outcome, sample};

fn whole_grid(left: Vec<f32>, right: Vec<f32>, depth: usize) -> PassOutcome {
    let found = outcome(vec![sample([left, right], 1, depth)], Pairs::Same(grid()));
    // Whatever the samples, advice can be asked for and printed.
    for advice in granularity_advice(&found, &Thresholds::default()) {
        assert!(!advice.to_string().is_empty());
        if let Some(rounding) = rounding_advice(&found, advice.numerics()) {
            assert!(!rounding.to_string().contains("NaN"), "{rounding}");
        }
    }
    found
}

#[test]
fn nothing_but_nan() {
    let nan = || vec![f32::NAN; 8 * 32];
    let found = whole_grid(nan(), nan(), 32);
    for error in &found.pairs {
        assert_eq!((error.product, error.signed), (None, None));
        assert_eq!((error.left.mse, error.left.cosine), (None, None));
    }
    assert_eq!(prediction(&found), None);
    let half = draw(GAUSS, 1, 8, 32);
    let found = whole_grid(nan(), half.right, 32);
    assert!(found.pairs.iter().all(|error| error.product.is_none()));
    assert!(found.pairs[0].right.mse.is_some());
}

#[test]
fn some_nan_among_numbers() {
    let mut drawn = draw(GAUSS, 1, 8, 32);
    drawn.left[40] = f32::NAN;
    let found = whole_grid(drawn.left, drawn.right, 32);
    for error in &found.pairs {
        let product = error.product.unwrap();
        assert_eq!((product.count, product.excluded), (7 * 8, 8));
        assert!(error.signed.unwrap().bias.value.is_finite());
    }
}

#[test]
fn zeros_and_constants() {
    let zeros = || vec![0.0; 8 * 32];
    let found = whole_grid(zeros(), zeros(), 32);
    for error in &found.pairs {
        assert_eq!((error.product, error.signed), (None, None));
        assert_eq!(error.left.underflow.estimate, 0.0);
        assert_eq!((error.left.sqnr_db, error.left.signed_bias), (None, None));
    }
    let ones = || vec![1.0; 8 * 32];
    let found = whole_grid(ones(), ones(), 32);
    for error in &found.pairs {
        let product = error.product.unwrap();
        assert!(product.median < 0.1, "{:?}", error.numerics);
        assert!((error.signed.unwrap().cosine.unwrap().value - 1.0).abs() < 1e-9);
    }
    assert_eq!((found.nu, prediction(&found)), ([None; 2], None));
}

#[test]
fn a_single_row_has_no_interval() {
    let drawn = draw(GAUSS, 1, 64, 32);
    let found = whole_grid(drawn.left[..32].to_vec(), drawn.right, 32);
    for error in &found.pairs {
        let (product, signed) = (error.product.unwrap(), error.signed.unwrap());
        assert_eq!(product.median_interval, None);
        assert_eq!(
            (signed.bias.interval, signed.bias.standard_error),
            (None, None)
        );
        assert_eq!(error.left.mse.unwrap().interval, None);
        assert!(error.right.mse.unwrap().interval.is_some());
    }
    for advice in granularity_advice(&found, &Thresholds::default()) {
        assert!(!advice.suffices);
        assert!(advice.to_string().contains("so few rows"), "{advice}");
    }
    let rounding = rounding_advice(&found, numerics("int8/tensor")).unwrap();
    assert!(rounding.to_string().contains("too few rows"), "{rounding}");
}

#[test]
fn an_overflow_is_an_infinite_error() {
    let mut drawn = draw(GAUSS, 1, 8, 32);
    drawn.left[3] = 1e6;
    let found = whole_grid(drawn.left, drawn.right, 32);
    let fp16 = found.same(numerics("fp16")).unwrap();
    assert_eq!(fp16.signed, None);
    assert_eq!(fp16.product.unwrap().p99, f64::INFINITY);
    assert_eq!((fp16.left.mse, fp16.left.clipping), (None, None));
    assert_eq!(fp16.left.saturation.estimate, 1.0 / 256.0);
    assert!(found.same(numerics("bf16")).unwrap().signed.is_some());
}
