use mantissa_kernels::reduce::{Scan, column_sums, scan};

use crate::comparison::{assert_close, sample};

#[test]
fn columns_are_summed() {
    for (rows, width) in [(0, 4), (1, 1), (3, 5), (100, 16), (1000, 67), (3, 20_000)] {
        let x = sample(1, rows * width, 1.0);
        let mut sums = vec![f32::NAN; width];
        column_sums(&x, width, &mut sums);
        let mut expected = vec![0.0; width];
        for row in x.chunks(width) {
            for (sum, x) in expected.iter_mut().zip(row) {
                *sum += f64::from(*x);
            }
        }
        // 1000 summands below 1, each sum rounded to 24 bits.
        assert_close(&format!("{rows}x{width}"), &sums, &expected, 1e-5);
    }
}

#[test]
fn a_nan_stays_in_its_column() {
    let mut x = sample(1, 100 * 7, 1.0);
    x[7 * 60 + 3] = f32::NAN;
    let mut sums = [0.0; 7];
    column_sums(&x, 7, &mut sums);
    assert!(sums[3].is_nan());
    assert_eq!(sums.iter().filter(|x| x.is_nan()).count(), 1);
}

#[test]
fn scan_tells_all() {
    for len in [0, 1, 15, 17, 16_384, 16_385, 100_003] {
        let mut x = sample(1, len, 3.0);
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN];
        for (i, bad) in (0..len).step_by(97).zip(bad.iter().cycle()) {
            x[i] = *bad;
        }
        let finite = || x.iter().copied().filter(|x| x.is_finite());
        let found = scan(&x);
        assert_eq!(found.non_finite, len.div_ceil(97) as u64);
        assert_eq!(found.amax, finite().fold(0.0f32, |a, x| a.max(x.abs())));
        let squares: f64 = finite().map(|x| f64::from(x).powi(2)).sum();
        assert!(
            (found.square_sum - squares).abs() <= 1e-12 * squares,
            "{len}"
        );
    }
}

#[test]
fn scan_does_not_overflow() {
    let found = scan(&[f32::MAX, -f32::MAX, f32::from_bits(1)]);
    let largest = f64::from(f32::MAX);
    assert_eq!(
        found,
        Scan {
            non_finite: 0,
            amax: f32::MAX,
            square_sum: 2.0 * largest * largest
        }
    );
}
