//! Moments against closed forms, against a naive reference, and under every way of splitting the
//! input.

use mantissa_formats::RandomBits;
use mantissa_metrics::{Moments, sample};
use proptest::prelude::*;

fn close(a: f64, b: f64, scale: f64) -> bool {
    (a - b).abs() <= 1e-12 * scale
}

/// Two passes over the data in f64, as the definitions read.
fn naive(values: &[f32]) -> Moments {
    let finite: Vec<f64> = values
        .iter()
        .filter(|x| x.is_finite())
        .map(|&x| f64::from(x))
        .collect();
    let mean = finite.iter().sum::<f64>() / finite.len().max(1) as f64;
    let central = |p: i32| finite.iter().map(|x| (x - mean).powi(p)).sum::<f64>();
    let nonzero = || finite.iter().map(|x| x.abs() as f32).filter(|&x| x > 0.0);
    Moments {
        count: finite.len() as u64,
        zeros: finite.iter().filter(|&&x| x == 0.0).count() as u64,
        non_finite: (values.len() - finite.len()) as u64,
        amax: nonzero().fold(0.0, f32::max),
        min_nonzero: nonzero().reduce(f32::min),
        mean,
        m2: central(2),
        m3: central(3),
        m4: central(4),
    }
}

/// Equality up to the rounding of sums of this size.
fn assert_same(a: &Moments, b: &Moments) {
    assert_eq!(
        (a.count, a.zeros, a.non_finite),
        (b.count, b.zeros, b.non_finite)
    );
    assert_eq!((a.amax, a.min_nonzero), (b.amax, b.min_nonzero));
    let n = a.count as f64;
    let size = f64::from(a.amax);
    assert!(close(a.mean, b.mean, size), "{a:?} {b:?}");
    assert!(close(a.m2, b.m2, n * size.powi(2)), "{a:?} {b:?}");
    assert!(close(a.m3, b.m3, n * size.powi(3)), "{a:?} {b:?}");
    assert!(close(a.m4, b.m4, n * size.powi(4)), "{a:?} {b:?}");
}

fn element() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -10.0f32..10.0,
        2 => any::<f32>(),
        1 => Just(0.0f32),
        1 => Just(-0.0f32),
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ]
}

proptest! {
    #[test]
    fn any_split_merges_to_the_whole(
        values in prop::collection::vec(element(), 0..300),
        cuts in prop::collection::vec(0usize..300, 0..4),
    ) {
        let whole = Moments::of(&values);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        let mut merged = Moments::default();
        let mut pushed = Moments::default();
        for pair in cuts.windows(2) {
            merged.merge(&Moments::of(&values[pair[0]..pair[1]]));
            pushed.push(&values[pair[0]..pair[1]]);
        }
        assert_same(&merged, &whole);
        assert_same(&pushed, &whole);
    }

    #[test]
    fn one_pass_equals_the_definitions(values in prop::collection::vec(element(), 0..300)) {
        assert_same(&Moments::of(&values), &naive(&values));
    }
}

#[test]
fn merging_adds_the_term_between_the_means() {
    // Equal shards of variance 1 around 0 and around 5: 1 + 5²/4 = 7.25.
    let mut moments = Moments::of(&[-1.0, 1.0]);
    moments.merge(&Moments::of(&[4.0, 6.0]));
    assert_eq!(moments.variance(), Some(7.25));
    assert_eq!(moments.mean, 2.5);
}

#[test]
fn chunks_of_a_long_slice_merge_to_its_moments() {
    let values: Vec<f32> = sample::student_t(5.0, RandomBits::new(3, 0), 50_001)
        .iter()
        .map(|x| x + 3.0)
        .collect();
    assert_same(&Moments::of(&values), &naive(&values));
}

#[test]
fn arithmetic_sequence_has_its_closed_form() {
    // 0..n-1: variance (n²−1)/12, skewness 0, kurtosis (9n²−21)/(5n²−5).
    let n = 10_000.0;
    let values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
    let moments = Moments::of(&values);
    assert!(close(moments.mean, (n - 1.0) / 2.0, n));
    assert!(close(
        moments.variance().unwrap(),
        (n * n - 1.0) / 12.0,
        n * n
    ));
    assert!(moments.skewness().unwrap().abs() < 1e-12);
    assert!(close(
        moments.kurtosis().unwrap(),
        (9.0 * n * n - 21.0) / (5.0 * n * n - 5.0),
        1.0
    ));
}

