//! Quantiles within their bound, and merging that is exact in any order.

use mantissa_formats::RandomBits;
use mantissa_metrics::{ExponentHistogram, GroupSpreads, MagnitudeSketch, Moments, sample};
use proptest::prelude::*;

/// The smallest of the sorted magnitudes that at least this share does not exceed.
fn exact(sorted: &[f32], share: f64) -> f64 {
    let rank = ((share * sorted.len() as f64).ceil() as usize).max(1);
    f64::from(sorted[rank - 1])
}

fn sorted_magnitudes(values: &[f32]) -> Vec<f32> {
    let finite = values.iter().filter(|x| x.is_finite()).map(|x| x.abs());
    let mut magnitudes: Vec<f32> = finite.collect();
    magnitudes.sort_by(f32::total_cmp);
    magnitudes
}

#[test]
fn quantiles_are_within_their_bound_over_the_whole_range_of_f32() {
    let samples = [
        sample::student_t(f64::INFINITY, RandomBits::new(1, 0), 20_000),
        sample::student_t(1.0, RandomBits::new(1, 1), 20_000),
        // Every exponent there is, subnormals included.
        (0..20_000u32)
            .map(|i| f32::from_bits((i * 104_729) % 0x7f80_0000))
            .collect(),
        vec![f32::from_bits(1), f32::MIN_POSITIVE, f32::MAX, -0.0],
    ];
    for values in samples {
        let (sketch, sorted) = (MagnitudeSketch::of(&values), sorted_magnitudes(&values));
        assert_eq!(sketch.count(), sorted.len() as u64);
        for share in [0.0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.9999, 1.0] {
            let (told, true_one) = (sketch.quantile(share).unwrap(), exact(&sorted, share));
            let off = (told - true_one).abs();
            // Two roundings of f64 beside the bound.
            let bound = (MagnitudeSketch::RELATIVE_ERROR + 1e-15) * true_one;
            assert!(off <= bound, "{share}: {told} for {true_one}");
        }
    }
}

#[test]
fn nothing_and_oddities() {
    let empty = MagnitudeSketch::default();
    assert_eq!(empty.quantile(0.5), None);
    let odd = MagnitudeSketch::of(&[0.0, -0.0, f32::NAN, f32::INFINITY, 1.0]);
    assert_eq!((odd.zeros(), odd.non_finite(), odd.count()), (2, 2, 3));
    assert_eq!(odd.quantile(0.6), Some(0.0));
    assert!(odd.quantile(0.7).unwrap() > 0.98);
    assert_eq!(odd.quantile(1.5), None);
    assert_eq!(odd.quantile(f64::NAN), None);
}

#[test]
fn damaged_files_are_refused() {
    let json = |first: u64, bins: &str| {
        format!("{{\"zeros\":0,\"non_finite\":0,\"first\":{first},\"bins\":{bins}}}")
    };
    let read = |text: &str| serde_json::from_str::<MagnitudeSketch>(text);
    assert!(read(&json(8863, "[1]")).is_ok());
    for wrong in [
        json(8864, "[1]"),
        json(u64::MAX, "[1,2]"),
        json(0, "[0,1]"),
        json(0, "[1,0]"),
        json(5, "[]"),
    ] {
        assert!(read(&wrong).is_err(), "{wrong}");
    }
    // Any counts can be added up.
    let mut most = read(&json(7, &format!("[{0},{0}]", u64::MAX))).unwrap();
    most.merge(&most.clone());
    assert_eq!(most.count(), u64::MAX);
    assert!(most.quantile(0.5).is_some());
}

#[test]
fn groups_are_those_of_a_plain_loop() {
    let depth = 75;
    let mut rows = sample::student_t(3.0, RandomBits::new(4, 0), 20 * depth);
    rows[3 * depth..4 * depth].fill(0.0);
    rows[100] = f32::NAN;
    let moments = Moments::of(&rows);
    let (amax, rms) = (moments.amax, moments.rms().unwrap());
    let told = GroupSpreads::of(&rows, depth, amax, rms);

    let spread = |groups: Vec<&[f32]>| {
        let ratios = groups.into_iter().map(|group| {
            let group: Vec<f64> = group
                .iter()
                .filter(|x| x.is_finite())
                .map(|&x| f64::from(x))
                .collect();
            let largest = group.iter().fold(0.0f64, |top, x| top.max(x.abs()));
            let square = group.iter().map(|x| x * x).sum::<f64>() / group.len() as f64;
            let crest = if largest > 0.0 {
                largest / square.sqrt()
            } else {
                0.0
            };
            [largest / f64::from(amax), square.sqrt() / rms, crest]
        });
        ratios.collect::<Vec<_>>()
    };
    let blocks = rows.chunks(depth).flat_map(|row| row.chunks(32)).collect();
    for (told, expected) in [
        (&told.channels, spread(rows.chunks(depth).collect())),
        (&told.blocks, spread(blocks)),
    ] {
        for (which, sketch) in [&told.amax, &told.rms, &told.crest].into_iter().enumerate() {
            let mut ratios: Vec<f32> = expected.iter().map(|group| group[which] as f32).collect();
            ratios.sort_by(f32::total_cmp);
            assert_eq!(sketch.count(), ratios.len() as u64);
            for share in [0.01, 0.1, 0.5, 0.9, 1.0] {
                let (a, b) = (sketch.quantile(share).unwrap(), exact(&ratios, share));
                assert!((a - b).abs() <= 0.016 * b, "{share}: {a} for {b}");
            }
        }
    }
    // Nothing, and a tensor of zeros.
    assert_eq!(GroupSpreads::of(&[], 32, 0.0, 0.0), GroupSpreads::default());
    let zeros = GroupSpreads::of(&[0.0; 64], 64, 0.0, 0.0);
    assert_eq!(zeros.channels.rms.zeros(), 1);
    assert_eq!(zeros.blocks.crest.zeros(), 2);
}

proptest! {
    #[test]
    fn merging_is_exact_and_order_does_not_matter(
        bits in prop::collection::vec(any::<u32>(), 0..3000),
        cut in 0.0..1.0f64,
        rotate in 0..3000usize,
    ) {
        let mut values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let whole = MagnitudeSketch::of(&values);
        let middle = (cut * values.len() as f64) as usize;
        let (left, right) = values.split_at(middle);
        let (left, right) = (MagnitudeSketch::of(left), MagnitudeSketch::of(right));
        let mut forth = left.clone();
        forth.merge(&right);
        let mut back = right;
        back.merge(&left);
        prop_assert_eq!(&forth, &whole);
        prop_assert_eq!(&back, &whole);
        let len = values.len().max(1);
        values.rotate_left(rotate % len);
        prop_assert_eq!(&MagnitudeSketch::of(&values), &whole);
        let text = serde_json::to_string(&whole).unwrap();
        prop_assert_eq!(&serde_json::from_str::<MagnitudeSketch>(&text).unwrap(), &whole);

        // The bins of an octave are those of the exponent.
        let exponents = ExponentHistogram::of(&values);
        prop_assert_eq!(whole.count() + whole.non_finite(), exponents.total());
        for (exponent, count) in exponents.iter() {
            let octave = 2f64.powi(exponent)..2f64.powi(exponent + 1);
            let inside = whole.iter().filter(|(magnitude, _)| octave.contains(magnitude));
            prop_assert_eq!(inside.map(|(_, count)| count).sum::<u64>(), count);
        }
    }
}
