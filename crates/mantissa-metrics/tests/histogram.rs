//! The exponent histogram against logarithms that cannot round, and its file form against hostile
//! input.

use mantissa_metrics::ExponentHistogram;
use proptest::prelude::*;

/// `floor(log2 |x|)` from the f64, in which every f32 is a normal number.
fn exponent(x: f32) -> i32 {
    (f64::from(x).abs().to_bits() >> 52) as i32 - 1023
}

#[test]
fn powers_of_two_fall_into_their_own_bin() {
    for e in -149..=127 {
        let power = f64::from(e).exp2() as f32;
        let histogram = ExponentHistogram::of(&[power, -power]);
        assert_eq!(histogram.at(e), 2, "2^{e}");
        assert_eq!(histogram.range(), Some(e..=e));
    }
}

#[test]
fn the_neighbours_of_a_power_of_two_fall_beside_it() {
    for e in -148..=127 {
        let power = f64::from(e).exp2() as f32;
        let below = f32::from_bits(power.to_bits() - 1);
        assert_eq!(ExponentHistogram::of(&[below]).at(e - 1), 1, "below 2^{e}");
    }
}

#[test]
fn zeros_and_non_finite_values_have_their_own_counters() {
    let histogram = ExponentHistogram::of(&[
        0.0,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::MAX,
        f32::from_bits(1),
    ]);
    assert_eq!(
        (histogram.zeros(), histogram.non_finite(), histogram.total()),
        (2, 2, 6)
    );
    assert_eq!(histogram.iter().collect::<Vec<_>>(), [(-149, 1), (127, 1)]);
    assert_eq!((histogram.at(-150), histogram.at(128)), (0, 0));
}

#[test]
fn shares_are_of_all_elements() {
    let histogram = ExponentHistogram::of(&[0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, f32::NAN]);
    assert_eq!(histogram.share_below(0), 0.25);
    assert_eq!(histogram.share_from(1), 0.375);
    assert_eq!(ExponentHistogram::default().share_below(0), 0.0);
    assert_eq!(ExponentHistogram::default().range(), None);
}

proptest! {
    #[test]
    fn every_bit_pattern_is_counted_once(bits in prop::collection::vec(any::<u32>(), 0..300), cut in 0usize..300) {
        let values: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let histogram = ExponentHistogram::of(&values);
        prop_assert_eq!(histogram.total(), values.len() as u64);
        let finite = || values.iter().filter(|x| x.is_finite() && **x != 0.0);
        for e in -149..=127 {
            prop_assert_eq!(histogram.at(e), finite().filter(|&&x| exponent(x) == e).count() as u64);
        }
        let (a, b) = values.split_at(cut.min(values.len()));
        let mut merged = ExponentHistogram::of(a);
        merged.merge(&ExponentHistogram::of(b));
        prop_assert_eq!(&merged, &histogram);
        let json = serde_json::to_string(&histogram).unwrap();
        prop_assert_eq!(serde_json::from_str::<ExponentHistogram>(&json).unwrap(), histogram);
    }
}

#[test]
fn long_slices_are_counted_in_full() {
    let values: Vec<f32> = (0..100_003).map(|i| [1.0, 1e-40, 0.0][i % 3]).collect();
    let histogram = ExponentHistogram::of(&values);
    assert_eq!(
        (histogram.at(0), histogram.at(-133), histogram.zeros()),
        (33335, 33334, 33334)
    );
}

#[test]
fn hostile_files_are_refused_or_saturate() {
    let refused = |json: &str| {
        serde_json::from_str::<ExponentHistogram>(json)
            .unwrap_err()
            .to_string()
    };
    let message = refused(r#"{"zeros":0,"non_finite":0,"first":-150,"bins":[1]}"#);
    assert!(
        message.contains("-150") && message.contains("-149..=127"),
        "{message}"
    );
    refused(r#"{"zeros":0,"non_finite":0,"first":127,"bins":[1,2]}"#);
    refused(r#"{"zeros":0,"non_finite":0,"first":2147483647,"bins":[1]}"#);
    refused(r#"{"zeros":0,"non_finite":0,"first":-2147483648,"bins":[]}"#);
    let huge =
        r#"{"zeros":18446744073709551615,"non_finite":1,"first":0,"bins":[18446744073709551615]}"#;
    let mut huge: ExponentHistogram = serde_json::from_str(huge).unwrap();
    assert_eq!(huge.total(), u64::MAX);
    huge.merge(&huge.clone());
    assert_eq!(huge.share_from(0), 1.0);
}
