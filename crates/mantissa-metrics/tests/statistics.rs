//! Statistics of one read against the definitions in two passes of f64, and against themselves on every set of vector
//! instructions.

use mantissa_formats::{RandomBits, SimdLevel};
use mantissa_metrics::{ExponentHistogram, Moments, TensorStatistics, sample};
use proptest::prelude::*;

/// Mean, then the sums of the second to fourth powers of the deviations from it, as the definitions read. Sums of sums, so that
/// they are far more exact than what is tested.
fn two_passes(values: &[f32]) -> [f64; 4] {
    let finite: Vec<f64> = values
        .iter()
        .filter(|x| x.is_finite())
        .map(|&x| f64::from(x))
        .collect();
    let sum = |terms: &dyn Fn(f64) -> f64| -> f64 {
        let piece = |piece: &[f64]| piece.iter().map(|&x| terms(x)).sum::<f64>();
        finite.chunks(256).map(piece).sum()
    };
    let mean = sum(&|x| x) / finite.len() as f64;
    let mean = mean + sum(&|x| x - mean) / finite.len() as f64;
    let power = |k: i32| sum(&|x| (x - mean).powi(k));
    [mean, power(2), power(3), power(4)]
}

/// Inputs that are hard to sum.
fn hard() -> Vec<(&'static str, Vec<f32>)> {
    let n = 50_001;
    let normal = sample::student_t(f64::INFINITY, RandomBits::new(1, 0), n);
    let heavy = sample::student_t(1.5, RandomBits::new(2, 0), n);
    let map = |values: &[f32], f: fn(f32) -> f32| values.iter().map(|&x| f(x)).collect();
    let with = |place: usize, x: f32| {
        let mut values = normal.clone();
        values[place] = x;
        values
    };
    let sorted = {
        let mut values = normal.clone();
        values.sort_by(f32::total_cmp);
        values
    };
    vec![
        ("heavy tails", heavy),
        ("a large mean", map(&normal, |x| 1e6 + x)),
        ("a very large mean", map(&normal, |x| 1.6e7 + x)),
        (
            "a mean far from the first elements",
            map(&sorted, |x| x * x * x),
        ),
        ("sorted", sorted),
        ("subnormal", map(&normal, |x| x * 1e-41)),
        ("huge", map(&normal, |x| x * 5e37)),
        ("all magnitudes", map(&normal, |x| (20.0 * x).exp2() * x)),
        ("an outlier that is looked at", with(0, 1e30)),
        ("an outlier that is not", with(77, -1e30)),
        ("mostly zero", map(&normal, |x| (x - 2.5).max(0.0))),
        ("not finite now and then", {
            let mut values = normal.clone();
            for i in (5..n).step_by(1000) {
                values[i] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][i / 1000 % 3];
            }
            values
        }),
        ("not finite for long", {
            let mut values = normal.clone();
            values[3000..20_000].fill(f32::NAN);
            values
        }),
    ]
}

#[test]
fn hard_inputs_are_summed_as_exactly_as_promised() {
    for (name, values) in hard() {
        let moments = TensorStatistics::of(&values).moments;
        let [mean, m2, m3, m4] = two_passes(&values);
        let (n, amax) = (moments.count as f64, f64::from(moments.amax));
        let close = |found: f64, expected: f64, scale: f64, what: &str| {
            assert!(
                (found - expected).abs() <= 1e-12 * scale,
                "{name}: {what} {found:e}, not {expected:e}"
            );
        };
        close(moments.mean, mean, amax, "mean");
        close(moments.m2, m2, n * amax.powi(2), "m2");
        close(moments.m3, m3, n * amax.powi(3), "m3");
        close(moments.m4, m4, n * amax.powi(4), "m4");
        // And beside the sums themselves, a mean large beside its spread included: what variance and kurtosis need. The mean is a
        // f64, and what it lacks is multiplied by three times the second moment in the third.
        close(moments.m2, m2, 1e3 * m2, "m2 of itself");
        close(moments.m4, m4, 1e3 * m4, "m4 of itself");
        let bound = (m2 * m4).sqrt() + 3.0 * m2 * mean.abs() * 1e-6;
        close(moments.m3, m3, 1e3 * bound, "m3 beside its bound");
    }
}

#[test]
fn every_level_gives_the_same_bits() {
    for (name, values) in hard() {
        for len in [0, 1, 15, 16, 17, 4095, 4096, 4097, values.len()] {
            let mut found = SimdLevel::available().map(|level| {
                let mut statistics = TensorStatistics::default();
                statistics.push_on(level, &values[..len]);
                statistics
            });
            let portable = found.next().unwrap();
            for other in found {
                assert_eq!(other, portable, "{name} {len}");
            }
            assert_eq!(
                portable.moments,
                Moments::of(&values[..len]),
                "{name} {len}"
            );
            assert_eq!(
                portable.exponents,
                ExponentHistogram::of(&values[..len]),
                "{name} {len}"
            );
        }
    }
}

proptest! {
    #[test]
    fn counts_agree_and_are_exact(
        bits in prop::collection::vec(any::<u32>(), 0..300),
        near in prop::collection::vec(0x3f00_0000u32..0x4100_0000, 0..300),
        zeros in 0usize..100,
    ) {
        for bits in [&bits, &near] {
            let mut values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
            values.resize(values.len() + zeros, -0.0);
            let statistics = TensorStatistics::of(&values);
            let (moments, exponents) = (&statistics.moments, &statistics.exponents);
            prop_assert_eq!(moments.zeros, exponents.zeros());
            prop_assert_eq!(moments.non_finite, exponents.non_finite());
            prop_assert_eq!(moments.total(), exponents.total());
            let finite = || values.iter().filter(|x| x.is_finite()).map(|x| x.abs());
            prop_assert_eq!(moments.zeros, finite().filter(|&x| x == 0.0).count() as u64);
            prop_assert_eq!(moments.count, finite().count() as u64);
            prop_assert_eq!(moments.amax, finite().fold(0.0, f32::max));
            prop_assert_eq!(moments.min_nonzero, finite().filter(|&x| x > 0.0).reduce(f32::min));
        }
    }
}

#[test]
fn parts_merge_to_the_whole() {
    let values = sample::student_t(5.0, RandomBits::new(9, 0), 3 * 4096);
    let mut pushed = TensorStatistics::of(&values[..4096]);
    pushed.push(&values[4096..8192]);
    pushed.push(&values[8192..]);
    let whole = TensorStatistics::of(&values);
    assert_eq!(pushed, whole);
    let mut merged = TensorStatistics::of(&values[..5000]);
    merged.merge(&TensorStatistics::of(&values[5000..]));
    assert_eq!(merged.exponents, whole.exponents);
    assert_eq!(merged.moments.count, whole.moments.count);
    assert!((merged.moments.m4 / whole.moments.m4 - 1.0).abs() < 1e-12);
}

#[test]
fn serde_round_trips() {
    let statistics = TensorStatistics::of(&[1.0, -2.5, 0.0, f32::NAN]);
    let json = serde_json::to_string(&statistics).unwrap();
    let read: TensorStatistics = serde_json::from_str(&json).unwrap();
    assert_eq!(read, statistics);
}