#[test]
fn a_two_point_distribution_has_its_closed_form() {
    // 1 with p = 1/8, else 0: skewness (1−2p)/√(p(1−p)), kurtosis 3 + (1−6p(1−p))/(p(1−p)).
    let values: Vec<f32> = (0..8192)
        .map(|i| if i % 8 == 0 { 1.0 } else { 0.0 })
        .collect();
    let moments = Moments::of(&values);
    let spread = 7.0 / 64.0;
    assert_eq!(moments.zeros, 7168);
    assert!(close(moments.variance().unwrap(), spread, 1.0));
    assert!(close(
        moments.skewness().unwrap(),
        0.75 / spread.sqrt(),
        10.0
    ));
    assert!(close(
        moments.kurtosis().unwrap(),
        3.0 + (1.0 - 6.0 * spread) / spread,
        10.0
    ));
}

#[test]
fn samples_show_the_moments_of_their_distribution() {
    let n = 1_000_000;
    let normal = Moments::of(&sample::student_t(f64::INFINITY, RandomBits::new(11, 0), n));
    // Standard errors at this size: mean 0.001, variance 0.0014, skewness 0.0025, kurtosis 0.005.
    assert!(normal.mean.abs() < 0.005);
    assert!((normal.variance().unwrap() - 1.0).abs() < 0.007);
    assert!(normal.skewness().unwrap().abs() < 0.0125);
    assert!((normal.kurtosis().unwrap() - 3.0).abs() < 0.025);
    // Variance ν/(ν−2), kurtosis 3 + 6/(ν−4).
    let student = Moments::of(&sample::student_t(12.0, RandomBits::new(12, 0), n));
    assert!((student.variance().unwrap() - 1.2).abs() < 0.01);
    assert!((student.kurtosis().unwrap() - 3.75).abs() < 0.1);
}

#[test]
fn what_is_undefined_is_none() {
    let empty = Moments::of(&[]);
    assert_eq!(empty, Moments::default());
    assert_eq!(
        (
            empty.variance(),
            empty.skewness(),
            empty.kurtosis(),
            empty.rms()
        ),
        (None, None, None, None)
    );
    // 0.1 has no short binary form: sums of it round, but a constant still has no spread.
    let constant = Moments::of(&[0.1; 10_000]);
    assert_eq!(constant.mean, f64::from(0.1f32));
    assert_eq!(
        (
            constant.variance(),
            constant.skewness(),
            constant.kurtosis()
        ),
        (Some(0.0), None, None)
    );
    let hopeless = Moments::of(&[f32::NAN, f32::INFINITY]);
    assert_eq!(
        (hopeless.count, hopeless.non_finite, hopeless.total()),
        (0, 2, 2)
    );
    assert_eq!(hopeless.min_nonzero, None);
    assert_eq!(Moments::of(&[0.0, -0.0]).min_nonzero, None);
}

#[test]
fn extreme_magnitudes_do_not_overflow() {
    let large = Moments::of(&[f32::MAX, -f32::MAX, f32::MAX, -f32::MAX]);
    assert_eq!(large.kurtosis(), Some(1.0));
    let tiny = f32::from_bits(1);
    let small = Moments::of(&[tiny, -tiny, tiny, -tiny]);
    assert_eq!((small.amax, small.min_nonzero), (tiny, Some(tiny)));
    assert!(close(small.kurtosis().unwrap(), 1.0, 1.0));
}

#[test]
fn a_small_spread_on_a_large_mean_survives() {
    // Sums of squares about zero would lose all of it: the variance is 1e-12 of the square of the
    // mean.
    let values: Vec<f32> = (0..8192)
        .map(|i| 1_000_000.0 + (i % 2) as f32 * 2.0)
        .collect();
    let moments = Moments::of(&values);
    assert_eq!(
        (moments.variance(), moments.skewness(), moments.kurtosis()),
        (Some(1.0), Some(0.0), Some(1.0))
    );
}

#[test]
fn serde_round_trips() {
    let moments = Moments::of(&[1.0, -2.5, 0.0, f32::NAN]);
    let json = serde_json::to_string(&moments).unwrap();
    assert_eq!(serde_json::from_str::<Moments>(&json).unwrap(), moments);
    let empty = serde_json::to_string(&Moments::default()).unwrap();
    assert_eq!(
        serde_json::from_str::<Moments>(&empty).unwrap(),
        Moments::default()
    );
}
